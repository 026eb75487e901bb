"""The connections of one peer: opened on demand, kept idle for reuse, closed when they are worn or too old.

Owns `Pool` and `Address`. It refuses exchanges (`connection`) and the choice among peers. Made by
`gateway.estate.Estate` for each peer.

All changes are in synchronous functions (`take_nowait`, `give`, `closed`), so no cancellation can come between. Idle
connections are LIFO: the warmest is reused, the others age and go. Two connections may serve the same calls only if
scheme, host, port, TLS options and credentials are the same: a pool belongs to one peer of one backend, so they are.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.clock import Clock
from gateway.secure import secure
from gateway.upstream.connection import CLOSED, UpstreamConnection
from gateway.upstream.dial import Dialler
from gateway.upstream.resolver import Name

#: TLS handshakes towards one peer at once: each costs milliseconds of CPU, and a burst would stall the loop. Each peer
#: has its own bound, so that one that never answers keeps no other from being reached.
HANDSHAKES_LIMIT: Final = 16
#: Seconds from an answer's first byte to the end of its head, which a peer that means well sends in one piece.
HEAD_TIME: Final = 10.0
#: Seconds from a stream's last event to the end of its body, which a peer that means well sends at once. Waiting for it
#: costs a connection; not waiting would cost a new one for each stream whose end comes in two reads.
REST_TIME: Final = 1.0
#: A peer that tells its keep-alive timeout gets this much of it: the rest is for the race with its FIN.
TOLD_SHARE: Final = 0.8


class Address(NamedTuple):
    """Where a peer listens. *tls* is None for plain http; *server_name* is what its certificate must name.

    *host* is an IP address, unless the pool has a `Dialler`.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    server_name: str


