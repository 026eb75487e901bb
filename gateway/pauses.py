"""Calls that wait before their next attempt.

Owns their timers. It refuses to decide how long they wait (`gateway.routing.retry`) and what comes then
(`gateway.proxy`, which makes one).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.call import Call


class Pauses:
    """*on_over* is told of each call whose pause is over, and *on_error* where that raised."""

    __slots__ = ("_on_error", "_on_over", "_timers")

    def __init__(self, on_over: Callable[[Call], None], on_error: Callable[[Call, Exception], None]) -> None:
        self._on_over = on_over
        self._on_error = on_error
        self._timers: dict[Call, asyncio.TimerHandle] = {}

    def begin(self, call: Call, seconds: float) -> None:
        """Let *call* wait."""
        self._timers[call] = asyncio.get_running_loop().call_later(seconds, self._over, call)

    def end(self, call: Call) -> bool:
        """Whether *call* waited; it does no longer."""
        timer = self._timers.pop(call, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def _over(self, call: Call) -> None:
        del self._timers[call]
        try:
            self._on_over(call)
        except Exception as error:  # a bug of ours ends its own call, and no other
            self._on_error(call, error)
