"""A whole gateway with transports that only remember: what the sockets' callbacks do, without sockets."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from gateway.build import Gateway
from gateway.config.load import load
from gateway.downstream import ClientConnection
from gateway.upstream.connection import UpstreamConnection


class Socket:
    """An address family, and a file descriptor that is readable once `wake` was called."""

    family = 2

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._finalizer = weakref.finalize(self, os.close, self._fd)

    def close(self) -> None:
        """For who has it longer than it is needed."""
        self._finalizer()

    def fileno(self) -> int:
        return self._fd

    def wake(self) -> None:
        """Something has come that the loop has not read yet."""
        os.eventfd_write(self._fd, 1)

    def setsockopt(self, *args: object) -> None:
        """TCP_NODELAY, SO_LINGER: nothing to do."""


class Transport(asyncio.Transport):
    """Remembers what was written, and whether it was aborted or paused."""

    def __init__(self, socket: object = None) -> None:
        super().__init__({"socket": socket or Socket(), "peername": ("127.0.0.1", 1)})
        self.written: list[bytes] = []
        self.aborted = False
        self.was_reset = False
        self.paused = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """No buffer, no limits."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = self.was_reset = True

    def close(self) -> None:
        self.aborted = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class InProcess:
    """One gateway with one http backend of one peer, whose connection is open and idle."""

    def __init__(self) -> None:
        environment = {
            "GATEWAY_UPSTREAMS": "m=http://127.0.0.1:9",
            "GEN_GATEWAY__LOGGING__OUTPUT": "/dev/null",
            # each call is to be sent, whatever the one before it met
            "GEN_GATEWAY__DEFAULTS__BREAKER__MAX_FAILURES": "0",
            "GEN_GATEWAY__DEFAULTS__HEALTH__INTERVAL": "0s",
        }
        self.gateway = Gateway(load([], environment, {}))
        self.gateway.clients.loop = asyncio.get_running_loop()
        (self.pool,) = self.gateway.pools
        self.upstream, self.upstream_transport = self.add_upstream()

    def add_upstream(self) -> tuple[UpstreamConnection, Transport]:
        connection, transport = UpstreamConnection(self.pool), Transport()
        connection.connection_made(transport)
        self.pool.all.add(connection)
        assert self.pool.give(connection)
        return connection, transport

    async def close(self) -> None:
        await self.gateway.estate.close()
        assert self.gateway.lines.close(5.0)
        self.gateway.seat.page.close()

    def connect(self, socket: object = None) -> tuple[ClientConnection, Transport]:
        """*socket* is what the kernel is asked about, where a test needs that."""
        client, transport = self.gateway.clients.connection(), Transport(socket)
        client.connection_made(transport)
        return client, transport


def chat(stream: bool = False, more: str = "") -> bytes:
    """A chat request, whole."""
    flag = "true" if stream else "false"
    body = f'{{"model":"m","messages":[{{"role":"user","content":"hello"}}],"stream":{flag}{more}}}'.encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer dev-key\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


@contextmanager
def running() -> Iterator[asyncio.Runner]:
    """The gateway's own kind of loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


# The first loop of a process opens a pipe for its signals and keeps it; later ones share it.
with running() as _first:
    _first.run(asyncio.sleep(0))
