"""Response heads: parsed alone, without a general parser (which costs 10 us more), and written to the client.

Owns `ResponseHead`, `ResponseHeads`, `parse_response_head` and the status lines. It refuses bodies (`framing`) and what a status
means (`gateway.proxy`). A ResponseHead is made for each answer by `gateway.upstream`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from protocols.http1.errors import WireError, Wrong
from protocols.http1.framing import ChunkedDecoder, Decoder, EofDecoder, LengthDecoder
from protocols.http1.repeat import MISSES_LIMIT, Pattern

#: One field of an answer: lower-case name and value, without white space around it.
Field = tuple[bytes, bytes]

HEAD_END: Final = b"\r\n\r\n"
#: What a peer may send as head: nginx's 8k buffers are the usual bound, models' providers send up to 4 KiB.
HEAD_LIMIT: Final = 64 << 10
FIELDS_LIMIT: Final = 128
LENGTH_DIGITS_LIMIT: Final = 18

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_CONTROLS: Final = bytes(c for c in range(32) if c != 9) + b"\x7f"

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
        b"via",
        b"alt-svc",
        b"x-request-id",
        b"x-trace-id",
        b"x-upstream",
        b"server-timing",
        b"x-accel-buffering",
    }
)

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
    """The head of a final answer.

    `lines` are what may be relayed, each "name: value CRLF": no framing, no hop-by-hop field. `length` is the body's
    length in bytes where it is known. The rest tells the connection's owner whether it can live on.
    """

    __slots__ = (
        "content_type",
        "keep_alive_max",
        "keep_alive_timeout",
        "length",
        "lines",
        "persistent",
        "status",
    )

    def __init__(self, status: int, fields: Iterable[Field], length: int | None) -> None:
        self.status = status
        self.length = length
        self.lines: list[bytes] = []
        self.content_type = b""
        for name, value in fields:
            self.lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-type":
                self.content_type = value
        #: Whether the peer will keep the connection open after this answer.
        self.persistent = True
        #: Seconds and requests that the peer's Keep-Alive field grants; 0 where it says nothing.
        self.keep_alive_timeout = 0
        self.keep_alive_max = 0

    @property
    def is_event_stream(self) -> bool:
        return self.content_type.startswith(b"text/event-stream")

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} {self.content_type.decode('latin-1')} length={self.length}>"


class ResponseHeads:
    """Reads the heads of one connection. The second and later ones are usually read by pattern."""

    __slots__ = ("_block", "_chunked", "_head", "_lines", "_misses", "_pattern", "_plan")

    def __init__(self) -> None:
        # The last head that was parsed whole, and, from the second one on, what it is a pattern for.
        self._block = b""
        self._misses = 0
        self._head: ResponseHead | None = None
        self._chunked = False
        self._pattern: Pattern | None = None
        #: For each varying value: is it the Content-Length, and its place in `lines` (-1: not relayed).
        self._plan: list[tuple[bool, int]] = []
        self._lines: list[bytes] = []

    def read(self, block: bytes) -> tuple[ResponseHead, Decoder | None]:
        """As `parse_response_head`."""
        if self._block and self._misses < MISSES_LIMIT:
            if self._pattern is None:
                self._learn()
            found = self._repeat(block)
            if found is not None:
                self._misses = 0
                return found
            self._misses += 1
        self._block = b""
        self._pattern = None
        head, decoder = parse_response_head(block)
        if isinstance(decoder, (LengthDecoder, ChunkedDecoder)):
            self._block = block
            self._head = head
            self._chunked = isinstance(decoder, ChunkedDecoder)
        return head, decoder

    def _learn(self) -> None:
        assert self._head is not None
        first = self._head
        self._pattern = Pattern(self._block.split(b"\r\n"), lambda name: name.lower() in _VOLATILE, b"")
        self._plan = []
        lines: list[bytes] = []
        rest = first.lines
        for name in self._pattern.names:
            lower = name.lower()
            at = next((at for at, line in enumerate(rest) if line.startswith(lower + b": ")), -1)
            if at >= 0:
                lines += [b"".join(rest[:at]), lower + b": ", b"", b"\r\n"]
                rest = rest[at + 1 :]
                at = len(lines) - 2
            self._plan.append((lower == b"content-length", at))
        self._lines = [*lines, b"".join(rest)]

    def _repeat(self, block: bytes) -> tuple[ResponseHead, Decoder] | None:
        first, pattern = self._head, self._pattern
        assert first is not None and pattern is not None
        values = pattern.values(block)
        if values is None:
            return None
        head = ResponseHead.__new__(ResponseHead)
        head.status = first.status
        head.content_type = first.content_type
        head.persistent = first.persistent
        head.keep_alive_timeout = first.keep_alive_timeout
        head.keep_alive_max = first.keep_alive_max
        head.length = first.length
        head.lines = lines = self._lines.copy()
        for (is_length, at), value in zip(self._plan, values, strict=True):
            if at >= 0:
                lines[at] = value
            if is_length:
                if not value.isdigit() or len(value) > LENGTH_DIGITS_LIMIT:
                    return None
                head.length = int(value)
        if self._chunked:
            return head, ChunkedDecoder()
        return head, LengthDecoder(head.length or 0)


def parse_response_head(block: bytes) -> tuple[ResponseHead, Decoder | None]:
    """Parse *block*, a head without its final empty line.

    Returns the head and the decoder of its body (None for 1xx). The request was never a HEAD: the gateway sends none.
    Raises `WireError` for what RFC 9112 calls invalid and for what proxies have been fooled with.
    """
    lines = block.split(b"\r\n")
    # Every control character must belong to a CRLF between two lines: no bare CR or LF, no NUL.
    if len(block) - len(block.translate(None, _CONTROLS)) != 2 * (len(lines) - 1):
        raise WireError(Wrong.BAD_HEAD, "a control character in the response head")
    if len(lines) > FIELDS_LIMIT:
        raise WireError(Wrong.HEAD_TOO_LARGE, "too many fields in the response head")
    status, minor = _parse_status_line(lines[0])
    head = ResponseHead(status, (), None)
    special: dict[bytes, bytes] = {}
    known_lines = _LINES
    for line in lines[1:]:
        name, value, relayed = known_lines.get(line) or _learn_line(line)
        if relayed:
            head.lines.append(relayed)
            if name == b"content-type":
                head.content_type = value
        elif name in special:
            special[name] += b"," + value
        else:
            special[name] = value
    _apply_persistence(head, minor, special)
    return head, _choose_framing(head, minor, special)


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
    known = (name, value, b"" if name in _DROPPED else b"%b: %b\r\n" % (name, value))
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


def _choose_framing(head: ResponseHead, minor: int, special: dict[bytes, bytes]) -> Decoder | None:
    """Decide the body's framing by RFC 9112 section 6.3; two framings are a fault, not a choice."""
    coding = special.get(b"transfer-encoding")
    length = special.get(b"content-length")
    if head.status < 200:
        head.length = 0
        return None
    if head.status in (204, 304):
        head.length = 0
        return LengthDecoder(0)
    if coding is not None:
        if length is not None:
            raise WireError(Wrong.BAD_FRAMING, "the answer has both Content-Length and Transfer-Encoding")
        if minor == 0:
            raise WireError(Wrong.BAD_FRAMING, "an HTTP/1.0 answer has a Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise WireError(Wrong.BAD_TRANSFER_CODING, "the answer's transfer coding is not chunked")
        head.length = None
        return ChunkedDecoder()
    if length is not None:
        if not length.isdigit() or len(length) > LENGTH_DIGITS_LIMIT:
            raise WireError(Wrong.BAD_FRAMING, "the answer's Content-Length is not one number")
        head.length = int(length)
        return LengthDecoder(head.length)
    head.length = None
    head.persistent = False
    return EofDecoder()


def _status_line(status: int) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Status"
    return f"HTTP/1.1 {status} {reason}\r\n".encode("ascii")


#: Standard reasons only: an upstream's own text never reaches a client (RFC 9112 section 4 lets clients ignore it).
STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}
