"""Turns of the loop: who sends much is read once in each, and who is not read is heard all the same when he leaves."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.config.pems import read
from gateway.config.schema import UpstreamTls
from gateway.downstream import HELD_LIMIT
from gateway.secure import secure
from gateway.sockets import FLOOD_READ, Departures
from gateway.upstream.tls import client_context
from protocols.http1.framing import chunk
from tests.unit.in_process import InProcess, Transport, chat, running
from tests.wire import tls

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


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])
def test_the_loop_reads_a_flooding_socket_once_in_a_turn(over_tls: bool) -> None:
    """Left alone, it reads one that is always full up to 32 times."""
    flood = FLOOD * (16 << 20 >> 17)
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    asked, done = threading.Event(), threading.Event()

    def send() -> None:
        with tls.server().wrap_socket(theirs, server_side=True) if over_tls else theirs as wire:
            assert asked.wait(5)
            wire.sendall(STREAM + flood)
            assert done.wait(5)

    sender = threading.Thread(target=send)
    sender.start()

    async def story(house: InProcess) -> None:
        loop = asyncio.get_running_loop()
        house.pool.idle.clear()
        ours.setblocking(False)
        if over_tls:
            tcp, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            await secure(
                tcp, house.upstream, client_context(UpstreamTls(ca_file=read(tls.CA))), server_name="127.0.0.1"
            )
        else:
            await loop.create_connection(lambda: house.upstream, sock=ours)
        assert house.pool.give(house.upstream)
        client, transport = house.gateway.clients.connection(), Turns()
        client.connection_made(transport)
        client.data_received(chat(stream=True))
        asked.set()
        while transport.bytes < len(flood) * len(EVENT) // len(chunk(EVENT)):
            await asyncio.sleep(0)
            transport.turn += 1
        done.set()
        assert max(transport.large.values()) == 1
        client.connection_lost(None)

    with listener:
        play(story)
        sender.join()


# --- who leaves unread ---


class Unread:
    """The gateway's end of a connection whose bytes nobody reads."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self.sock


@contextmanager
def connection() -> Iterator[tuple[Any, socket.socket]]:
    """Its gateway's end, and the client's, which has sent bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(b"x" * 1000)
            yield Unread(accepted), client


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def is_told(leave: Callable[[socket.socket], None], *, half_close: bool) -> bool:
    """Whether *leave* is told; a sentinel that leaves after it shows when it would have been."""
    loop = asyncio.get_running_loop()
    departures = Departures()
    departures.start(loop)
    told, sentinel = asyncio.Event(), asyncio.Event()
    with connection() as (unread, client), connection() as (other, last):
        departures.watch(unread, told.set, half_close=half_close)
        departures.watch(other, sentinel.set, half_close=False)
        leave(client)
        reset(last)
        await asyncio.wait_for(sentinel.wait(), 5)
        departures.forget(unread)
        departures.forget(other)
        departures.close(loop)
    return told.is_set()


@pytest.mark.parametrize(
    ("leave", "half_close", "expected"),
    [
        (socket.socket.close, False, True),
        (reset, False, True),
        (lambda client: client.shutdown(socket.SHUT_WR), False, True),
        (reset, True, True),
        (lambda client: client.shutdown(socket.SHUT_WR), True, False),
        (lambda client: client.sendall(b"more"), False, False),
    ],
    ids=["close", "reset", "FIN", "reset where FIN is no end", "FIN where it is no end", "more bytes"],
)
def test_who_leaves_a_socket_that_is_not_read_is_told(
    leave: Callable[[socket.socket], None], half_close: bool, expected: bool
) -> None:
    with running() as runner:
        assert runner.run(is_told(leave, half_close=half_close)) is expected


def test_who_is_read_again_is_not_told() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        departures = Departures()
        departures.start(loop)
        with connection() as (unread, client), connection() as (other, last):
            sentinel = asyncio.Event()
            departures.watch(unread, pytest.fail, half_close=False)
            departures.watch(other, sentinel.set, half_close=False)
            departures.forget(unread)
            client.close()
            last.close()
            await asyncio.wait_for(sentinel.wait(), 5)
            departures.close(loop)

    with running() as runner:
        runner.run(story())


def test_a_client_that_is_not_read_is_read_again_before_its_next_request_is_begun() -> None:
    """Its last answer was not taken when it sent the beginning of the next request: the rest has to be read."""

    async def story(house: InProcess) -> None:
        with connection() as (unread, _):
            client, transport = house.connect(unread.sock)
            client.pause_writing()
            client.data_received(UPLOAD + bytes(HELD_LIMIT))
            assert is_paused(transport)
            client.resume_writing()
            assert not is_paused(transport)
            client.connection_lost(None)

    play(story)
