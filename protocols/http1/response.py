"""Response heads: parsed alone, without a general parser (which costs 10 us more), and written to the client.

Owns `ResponseHead`, `ResponseHeads`, `parse_response_head` and the status lines. It refuses bodies (`framing`) and what
a status means (`gateway.proxy`). A ResponseHeads is made for each connection by
`gateway.upstream.connection`.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from protocols.http1.errors import WireError, Wrong
from protocols.http1.framing import CONTROLS, ChunkedDecoder, Decoder, EofDecoder, LengthDecoder
from protocols.http1.numbers import LENGTHS
from protocols.http1.repeat import HEAD_END, MISSES_LIMIT, Pattern

#: What a peer may send as head: nginx's 8k buffers are the usual bound, models' providers send up to 4 KiB.
HEAD_LIMIT: Final = 64 << 10
FIELDS_LIMIT: Final = 128

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")

#: Fields that end here: they concern this one connection (RFC 9110 section 7.6.1), name the software behind us, would
#: let a backend set state at the client, or are written anew by the gateway.
_DROPPED: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"date",
        b"server",
        b"set-cookie",
        b"strict-transport-security",
        b"via",
        b"alt-svc",
        b"x-request-id",
        b"x-trace-id",
        b"x-upstream",
        b"x-fallback-model",
        b"server-timing",
        b"x-accel-buffering",
    }
)

#: Who may read an answer from another origin is the gateway's to say (Fetch standard, section 3.2).
_CORS: Final = b"access-control-"

#: One line, understood: name, value, and the line to relay (empty where the field ends here).
Line = tuple[bytes, bytes, bytes]

#: Lines that came before: backends repeat themselves. Bounded, because a peer chooses its lines.
_LINES: dict[bytes, Line] = {}
_LINES_LIMIT: Final = 1024
_LINE_LENGTH_LIMIT: Final = 128
#: Values that change with each answer are not worth remembering.
_VOLATILE: Final = frozenset(
    {b"content-length", b"date", b"x-request-id", b"openai-processing-ms", b"x-process-time", b"etag", b"age"}
)


class ResponseHead:
    """The head of a final answer: what the relay needs, and what the connection's owner needs."""

    __slots__ = (
        "chunked",
        "content_type",
        "encoded",
        "is_event_stream",
        "keep_alive_max",
        "keep_alive_timeout",
        "length",
        "lines",
        "persistent",
        "start",
        "status",
    )

    def __init__(self, status: int, lines: list[bytes]) -> None:
        self.status = status
        #: Pieces that join to the lines that may be relayed: no framing, no hop-by-hop field.
        self.lines = lines
        self.content_type = b""
        self.is_event_stream = False
        #: The body is compressed although nobody asked for it: it can be passed on, and not looked into.
        self.encoded = False
        #: The body's length in bytes where it is known.
        self.length: int | None = None
        self.chunked = False
        #: Whether the peer will keep the connection open after this answer.
        self.persistent = True
        #: Seconds and requests that the peer's Keep-Alive field grants; 0 where it says nothing.
        self.keep_alive_timeout = 0
        self.keep_alive_max = 0
        #: The status line and `lines` joined, where they came before; else empty.
        self.start = b""

    def decoder(self) -> Decoder:
        """The decoder of this answer's body."""
        if self.chunked:
            return ChunkedDecoder()
        return EofDecoder() if self.length is None else LengthDecoder(self.length)

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} {self.content_type.decode('latin-1')} length={self.length}>"


def own_head(status: int, content_type: bytes, length: int | None) -> ResponseHead:
    """The head of an answer that the gateway itself makes."""
    head = ResponseHead(status, [b"content-type: ", content_type, b"\r\n"] if content_type else [])
    head.content_type = content_type
    head.is_event_stream = content_type.startswith(b"text/event-stream")
    head.length = length
    return head


