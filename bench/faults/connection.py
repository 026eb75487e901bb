"""One connection of an evil client: bytes out, answers in, and the ways to leave.

Owns the socket and its waits, each of which has an end. It refuses to know what is said (`visits`). Made by `visits`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Final, Self

from bench.faults.answers import Answer
from bench.faults.wire import RESET

#: Seconds without a byte after which an answer counts as lost. Above every time limit of the gateway under test.
PATIENCE: Final = 15.0
READ: Final = 1 << 18


class Connection:
    """Open to the gateway; `open` makes it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.opened = time.monotonic()
        self.port: int = 0
        self.closed = False
        #: answers that were begun on it
        self.calls = 0
        self._loop = asyncio.get_running_loop()
        self._rest = b""

    @classmethod
    async def open(cls, port: int, receive_buffer: int = 0) -> Self:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection = cls(sock)
        try:
            async with asyncio.timeout(PATIENCE):
                await connection._loop.sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        connection.port = sock.getsockname()[1]
        return connection

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it: the gateway has not ended it meanwhile."""
        if self.closed:
            return False
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    async def send(self, data: bytes) -> None:
        """Send all of *data*. OSError where the gateway has left, TimeoutError where it does not read."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            async with asyncio.timeout(PATIENCE):
                await self._loop.sock_sendall(self.sock, memoryview(data)[sent:])

    async def answer(self, method: str = "POST") -> Answer:
        """Read one answer to its end, or to the connection's, or until nothing comes any more."""
        answer = self.expect(method)
        while not answer.done and await self.read(answer):
            pass
        return answer

    def expect(self, method: str = "POST") -> Answer:
        """Begin to read the next answer."""
        self.calls += 1
        answer = Answer(self._rest, method)
        self._rest = answer.rest
        return answer

    async def read(self, answer: Answer, size: int = READ) -> bool:
        """Read once into *answer*; False where nothing came in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                answer.feed(await self._loop.sock_recv(self.sock, size))
        except TimeoutError:
            return False
        except OSError:
            answer.reset()
        if answer.complete:
            self._rest = answer.rest
        return True

    # --- leaving ---

    def half_close(self) -> None:
        """FIN; the answer can still be read."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the gateway was faster

    def leave(self, manner: str) -> float:
        """Close by "fin" or "rst"; monotonic seconds just before. (A FIN becomes RST where bytes are unread.)"""
        if manner == "rst" and not self.closed:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        now = time.monotonic()
        self.close()
        return now

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.sock.close()
