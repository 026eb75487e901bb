"""A bound on what is awaited, to the millisecond: a connect, an answer to an inquiry.

Owns one timer of the loop for each wait. It refuses a call's deadlines (`gateway.clock`: the sweep looks at them).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.clock import STALL


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Bound what is awaited inside, as asyncio.timeout does; time in which the loop stood still is given back, once.

    Raises TimeoutError.
    """
    async with asyncio.timeout(None) as timeout:
        limit = _Limit(timeout, seconds)
        try:
            yield
        finally:
            limit.handle.cancel()


class _Limit:
    """When what is awaited has had its time."""

    __slots__ = ("_timeout", "handle")

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timeout = timeout
        self.handle = loop.call_later(seconds, self._passed, loop.time() + seconds)

    def _passed(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        late = loop.time() - due
        if late < STALL:
            self._timeout.reschedule(loop.time())
        else:
            self.handle = loop.call_later(late, self._timeout.reschedule, 0.0)
