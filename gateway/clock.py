"""Time: a coarse monotonic now, the Date field, and one sweep for coarse deadlines.

Owns the only periodic timer of a worker. A deadline is a number that its owner compares during the sweep, because
arming and cancelling a timer for each call costs 0.9 us and asyncio.timeout 4 us; the price is that deadlines fire up
to one `SWEEP_INTERVAL` late. Fine timers (connect) use the loop's own. One Clock is made per worker by
`gateway.build`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

#: Seconds between sweeps: deadlines are seconds long, and what finished calls leave to be counted and written is to
#: stay little.
SWEEP_INTERVAL: Final = 0.05

NEVER: Final = float("inf")

#: Seconds, for deadlines; and nanoseconds, for what is measured: their differences are whole numbers.
monotonic = time.monotonic
monotonic_ns = time.monotonic_ns


class Clock:
    """`now` is monotonic seconds as of the last sweep: free to read, up to `SWEEP_INTERVAL` old."""

    __slots__ = ("_handle", "_loop", "_second", "_sweeps", "date", "now", "on_error", "on_lag")

    def __init__(self) -> None:
        self.now = monotonic()
        #: The Date field's line, renewed each second.
        self.date = b""
        #: Told what a sweep raised; and how late each sweep ran, in seconds: the loop's lag.
        self.on_error: Callable[[Exception], None] | None = None
        self.on_lag: Callable[[float], None] | None = None
        self._second = 0
        self._sweeps: list[Callable[[float], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._renew_date()

    def every_sweep(self, sweep: Callable[[float], None]) -> None:
        """Call *sweep* with the time of each sweep. It must not raise, and must not wait."""
        self._sweeps.append(sweep)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle = loop.call_later(SWEEP_INTERVAL, self._sweep, loop.time() + SWEEP_INTERVAL)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._loop = None

    def _sweep(self, due: float) -> None:
        loop = self._loop
        if loop is None:
            return
        if self.on_lag is not None:
            self.on_lag(max(0.0, loop.time() - due))
        self.now = now = monotonic()
        self._renew_date()
        self._handle = loop.call_later(SWEEP_INTERVAL, self._sweep, loop.time() + SWEEP_INTERVAL)
        for sweep in self._sweeps:
            try:
                sweep(now)
            except Exception as error:  # one sweep's bug must not stop the others, nor the clock
                if self.on_error is not None:
                    self.on_error(error)

    def _renew_date(self) -> None:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.date = b"date: " + formatdate(second, usegmt=True).encode("ascii") + b"\r\n"
