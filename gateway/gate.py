"""Accepting, as long as there are file descriptors to serve what is accepted.

Owns the listening of one worker, on all its sockets: begun, paused, ended. It refuses the sockets themselves
(`gateway.listener`) and what becomes of an accepted one. Made by `gateway.worker`.

A process without descriptors accepts nothing and connects nowhere: it answers every call with an error, and its peers
seem dead to it. So the gate closes before that, at nine tenths of the limit; who knocks meanwhile waits in the kernel's
backlog, or is served by another worker.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Sequence
from typing import Final

from gateway.observe.counters import Counter
from gateway.observe.logs import Log

#: Shares of the descriptors' limit at which accepting pauses and goes on.
FULL: Final = 0.9
ROOM: Final = 0.85


class Gate:
    """*used* counts the descriptors of connections, *accept* makes the protocol of an accepted one."""

    def __init__(
        self,
        socks: Sequence[socket.socket],
        backlog: int,
        accept: Callable[[], asyncio.Protocol],
        used: Callable[[], int],
        pauses: Counter,
        log: Log,
    ) -> None:
        # process
        self._socks = socks
        self._backlog = backlog
        self._accept = accept
        self._used = used
        self._pauses = pauses
        self._log = log
        #: Descriptors that are no connections.
        self._base = 0
        self._limit = 0
        # empty while accepting is paused, or over
        self._servers: list[asyncio.Server] = []
        self._opening: asyncio.Task[None] | None = None
        self._over = False

    async def open(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._base = self._base or len(os.listdir("/proc/self/fd"))
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        try:
            for sock in self._socks:
                create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
                # A copy: closing a server closes its socket.
                self._servers.append(await create(self._take, sock=sock.dup(), backlog=self._backlog))
        except BaseException:
            self._shut()
            raise
        if self._over:
            self._shut()

    def _shut(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    def _take(self) -> asyncio.Protocol:
        if self._share() >= FULL:
            # Not at once: uvloop is about to attach the new transport to its server.
            asyncio.get_running_loop().call_soon(self._pause)
        return self._accept()

    def _share(self) -> float:
        return (self._base + self._used()) / self._limit

    def _pause(self) -> None:
        if self._servers:
            self._shut()
            self._pauses.value += 1
            self._log.warning("accepting pauses: too few file descriptors are left", limit=self._limit)

    def sweep(self, now: float) -> None:
        """Go on accepting once there is room again; pause when something else took it."""
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        share = self._share()
        if share >= FULL:
            self._pause()
        elif share < ROOM and not self._servers and not self._over and self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self.open())
            self._opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled() and (error := opening.exception()) is not None:
            self._log.error("accepting cannot go on", error=repr(error))  # the next sweep tries again
        elif not self._over:
            self._log.info("accepting goes on")

    def close(self) -> None:
        """Accept no more, ever."""
        self._over = True
        self._shut()


def raise_limit() -> None:
    """Take as many descriptors as the administrator allows: the soft limit is often 1024 for old programs' sake."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
