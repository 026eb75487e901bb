"""Connections on their way from accept to their first request: the PROXY header, the TLS handshake.

Owns `Arrival`, one such connection, and `Arrivals`, what they share: time, the cap of handshakes, the count of those
that fail. It refuses requests (`gateway.downstream`), records (`gateway.tls`) and the header's bytes
(`protocols.proxy_protocol`). One Arrivals is made per worker by `gateway.build`; it is used where either of the
two is asked for, and costs nothing where they are not.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from enum import Enum
from typing import Final, NamedTuple, cast

from gateway import sockets
from gateway.admission.proxies import Proxies
from gateway.answers import PLAIN_TEXT
from gateway.clients import Clients
from gateway.clock import NEVER
from gateway.farewell import Farewell
from gateway.observe.counters import Counter, Family
from gateway.tls import TlsConnection
from protocols.proxy_protocol import ProxyError, read_header

#: Seconds that a handshake may take while others wait for its place: a client that means it needs far less.
HURRY: Final = 1.0


class Stage(Enum):
    """How far an arrival has come."""

    #: The PROXY header is expected.
    HEADER = "header"
    #: The first byte of a handshake is expected.
    GREETING = "greeting"
    #: It came, but as many handshakes run as may.
    QUEUED = "queued"
    SHAKING = "shaking"
    #: It was refused: a last word leaves.
    LEAVING = "leaving"
    #: It is over, or a client's connection by now.
    GONE = "gone"


#: From -> to. A missing pair is a bug.
MOVES: Final[dict[Stage, frozenset[Stage]]] = {
    Stage.HEADER: frozenset({Stage.GREETING, Stage.GONE}),
    Stage.GREETING: frozenset({Stage.QUEUED, Stage.SHAKING, Stage.GONE}),
    Stage.QUEUED: frozenset({Stage.SHAKING, Stage.GONE}),
    Stage.SHAKING: frozenset({Stage.LEAVING, Stage.GONE}),
    Stage.LEAVING: frozenset({Stage.GONE}),
    Stage.GONE: frozenset(),
}


class Terms(NamedTuple):
    """What is asked of those that arrive. *tls* is None where the listener speaks plain text."""

    tls: ssl.SSLContext | None
    #: Those that begin with a PROXY header; None where nobody does.
    proxies: Proxies | None
    #: Seconds.
    handshake_timeout: float
    max_handshakes: int

    @property
    def asked(self) -> bool:
        """Whether anything is: if not, a socket is a client's connection at once."""
        return self.tls is not None or self.proxies is not None


class Arrivals:
    """All arrivals of one worker. Another configuration sets other `terms`, for those that come from then on."""

    def __init__(self, clients: Clients, failures: Family[Counter], terms: Terms) -> None:
        self.clients = clients
        self.clock = clients.clock
        self.terms = terms
        self.open: set[Arrival] = set()
        self._failures = failures
        #: The eldest first.
        self._shaking: dict[Arrival, None] = {}
        self._queue: deque[Arrival] = deque()
        #: True while the places that are free are given to those that wait.
        self._admitting = False

    def connection(self) -> Arrival:
        """The loop's protocol factory."""
        return Arrival(self)

    def failed(self, reason: str, address: str) -> None:
        """Count one that will be no client's connection."""
        self._failures.child(reason).value += 1
        self.clients.log.debug("connection failed", reason=reason, client=address)

    def enter(self, arrival: Arrival) -> bool:
        """Take a place among the handshakes, or wait for one: then `Arrival.begin` is called in its turn."""
        if len(self._shaking) < self.terms.max_handshakes and not self._queue:
            self._shaking[arrival] = None
            return True
        self._queue.append(arrival)
        return False

    def release(self, arrival: Arrival) -> None:
        """*arrival* shakes no hands any more: its place is the next one's."""
        self._shaking.pop(arrival, None)
        if self._admitting:
            return  # one that was let in below failed at once: a call in a call for each of a queue has no end
        self._admitting = True
        try:
            while self._queue and len(self._shaking) < self.terms.max_handshakes:
                following = self._queue.popleft()
                if following.stage is Stage.QUEUED:
                    self._shaking[following] = None
                    following.begin()
        finally:
            self._admitting = False

    def sweep(self, now: float) -> None:
        """Act on deadlines that are past, and on slow handshakes where others wait."""
        due = [arrival for arrival in self.open if now >= arrival.deadline]
        if self._queue:
            due += [arrival for arrival in self._shaking if now >= arrival.began + HURRY]
        for arrival in due:
            arrival.expired()

    def abort(self) -> None:
        """End every one at once."""
        for arrival in list(self.open):
            arrival.abort()


