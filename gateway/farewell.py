"""The end of a client's connection: its last answer leaves, and what it still sends is read and thrown away.

Owns `Farewell`: how a connection is closed, for how long it lingers, and how much it swallows meanwhile; and `Patience`
with a client that does not read. It refuses to decide that a connection ends (`gateway.downstream` and
`gateway.arrival`, which make one when it does) and to wait (the sweep asks it).
"""

from __future__ import annotations

import asyncio
from typing import Final

from gateway import sockets
from gateway.clock import NEVER, Clock

#: After an early answer: seconds and bytes of the rest of the request that are read, so that the kernel does not reset
#: the connection and destroy the answer in the client's buffer (RFC 9112 section 9.6).
LINGER_TIME: Final = 2.0
LINGER_LIMIT: Final = 1 << 20


class Patience:
    """How long a client may take nothing of what is queued for it: any byte that it takes gives it *seconds* anew."""

    __slots__ = ("_clock", "_seconds", "_transport", "_untaken", "ends")

    def __init__(self, transport: asyncio.Transport, clock: Clock, seconds: float) -> None:
        self._transport = transport
        self._clock = clock
        self._seconds = seconds
        self._untaken = sockets.untaken(transport)
        #: Monotonic seconds.
        self.ends = clock.now + seconds

    def is_spent(self) -> bool:
        """Whether its end is past, and nothing was taken meanwhile."""
        now = self._clock.now
        if now < self.ends:
            return False
        before, self._untaken = self._untaken, sockets.untaken(self._transport)
        self.ends = now + self._seconds
        return self._untaken >= before > 0


class Farewell:
    """One connection that ends. Its owner says how: `close`, or `break_off` where the answer is not whole."""

    __slots__ = ("_discarded", "_patience", "_transport", "deadline")

    def __init__(self, transport: asyncio.Transport, clock: Clock, seconds: float) -> None:
        """*seconds*: the client must take at least a byte of what is queued for it in that time."""
        self._transport = transport
        self._patience = Patience(transport, clock, seconds)
        self._discarded = 0
        #: Monotonic seconds at which `expired` is to be called.
        self.deadline = self._patience.ends if sockets.untaken(transport) else clock.now + LINGER_TIME

    def close(self, *, client_ended: bool) -> None:
        """Send what is queued, say FIN, and read on for a moment, unless the client said FIN itself."""
        transport = self._transport
        if client_ended or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()

    def break_off(self, *, told: bool) -> None:
        """End an answer that is broken. *told*: what was sent says so, by its framing or in words."""
        if told:
            self._transport.close()
        else:
            sockets.reset(self._transport)  # a FIN would look like the proper end of a body that ends with it

    def discard(self, size: int) -> None:
        """*size* bytes more came; one that sends on and on is cut off."""
        self._discarded += size
        if self._discarded > LINGER_LIMIT:
            self._transport.abort()

    def expired(self) -> None:
        """The last answer has had its time, unless the client is still taking it."""
        if sockets.untaken(self._transport) and not self._patience.is_spent():
            self.deadline = self._patience.ends
        else:
            self.deadline = NEVER
            self._transport.abort()
