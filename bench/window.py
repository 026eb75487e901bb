"""The measured window as a load process knows it: told by the parent through standard input once work runs
steadily.

Owns the process's talk with its parent, both directions. It refuses to measure: the parent reads the CPU
clocks at the same two instants (`measure`). Made by `load`.
"""

from __future__ import annotations

import math
import os
import sys
import time
from typing import Final

import msgspec

from bench.answers import Wrong
from bench.plan import Outcome

READY: Final = b"ready\n"


class Window:
    """When to count. Until the parent has spoken it never starts, and ends when the time limit does."""

    __slots__ = ("_announced", "_deadline", "end", "fd", "start")

    def __init__(self, limit_s: float) -> None:
        #: Register this descriptor for reading, and call `told` when it is readable.
        self.fd = sys.stdin.fileno()
        #: CLOCK_MONOTONIC nanoseconds: start <= t < end is in the window.
        self.start = math.inf
        self.end: float = time.monotonic_ns() + limit_s * 1e9
        self._deadline = self.end
        self._announced = False

    def ready(self) -> None:
        """Tell the parent, once, that the work runs steadily."""
        if not self._announced:
            self._announced = True
            os.write(sys.stdout.fileno(), READY)

    def told(self) -> None:
        """Read the two instants; the process ends where the parent has gone."""
        line = os.read(self.fd, 100)
        if not line:
            raise SystemExit("the parent is gone")
        start, end = line.split()
        self.start, self.end = int(start), int(end)

    def check(self, waiting_for: str) -> None:
        """Wrong where the time limit of the plan has passed."""
        if time.monotonic_ns() > self._deadline:
            raise Wrong(f"time is up; still waiting for {waiting_for}")

    def report(self, outcome: Outcome) -> None:
        """Hand the outcome to the parent; the last word of the process."""
        if self.start == math.inf:
            raise Wrong("time is up; the parent told no window")
        sys.stdout.buffer.write(msgspec.msgpack.encode(outcome))
        sys.stdout.buffer.flush()
