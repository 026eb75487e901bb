"""Request heads: a block of bytes to a `Request`, judged by llhttp and by our own rules.

Owns `Request`, `parse_request_head` and `RequestHeads`. It refuses bodies (`framing`), sockets, time and policy. A
RequestHeads is made for each connection by `gateway.downstream`.

llhttp (through httptools) judges the syntax: it refuses bare CR and LF, folded lines, bad names and values. The
fields are then read from the same bytes by line, because once the syntax is proved a line is a field, and lines
repeat from request to request where fields do not have to be parsed again (a third of the price of callbacks).
llhttp accepts missing and double Hosts, HTTP/2.0 request lines, any Transfer-Encoding list that ends in chunked,
and Content-Lengths up to 2^64: each of these is refused here. It never sees a body, so an offered upgrade cannot
make it drop one.
"""

from __future__ import annotations

from typing import Any, Final

import httptools

from protocols.http1.errors import WireError, Wrong
from protocols.http1.fields import DROP, FORWARD, HOST, VARYING, FieldTable, Role, SpecialFields
from protocols.http1.numbers import LENGTHS
from protocols.http1.repeat import HEAD_END, MISSES_LIMIT, Pattern

METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
TARGET_LIMIT: Final = 8 << 10
#: Fields of one request. A busy SDK sends about 20; what sends more is not a client of models.
FIELDS_LIMIT: Final = 100


class Request:
    """One request, as its head tells it."""

    __slots__ = (
        "chunked",
        "finding",
        "forward",
        "http_1_1",
        "keep_alive",
        "length",
        "method",
        "path",
        "query",
        "special",
    )

    def __init__(self, method: bytes = b"", special: SpecialFields | None = None) -> None:
        self.method = method
        #: The target's path and query, raw: routes match bytes, nothing is decoded.
        self.path = b""
        self.query = b""
        self.http_1_1 = True
        self.keep_alive = True
        #: The body's length in bytes, 0 without a body; meaningless where `chunked`.
        self.length = 0
        self.chunked = False
        #: Values of the fields that the gateway reads, by `Role`.
        self.special: SpecialFields = [] if special is None else special
        #: Pieces that join to the lines ("name: value CRLF") that travel on to the upstream.
        self.forward: list[bytes] = []
        #: What the reader's owner made of the head. A repetition of the head has it too: it says the same.
        self.finding: Any = None

    def __repr__(self) -> str:
        return f"<Request {self.method.decode('latin-1')} {self.path.decode('latin-1')} length={self.length}>"


# Plain integers: indexing with an enum member costs more, and this is done for every request.
_CR: Final = 13
_HOST: Final = int(Role.HOST)
_CONNECTION: Final = int(Role.CONNECTION)
_CONTENT_LENGTH: Final = int(Role.CONTENT_LENGTH)
_TRANSFER_ENCODING: Final = int(Role.TRANSFER_ENCODING)
_EXPECT: Final = int(Role.EXPECT)

_NO_SPECIALS: Final[SpecialFields] = [None] * len(Role)
_NO_REQUEST: Final = Request()


