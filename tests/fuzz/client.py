"""A client's bytes through the whole gateway: cut or whole, the same requests go upstream, the same answers come.

Each request that goes upstream has one reading, and each answer is one that h11 takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h11

from tests.fuzz import house as houses
from tests.fuzz.cutting import cut, pieces, uncut
from tests.fuzz.house import House, settled
from tests.unit.in_process import Transport, chat

#: What goes upstream, what comes back, and whether the connection is over.
Played = tuple[list[bytes], bytes, bool]
CLOSE = b"connection: close\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
GOOD = chat()
HEAD, BODY = GOOD.split(b"\r\n\r\n")
CHUNKED = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", HEAD) + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
WORDS = [
    *(
        b"POST /v1/chat/completions HTTP/1.1\r\n",
        b"GET /v1/models HTTP/1.1\r\n",
        b"HEAD /health HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
    ),
    *(
        b"Host: a\r\n",
        b"Authorization: Bearer dev-key\r\n",
        b"Content-Length: 13\r\n",
        b"Transfer-Encoding: chunked\r\n",
        GOOD,
    ),
    *(
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Upgrade: h2c\r\n",
        b"X-A: b\r\n",
    ),
    *(
        b'{"model":"m"}',
        b"d\r\n",
        b"0\r\n",
        b"0\r\n\r\n",
        b"\r\n\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"\0",
        b"\xe9",
        b"X: y\r\n",
    ),
    *(
        b"Content-Type: application/json\r\n",
        b"X-Request-Id: r\r\n",
        b"traceparent: 00-1\r\n",
        b"gzip",
        b"Content-Encoding: ",
    ),
]
SEEDS = [
    uncut(GOOD + GOOD, 5, 190, 300),
    uncut(CHUNKED % (len(BODY), BODY) + GOOD, 40, 200, 230),
    uncut(GOOD.replace(b"Content-Type", b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Type") + GOOD, 100),
    uncut(GOOD.replace(b"Content-Type", b"Expect: 100-continue\r\nContent-Type"), 199),
    uncut(
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer dev-key\r\nContent-Length: 2\r\n\r\nhi" + GOOD, 30
    ),
    uncut(b"\r\nPOST /v1/chat/completions HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}" + GOOD, 1),
    uncut(GOOD.replace(b"dev-key", b"other") + GOOD, 60),
    uncut(GOOD.replace(b"chat", b"chut") + GOOD.replace(b"Host: gateway", b"Host: a b"), 250),
]
#: What may differ: the text of a fault that is seen earlier, and whether the connection goes on.
_WORDING = re.compile(rb'content-length: \d+\r\n|"message":"[^"]*"|' + CLOSE)
_HOPS = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"authorization", b"expect"}


@contextmanager
def opened() -> Iterator[Callable[[bytes], None]]:
    with houses.opened() as house:
        yield lambda data: check(house, data)


def check(house: House, data: bytes) -> None:
    places, message = cut(data)
    whole = played(house, [message] if message else [])
    in_pieces = played(house, pieces(message, places))
    judge_difference(whole, in_pieces)
    for requests, answers, _ in (whole, in_pieces):
        for request in requests:
            judge_request(request)
        if b"HEAD" not in message:
            judge_answers(answers)


def judge_difference(whole: Played, in_pieces: Played) -> None:
    """None, but for a request that is refused before its body has come: then its answer is the last."""
    requests, answers, _ = whole
    fewer, shorter, over = in_pieces
    if whole == in_pieces:
        return
    assert over and shorter.count(CLOSE) == 1, in_pieces
    assert requests[: len(fewer)] == fewer
    assert _WORDING.sub(b"", answers).startswith(_WORDING.sub(b"", shorter))


def played(house: House, parts: list[bytes]) -> Played:
    client, transport = house.fresh()
    requests: list[bytes] = []
    for part in parts:
        if transport.aborted:
            break
        house.hear(client, part)
        answered(house, requests)
    written = settled(b"".join(transport.written))
    house.rest(client)
    return [settled(request) for request in requests], written, transport.aborted


def answered(house: House, requests: list[bytes]) -> None:
    """Answer what went upstream until nothing more does."""
    while waiting := [(peer, transport) for peer, transport in house.peers if transport.written]:
        for peer, transport in waiting:
            requests.append(taken(transport))
            house.hear(peer, ANSWER)


def taken(transport: Transport) -> bytes:
    assert len(transport.written) == 1, "a request leaves in one write"
    return transport.written.pop()


def judge_request(request: bytes) -> None:
    """h11 takes *request* for one, whole, with one Host and one length, and nothing of this hop in it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(request)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    names = [name for name, _ in event.headers]
    assert names.count(b"host") == names.count(b"content-length") == 1
    assert not _HOPS & set(names)
    body = b""
    while isinstance(part := connection.next_event(), h11.Data):
        body += bytes(part.data)
    assert isinstance(part, h11.EndOfMessage)
    assert connection.trailing_data[0] == b""
    assert dict(event.headers)[b"content-length"] == b"%d" % len(body)
    assert body.startswith(b"{"), "only what has a model goes upstream"


def judge_answers(written: bytes) -> None:
    """h11 takes *written* for answers, one after another, to its last byte."""
    while written:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(written)
        event = connection.next_event()
        assert isinstance(event, h11.Response), event
        while isinstance(part := connection.next_event(), h11.Data):
            pass
        assert isinstance(part, h11.EndOfMessage), written
        written = connection.trailing_data[0]
