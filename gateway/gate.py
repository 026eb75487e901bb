"""Accepting, as long as there are file descriptors to serve what is accepted.

Owns the accepting of one worker, on all its sockets: begun, paused, ended. It refuses the sockets themselves
(`gateway.listener`) and what becomes of an accepted one. Made by `gateway.worker`.

A process without descriptors accepts nothing and connects nowhere: it answers every call with an error, and its peers
seem dead to it. So the gate closes before that, at nine tenths of the limit, a client counted as two: each may send a
request that takes a connection to its upstream. Who knocks meanwhile waits in the kernel's backlog, or is served by
another worker.

The loop's own servers are not used: libuv accepts all that wait in one turn, before anything can be counted, and
without a descriptor it closes whom it accepts.
"""

from __future__ import annotations

import asyncio
import errno
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
#: Connections that one turn of the loop accepts on one socket; the calls that run have their turn then.
BATCH: Final = 64
#: Seconds until a pause may be over: looking costs microseconds, and a burst of short connections waits for it.
RETRY_DELAY: Final = 0.02
#: Seconds between two looks at all connections for those that serve nobody.
ROOM_INTERVAL: Final = 0.2
#: Seconds after one pause was logged for which the next ones are only counted: near the limit there are many a second.
QUIET_TIME: Final = 10.0
#: What accept fails with when it is the waiting connection that failed: the next one may be well (accept(2), "Error
#: handling"; EPERM is a firewall's).
_ITS_OWN: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    }
)


class Gate:
    """*accept* makes an accepted one's protocol; *reserved* counts descriptors, those of so many more clients too;
    *make_room* frees so many, or as many as serve nobody at present."""

    def __init__(
        self,
        socks: Sequence[socket.socket],
        accept: Callable[[], asyncio.Protocol],
        reserved: Callable[[int], int],
        make_room: Callable[[int], None],
        pauses: Counter,
        log: Log,
    ) -> None:
        self._socks = socks
        self._accept = accept
        self._reserved = reserved
        self._make_room = make_room
        self._pauses = pauses
        self._log = log
        self._loop = asyncio.get_running_loop()
        #: Descriptors that are no connections.
        self._base = len(os.listdir("/proc/self/fd"))
        #: Sockets that are accepted and have no transport yet.
        self._entering: set[asyncio.Task[object]] = set()
        #: Set while accepting pauses.
        self._retry: asyncio.TimerHandle | None = None
        self._reason = ""
        #: When room may be made again, the loop's time.
        self._room_due = 0.0
        #: Whether the log says that it pauses, and since when the next pause is logged, seconds of the loop's time.
        self._is_logged = False
        self._quiet_until = 0.0

    def open(self) -> None:
        """Accept connections from now on."""
        for sock in self._socks:
            self._loop.add_reader(sock.fileno(), self._come, sock)

    def close(self) -> None:
        """Accept no more, ever."""
        if self._retry is not None:
            self._retry.cancel()
        self._shut()

    def _shut(self) -> None:
        for sock in self._socks:
            self._loop.remove_reader(sock.fileno())

    def _come(self, sock: socket.socket) -> None:
        """Somebody waits on *sock*."""
        room = int(self._left(FULL)) // 2
        for _ in range(min(room, BATCH)):
            try:
                client, _address = sock.accept()
            except BlockingIOError:
                return  # another worker that shares the socket was quicker, or these were all
            except OSError as error:
                if error.errno in _ITS_OWN:
                    continue
                self._pause(f"accept fails: {error.strerror or error!r}")
                self._clear()  # what nobody counts here takes descriptors too, so that there seems to be room
                return
            self._enter(client)
        if room <= 0:
            self._pause("too few file descriptors are left")

    def _enter(self, client: socket.socket) -> None:
        """Give *client* its transport and protocol, which takes some turns of the loop."""
        if self._is_logged:
            self._is_logged = False
            self._log.info("accepting goes on")
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._accept, client))
        self._entering.add(task)
        task.add_done_callback(self._entered)

    def _entered(self, task: asyncio.Task[object]) -> None:
        self._entering.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("an accepted connection could not be taken in", error=repr(error))

    def _left(self, share: float) -> float:
        """Descriptors that are not taken of *share* of the limit, which may change as the process runs."""
        taken = self._base + self._reserved(len(self._entering))
        return share * resource.getrlimit(resource.RLIMIT_NOFILE)[0] - taken

    def _pause(self, reason: str) -> None:
        self._shut()
        self._reason = reason
        self._pauses.value += 1
        self._wait()

    def _wait(self) -> None:
        self._retry = self._loop.call_later(RETRY_DELAY, self._try)
        if not self._is_logged and self._loop.time() >= self._quiet_until:
            self._is_logged = True
            self._quiet_until = self._loop.time() + QUIET_TIME
            self._log.warning("accepting pauses", reason=self._reason)

    def _try(self) -> None:
        """Go on accepting once there is room again."""
        self._retry = None
        if self._left(ROOM) <= 0:
            self._clear()
            self._wait()
            return
        self.open()

    def _clear(self) -> None:
        """Have those make room that serve nobody, now and then."""
        if self._loop.time() >= self._room_due:
            self._room_due = self._loop.time() + ROOM_INTERVAL
            self._make_room(BATCH)


def raise_limit() -> None:
    """Take as many descriptors as the administrator allows: the soft limit is often 1024 for old programs' sake."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
