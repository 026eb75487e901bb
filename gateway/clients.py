"""All client connections of one worker, and what they share: limits, deadlines, the count, the drain.

Owns `Limits` and `Clients`. It refuses a single socket (`gateway.downstream`) and policy. Made once per worker by
`gateway.build`.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Final

from gateway.admission.budget import ByteBudget
from gateway.clock import Clock
from gateway.downstream import ClientConnection
from gateway.errors import Fault
from gateway.front import Front
from gateway.observe.logs import Log
from gateway.proxy import Proxy
from gateway.sockets import Departures
from protocols.http1.fields import FieldTable
from protocols.http1.state import ClientState

#: Seconds after its last answer for which a client is likely to ask again at once.
REST: Final = 1.0

#: Owing a client something, or being owed the rest of a request.
_BUSY: Final = frozenset({ClientState.READING, ClientState.WAITING, ClientState.ANSWERING})


class Limits:
    """What one client connection may take. Bytes and seconds."""

    __slots__ = (
        "body",
        "body_timeout",
        "connections",
        "half_close_serves",
        "head",
        "header_timeout",
        "keepalive_requests",
        "keepalive_timeout",
        "media_body",
        "send_timeout",
    )

    def __init__(
        self,
        *,
        head: int,
        body: int,
        media_body: int,
        connections: int,
        header_timeout: float,
        body_timeout: float,
        send_timeout: float,
        keepalive_timeout: float,
        keepalive_requests: int,
        half_close_serves: bool,
    ) -> None:
        self.head = head
        self.body = body
        self.media_body = media_body
        self.connections = connections
        self.header_timeout = header_timeout
        self.body_timeout = body_timeout
        self.send_timeout = send_timeout
        self.keepalive_timeout = keepalive_timeout
        self.keepalive_requests = keepalive_requests
        self.half_close_serves = half_close_serves


class Clients:
    """All client connections of one worker, and what they share."""

    __slots__ = (
        "budget",
        "clock",
        "departures",
        "draining",
        "fields",
        "front",
        "limits",
        "log",
        "loop",
        "open",
        "proxy",
    )

    def __init__(
        self,
        front: Front,
        proxy: Proxy,
        limits: Limits,
        budget: ByteBudget,
        fields: FieldTable,
        clock: Clock,
        log: Log,
    ) -> None:
        self.front = front
        self.proxy = proxy
        self.limits = limits
        self.budget = budget
        self.fields = fields
        self.clock = clock
        self.log = log
        self.loop: asyncio.AbstractEventLoop | None = None
        #: Clients whose sockets are not read, since they sent too much ahead.
        self.departures = Departures()
        self.open: set[ClientConnection] = set()
        #: True once the worker goes down: every answer says Connection: close.
        self.draining = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run on *loop*; called once, before the first connection."""
        self.loop = loop
        self.departures.start(loop)

    def connection(self, address: str = "") -> ClientConnection:
        """The loop's protocol factory. *address* is the client's where its socket does not tell it."""
        return ClientConnection(self, address)

    def full(self, arriving: int = 0) -> bool:
        """Whether these and the *arriving* are more connections than may be open."""
        return len(self.open) + arriving > self.limits.connections

    def sweep(self, now: float) -> None:
        """Act on deadlines that are past."""
        due = [connection for connection in self.open if now >= connection.deadline]
        for connection in due:
            try:
                connection.expired()
            except Exception as error:  # one connection's bug must not keep the others' deadlines from passing
                self.log.raised("a deadline's step raised", error)
                connection.abort()

    def adopt(self, front: Front, limits: Limits, fields: FieldTable) -> None:
        """Read new requests under another configuration; what is being read or answered goes on as it began."""
        front.shedding = self.front.shedding
        self.front, self.limits, self.fields = front, limits, fields
        for connection in self.open:
            connection.adopt()

    def wear_out(self) -> None:
        """From now on every answer but a running one's says Connection: close, so that no client is surprised."""
        self.limits.keepalive_requests = 1
        for connection in self.open:
            connection.wear_out()

    def shed(self, count: int) -> None:
        """Let *count* clients come back on a new connection: their next answer says Connection: close."""
        for connection in islice(self.open, count):
            connection.wear_out()

    def make_room(self, count: int) -> None:
        """Close up to *count* connections that rest: their clients come back, and others wait to come at all."""
        moment = self.clock.now - REST
        resting = (connection for connection in self.open if connection.rests_since(moment))
        for connection in list(islice(resting, count)):
            connection.close_if_idle()

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered anywhere."""
        return any(connection.state in _BUSY for connection in self.open)

    @property
    def unsent(self) -> int:
        """Bytes of answers that clients have not taken yet."""
        return sum(connection.unsent for connection in self.open)

    def drain(self) -> None:
        """Close idle connections; the others close after their answer."""
        self.draining = True
        for connection in list(self.open):
            connection.close_if_idle()

    def give_up_reading(self, fault: Fault) -> None:
        """Answer *fault* to every request that is still coming."""
        for connection in list(self.open):
            connection.give_up_reading(fault)

    def abort(self) -> None:
        """End every connection at once; called once, at the end."""
        for connection in list(self.open):
            connection.abort()
        if self.loop is not None:
            self.departures.close(self.loop)
