"""Turns of the loop: who sends much is read once in each."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from gateway.sockets import FLOOD_READ
from protocols.http1.framing import chunk
from tests.unit.in_process import InProcess, Transport, chat, running

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FLOOD = chunk(EVENT) * (FLOOD_READ // len(chunk(EVENT)) + 1)
UPLOAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer dev-key\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
)


def play(story: Callable[[InProcess], Any]) -> None:
    async def run() -> None:
        house = InProcess()
        try:
            await story(house)
        finally:
            await house.close()

    with running() as runner:
        runner.run(run())


def begin(house: InProcess) -> tuple[Any, Transport]:
    """A stream that has begun."""
    client, transport = house.connect()
    client.data_received(chat(stream=True))
    house.upstream.data_received(STREAM + chunk(EVENT))
    return client, transport


def is_paused(transport: Transport) -> bool:
    return transport.paused


# --- floods ---


def test_an_upstream_that_floods_is_read_on_after_the_others_had_their_turn() -> None:
    async def story(house: InProcess) -> None:
        begin(house)
        house.upstream.data_received(FLOOD)
        assert is_paused(house.upstream_transport)
        await asyncio.sleep(0)
        assert not is_paused(house.upstream_transport)

    play(story)


def test_an_ordinary_read_costs_no_turn() -> None:
    async def story(house: InProcess) -> None:
        begin(house)
        house.upstream.data_received(chunk(EVENT))
        house.upstream.data_received(chunk(EVENT) * 100)
        assert not is_paused(house.upstream_transport)

    play(story)


def test_a_flood_that_is_over_gives_its_connection_back_unpaused() -> None:
    async def story(house: InProcess) -> None:
        begin(house)
        house.upstream.data_received(FLOOD + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        assert house.pool.idle == [house.upstream] and not is_paused(house.upstream_transport)

    play(story)


def test_an_upstream_whose_client_does_not_read_stays_paused_after_its_turn() -> None:
    async def story(house: InProcess) -> None:
        client, _ = begin(house)
        house.upstream.data_received(FLOOD)
        client.pause_writing()
        await asyncio.sleep(0)
        assert is_paused(house.upstream_transport)
        client.resume_writing()
        assert not is_paused(house.upstream_transport)

    play(story)


def test_a_client_with_a_large_body_is_read_on_after_the_others_had_their_turn() -> None:
    async def story(house: InProcess) -> None:
        client, transport = house.connect()
        client.data_received(UPLOAD)
        client.data_received(bytes(FLOOD_READ - 1))
        assert not is_paused(transport)
        client.data_received(bytes(FLOOD_READ))
        assert is_paused(transport)
        await asyncio.sleep(0)
        assert not is_paused(transport)
        client.connection_lost(None)

    play(story)


class Turns(Transport):
    """Remembers in which turn of the loop each large write came."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0
        self.bytes = 0
        self.large: Counter[int] = Counter()

    def write(self, data: Any) -> None:
        self.bytes += len(data)
        self.large[self.turn] += len(data) >= FLOOD_READ // 2


def test_the_loop_reads_a_flooding_socket_once_in_a_turn() -> None:
    """Left alone, it reads one that is always full up to 32 times."""
    flood = FLOOD * (16 << 20 >> 17)
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    sender = threading.Thread(target=theirs.sendall, args=[STREAM + flood])

    async def story(house: InProcess) -> None:
        loop = asyncio.get_running_loop()
        house.pool.idle.clear()
        ours.setblocking(False)
        await loop.create_connection(lambda: house.upstream, sock=ours)
        assert house.pool.give(house.upstream)
        client, transport = house.gateway.clients.connection(), Turns()
        client.connection_made(transport)
        client.data_received(chat(stream=True))
        sender.start()
        while transport.bytes < len(flood) * len(EVENT) // len(chunk(EVENT)):
            await asyncio.sleep(0)
            transport.turn += 1
        assert max(transport.large.values()) == 1
        client.connection_lost(None)

    with listener, theirs:
        play(story)
        sender.join()
