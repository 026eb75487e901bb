"""Request heads: cut or whole, alone or behind others, the verdict is the same, and h11 shares it.

The message is a row of heads on one connection, divided by SEPARATOR.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import h11

from protocols.http1.errors import WireError, Wrong
from protocols.http1.fields import FieldTable
from protocols.http1.request import Request, RequestHeads, parse_request_head
from tests.fuzz.cutting import cut, uncut

SEPARATOR = b"\xff\xfe"
LIMIT = 2048
END = b"\r\n\r\n"
GOOD = (
    b"POST /v1/x?y HTTP/1.1\r\nHost: a\r\nX-A: b\r\ntraceparent: 00-5\r\nContent-Length: 5\r\n"
    b"X-Request-Id: r5\r\nAuthorization: Bearer k\r\n\r\n"
)
HOPS = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"host"}
Said = tuple[object, ...]

#: What a value that varies may not hold.
BYTES = [b"\n", b"\r", b"\0", b"\xe9", b"\x85", b"\t", b" ", b"\x7f", b"\r\n"]
WORDS = [
    *(
        b"GET ",
        b"POST ",
        b"OPTIONS ",
        b"/v1/x?y=z",
        b"*",
        b"http://a/",
        b"#",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"HTTP/2.0",
    ),
    *(
        b"Host: a\r\n",
        b"Host:",
        b"a:80",
        b"[::1]",
        b"Content-Length: 5\r\n",
        b"Content-Length:",
        b"Transfer-Encoding: chunked\r\n",
    ),
    *(
        b"Transfer-Encoding:",
        b"gzip, ",
        b"Connection: close, x-a\r\n",
        b"Connection:",
        b"keep-alive",
        b"Upgrade: h2c\r\n",
    ),
    *(
        b"Expect: 100-continue\r\n",
        b"X-A: b\r\n",
        b"X_A: b\r\n",
        b"traceparent: 00-1\r\n",
        b"X-Request-Id: 1\r\n",
        b"TE: x\r\n",
    ),
    *(
        b"\r\n\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b",",
        b"\0",
        b"\x7f",
        b"\xe9",
        b"\x0b",
        b"\x85",
        SEPARATOR,
    ),
]
SEEDS = [
    uncut(SEPARATOR.join([GOOD, GOOD, GOOD.replace(b"5", b"6"), GOOD]), 3, 40, 90),
    *(uncut(SEPARATOR.join([GOOD, GOOD, GOOD.replace(b"00-5", b"00-5" + byte), GOOD])) for byte in BYTES),
    uncut(GOOD + b"hello", 30),
    uncut(b"GET / HTTP/1.1\r\nHost: a\r\nTE: x\r\nKeep-Alive: 1\r\nTrailer: x\r\nX_A: 1\r\nConnection: close\r\n\r\n"),
    uncut(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: X-A\r\nX-A: 1\r\n\r\n"),
    uncut(b"GET http://a/b?c HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 20),
    uncut(b"POST /v1/x HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc"),
]


def opened() -> AbstractContextManager[Callable[[bytes], None]]:
    return nullcontext(check)


def check(data: bytes) -> None:
    places, message = cut(data)
    together = RequestHeads(FieldTable(), LIMIT)
    for block in message.split(SEPARATOR):
        whole = verdict(RequestHeads(FieldTable(), LIMIT), block, [])
        assert verdict(together, block, []) == whole
        assert verdict(together, block, [place for place in places if place < len(block)]) == whole
        end = block.find(END) + 4
        if end > 3 and isinstance(whole, tuple):
            judge(block[:end], parse_request_head(block[:end], FieldTable()))


def verdict(heads: RequestHeads, block: bytes, places: list[int]) -> Said | Wrong | None:
    """What *heads* say about *block*, of which the parts up to each of *places* came first."""
    scan = 0
    try:
        for end in (*places, len(block)):
            request = heads.read(block[:end], scan)
            if request is not None:
                return said(request, heads.size)
            heads.judge_begun(block[:end], scan)
            scan = max(0, end - 3)
    except WireError as error:
        return error.kind
    return None


def said(request: Request, size: int) -> Said:
    what = (request.method, request.path, request.query, request.http_1_1, request.keep_alive, request.length)
    return (*what, request.chunked, tuple(request.special), b"".join(request.forward), size)


def judge(block: bytes, request: Request) -> None:
    """h11 takes *block* for the same request, and sees the end of its body where we do."""
    body = b"0\r\n\r\n" if request.chunked else b"x" * min(request.length, 4096)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(block + body)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    assert event.method == request.method
    assert event.target.endswith(request.query)
    assert request.path in (event.target.partition(b"?")[0], b"/") or event.target.startswith((b"http", b"HTTP"))
    assert (event.http_version == b"1.1") is request.http_1_1
    if len(body) == request.length or request.chunked:
        got = b""
        while isinstance(part := connection.next_event(), h11.Data):
            got += bytes(part.data)
        assert isinstance(part, h11.EndOfMessage), part
        assert got == (b"" if request.chunked else body)
        assert connection.trailing_data[0] == b""
    judge_forwarded(b"".join(request.forward), list(event.headers))


def judge_forwarded(lines: bytes, received: list[tuple[bytes, bytes]]) -> None:
    """What travels on are lines of the client's own, in their order, none of which frames or steers."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(b"GET / HTTP/1.1\r\nhost: a\r\n" + lines + b"\r\n")
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    assert connection.trailing_data[0] == b""
    rest = iter(received)
    for field in list(event.headers)[1:]:
        assert field in rest, field
        assert field[0] not in HOPS, field
        assert b"_" not in field[0], field
