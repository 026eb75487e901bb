"""One upstream connection and the exchange that it carries.

Owns `UpstreamConnection`: sending a request, parsing the answer's head, decoding its body, and the proof that the
connection is clean before it is reused. It refuses to connect (`pool`), to choose a peer and to retry. Made by the
pool for each connection that it opens.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from gateway import sockets
from gateway.call import Receiver
from gateway.errors import Fault, Kind, Retry, Side
from gateway.upstream.rest import Rest
from protocols.http1.errors import WireError
from protocols.http1.framing import Decoder
from protocols.http1.response import HEAD_LIMIT, ResponseHead, ResponseHeads
from protocols.http1.state import UPSTREAM_MOVES, UpstreamState, moves_to

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool

#: Interim answers (100, 102, 103) before the final one; more is a peer gone mad.
INTERIM_LIMIT: Final = 10

# Bound once: reading a member from its enum class costs ten times a global (0.13 us), here a dozen times a call.
IDLE, SENT, STREAMING, CLOSED = UpstreamState
_TO_IDLE, _TO_SENT, _TO_STREAMING, _TO_CLOSED = (moves_to(UPSTREAM_MOVES, state) for state in UpstreamState)


def _yes() -> bool:
    return True


class UpstreamConnection(asyncio.Protocol):
    """IDLE > SENT > STREAMING > IDLE or CLOSED. As an `Exchange` it can be aborted, paused and resumed.

    It goes back to its pool from one place only (`_release`): the request was fully written, the answer is complete,
    nothing came after it, and the peer keeps the connection open.
    """

    __slots__ = (
        "_decoder",
        "_heads",
        "_held",
        "_interim",
        "_paused",
        "_persistent",
        "_pool",
        "_receiver",
        "_transport",
        "address",
        "has_unread",
        "is_closing",
        "served",
        "stale_at",
        "state",
    )

    def __init__(self, pool: Pool) -> None:
        # connection
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        #: Where it leads, if its peer is a name; else empty.
        self.address = ""
        self.state = IDLE
        self._heads = ResponseHeads()
        self.served = 0
        #: Monotonic seconds after which it is too old to be reused; set while idle.
        self.stale_at = 0.0
        # exchange
        self._receiver: Receiver | None = None
        self._decoder: Decoder | None = None
        self._held = b""
        self._interim = 0
        self._persistent = False
        self._paused = False

    # What its owners do.

    def send(self, receiver: Receiver, request: bytes) -> None:
        """Begin *receiver*'s exchange: write the whole request, in one write."""
        self.state = _TO_SENT[self.state]
        self._receiver = receiver
        receiver.exchange = self
        assert self._transport is not None
        self._transport.write(request)
        receiver.sent()

    def abort(self) -> None:
        """Give the exchange and the connection up at once."""
        self._receiver = None
        self._drop()

    def leave(self) -> None:
        """The exchange's receiver has all that it wants. The connection goes back once the body is complete, if that is
        soon, and is given up otherwise: until then it is nobody's.
        """
        decoder = self._decoder
        if decoder is None:
            self.abort()
        elif decoder.complete:
            self._release(not decoder.excess)
        else:
            self._receiver = Rest(self, self._pool)
            self.resume()
            self._pool.rest_begun(self)

    def wear_out(self) -> None:
        """Close after the running exchange. Said in the words of its transport, so that no exchange has more to ask."""
        if self._transport is not None:
            self.is_closing = _yes

    def pause(self) -> None:
        # Without an exchange it may be another call's next, whom nobody would resume.
        if not self._paused and self._transport is not None and self._receiver is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None and self.state is not CLOSED:
            self._paused = False
            self._transport.resume_reading()

    # The loop's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        #: Whether the transport knows already that it ends.
        self.is_closing = transport.is_closing
        #: Whether something has come that the loop has not read.
        self.has_unread = sockets.ear(transport)
        sockets.send_at_once(transport)

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        try:
            if self.state is STREAMING:
                self._take_body(data)
            elif self.state is SENT:
                self._take_head(self._held + data if self._held else data)
            elif self.state is IDLE:
                self.abort()  # bytes nobody asked for: whose answer would they be?
        except WireError as error:
            text = f"The upstream's answer is not valid: {error}."
            self._fail(Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE, is_final=True))
        except Exception as error:  # an error in a step must not pass for a fault of the transport
            self._crashed(error, receiver)

    def eof_received(self) -> None:
        """The peer says that nothing more comes: by its FIN, over TLS by its close_notify (RFC 9112 section 9.8)."""
        self._over(told=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection broke. Over TLS a bare FIN comes here too: what it ends may have been cut by anybody."""
        self._over(told=False)

    # Steps of an exchange.

    def _take_head(self, data: bytes) -> None:
        receiver = self._receiver
        assert receiver is not None
        heads = self._heads
        head = heads.read(data)
        if head is None:
            self._wait_for_head(data)
            return
        body = data[heads.size :]
        if head.status < 200:
            self._pass_interim(head, body)
            return
        if self._held:
            self._held = b""
            self._pool.head_came(self)
        self._persistent = head.persistent
        if head.keep_alive_timeout or head.keep_alive_max:
            self._obey_keep_alive(head)
        if self._interim:
            self._interim = 0
        self.state = _TO_STREAMING[self.state]
        if len(body) == head.length:
            # The usual answer that is no stream: whole, in one read.
            self._release(True)
            receiver.whole(head, body)
            return
        self._decoder = head.decoder()
        receiver.head(head)
        if body and self._receiver is receiver:
            self._take_body(body)

    def head_is_late(self) -> None:
        """The head began to come, and its time is over."""
        receiver = self._receiver
        text = "The upstream's response head did not come to its end in time."
        try:
            self._fail(Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE, timed_out=True))
        except Exception as error:
            self._crashed(error, receiver)

    def _wait_for_head(self, data: bytes) -> None:
        self._pool.head_begun(self)
        self._held = data
        if len(data) > HEAD_LIMIT:
            text = "The upstream's response head is too large."
            self._fail(Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE, is_final=True))

    def _pass_interim(self, head: ResponseHead, rest: bytes) -> None:
        """100, 102, 103: not the answer (RFC 9110 section 15.2). 101 was never asked for."""
        self._interim += 1
        if head.status == 101 or self._interim > INTERIM_LIMIT:
            text = "The upstream switched protocols or sent too many interim answers."
            self._fail(Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE, is_final=True))
            return
        self._pool.head_came(self)
        self._held = rest
        if rest:
            self._take_head(rest)

    def _take_body(self, data: bytes) -> None:
        receiver, decoder = self._receiver, self._decoder
        assert receiver is not None and decoder is not None
        payload = decoder.feed(data)
        sink = receiver.sink
        if sink is None:
            receiver.feed(payload)
        elif decoder.verbatim:
            sink.feed(payload, data)
            return  # exactly one chunk, so not the last one, which has no payload
        else:
            sink.feed(payload)
        if self._receiver is not receiver:
            return
        if decoder.complete:
            self._finish()
        elif len(data) >= sockets.FLOOD_READ and self._transport is not None:
            sockets.read_later(self._transport, self._take_turn)

    def _take_turn(self) -> None:
        """A flood's turn has come again."""
        if not self._paused and self._transport is not None and self.state is not CLOSED:
            self._transport.resume_reading()

    def _over(self, *, told: bool) -> None:
        """Nothing more comes. *told*: the peer said so, which is the proper end of a body that ends by it."""
        if self.state is CLOSED:
            return
        receiver, decoder = self._receiver, self._decoder
        try:
            if told and decoder is not None and decoder.at_eof():
                self._finish()
            else:
                self._fail(self._loss())
        except Exception as error:
            self._crashed(error, receiver)

    def _finish(self) -> None:
        """The answer is complete. The connection goes back first, so that the next call finds it."""
        receiver, decoder = self._receiver, self._decoder
        assert receiver is not None and decoder is not None
        self._release(not decoder.excess)
        receiver.end()

    def _release(self, clean: bool) -> None:
        """Go back to the pool, or close: the one place from which a connection is reused."""
        transport, is_closing = self._transport, self.is_closing
        assert transport is not None
        self._receiver = self._decoder = None
        if self._paused:
            self.resume()  # its client reads slowly, but the answer is here
        if (
            clean
            and self._persistent
            and not is_closing()
            and transport.get_write_buffer_size() == 0  # the request was written to its end
            and self._pool.give(self)
        ):
            self.served += 1
            self.state = _TO_IDLE[self.state]
        else:
            self._drop()

    def _fail(self, fault: Fault) -> None:
        """The exchange broke: give the connection up, then report."""
        receiver, self._receiver = self._receiver, None
        self._decoder = None
        self._drop()
        if receiver is not None:
            receiver.fail(fault)

    def _drop(self) -> None:
        if self.state is not CLOSED:
            self.state = _TO_CLOSED[self.state]
            self._pool.closed(self)
        transport = self._transport
        if transport is not None:
            # A transport whose connect was cancelled keeps its protocol: only letting go of it frees both.
            self._transport = None
            self.is_closing = _yes
            transport.abort()

    def _crashed(self, error: Exception, receiver: Receiver | None) -> None:
        self._pool.crashed(error)
        self._receiver = self._decoder = None
        self._drop()
        if receiver is not None:
            receiver.crashed()

    def _loss(self) -> Fault:
        """What the loss of the connection means in its present state."""
        if self.state is STREAMING:
            text = "The upstream broke off its answer."
            return Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, text, Retry.REPEATABLE)
        begun = self._held or self._interim
        reused = self._receiver is not None and self._receiver.reused
        retry = Retry.REUSED if reused and not begun else Retry.REPEATABLE
        return Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, "The upstream closed the connection unanswered.", retry)

    def _obey_keep_alive(self, head: ResponseHead) -> None:
        if head.keep_alive_timeout:
            self._pool.told_timeout(head.keep_alive_timeout)
        if head.keep_alive_max and head.keep_alive_max <= self.served + 1:
            self._persistent = False  # the peer announced that it closes after so many requests

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.state.name} served={self.served}>"
