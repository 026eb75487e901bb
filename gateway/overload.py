"""Overload: new calls are refused while memory or the loop's time runs out, and at the worst the largest call ends.

Owns the judgement, made at each sweep, and the choice of who ends. It refuses to refuse (`gateway.front` does, while it
is told to), to end (`gateway.downstream`) and to read what the system says (`gateway.memory`, `gateway.clock`). Made
once per worker by `gateway.build`.

Above `SHED` of the memory new calls are refused, above `END` the call that holds most is ended, one at a look: both
before the kernel kills the worker, and all its calls with it. Where nothing runs, nothing is to be had by waiting, so a
worker whose memory is spent otherwise still takes calls one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.errors import Fault, Kind, Side
from gateway.front import Shedding
from gateway.memory import give_back

if TYPE_CHECKING:
    from gateway.clients import Clients
    from gateway.clock import Clock
    from gateway.observe.counters import Counter, Family
    from gateway.observe.logs import Log

#: Shares of the memory at which calls are refused, no longer refused, and ended.
SHED: Final = 0.90
ROOM: Final = 0.85
END: Final = 0.95
#: Seconds between two looks at what is really in use: each first gives back what is free, for up to 30 ms.
LOOK_INTERVAL: Final = 0.25
#: Bytes that a call must hold to be ended for them: a stalled stream holds up to 250 KB; most calls hold next to
#: nothing, and to end those would help nobody.
WORTH_ENDING: Final = 64 << 10
#: Seconds between two lines about the same.
TELL_INTERVAL: Final = 10.0


class Bounds(NamedTuple):
    """Bytes of memory and seconds of lag that are too many; 0: none are."""

    memory: int
    lag: float


class Overload:
    """*resident* tells the bytes in use. `bounds` change with the configuration."""

    def __init__(
        self, clients: Clients, clock: Clock, resident: Callable[[], int], sheds: Family[Counter], log: Log
    ) -> None:
        # process
        self._clients = clients
        self._clock = clock
        self._resident = resident
        self._log = log
        self._ended = sheds.child("largest")
        self._by_memory = Shedding(
            _fault("The gateway has too little memory left and takes no new calls; try again soon."),
            sheds.child("memory"),
            closes=True,
        )
        # A connection made anew, and its handshake, would cost the loop more than the next refusal.
        self._by_lag = Shedding(
            _fault("The gateway cannot keep up and takes no new calls; try again soon."),
            sheds.child("lag"),
            closes=False,
        )
        # generation
        self.bounds = Bounds(0, 0.0)
        # from look to look
        #: Bytes, as of the last sweep.
        self.used = 0
        self._look_from = self._tell_from = 0.0
        self._was_late = False

    def sweep(self, now: float) -> None:
        """Judge, and let the front know."""
        front = self._clients.front
        before = front.shedding
        self.used = self._resident()
        if self._lacks_memory(now, before is self._by_memory):
            front.shedding = self._by_memory
        elif self._lags(before is self._by_lag):
            front.shedding = self._by_lag
        else:
            front.shedding = None
        if front.shedding is not None and before is None and now >= self._tell_from:
            self._tell_from = now + TELL_INTERVAL
            self._log.warning(front.shedding.fault.message, memory=self.used, lag=round(self._clock.lag, 3))

    def _lags(self, so_far: bool) -> bool:
        """Whether the loop is late, twice in a row: one stall that is over is no load, and sheds nobody."""
        bound, lag = self.bounds.lag, self._clock.lag
        was_late, self._was_late = self._was_late, lag >= bound > 0
        return bound > 0 and (lag >= bound / 2 if so_far else self._was_late and was_late)

    def _lacks_memory(self, now: float, so_far: bool) -> bool:
        bound = self.bounds.memory
        if not bound or self.used < (ROOM if so_far else SHED) * bound:
            return False
        if now >= self._look_from:
            self._look_from = now + LOOK_INTERVAL
            give_back()
            self.used = self._resident()
            if self.used >= END * bound:
                self._end_largest()
        return self.used >= (ROOM if so_far else SHED) * bound and self._clients.busy

    def _end_largest(self) -> None:
        largest = max(self._clients.open, key=lambda client: client.held, default=None)
        if largest is None or largest.held < WORTH_ENDING:
            return
        self._ended.value += 1
        self._log.warning("a call is ended: too little memory is left", client=largest.address, held=largest.held)
        largest.give_up(_fault("The gateway has too little memory left for this call."))


def _fault(text: str) -> Fault:
    return Fault(Side.GATEWAY, Kind.SHED, text)
