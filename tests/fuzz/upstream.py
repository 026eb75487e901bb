"""An upstream's bytes through the whole gateway: a client sees success only where h11 does, cut or whole, and only a
connection that h11 would use again is used again.

The first byte tells whether the call streams, whether the client speaks HTTP/1.0, and whether the upstream's end
follows its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import h11

from tests.fuzz import house as houses
from tests.fuzz.cutting import cut, pieces, uncut
from tests.fuzz.house import House
from tests.unit.in_process import chat

STREAM, OLD, FIN = 1, 2, 4
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"delta":{}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
DONE = b"e\r\ndata: [DONE]\n\n\r\n"
ERROR = b'data: {"error":{"message":"busy"}}\n\n'
WORDS = [
    *(
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"200 OK\r\n",
        b"204 \r\n",
        b"304 \r\n",
        b"401 \r\n",
        b"500 \r\n",
        b"HTTP/1.1 103 \r\n\r\n",
        JSON,
        EVENTS,
    ),
    *(
        b"content-length: 2\r\n",
        b"content-length: ",
        b"transfer-encoding: chunked\r\n",
        b"connection: close\r\n",
        b"2\r\n{}\r\n",
        CHUNK,
    ),
    *(
        b"content-type: text/event-stream\r\n",
        b"content-encoding: gzip\r\n",
        EVENT,
        b"data: [DONE]\n\n",
        DONE,
        b"0\r\n\r\n",
        b"{}",
        ERROR,
    ),
    *(
        b"\r\n\r\n",
        b"\n\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"\0",
        b"data: ",
        b'{"usage":{"prompt_tokens":1}}',
        b"1",
        b"a",
        b"0\r\n",
    ),
]
SEEDS = [
    b"\0" + uncut(JSON + b"content-length: 2\r\n\r\n{}", 20, 70),
    b"\0" + uncut(JSON + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 79, 84),
    b"\4" + uncut(JSON + b"\r\n{}", 50),
    b"\1" + uncut(EVENTS + CHUNK + CHUNK + DONE + b"0\r\n\r\n", 90, 130),
    b"\5" + uncut(EVENTS.replace(b"transfer-encoding: chunked\r\n", b"") + EVENT + b"data: [DONE]\n\n", 70),
    b"\3" + uncut(EVENTS + CHUNK + DONE + b"0\r\n\r\n", 90),
    b"\1" + uncut(EVENTS + b"%x\r\n%b\r\n" % (len(ERROR), ERROR) + b"0\r\n\r\n", 90),
    b"\0" + uncut(b"HTTP/1.1 103 Early\r\n\r\n" + JSON + b"content-length: 2\r\n\r\n{}{}", 20, 30),
    b"\0" + uncut(b"HTTP/1.1 204 No Content\r\nconnection: keep-alive\r\n\r\n"),
    b"\4" + uncut(JSON + b"content-length: 9\r\n\r\n{}", 72),
]


class Outcome(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes


class Seen(NamedTuple):
    """What the client got, None where that is no whole answer; and whether the upstream's connection is kept."""

    outcome: Outcome | None
    kept: bool


@contextmanager
def opened() -> Iterator[Callable[[bytes], None]]:
    with houses.opened() as house:
        yield lambda data: check(house, data)


def check(house: House, data: bytes) -> None:
    flags = data[0] if data else 0
    places, message = cut(data[1:])
    parts = pieces(message, places)
    whole = played(house, flags, [message] if message else [])
    assert played(house, flags, parts).kept == whole.kept
    expected, reusable = by_h11(message, bool(flags & FIN))
    assert not whole.kept or reusable
    for seen in (whole, played(house, flags, parts)):
        if seen.outcome is None or seen.outcome.status in (502, 503):  # our own words
            continue
        assert expected is not None, (seen.outcome, "which is no whole answer")
        assert seen.outcome.status == expected.status
        if not flags & STREAM:
            assert seen.outcome == expected


def played(house: House, flags: int, parts: list[bytes]) -> Seen:
    client, transport = house.fresh()
    request = chat(stream=bool(flags & STREAM))
    house.hear(client, request.replace(b"HTTP/1.1", b"HTTP/1.0") if flags & OLD else request)
    (peer, upstream) = next(pair for pair in house.peers if pair[1].written)
    for part in parts:
        if not upstream.aborted:
            house.hear(peer, part)
    kept = peer in house.gateway.pool.idle
    if flags & FIN and not upstream.aborted:
        house.lose(peer)
    assert kept or upstream.aborted or flags & FIN or client.state.name in ("WAITING", "ANSWERING")
    outcome = judged(b"".join(transport.written), over=transport.aborted, reset=transport.was_reset)
    house.rest(client)
    return Seen(outcome, kept)


def judged(written: bytes, *, over: bool, reset: bool) -> Outcome | None:
    """What h11 makes of the client's bytes."""
    outcome, _ = by_h11(written, over and not reset)
    return outcome


def by_h11(data: bytes, ended: bool) -> tuple[Outcome | None, bool]:
    """The whole answer that h11 reads, if it does; and whether it would use the connection again."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data) if data else None
    connection.receive_data(b"") if ended else None
    status, body = 0, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                clean = connection.their_state is h11.DONE and not connection.trailing_data[0]
                return Outcome(status, body), clean
            elif not isinstance(event, h11.InformationalResponse):
                return None, False
    except h11.RemoteProtocolError:
        return None, False