class ResponseHeads:
    """Reads the heads of one connection, one answer at a time: the last `ResponseHead` is over when the next is read.

    The second and later heads are usually read by pattern, into the same ResponseHead.
    """

    __slots__ = ("_block", "_head", "_misses", "_pattern", "_values", "size")

    def __init__(self) -> None:
        # The last head that was parsed whole, and, from the second one on, what it is a pattern for.
        self._block = b""
        self._head = _NO_HEAD
        self._pattern: Pattern | None = None
        #: The Content-Length, and whatever else varied.
        self._values: list[bytes | None] = [None, None]
        self._misses = 0
        #: Of the head that was read last, with its empty line.
        self.size = 0

    def read(self, data: bytes) -> ResponseHead | None:
        """Read the head that *data* begins with; None where it is not complete within the limit. Raises `WireError`."""
        pattern = self._pattern
        if pattern is None and self._block and self._misses < MISSES_LIMIT:
            self._pattern = pattern = self._learn()
        if pattern is not None:
            head = self._head
            size = pattern.read(data, self._values, head.lines)
            if 0 < size <= HEAD_LIMIT:
                self.size = size
                digits = self._values[0]
                if digits is None:
                    self._misses = 0
                    return head
                length = LENGTHS[digits]
                if length is not None:
                    head.length = length
                    self._misses = 0
                    return head
        end = data.find(HEAD_END)
        if end < 0 or end > HEAD_LIMIT:
            return None
        if pattern is not None:
            self._misses += 1
            self._pattern = None
        self.size = end + 4
        block = data[:end]
        self._block = b""
        self._head = head = parse_response_head(block)
        if head.status >= 200 and head.status not in (204, 304):  # where a Content-Length tells the body's length
            self._block = block
        return head

    def _learn(self) -> Pattern:
        """Make the pattern of the last head, and cut its `lines` where values vary."""
        self._values = [None, None]
        places: list[tuple[bytes, int, int]] = []
        relayed: list[bytes] = []
        rest = self._head.lines
        fixed, *lines = self._block.split(b"\r\n")
        for line in lines:
            fixed += b"\r\n"
            name, _, value = line.partition(b": ")
            lower = name.lower()
            if lower not in _VOLATILE or value != value.strip():
                fixed += line
                continue
            piece = -1
            kept = lower + b": " + value + b"\r\n"
            if kept in rest:
                index = rest.index(kept)
                relayed += [b"".join(rest[:index]) + lower + b": ", value]
                piece = len(relayed) - 1
                rest = [b"\r\n", *rest[index + 1 :]]
            places.append((fixed + name + b": ", 0 if lower == b"content-length" else 1, piece))
            fixed = b""
        head = self._head
        head.lines = [*relayed, b"".join(rest)]
        if not relayed:
            head.start = STATUS_LINES[head.status] + head.lines[0]
        return Pattern(places, fixed + HEAD_END)


def parse_response_head(block: bytes) -> ResponseHead:
    """Parse *block*, a head without its final empty line. The request was never a HEAD: the gateway sends none.

    Raises `WireError` for what RFC 9112 calls invalid and for what proxies have been fooled with.
    """
    lines = block.split(b"\r\n")
    # Every control character must belong to a CRLF between two lines: no bare CR or LF, no NUL.
    if len(block) - len(block.translate(None, CONTROLS)) != 2 * (len(lines) - 1):
        raise WireError(Wrong.BAD_HEAD, "a control character in the response head")
    if len(lines) > FIELDS_LIMIT:
        raise WireError(Wrong.HEAD_TOO_LARGE, "too many fields in the response head")
    status, minor = _parse_status_line(lines[0])
    head = ResponseHead(status, [])
    special: dict[bytes, bytes] = {}
    known_lines = _LINES
    for line in lines[1:]:
        name, value, relayed = known_lines.get(line) or _learn_line(line)
        if relayed:
            head.lines.append(relayed)
            if name == b"content-type":
                head.content_type = value
                head.is_event_stream = value.lower().startswith(b"text/event-stream")
            elif name == b"content-encoding":
                head.encoded = value.lower() not in (b"", b"identity")
        elif name in special:
            special[name] += b"," + value
        else:
            special[name] = value
    _apply_persistence(head, minor, special)
    _apply_framing(head, minor, special)
    return head