class Pool:
    """Idle and busy connections of one peer. Seconds."""

    __slots__ = (
        "_clock",
        "_dialler",
        "_handshakes",
        "_heads_due",
        "_idle_timeout",
        "_max_idle",
        "_on_crash",
        "_on_reopen",
        "_rests_due",
        "address",
        "all",
        "connecting",
        "idle",
        "name",
    )

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        max_idle: int,
        idle_timeout: float,
        clock: Clock,
        on_crash: Callable[[Exception], None],
        dialler: Dialler | None = None,
    ) -> None:
        #: Its backend's.
        self.name = name
        self.address = address
        #: For a peer that is a name; None for one that is an address.
        self._dialler = dialler
        self._max_idle = max_idle
        #: May shrink, when the peer tells that it closes sooner.
        self._idle_timeout = idle_timeout
        self._handshakes = asyncio.Semaphore(HANDSHAKES_LIMIT)
        self._clock = clock
        self._on_crash = on_crash
        #: Once it is retired: told of each new connection.
        self._on_reopen: Callable[[Pool], None] | None = None
        self.idle: list[UpstreamConnection] = []
        #: Every connection that is open or being opened.
        self.all: set[UpstreamConnection] = set()
        self.connecting = 0
        #: Connections whose body goes on although nobody wants it -> when it must be whole.
        self._rests_due: dict[UpstreamConnection, float] = {}
        #: Connections whose answer's head has come in part -> when it must be whole.
        self._heads_due: dict[UpstreamConnection, float] = {}

    def apart(self) -> Pool:
        """A pool of the same peer that keeps no connection, and of whose connections no gauge tells."""
        return Pool(
            self.name,
            self.address,
            max_idle=0,
            idle_timeout=self._idle_timeout,
            clock=self._clock,
            on_crash=self._on_crash,
            dialler=self._dialler,
        )

    def take_nowait(self) -> UpstreamConnection | None:
        """The idle connection used last, or None. Its user brings it back with `give` or `closed`.

        The kernel is asked whether the peer sent anything since: the loop may not have come to it, and a second answer
        to the last call would be taken for the answer to the next.
        """
        idle = self.idle
        while idle:
            connection = idle.pop()
            is_closing, has_unread = connection.is_closing, connection.has_unread  # no methods: cheaper through a name
            if self._clock.now < connection.stale_at and not is_closing() and not has_unread(0):
                return connection
            connection.abort()
        return None

    @property
    def busy(self) -> int:
        """Connections that carry an exchange."""
        return len(self.all) - len(self.idle) - self.connecting

    async def open(self) -> UpstreamConnection:
        """A new connection, busy. Raises OSError or ssl.SSLError; cancelled, it leaves nothing open."""
        connection = UpstreamConnection(self)
        self.all.add(connection)
        self.connecting += 1
        if self._on_reopen is not None:
            self._on_reopen(self)
        try:
            connection.address = await self._connect(connection)
            if connection.state is CLOSED:
                raise ConnectionResetError("the peer spoke or left before it was asked")
        except BaseException:
            # A cancelled create_connection may have a socket already (cpython#131728): it is ours to close.
            connection.abort()
            raise
        finally:
            self.connecting -= 1
        if self._dialler is not None and connection.address not in self._dialler.name.addresses:
            connection.wear_out()
        return connection

    async def _connect(self, connection: UpstreamConnection) -> str:
        """Returns the address that was chosen; empty where there was no choice."""
        _, _, tls, server_name = self.address
        if tls is None:
            _, address = await self._reach(lambda: connection)
            return address
        async with self._handshakes:
            tcp, address = await self._reach(asyncio.Protocol)
            await secure(tcp, connection, tls, server_name=server_name)
            return address

    async def _reach(self, factory: Callable[[], asyncio.Protocol]) -> tuple[asyncio.Transport, str]:
        loop = asyncio.get_running_loop()
        if self._dialler is None:
            tcp, _ = await loop.create_connection(factory, self.address.host, self.address.port)
            return tcp, ""
        sock, address = await self._dialler.dial()
        try:
            tcp, _ = await loop.create_connection(factory, sock=sock)
        except BaseException:
            sock.close()
            raise
        return tcp, address

    def give(self, connection: UpstreamConnection) -> bool:
        """Keep *connection*, which is idle and proved clean; False where there are enough."""
        idle = self.idle
        if len(idle) >= self._max_idle:
            return False
        connection.stale_at = self._clock.now + self._idle_timeout
        idle.append(connection)
        return True

    def drop_idle(self, count: int) -> int:
        """Close up to *count* idle connections, those that were used first. Returns how many."""
        dropped = self.idle[:count]
        for connection in dropped:
            connection.abort()
        return len(dropped)

    def closed(self, connection: UpstreamConnection) -> None:
        """*connection* is no more."""
        self.all.discard(connection)
        self._heads_due.pop(connection, None)
        self._rests_due.pop(connection, None)
        if connection in self.idle:
            self.idle.remove(connection)

    def head_begun(self, connection: UpstreamConnection) -> None:
        """A part of an answer's head came; more parts do not prolong its time."""
        self._heads_due.setdefault(connection, self._clock.now + HEAD_TIME)

    def head_came(self, connection: UpstreamConnection) -> None:
        """The head is whole."""
        self._heads_due.pop(connection, None)

    def rest_begun(self, connection: UpstreamConnection) -> None:
        """What still comes of an answer is let go, for a while."""
        self._rests_due[connection] = self._clock.now + REST_TIME

    def rest_came(self, connection: UpstreamConnection) -> None:
        """The answer is complete."""
        self._rests_due.pop(connection, None)

    def told_timeout(self, seconds: int) -> None:
        """The peer closes idle connections after *seconds*."""
        self._idle_timeout = min(self._idle_timeout, seconds * TOLD_SHARE)

    def crashed(self, error: Exception) -> None:
        self._on_crash(error)

    def sweep(self, now: float) -> None:
        """Close idle connections that are too old to be reused, and those whose answer's head drips or never ends."""
        for connection in [connection for connection in self.idle if now >= connection.stale_at]:
            connection.abort()
        for connection in [connection for connection, due in self._heads_due.items() if now >= due]:
            connection.head_is_late()
        for connection in [connection for connection, due in self._rests_due.items() if now >= due]:
            connection.abort()

    def set_options(self, max_idle: int, idle_timeout: float) -> None:
        """As the configuration now in force has it."""
        self._max_idle = max_idle
        self._idle_timeout = idle_timeout

    def readdress(self, name: Name) -> None:
        """Connections to what is no longer an address of *name*: idle ones go now, the others after their answer."""
        if self._dialler is None or self._dialler.name is not name:
            return
        for connection in [one for one in self.all if one.address and one.address not in name.addresses]:
            if connection in self.idle:
                connection.abort()
            else:
                connection.wear_out()

    def retire(self, on_reopen: Callable[[Pool], None]) -> None:
        """The peer is no longer configured: idle connections go now, the others after their answer.

        A call of before may still open one, when it is tried again: *on_reopen* is told.
        """
        self._max_idle = 0
        self._on_reopen = on_reopen
        for connection in list(self.idle):
            connection.abort()

    def close(self) -> None:
        """Abort every connection."""
        for connection in list(self.all):
            connection.abort()

    def __repr__(self) -> str:
        host, port = self.address[:2]
        return f"<Pool {host}:{port} idle={len(self.idle)} busy={self.busy} connecting={self.connecting}>"
