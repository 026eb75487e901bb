"""An answer that must be whole before it can be said in another dialect.

Owns its bytes, until it is whole: within a limit, and taken from the byte budget as requests are. It refuses to
translate (`gateway.translation`). One is made by `gateway.proxy` for each answer of a translated call that is not a
stream.
"""

from __future__ import annotations

from typing import Final

from gateway.call import Attempt
from gateway.clock import Clock
from gateway.errors import Fault, Kind, Retry, Side

#: Bytes of one answer.
ANSWER_LIMIT: Final = 32 << 20


class Collector:
    """Nothing is told to the client before the answer is complete: its attempt may still be another.

    Not a sink of the commit point: the call stays on probation.
    """

    __slots__ = ("_attempt", "_body", "_clock", "_taken", "at_last")

    is_stream = False
    is_over = False
    says_error = False

    def __init__(self, attempt: Attempt, clock: Clock) -> None:
        self._attempt = attempt
        self._clock = clock
        #: One object: an answer that dribbles in by single bytes would else hold forty times what it says.
        self._body = bytearray()
        #: Bytes that are taken from the budget, in the call's name.
        self._taken = 0
        self.at_last = clock.now

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        self.at_last = self._clock.now
        call = self._attempt.call
        budget = call.budget
        size = len(payload)
        if self._taken + size > ANSWER_LIMIT:
            text = f"The upstream's answer is longer than {ANSWER_LIMIT} bytes."
            fault = Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE, is_final=True)
        elif budget.used + size > budget.limit:
            text = "The gateway holds as many bytes as it may; try again soon."
            fault = Fault(Side.GATEWAY, Kind.OUT_OF_BUDGET, text)
        else:
            budget.used += size
            call.budget_held += size
            self._taken += size
            self._body += payload
            return
        self._attempt.steps.spoiled(self._attempt, fault)

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    def release(self) -> None:
        """Give back what is held; harmless where the call gave all of it back (`Call.drop_body`), or a second time."""
        call = self._attempt.call
        held = min(self._taken, call.budget_held)
        call.budget_held -= held
        call.budget.used -= held
        self._taken = 0
        self._body = bytearray()

    def end(self) -> None:
        """The proxy takes the body."""

    def fail(self, fault: Fault) -> None:
        """Nothing was told yet that would have to be taken back."""

    def flaw(self) -> Fault | None:
        """Its framing tells."""
        return None

    def beat(self) -> None:
        """Nothing was sent yet."""
