"""One accepted socket of an evil upstream: bytes in and out, and the moment at which the gateway leaves it.

Owns the socket. It is read all the time, whatever the deed does meanwhile, for only a socket that is read tells that
its peer left. It refuses HTTP (`peers` reads it). Made by `peers` for each connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Final

READ: Final = 1 << 18
#: Wakes a close that resets: SO_LINGER on, 0 seconds.
RESET: Final = struct.pack("ii", 1, 0)


class Gone(Exception):
    """The gateway left this connection."""


class Wire:
    """Use from one task, which is cancelled as soon as the gateway leaves."""

    def __init__(self, sock: socket.socket, number: int, peer: str, *, reading: bool = True) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.number = number
        self.peer = peer
        self.inbox = bytearray()
        #: when and how the gateway left: "fin" or "rst"
        self.left = 0.0
        self.left_by = ""
        #: our side said that nothing more comes; our socket is gone
        self.finished = self.closed = False
        #: when our side last spoke unasked
        self.unasked = 0.0
        self.task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        if reading:
            self._loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        try:
            data = self.sock.recv(READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.gone("rst")
            return
        if not data:
            self.gone("fin")
            return
        self.inbox += data
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def gone(self, by: str) -> None:
        """The gateway left: whatever runs for it ends."""
        if self.left:
            return
        self.left, self.left_by = time.monotonic(), by
        self._loop.remove_reader(self.sock)
        if self.task is not None:
            self.task.cancel()

    async def more(self) -> None:
        """Wait until the inbox grows."""
        if self.left:
            raise Gone
        self._waiter = self._loop.create_future()
        await self._waiter

    async def send(self, data: bytes) -> None:
        """Send all of *data*, however slowly it is taken."""
        try:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                await self._loop.sock_sendall(self.sock, memoryview(data)[sent:])
        except OSError:
            self.gone("rst")
            raise Gone from None

    def fin(self) -> None:
        """Nothing more will come; the socket stays open to see the gateway leave."""
        self.finished = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.gone("rst")
            raise Gone from None

    def rst(self) -> None:
        """Reset: what the gateway has not read yet may be lost."""
        if not self.closed:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self.sock)
            self.sock.close()
