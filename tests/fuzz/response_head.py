"""Response heads: alone or behind others, the verdict is the same, and h11 shares it and our framing.

The message is a row of heads on one connection, divided by SEPARATOR.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import h11

from protocols.http1.errors import WireError, Wrong
from protocols.http1.response import ResponseHead, ResponseHeads, parse_response_head
from tests.fuzz.cutting import cut, uncut
from tests.fuzz.request_head import BYTES, HOPS, SEPARATOR

END = b"\r\n\r\n"
GOOD = (
    b"HTTP/1.1 200 OK\r\nServer: b\r\nDate: now5\r\nContent-Type: application/json\r\nETag: 5\r\nContent-Length: 5\r\n"
    b"X-A: 1\r\n\r\n"
)
Said = tuple[object, ...]

WORDS = [
    *(
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"200 OK\r\n",
        b"204 \r\n",
        b"304\r\n",
        b"103 Early\r\n",
        b"999",
        b"Content-Length: 5\r\n",
    ),
    *(
        b"Content-Length:",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:",
        b"gzip, ",
        b"Connection: close, x-a\r\n",
    ),
    *(
        b"Connection:",
        b"keep-alive",
        b"Keep-Alive: timeout=5, max=9\r\n",
        b"Content-Type: text/event-stream\r\n",
        b"Date: 1\r\n",
    ),
    *(
        b"Content-Encoding: gzip\r\n",
        b"Set-Cookie: a\r\n",
        b"X-A: b\r\n",
        b"ETag: 1\r\n",
        b"Server: x\r\n",
        b"Age: 1\r\n",
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
    uncut(SEPARATOR.join([GOOD, GOOD, GOOD.replace(b"5", b"6"), GOOD]), 3, 40),
    *(uncut(SEPARATOR.join([GOOD, GOOD, GOOD.replace(b"ETag: 5", b"ETag: 5" + byte), GOOD])) for byte in BYTES),
    uncut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: X-A\r\nX-A: 1\r\n\r\n"),
    uncut(b"HTTP/1.0 404 No\r\nContent-Length: 3\r\nConnection: keep-alive\r\nKeep-Alive: max=1\r\n\r\nabc"),
    uncut(b"HTTP/1.1 204\r\nContent-Length: 3\r\n\r\n", 9),
    uncut(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
]


def opened() -> AbstractContextManager[Callable[[bytes], None]]:
    return nullcontext(check)


def check(data: bytes) -> None:
    places, message = cut(data)
    together = ResponseHeads()
    for block in message.split(SEPARATOR):
        whole = verdict(ResponseHeads(), block)
        for place in places:
            if place < block.find(END) + 4:
                assert verdict(together, block[:place]) is None
        assert verdict(together, block) == whole
        assert verdict(together, block + b"x") == whole or whole is None
        if isinstance(whole, tuple):
            end = block.find(END)
            judge(block[: end + 4], parse_response_head(block[:end]))


def verdict(heads: ResponseHeads, block: bytes) -> Said | Wrong | None:
    try:
        head = heads.read(block)
    except WireError as error:
        return error.kind
    return None if head is None else (*said(head), heads.size)


def said(head: ResponseHead) -> Said:
    what = (head.status, head.content_type, head.is_event_stream, head.encoded, head.length, head.chunked)
    return (*what, head.persistent, head.keep_alive_timeout, head.keep_alive_max, b"".join(head.lines))


def judge(block: bytes, head: ResponseHead) -> None:
    """h11 reads the same status, and the same framing; every line that is relayed is one of the peer's."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(block)
    event = connection.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse), event
    assert event.status_code == head.status
    received = list(event.headers)
    for line in b"".join(head.lines).split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        assert (name, value) in received, line
        assert name not in HOPS, line
    if isinstance(event, h11.Response):
        judge_framing(connection, head, event.http_version == b"1.1")


def judge_framing(connection: h11.Connection, head: ResponseHead, http_1_1: bool) -> None:
    """h11 sees the end of the body where we do, and keeps the connection where we do (HTTP/1.0's it never keeps)."""
    body = b"1\r\nx\r\n0\r\n\r\n" if head.chunked else b"x" * min(head.length or 0, 4096)
    connection.receive_data(body) if body else None
    whole = head.chunked or head.length == len(body)
    if head.length is None and not head.chunked:
        connection.receive_data(b"")
        whole = True
    while isinstance(event := connection.next_event(), h11.Data):
        pass
    assert isinstance(event, h11.EndOfMessage) is whole, event
    if whole and head.persistent and http_1_1:
        assert connection.their_state is h11.DONE