class Arrival(asyncio.Protocol):
    """One accepted socket that is no client's connection yet."""

    __slots__ = ("_all", "_farewell", "_held", "_raw", "_terms", "_tls", "address", "began", "deadline", "stage")

    def __init__(self, all: Arrivals) -> None:
        # worker
        self._all = all
        # connection
        #: Those that it began with: what it was asked to say must not change while it says it.
        self._terms = all.terms
        self._raw: asyncio.Transport
        self.address = ""
        self.stage = Stage.GREETING
        self.deadline = NEVER
        #: Bytes that came and belong to a later stage, or to a header that is not complete.
        self._held = b""
        # the handshake
        self._tls: TlsConnection | None = None
        self.began = NEVER
        # the end
        self._farewell: Farewell | None = None

    # The loop's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = raw = cast("asyncio.Transport", transport)
        everyone = self._all
        self.address = sockets.address_of(raw)
        sockets.send_at_once(raw)
        everyone.open.add(self)
        if everyone.clients.full(len(everyone.open)):
            self._drop("too_many")
        elif self._begins_with_header():
            self.stage = Stage.HEADER
            self.deadline = everyone.clock.now + everyone.clients.limits.header_timeout
        else:
            self._greet(b"")

    def data_received(self, data: bytes) -> None:
        try:
            if self._farewell is not None:
                self._farewell.discard(len(data))
            elif self.stage is Stage.HEADER:
                self._read_header(self._held + data)
            elif self.stage is Stage.GREETING:
                self._enter(data)
            elif self._tls is not None:
                self._shake(self._tls, data)
            else:
                self._held += data
        except Exception as error:  # an error here must not pass for a fault of the transport
            self._all.clients.log.raised("an arrival's step raised", error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.stage not in (Stage.LEAVING, Stage.GONE):
            self._all.failed("client_left", self.address)
        self._go()

    # Steps.

    def _begins_with_header(self) -> bool:
        proxies = self._terms.proxies
        return proxies is not None and proxies.trusts(self.address)

    def _read_header(self, data: bytes) -> None:
        try:
            header = read_header(data)
        except ProxyError:
            self._drop("proxy_header")
            return
        if header is None:
            self._held = data
            return
        self._held = b""
        self.address = header.source or self.address
        self._greet(data[header.size :])

    def _greet(self, rest: bytes) -> None:
        """Nothing stands before TLS any more; *rest* came behind it."""
        everyone = self._all
        if self._terms.tls is None:
            self._go()
            client = everyone.clients.connection(self.address)
            self._raw.set_protocol(client)
            client.connection_made(self._raw)
            if rest:
                client.data_received(rest)
            return
        self._move(Stage.GREETING)
        self.deadline = everyone.clock.now + self._terms.handshake_timeout
        if rest:
            self._enter(rest)

    def _enter(self, data: bytes) -> None:
        self._held = data
        if self._all.enter(self):
            self.begin()
        else:
            self._move(Stage.QUEUED)
            self._raw.pause_reading()

    def begin(self) -> None:
        """A place among the handshakes is free."""
        everyone = self._all
        assert self._terms.tls is not None
        if self.stage is Stage.QUEUED:
            self._raw.resume_reading()
            # Waiting was no fault of the client's.
            self.deadline = everyone.clock.now + self._terms.handshake_timeout
        self._move(Stage.SHAKING)
        self.began = everyone.clock.now
        self._tls = tls = TlsConnection(self._raw, self._terms.tls)
        data, self._held = self._held, b""
        self._shake(tls, data)

    def _shake(self, tls: TlsConnection, data: bytes) -> None:
        try:
            done = tls.shake(data)
        except ssl.SSLError as error:
            self._refuse(error)
            return
        if done:
            self._go()
            tls.carry(self._all.clients.connection(self.address))

    # Ends.

    def expired(self) -> None:
        """The deadline of the present stage is past, or its place is wanted."""
        if self._farewell is not None:
            self._farewell.expired()
            self.deadline = self._farewell.deadline
        else:
            self._drop("proxy_header_timeout" if self.stage is Stage.HEADER else "handshake_timeout")

    def _refuse(self, error: ssl.SSLError) -> None:
        """The handshake failed: OpenSSL told a client of TLS why; one that speaks plain HTTP is told in its words."""
        everyone = self._all
        plain = error.reason == "HTTP_REQUEST"
        everyone.failed("plain_text" if plain else "handshake", self.address)
        self._move(Stage.LEAVING)
        if plain and not self._raw.is_closing():
            self._raw.write(PLAIN_TEXT)
        self._farewell = Farewell(self._raw, everyone.clock, self._terms.handshake_timeout)
        self._farewell.close(client_ended=False)
        self.deadline = self._farewell.deadline
        everyone.release(self)  # last: it runs other connections' steps

    def _drop(self, reason: str) -> None:
        self._all.failed(reason, self.address)
        self.abort()

    def abort(self) -> None:
        self._go()
        self._raw.abort()

    def _go(self) -> None:
        if self.stage is not Stage.GONE:
            self._move(Stage.GONE)
            self._all.open.discard(self)
            self._all.release(self)

    def _move(self, stage: Stage) -> None:
        assert stage is self.stage or stage in MOVES[self.stage], f"{self.stage} to {stage}"
        self.stage = stage
