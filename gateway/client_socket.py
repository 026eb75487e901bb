"""One client's socket, whatever is asked over it: bytes out, a client that does not read or leaves, and the end.

Owns `ClientSocket`. It refuses to read requests: that is the other half, `gateway.downstream.ClientConnection`, which
is one of these; and the way in which a connection ends (`gateway.farewell`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway import sockets
from gateway.answers import LAST_WORDS
from gateway.call import Call
from gateway.clock import NEVER
from gateway.deadlines import client_stalled
from gateway.farewell import Farewell, Patience
from protocols.http1.state import CLIENT_MOVES, ClientState, moves_to

if TYPE_CHECKING:
    from gateway.clients import Clients

#: Bytes a client may pipeline behind a running call before its socket is no longer read.
HELD_LIMIT: Final = 64 << 10

# Bound once: reading a member from its enum class costs ten times a global (0.13 us), here a dozen times a call.
IDLE, READING, WAITING, ANSWERING, CLOSING, CLOSED = ClientState
TO_IDLE, TO_READING, TO_WAITING, TO_ANSWERING, TO_CLOSING, TO_CLOSED = (
    moves_to(CLIENT_MOVES, state) for state in ClientState
)


class ClientSocket(asyncio.Protocol):
    """The half of a client's connection that writes and ends."""

    __slots__ = (
        # worker
        "_all",
        # connection
        *("_transport", "address", "state", "deadline", "_eof", "_held", "_paused_reading", "_patience", "_farewell"),
        # request
        *("chunked", "reusable", "_call"),
    )

    def __init__(self, all: Clients, address: str) -> None:
        # worker
        self._all = all
        # connection
        #: Set by the first callback of all, `connection_made`.
        self._transport: asyncio.Transport
        self.address = address
        self.state = IDLE
        #: Monotonic seconds at which `expired` is to be called.
        self.deadline = NEVER
        self._eof = False
        #: Bytes that came and are not read yet.
        self._held = b""
        self._paused_reading = False
        #: Set while more is queued for the client than it takes.
        self._patience: Patience | None = None
        #: Set while the connection closes.
        self._farewell: Farewell | None = None
        # request
        self.chunked = True
        self.reusable = True
        self._call: Call | None = None

    # The loop's callbacks.

    def eof_received(self) -> bool:
        """The client's FIN: by default it has left (`server.half_close`)."""
        self._eof = True
        busy = self.state in (WAITING, ANSWERING)
        if busy and self._all.limits.half_close_serves:
            self.reusable = False
            return True
        if self._call is not None:
            self._gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            if self._call is not None:
                self._gone()
        finally:  # whatever a step of the call raised, the connection is no more
            self.state = TO_CLOSED[self.state] if self.state is not CLOSED else self.state
            self.deadline = NEVER
            self._held = b""
            if self._paused_reading:
                self._all.departures.forget(self._transport)
            self._all.open.discard(self)

    def pause_writing(self) -> None:
        everyone = self._all
        self._patience = patience = Patience(self._transport, everyone.clock, everyone.limits.send_timeout)
        self.deadline = min(self.deadline, patience.ends)
        if self._call is not None:
            everyone.proxy.pause(self._call)

    def resume_writing(self) -> None:
        self._patience = None
        if self._call is not None:
            self.deadline = NEVER
            self._all.proxy.resume(self._call)
        elif self.state is IDLE:
            self._rest()
            self._next()

    def _rest(self) -> None:
        """Wait for the next request, or for the client to take the last answer."""
        everyone = self._all
        if self._patience is not None:
            self.deadline = self._patience.ends
        else:
            self.deadline = everyone.clock.now + everyone.limits.keepalive_timeout

    def _next(self) -> None:
        """Go on to what is held of a next request."""
        raise NotImplementedError

    # Reading less.

    def _hold(self, data: bytes) -> None:
        """Bytes behind a running call: kept unread, bounded."""
        self._held += data
        if len(self._held) > HELD_LIMIT and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()
            everyone = self._all
            everyone.departures.watch(self._transport, self.abort, half_close=everyone.limits.half_close_serves)

    def _read_on(self) -> None:
        if self._paused_reading:
            self._paused_reading = False
            self._all.departures.forget(self._transport)
            self._transport.resume_reading()

    def _take_turn(self) -> None:
        """A large body's turn has come again."""
        if not self._paused_reading:
            self._transport.resume_reading()

    # Writing: part of the face that the relay sees (call.Client).

    def begin(self, data: bytes) -> None:
        self.state = TO_ANSWERING[self.state]
        transport = self._transport
        if not transport.is_closing():
            transport.write(data)
            if self._patience is not None and self._call is not None:
                self._all.proxy.pause(self._call)  # it paused within this very write

    def send(self, data: bytes) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        transport.write(data)
        if self._patience is not None and transport.get_write_buffer_size() > sockets.WRITE_LIMIT:
            self._all.log.warning("client cut off: it does not read", client=self.address)
            transport.abort()

    @property
    def untaken(self) -> int:
        return sockets.untaken(self._transport)

    @property
    def unsent(self) -> int:
        """Bytes queued for it that its socket does not take yet."""
        return self._transport.get_write_buffer_size()

    @property
    def held(self) -> int:
        """Bytes of memory that its call holds: the request's body, an answer that is collected to be translated, and
        what of an answer it does not take, the kernel's share included, which counts for a control group as ours does.
        """
        call = self._call
        return (call.budget_held if call is not None else 0) + self.untaken

    def cut(self, *, told: bool) -> None:
        self._call = None
        if self.state < CLOSING:
            self._part().break_off(told=told or self.chunked)

    def crashed(self) -> None:
        """A step of the call raised: answer so, if nothing was answered yet, and close."""
        self._call = None
        if self.state is WAITING:
            self.begin(LAST_WORDS)
            self._close()
        else:
            self.abort()

    # Ends.

    def abort(self) -> None:
        self._transport.abort()

    def _close(self) -> None:
        """Take no further request: let the last answer leave."""
        self._part().close(client_ended=self._eof)

    def _part(self) -> Farewell:
        """Begin to close."""
        everyone = self._all
        self.state = TO_CLOSING[self.state]
        self._held = b""
        self._read_on()
        self._farewell = farewell = Farewell(self._transport, everyone.clock, everyone.limits.send_timeout)
        self.deadline = farewell.deadline
        return farewell

    def _cut_off(self) -> None:
        """The client has taken nothing of its answer for too long."""
        self._all.log.warning("client cut off: it does not read", client=self.address)
        if self._call is not None:
            self._all.proxy.stop(self._call, client_stalled())
        self.abort()

    def _gone(self) -> None:
        """The client is gone: stop its call at once."""
        call, self._call = self._call, None
        assert call is not None
        if self.state is READING:
            self._all.front.gone(call)
        else:
            self._all.proxy.gone(call)
        self._transport.abort()
