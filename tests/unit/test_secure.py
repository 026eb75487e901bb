"""TLS over sockets: what came is handed over whole, however slowly it is taken, and an end is known for what it is."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable

import pytest

from gateway.clock import Clock
from gateway.config.pems import read
from gateway.config.schema import UpstreamTls
from gateway.secure import secure
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.pool import Address, Pool
from gateway.upstream.tls import client_context
from tests.unit.in_process import Transport, running
from tests.wire import tls

#: Fits the kernel's buffers, so that the peer can send it and leave while nobody reads; uvloop's TLS holds as much.
BODY = bytes(range(256)) * 600
Say = Callable[[ssl.SSLSocket], object]


class Reader(asyncio.Protocol):
    """Stops reading at the first bytes, and remembers all that it is told."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.came = b""
        self.told_end = False
        self.paused = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.came += data
        if not self.paused.is_set():
            self.transport.pause_reading()
            self.paused.set()

    def eof_received(self) -> None:
        self.told_end = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Peer:
    """A server for one connection over TLS: the first bytes, and when `go` is set the rest, in a thread."""

    def __init__(self, say: Say) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._say = say
        self.go = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with tls.server().wrap_socket(sock, server_side=True) as wire:
            wire.sendall(b"first")
            assert self.go.wait(5)
            self._say(wire)

    async def over(self) -> None:
        """Once it has said all, and left."""
        self.go.set()
        await asyncio.to_thread(self._thread.join)
        self._listener.close()


async def turns() -> None:
    """Let the loop look at its sockets a few times."""
    for _ in range(10):
        await asyncio.sleep(0)


async def connect(peer: Peer) -> Reader:
    reader = Reader()
    loop = asyncio.get_running_loop()
    tcp, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", peer.port)
    await secure(tcp, reader, client_context(UpstreamTls(ca_file=read(tls.CA))), server_name="127.0.0.1")
    return reader


async def tell(say: Say) -> Reader:
    """What a reader has that slept while its peer said *say* and left."""
    peer = Peer(say)
    reader = await connect(peer)
    await reader.paused.wait()
    await peer.over()
    await turns()  # whatever the loop reads of a socket that nobody reads, it has read now
    assert reader.came == b"first" and not reader.lost.is_set()
    assert reader.transport is not None
    reader.transport.resume_reading()
    await asyncio.wait_for(reader.lost.wait(), 5)
    return reader


def notify(wire: ssl.SSLSocket) -> None:
    """close_notify; the other side's is not waited for."""
    wire.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        wire.unwrap()


def reset(wire: ssl.SSLSocket) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_what_came_before_the_end_is_read_whole_by_whom_sleeps() -> None:
    def say(wire: ssl.SSLSocket) -> None:
        wire.sendall(BODY)
        notify(wire)

    with running() as runner:
        reader = runner.run(tell(say))
    assert reader.came == b"first" + BODY and reader.told_end


def test_a_fin_without_close_notify_is_no_end_that_was_told() -> None:
    with running() as runner:
        reader = runner.run(tell(lambda wire: wire.sendall(BODY)))
    assert reader.came == b"first" + BODY and not reader.told_end


def test_a_reset_is_no_end_that_was_told() -> None:
    with running() as runner:
        reader = runner.run(tell(reset))
    assert not reader.told_end


def test_bytes_that_wait_to_be_sent_are_counted_though_they_are_encrypted_already() -> None:
    async def run() -> int:
        peer = Peer(reset)
        reader = await connect(peer)
        await reader.paused.wait()
        assert reader.transport is not None
        reader.transport.write(bytes(32 << 20))
        unsent = reader.transport.get_write_buffer_size()
        reader.transport.abort()
        await peer.over()
        return unsent

    with running() as runner:
        assert runner.run(run()) > 16 << 20


# --- connections of a pool ---


def pool_of(port: int, context: ssl.SSLContext | None = None) -> Pool:
    address = Address("127.0.0.1", port, context, "127.0.0.1")
    crashed = lambda error: pytest.fail(repr(error))  # noqa: E731
    return Pool("alpha", address, max_idle=1, idle_timeout=1.0, clock=Clock(), on_crash=crashed)


@pytest.mark.plain
def test_a_peer_that_speaks_before_it_is_asked_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport()

    async def connect(self: Pool, connection: UpstreamConnection) -> None:
        connection.connection_made(transport)
        connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")

    monkeypatch.setattr(Pool, "_connect", connect)
    pool = pool_of(9)
    with running() as runner, pytest.raises(OSError):
        runner.run(pool.open())
    assert transport.aborted and not pool.all


async def cancelled_as_it_connected(pool: Pool) -> None:
    """At the one moment in which the loop has made a connection of which nobody else knows."""
    task = asyncio.create_task(pool.open())
    while not any(connection._transport for connection in pool.all):
        assert not task.done()
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def cancelled_at_once(pool: Pool) -> None:
    task = asyncio.create_task(pool.open())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def cancelled_in_its_handshake(pool: Pool) -> None:
    """Of TLS, with a peer that says nothing."""
    task = asyncio.create_task(pool.open())
    await turns()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def given_up(pool: Pool) -> None:
    (await pool.open()).abort()


async def left(pool: Pool) -> None:
    connection = await pool.open()
    connection.eof_received()


STORIES = [
    (cancelled_as_it_connected, None),
    (cancelled_at_once, None),
    (cancelled_in_its_handshake, client_context(UpstreamTls())),
    (given_up, None),
    (left, None),
]


@pytest.mark.parametrize(("story", "context"), STORIES, ids=[story.__name__ for story, _ in STORIES])
def test_a_connection_that_is_over_is_freed_without_the_collector(
    story: Callable[[Pool], Awaitable[None]], context: ssl.SSLContext | None
) -> None:
    async def run() -> list[object]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            pool = pool_of(listener.getsockname()[1], context)
            gc.collect()
            gc.disable()
            try:
                await story(pool)
                assert not pool.all
                await turns()  # the loop lets go of a closed handle in a later one
                return [thing for thing in gc.get_objects() if isinstance(thing, UpstreamConnection)]
            finally:
                gc.enable()

    with running() as runner:
        assert runner.run(run()) == []
