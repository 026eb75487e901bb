"""Time: a coarse monotonic now, the Date field, and one sweep for coarse deadlines.

Owns the only periodic timer of a worker. A deadline is a number that its owner compares during the sweep, because
arming and cancelling a timer for each call costs 0.9 us and asyncio.timeout 4 us; the price is that deadlines fire up
to one `SWEEP_INTERVAL` late. Fine timers (`gateway.within`; the pause before a retry) use the loop's own. One Clock is
made per worker by `gateway.build`.

A process that stood still (SIGSTOP, a suspended machine, a starved one) has read nothing meanwhile: what its peers sent
waits in the kernel. So time in which the loop stood still counts for nobody's deadline, and every socket is read once
before any deadline is judged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

#: Seconds between sweeps: deadlines are seconds long, and what finished calls leave to be counted and written is to
#: stay little.
SWEEP_INTERVAL: Final = 0.1

#: Seconds by which a sweep is late where the loop stood still: no turn of a loop that is well takes as long.
STALL: Final = 0.2
#: Seconds until the next stall is left out too. A loop that stands still again and again is overloaded, and deadlines
#: that wait for it would never come.
STALL_AGAIN: Final = 10.0
#: Seconds to a sweep that waits for one turn: a timer without delay would run in the same one.
TURN: Final = 0.001

NEVER: Final = float("inf")

#: Seconds, for deadlines; and nanoseconds, for what is measured: their differences are whole numbers.
monotonic = time.monotonic
monotonic_ns = time.monotonic_ns
#: Seconds since 1970, for what is shown.
wall = time.time


class Clock:
    """`now` is seconds as of the last sweep: free to read, up to `SWEEP_INTERVAL` old; only differences mean anything.

    It is the monotonic time less that in which the loop stood still.
    """

    __slots__ = (
        "_handle",
        "_loop",
        "_second",
        "_stalled",
        "_stalls_from",
        "_sweeps",
        "date",
        "lag",
        "now",
        "on_error",
        "on_lag",
    )

    def __init__(self) -> None:
        self.now = monotonic()
        #: The Date field's line, renewed each second.
        self.date = b""
        #: Seconds by which the last sweep was late.
        self.lag = 0.0
        #: Told what a sweep raised; and how late each sweep ran, in seconds: the loop's lag.
        self.on_error: Callable[[Exception], None] | None = None
        self.on_lag: Callable[[float], None] | None = None
        self._second = 0
        #: Seconds that are left out, and when the next stall may be, monotonic.
        self._stalled = 0.0
        self._stalls_from = 0.0
        self._sweeps: list[Callable[[float], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._renew_date()

    def every_sweep(self, sweep: Callable[[float], None]) -> None:
        """Call *sweep* with the time of each sweep. It must not raise, and must not wait."""
        self._sweeps.append(sweep)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle = loop.call_later(SWEEP_INTERVAL, self._tick, loop.time() + SWEEP_INTERVAL)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._loop = None

    def _tick(self, due: float) -> None:
        loop = self._loop
        if loop is None:
            return
        self.lag = lag = max(0.0, loop.time() - due)
        if self.on_lag is not None:
            self.on_lag(lag)
        if lag < STALL:
            self._sweep()
            return
        now = monotonic()
        if now >= self._stalls_from:
            self._stalls_from = now + STALL_AGAIN
            self._stalled += lag
        self.now = now - self._stalled
        self._handle = loop.call_later(TURN, self._sweep)

    def _sweep(self) -> None:
        loop = self._loop
        if loop is None:
            return
        self.now = now = monotonic() - self._stalled
        self._renew_date()
        self._handle = loop.call_later(SWEEP_INTERVAL, self._tick, loop.time() + SWEEP_INTERVAL)
        for sweep in self._sweeps:
            try:
                sweep(now)
            except Exception as error:  # one sweep's bug must not stop the others, nor the clock
                if self.on_error is not None:
                    self.on_error(error)

    def _renew_date(self) -> None:
        second = int(wall())
        if second != self._second:
            self._second = second
            self.date = b"date: " + formatdate(second, usegmt=True).encode("ascii") + b"\r\n"