def _parse_status_line(line: bytes) -> tuple[int, int]:
    version, code = line[:9], line[9:12]
    if version == b"HTTP/1.1 ":
        minor = 1
    elif version == b"HTTP/1.0 ":
        minor = 0
    else:
        raise WireError(Wrong.BAD_VERSION, "the answer is not HTTP/1.x")
    if not code.isdigit() or line[12:13] not in (b" ", b""):
        raise WireError(Wrong.BAD_HEAD, "the status is not a number of three digits")
    status = int(code)
    if not 100 <= status <= 599:
        raise WireError(Wrong.BAD_HEAD, "the status is outside 100 to 599")
    return status, minor


def _learn_line(line: bytes) -> Line:
    raw, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(raw):
        raise WireError(Wrong.BAD_HEAD, "a line of the response head is not name: value")
    name = raw.lower()
    value = value.strip(b" \t")
    dropped = name in _DROPPED or name.startswith(_CORS)
    known = (name, value, b"" if dropped else b"%b: %b\r\n" % (name, value))
    if name not in _VOLATILE and len(line) <= _LINE_LENGTH_LIMIT:
        if len(_LINES) >= _LINES_LIMIT:
            _LINES.clear()
        _LINES[line] = known
    return known


def _apply_persistence(head: ResponseHead, minor: int, special: dict[bytes, bytes]) -> None:
    connection = special.get(b"connection")
    if connection is None:
        head.persistent = minor == 1
    else:
        options = {option.strip() for option in connection.lower().split(b",")}
        head.persistent = b"close" not in options and (minor == 1 or b"keep-alive" in options)
        if not options <= {b"close", b"keep-alive"}:
            head.lines = [line for line in head.lines if line.partition(b":")[0] not in options]
    granted = special.get(b"keep-alive")
    if granted is not None:
        for parameter in granted.split(b","):
            name, _, number = parameter.partition(b"=")
            if _DIGITS.fullmatch(number.strip()):
                if name.strip().lower() == b"timeout":
                    head.keep_alive_timeout = int(number)
                elif name.strip().lower() == b"max":
                    head.keep_alive_max = int(number)


def _apply_framing(head: ResponseHead, minor: int, special: dict[bytes, bytes]) -> None:
    """Decide the body's framing by RFC 9112 section 6.3; two framings are a fault, not a choice."""
    coding = special.get(b"transfer-encoding")
    digits = special.get(b"content-length")
    length = LENGTHS[digits] if digits is not None else None
    if digits is not None and length is None:
        raise WireError(Wrong.BAD_FRAMING, "the answer's Content-Length is not one number")
    if coding is not None and coding.lower() != b"chunked":
        raise WireError(Wrong.BAD_TRANSFER_CODING, "the answer's transfer coding is not chunked")
    if head.status < 200 or head.status in (204, 304):
        head.length = 0
        if coding is not None or (head.status == 204 and digits not in (None, b"0")):
            head.persistent = False  # a 204 must not say so (RFC 9110 section 8.6), and perhaps a body follows
    elif coding is not None:
        if length is not None:
            raise WireError(Wrong.BAD_FRAMING, "the answer has both Content-Length and Transfer-Encoding")
        if minor == 0:
            raise WireError(Wrong.BAD_FRAMING, "an HTTP/1.0 answer has a Transfer-Encoding")
        head.chunked = True
    elif length is not None:
        head.length = length
    else:
        head.persistent = False


def _status_line(status: int) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Status"
    return f"HTTP/1.1 {status} {reason}\r\n".encode("ascii")


#: Standard reasons only: an upstream's own text never reaches a client (RFC 9112 section 4 lets clients ignore it).
STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}

_NO_HEAD: Final = ResponseHead(0, [])
