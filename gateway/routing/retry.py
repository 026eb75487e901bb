"""The retry law: whether and how a call goes on after a failed attempt.

Owns that one decision, and the budget that bounds it. It refuses to make the attempt (`gateway.proxy`) and to pick the
peer (`gateway.routing.balance`). A RetryBudget is made for each backend by `gateway.upstreams`.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.call import Call
from gateway.errors import Fault, Retry

if TYPE_CHECKING:
    from gateway.routing.peer import Peer
    from gateway.routing.route import Route

#: What a backend may list in `retry.on`, beside the statuses of answers.
CONNECT, REUSED, LOST, TIMEOUT = CAUSES = ("connect", "reused", "lost", "timeout")

#: Seconds: a peer that failed is asked again after a random part of BACK_OFF x (2^n - 1), n being the tries so far.
BACK_OFF: Final = 0.025
BACK_OFF_LIMIT: Final = 0.25
#: Seconds: what asks for more patience than this (Retry-After) is told to the client, who may have it.
PATIENCE: Final = 1.0

#: Repetitions that a backend without traffic may have at once, and how many a second make up for those.
RESERVE: Final = 3.0
REFILL: Final = 1.0


class Again(NamedTuple):
    """A call goes on: after *wait* seconds, under its own route or, where *fallback* is set, under that one."""

    wait: float = 0.0
    fallback: Route | None = None


class RetryBudget:
    """How many answered or lost requests of one backend may be sent again: a share of its traffic.

    When everything fails, repetitions only add to the load; so each call earns *ratio* of a repetition, and what is
    saved up is at most *ratio* of the calls under way. At least `RESERVE` repetitions are there for a backend with
    little traffic, renewed at `REFILL` a second.
    """

    __slots__ = ("_at", "_counted", "_saved", "calls", "ratio")

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        #: Calls that came to the backend so far: the router counts them.
        self.calls = 0
        self._counted = 0
        self._saved = RESERVE
        self._at = 0.0

    def take(self, now: float, active: int) -> bool:
        """Take one repetition, if there is one. *now*: monotonic seconds; *active*: calls under way in this worker."""
        if not self.ratio:
            return False
        earned = self.ratio * (self.calls - self._counted)
        if self._at:
            earned += REFILL * (now - self._at)
        self._counted = self.calls
        self._at = now
        self._saved = min(self._saved + earned, max(RESERVE, self.ratio * active))
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True


def cause_of(fault: Fault) -> str | int:
    """What *fault* is called in `retry.on` and in metrics: a word of `CAUSES`, or the status that was answered."""
    if fault.answered:
        return fault.answered
    if fault.retry is Retry.UNSENT:
        return CONNECT
    if fault.retry is Retry.REUSED:
        return REUSED
    return TIMEOUT if fault.timed_out else LOST


def judge(call: Call, fault: Fault, now: float, active: int) -> Again | None:
    """How *call* goes on after *fault*; None: not at all, and the client is told. *now*: monotonic seconds.

    | fault.retry | means                                         | again under the same route, up to `retry.tries`    |
    |-------------|-----------------------------------------------|----------------------------------------------------|
    | UNSENT      | no byte reached the peer                      | any endpoint; cause "connect"                      |
    | REUSED      | lost on a reused connection before any answer | if repeatable, once and beyond `tries`; "reused"   |
    | REPEATABLE  | sent, and no usable answer                    | if repeatable and the budget has one left; "lost", |
    |             |                                               | "timeout", or the status of the answer             |
    | NEVER       | the request is at fault, or the answer begun  | no                                                 |

    Only causes that the backend lists in `retry.on`, and only while the circuit of some peer is closed: where all are
    known to fail, asking again only adds to the load. An endpoint is repeatable if it only generates, or if the client
    sent an Idempotency-Key. Another peer is tried at once; one that failed already after a jittered pause, or when
    Retry-After says, if that is soon. What would begin after the call's total time is not begun.

    What is not tried again there goes on under the route's next fallback: any fault of the upstream's does, listed or
    not, if nothing was sent or the endpoint is repeatable. An upstream that asks not to be asked again
    (`x-should-retry: false`) means itself, not another. What the caller's key may not use is passed over.
    """
    route = call.route
    if route is None or fault.retry is Retry.NEVER or now >= call.total_deadline:
        return None
    if fault.retry is not Retry.UNSENT and not call.repeatable:
        return None
    if not fault.is_final and cause_of(fault) in route.policy.on:
        wait = _wait(call, route, fault)
        if wait <= PATIENCE and now + wait < call.total_deadline and _may(call, route, fault, now, active):
            return Again(wait)
    fallback = next((one for one in route.fallbacks if is_allowed(call, one)), None)
    return Again(fallback=fallback) if fallback is not None else None


def is_allowed(call: Call, fallback: Route) -> bool:
    """Whether the caller's key may use it; another target of the same model is what was asked for."""
    return not fallback.serves or call.principal is None or call.principal.may_use(fallback.serves)


def _may(call: Call, route: Route, fault: Fault, now: float, active: int) -> bool:
    """Whether tries and budget allow it."""
    if fault.retry is Retry.REUSED:
        return not call.lost_reused
    if len(call.tried) + 1 >= route.tries or all(peer.state.is_broken for peer in route.peers):
        return False
    return fault.retry is Retry.UNSENT or route.policy.budget.take(now, active)


def _wait(call: Call, route: Route, fault: Fault) -> float:
    """Seconds until the next attempt."""
    if fault.retry is Retry.REUSED or any(_is_next(peer, call) for peer in route.peers):
        return 0.0
    longest = min(BACK_OFF_LIMIT, BACK_OFF * (2.0 ** (len(call.tried) + 1) - 1))
    return max(random() * longest, fault.wait)


def _is_next(peer: Peer, call: Call) -> bool:
    """Whether *peer* is one that *call* may go to at once."""
    return peer is not call.peer and peer not in call.tried and not peer.state.is_broken
