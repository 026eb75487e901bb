"""Client connections: requests read in order, answered, and who is told when one does not come.

Owns `ClientConnection`, one client's connection. It refuses policy: what a request means is the front's, how its call
goes on is the proxy's; its other half, the socket that is written and ends (`gateway.client_socket`); and what all
connections share (`gateway.clients`, which makes one for each accepted socket).

Requests are taken one at a time: while a call runs, what a client pipelines stays unread bytes, bounded. Reading goes
on meanwhile, because a socket that is not read does not tell that its client left (RELIABILITY 3.2).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from gateway import sockets
from gateway.call import Call
from gateway.client_socket import (
    ANSWERING,
    HELD_LIMIT,
    IDLE,
    READING,
    TO_ANSWERING,
    TO_IDLE,
    TO_READING,
    TO_WAITING,
    ClientSocket,
)
from gateway.clock import NEVER, monotonic_ns
from gateway.errors import Fault, Kind, Side, refusal
from gateway.intake import BodyIntake, take_budget
from protocols.http1.errors import WireError
from protocols.http1.fields import Role
from protocols.http1.request import RequestHeads, after_empty_lines

if TYPE_CHECKING:
    from gateway.clients import Clients

_CR: Final = 13
_EXPECT: Final = int(Role.EXPECT)


class ClientConnection(ClientSocket):
    """One client. IDLE > READING > WAITING > ANSWERING > IDLE."""

    __slots__ = (
        # connection
        *("_open", "_heads", "_left", "_held_scan"),
        # request
        *("_start", "_body"),
    )

    def __init__(self, all: Clients, address: str = "") -> None:
        """*address* is the client's, where it is known from elsewhere than the socket."""
        super().__init__(all, address)
        # connection
        self._open = all.front.open
        self._heads = RequestHeads(all.fields, all.limits.head)
        #: Requests that it may still bring.
        self._left = all.limits.keepalive_requests
        #: Of the bytes held, those that were searched for a head's end.
        self._held_scan = 0
        # request
        self._start = 0
        self._body: BodyIntake | None = None

    # The loop's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        sockets.send_at_once(transport)
        sockets.bound_writes(transport)
        everyone = self._all
        self.address = self.address or sockets.address_of(transport)
        if everyone.front.trusts(self.address):
            self._open = everyone.front.open_forwarded
        everyone.open.add(self)
        self.deadline = everyone.clock.now + everyone.limits.header_timeout
        if everyone.full():
            self._refuse(Fault(Side.GATEWAY, Kind.OUT_OF_BUDGET, "Too many connections."))

    def data_received(self, data: bytes) -> None:
        try:
            state = self.state
            if state is IDLE and self._patience is not None:
                self._hold(data)  # no further answer for a client that does not read the last one
            elif state is IDLE:
                self._start = monotonic_ns()
                self._read_head(self._held + data if self._held else data)
            elif state is READING:
                if self._body is not None:
                    self._read_body(data)
                else:
                    self._read_head(self._held + data)
            elif self._farewell is not None:
                self._farewell.discard(len(data))
            else:
                self._hold(data)
        except Exception as error:  # an error here must not pass for a fault of the transport
            self._raised(error)

    # Reading a request.

    def _read_head(self, data: bytes) -> None:
        """*data* is everything since the last request, and no head in it is complete yet."""
        if data[0] == _CR:
            data = after_empty_lines(data)
            if not data:
                self._held = b""
                return
        everyone = self._all
        heads = self._heads
        try:
            request = heads.read(data, self._held_scan)
        except WireError as error:
            self._refuse(refusal(error), data)
            return
        if request is None:
            self._wait_for_head(data)
            return
        if self._held:
            self._held = b""
            self._held_scan = 0
        self._left -= 1
        self.chunked = request.http_1_1
        self.reusable = request.keep_alive and self._left > 0
        open_call = self._open  # no method: cheaper through a name
        call, fault = open_call(self, request, self._start)
        self._call = call
        body = data[heads.size :]
        if fault is None and len(body) == request.length and not request.chunked:
            # The usual case: one request, whole, in one read.
            fault = take_budget(call, len(body), everyone.limits) if body else None
            if fault is None:
                self._complete(call, body, self._start)
            else:
                self._refuse(fault, body)
            return
        self._go_on(call, fault, body)

    def _go_on(self, call: Call, fault: Fault | None, rest: bytes) -> None:
        """The head is read, but the request did not come alone in one read, or cannot be served."""
        request = call.request
        if fault is None and request.length and not request.chunked:
            fault = take_budget(call, request.length, self._all.limits)
        if fault is not None:
            self._refuse(fault, rest)
        elif not request.chunked and len(rest) >= request.length:
            self._held = rest[request.length :]
            self._complete(call, rest[: request.length], self._start)
        else:
            self._begin_body(call)
            if rest:
                self._read_body(rest)
            elif request.special[_EXPECT] is not None and request.http_1_1:
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _wait_for_head(self, data: bytes) -> None:
        try:
            self._heads.judge_begun(data, self._held_scan)
        except WireError as error:
            self._refuse(refusal(error), data)
            return
        if data and self.state is IDLE:
            self.state = TO_READING[self.state]
            self.deadline = self._all.clock.now + self._all.limits.header_timeout
        self._held = data
        self._held_scan = max(0, len(data) - 3)

    def _begin_body(self, call: Call) -> None:
        """The body is still coming."""
        if self.state is IDLE:
            self.state = TO_READING[self.state]
        self._body = BodyIntake(call, self._all.limits)
        self.deadline = self._all.clock.now + self._all.limits.body_timeout

    def _read_body(self, data: bytes) -> None:
        call, body = self._call, self._body
        assert call is not None and body is not None
        before = body.size
        fault = body.feed(data)
        if fault is not None:
            self._refuse(fault)
        elif body.complete:
            self._body = None
            self._held = body.excess
            self._complete(call, body.body, monotonic_ns())
        else:
            if body.size > before:  # framing alone is no progress
                self.deadline = self._all.clock.now + self._all.limits.body_timeout
            if len(data) >= sockets.FLOOD_READ:
                sockets.read_later(self._transport, self._take_turn)

    def _complete(self, call: Call, body: bytes, now: int) -> None:
        self.deadline = NEVER
        self.state = TO_WAITING[self.state]
        call.body = body
        call.bytes_in = len(body)
        call.at_begin = now
        if call.operation is None:
            self._all.proxy.begin(call)
        else:
            self._all.front.operate(call)

    # Writing an answer: the face that the relay sees (call.Client).

    def answer(self, data: bytes) -> None:
        everyone = self._all
        self.state = state = TO_ANSWERING[self.state]
        self.deadline = everyone.clock.now + everyone.limits.keepalive_timeout  # a write that stalls shortens it
        transport = self._transport
        if not transport.is_closing():
            transport.write(data)
        if self._held or not self.reusable or everyone.draining:
            self.answered()
            return
        self._call = None
        self.state = TO_IDLE[state]

    def answered(self) -> None:
        self._call = None
        if self.state is not ANSWERING:
            return
        everyone = self._all
        if not self.reusable or everyone.draining:
            self._close()
            return
        self.state = TO_IDLE[self.state]
        self._rest()
        if self._held and self._patience is None and everyone.loop is not None:
            everyone.loop.call_soon(self._next)

    def _next(self) -> None:
        """A pipelined request waits in what is held; more is read when little is left of that."""
        if self.state is not IDLE or not self._held:
            return
        self.data_received(b"")
        if self.state is READING or len(self._held) <= HELD_LIMIT:
            self._read_on()

    # Ends.

    def adopt(self) -> None:
        """The configuration changed: what was found out about this client and its heads no longer holds."""
        front = self._all.front
        self._open = front.open_forwarded if front.trusts(self.address) else front.open
        self._heads = RequestHeads(self._all.fields, self._all.limits.head)

    def wear_out(self) -> None:
        """Take one more request at most."""
        self._left = min(self._left, 1)

    def close_if_idle(self) -> None:
        """Take no further request after the one that is being read or answered; close at once if there is none."""
        self._left = 0
        self.reusable = False
        if self.state is IDLE:
            self._close()

    def rests_since(self, moment: float) -> bool:
        """Whether it owes nothing, and its client sent nothing since *moment* at the least."""
        limits = self._all.limits
        rested_from = self.deadline - (limits.keepalive_timeout if self._start else limits.header_timeout)
        return self.state is IDLE and self._patience is None and rested_from <= moment

    def expired(self) -> None:
        """The deadline of the present state is past."""
        state = self.state
        if self._farewell is not None:
            self._farewell.expired()
            self.deadline = self._farewell.deadline
        elif self._patience is not None:
            if self._patience.is_spent():
                self._cut_off()
            else:
                self.deadline = self._patience.ends
        elif state is IDLE:
            self._close()
        elif state is READING:
            text = "The request did not come in time."
            self.give_up_reading(Fault(Side.CLIENT, Kind.SLOW_REQUEST, text, timed_out=True))

    def give_up_reading(self, fault: Fault) -> None:
        """Answer *fault* to a request that is still coming; nothing where none is."""
        if self.state is READING:
            self._refuse(fault)

    def give_up(self, fault: Fault) -> None:
        """End what it is busy with, at once. A client that takes nothing cannot be told, and is cut off."""
        unsent = self.unsent
        if self.state is READING:
            self._refuse(fault)
        elif self._call is not None:
            self._all.proxy.stop(self._call, fault)
        if unsent:
            self.abort()

    def _refuse(self, fault: Fault, rest: bytes = b"") -> None:
        """Answer before all was read; the connection lives on only if *rest* is the rest of the request.

        Where there is no request, *rest* is what came in place of one.
        """
        call, front = self._call, self._all.front
        if call is None:
            call = front.no_request(self, self._start or monotonic_ns(), rest)
            self.reusable = False
        elif self._body is None and not call.request.chunked and len(rest) >= call.request.length:
            self._held = rest[call.request.length :]
        else:
            self.reusable = False
        self._body = None
        self.deadline = NEVER
        self.state = TO_WAITING[self.state]
        front.refuse(call, fault)

    def _raised(self, error: Exception) -> None:
        self._all.log.raised("a step of a call raised", error)
        if self._call is not None:
            self._all.proxy.crashed(self._call)
        else:
            self.abort()

    def __repr__(self) -> str:
        return f"<ClientConnection {self.state.name} {self.address} left={self._left}>"