class RequestHeads:
    """Reads the heads of one connection, one request at a time: the last `Request` is over when the next is read.

    A head may have *limit* bytes.

    The second and later heads are usually read by pattern, into the same Request.
    """

    __slots__ = ("_block", "_limit", "_misses", "_pattern", "_request", "_table", "size")

    def __init__(self, table: FieldTable, limit: int) -> None:
        self._table = table
        self._limit = limit
        # The last head that was parsed whole, and, from the second one on, what it is a pattern for.
        self._block = b""
        self._request = _NO_REQUEST
        self._pattern: Pattern | None = None
        self._misses = 0
        #: Of the head that was read last, with its empty line.
        self.size = 0

    def read(self, data: bytes, scan: int = 0) -> Request | None:
        """Read the head that *data* begins with; None where it is not complete within the limit. Raises `WireError`.

        No empty line begins in the first *scan* bytes: they were looked through before.
        """
        pattern = self._pattern
        if pattern is None and self._block and self._misses < MISSES_LIMIT:
            self._pattern = pattern = self._learn()
        if pattern is not None:
            request = self._request
            special = request.special
            size = pattern.read(data, special, request.forward)
            if 0 < size <= self._limit:
                self.size = size
                digits = special[_CONTENT_LENGTH]
                if digits is None:
                    self._misses = 0
                    return request
                length = LENGTHS[digits]
                if length is not None:
                    request.length = length
                    self._misses = 0
                    return request
        size = data.find(HEAD_END, scan) + 4
        if size < 4 or size > self._limit:
            return None
        if pattern is not None:
            self._misses += 1
            self._pattern = None
        self.size = size
        block = data[:size]
        self._block = b""
        self._request = request = parse_request_head(block, self._table)
        self._block = block
        return request

    def judge_begun(self, data: bytes, scan: int = 0) -> None:
        """Judge *data*, the beginning of a head whose end is not there; raises `WireError` where no byte can mend it.

        The verdict is the one that the whole head would get, however it is cut. *scan* is as for `read`.
        """
        at = data.find(b"\n", scan, self._limit)
        while at >= 0:
            if at == 0 or data[at - 1] != _CR:  # CRLF CRLF alone ends a head (RFC 9112 section 2.2 leaves that to us)
                raise _bare_line_end()
            at = data.find(b"\n", at + 1, self._limit)
        if len(data) > self._limit:
            line = data[: self._limit].partition(b"\r\n")
            if line[1]:
                raise WireError(Wrong.HEAD_TOO_LARGE, "the head is too large")
            if line[0].partition(b" ")[0] not in METHODS:
                raise WireError(Wrong.BAD_METHOD, "a method that is not served")
            raise WireError(Wrong.TARGET_TOO_LONG, "the request target is too long")

    def _learn(self) -> Pattern:
        """Make the pattern of the last head, and cut its `forward` where values vary."""
        request = self._request
        places: list[tuple[bytes, int, int]] = []
        forward: list[bytes] = []
        rest = request.forward
        fixed, *lines = self._block[:-4].split(b"\r\n")
        for line in lines:
            fixed += b"\r\n"
            name, _, value = line.partition(b": ")
            role = self._table.role(name)
            if role not in VARYING or value != request.special[role]:
                fixed += line
                continue
            piece = -1
            kept = line + b"\r\n"
            if kept in rest:
                index = rest.index(kept)
                forward += [b"".join(rest[:index]) + name + b": ", value]
                piece = len(forward) - 1
                rest = [b"\r\n", *rest[index + 1 :]]
            places.append((fixed + name + b": ", role, piece))
            fixed = b""
        request.forward = [*forward, b"".join(rest)]
        return Pattern(places, fixed + b"\r\n\r\n")


class _NoCallbacks:
    """llhttp is asked for its judgement only."""


_JUDGE: Final = _NoCallbacks()


def parse_request_head(block: bytes, table: FieldTable) -> Request:
    """Parse *block*, a head up to and with its empty line. Raises `WireError`."""
    request = Request(special=_NO_SPECIALS.copy())
    line, *lines = block[:-4].split(b"\r\n")
    if block.count(b"\n") != len(lines) + 2:
        raise _bare_line_end()  # first of all, as in a head that comes in pieces
    if len(lines) > FIELDS_LIMIT:
        raise WireError(Wrong.HEAD_TOO_LARGE, "too many fields")
    _read_line(request, line)
    _judge_syntax(block, request.http_1_1)
    memo = table.lines
    forward = request.forward
    for line in lines:
        known = memo.get(line)
        if known is None:
            known = table.learn(line)
        role, value, kept = known
        if role != DROP:
            if role != FORWARD:
                _store(request.special, role, value)
            if kept:
                forward.append(kept)
    _apply_specials(request)
    return request


def _bare_line_end() -> WireError:
    return WireError(Wrong.BAD_HEAD, "a line ends without CR")


def _judge_syntax(block: bytes, http_1_1: bool) -> None:
    try:
        httptools.HttpRequestParser(_JUDGE).feed_data(block)
    except httptools.HttpParserUpgrade:
        pass  # an offer that is not taken: the request is served as HTTP/1.1, with its body (RFC 9110 section 7.8)
    except httptools.HttpParserError as error:
        text = str(error)
        kind = Wrong.BAD_HEAD
        if "Content-Length" in text:
            kind = Wrong.BAD_FRAMING
        elif "Transfer-Encoding" in text:
            kind = Wrong.BAD_TRANSFER_CODING if http_1_1 else Wrong.BAD_FRAMING
        raise WireError(kind, text) from None


