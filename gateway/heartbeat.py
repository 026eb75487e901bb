"""Heartbeats: a stream that waits is sent a comment every so often, so that nobody on the way takes it for dead.

Owns which calls have them, when the next one is due, and the heads that had to be sent before the commit point. It
refuses bytes (`gateway.relay`) and what becomes of a call (`gateway.proxy`, which makes one). Off unless a backend's
`heartbeat` says otherwise.

The first heartbeat of a stream that no upstream has answered yet sends status 200 and the head: from then on whatever
goes wrong is told by an error event. The commit point is another matter, so retries and fallbacks go on as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.call import RELAYING, SETTLED, Call
from gateway.clock import Clock
from gateway.relay import EarlyHead

if TYPE_CHECKING:
    from collections.abc import Callable


class Heartbeats:
    """The calls that have heartbeats; falsy where there are none."""

    __slots__ = ("_clock", "_due", "_early")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Seconds between two beats, and when the next one is due, monotonic seconds.
        self._due: dict[Call, tuple[float, float]] = {}
        #: Heads that were sent before the commit point.
        self._early: dict[Call, EarlyHead] = {}

    def __bool__(self) -> bool:
        return bool(self._due)

    def begin(self, call: Call, every: float) -> None:
        """Let *call*, which asks for a stream, have a heartbeat whenever nothing was sent for *every* seconds."""
        if call not in self._due:
            self._due[call] = (every, self._clock.now + every)

    def end(self, call: Call) -> None:
        """*call* is over; harmless where it has none."""
        self._due.pop(call, None)
        self._early.pop(call, None)

    def early(self, call: Call) -> EarlyHead | None:
        """The head of *call*'s answer, if it was sent before there was an answer."""
        return self._early.get(call)

    def sweep(self, now: float, on_error: Callable[[Call, Exception], None]) -> None:
        """Send what is due; *on_error* is told of calls whose step raised."""
        for call in [call for call, (_, due) in self._due.items() if now >= due]:
            try:
                self._beat(call, now)
            except Exception as error:  # a bug of ours ends its own call, and no other
                on_error(call, error)

    def _beat(self, call: Call, now: float) -> None:
        assert call.phase is not SETTLED, "a finished call has a heartbeat"
        every, _ = self._due[call]
        attempt = call.attempt
        sink = attempt.sink if attempt is not None and call.phase is RELAYING else None
        early = self._early.get(call)
        if sink is not None:
            if now < sink.at_last + every:
                self._due[call] = (every, sink.at_last + every)
                return
            if not call.client.untaken:  # who takes nothing needs no more
                sink.beat()
        elif early is None:
            self._early[call] = EarlyHead(call, self._clock)
        elif not call.client.untaken:
            early.beat()
        self._due[call] = (every, now + every)