def _read_line(request: Request, line: bytes) -> None:
    """The request line. Its version is compared as text: llhttp takes RTSP/1.0 and HTTP/2.0 for HTTP."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise WireError(Wrong.BAD_HEAD, "the request line is not: method, target, version")
    request.method, target, version = parts
    if version != b"HTTP/1.1":
        if version != b"HTTP/1.0":
            known = version.startswith(b"HTTP/")
            raise WireError(Wrong.BAD_VERSION if known else Wrong.BAD_HEAD, "not HTTP/1.0 or HTTP/1.1")
        request.http_1_1 = False
    if request.method not in METHODS:
        raise WireError(Wrong.BAD_METHOD, "a method that is not served")
    if len(target) > TARGET_LIMIT:
        raise WireError(Wrong.TARGET_TOO_LONG, "the request target is too long")
    if b"#" in target:
        raise WireError(Wrong.BAD_HEAD, "a fragment in the request target")
    request.path, _, request.query = target.partition(b"?")


def _store(special: SpecialFields, role: int, value: bytes) -> None:
    before = special[role]
    if before is None:
        special[role] = value
    elif role in (Role.CONNECTION, Role.TRANSFER_ENCODING, Role.FORWARDED_FOR):  # lists: several fields are one
        special[role] = before + b"," + value
    elif role == Role.HOST:
        raise WireError(Wrong.BAD_HOST, "more than one Host")
    elif role == Role.CONTENT_LENGTH:
        raise WireError(Wrong.BAD_FRAMING, "a framing field came twice")
    else:
        name = Role(role).name.lower().replace("_", "-")
        raise WireError(Wrong.DUPLICATE_FIELD, f"the field {name} came twice")


def _apply_specials(request: Request) -> None:
    special = request.special
    host = special[_HOST]
    if host is None and request.http_1_1:
        raise WireError(Wrong.BAD_HOST, "no Host")
    if request.path[:1] != b"/":
        _reduce_target(request, host)
    connection = special[_CONNECTION]
    if connection is None:
        request.keep_alive = request.http_1_1
    elif connection != b"keep-alive":
        _obey_connection(request, connection)
    digits = special[_CONTENT_LENGTH]
    if digits is not None:
        length = LENGTHS[digits]
        if length is None:
            raise WireError(Wrong.BAD_FRAMING, "Content-Length is not one sane number")
        request.length = length
    coding = special[_TRANSFER_ENCODING]
    if coding is not None:
        _check_coding(request, coding)
    expectation = special[_EXPECT]
    if expectation is not None and expectation.lower() != b"100-continue":
        raise WireError(Wrong.BAD_EXPECTATION, "an expectation other than 100-continue")


def _reduce_target(request: Request, host: bytes | None) -> None:
    """Turn an absolute-form target into its path (RFC 9112 section 3.2.2); refuse every other form."""
    if request.path == b"*" and request.method == b"OPTIONS":
        return
    scheme, separator, rest = request.path.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if not separator or scheme.lower() not in (b"http", b"https") or not HOST.fullmatch(authority):
        raise WireError(Wrong.BAD_HEAD, "a request target that is neither a path nor an http URL")
    if host is not None and host.lower() != authority.lower():
        raise WireError(Wrong.BAD_HOST, "the target's authority and Host differ")
    request.path = slash + path or b"/"


def _obey_connection(request: Request, connection: bytes) -> None:
    """Persistence, and the fields that Connection names end here (RFC 9110 section 7.6.1)."""
    options = {option.strip() for option in connection.lower().split(b",")}
    request.keep_alive = b"close" not in options and (request.http_1_1 or b"keep-alive" in options)
    named = options - {b"close", b"keep-alive"}
    if named:
        request.forward = [line for line in request.forward if line.partition(b":")[0].lower() not in named]


def _check_coding(request: Request, coding: bytes) -> None:
    if not request.http_1_1:
        raise WireError(Wrong.BAD_FRAMING, "Transfer-Encoding on HTTP/1.0")
    if request.special[Role.CONTENT_LENGTH] is not None:
        raise WireError(Wrong.BAD_FRAMING, "both Content-Length and Transfer-Encoding")
    if coding.lower() != b"chunked":
        raise WireError(Wrong.BAD_TRANSFER_CODING, "a transfer coding other than chunked")
    request.chunked = True


def after_empty_lines(data: bytes) -> bytes:
    """*data* without the empty lines that may come before a request (RFC 9112 section 2.2).

    One look at each: a read full of them must not cost its square.
    """
    start = 0
    while data.startswith(b"\r\n", start):
        start += 2
    return data[start:]
