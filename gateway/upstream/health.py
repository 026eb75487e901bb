"""Active health checks: peers are asked whether they are well, beside the calls and at no cost in tokens.

Owns the `Prober`: when it asks, and what an answer means. It refuses which worker asks (`turn`) and what becomes of a
verdict (`gateway.routing.breaker`: how many in a row count, and which circuits they open and close). One Prober is made
per worker by `gateway.estate`; it gets a `Check` for each peer of the configuration in force. Each question has a
connection of its own, which no call ever gets, and counts as no call.

What an answer means: any 2xx, the peer is well. On a path that the operator chose, anything else: it is not. On a
protocol's default path every answer below 500, and 501, says that somebody is there: clouds refuse or lack that path.
No answer in time is a miss, unless the loop stood still, or a call was answered meanwhile: a server under load answers
its health check late. Many serve one request at a time: on a default path a peer that has calls of ours is not late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import random, uniform
from typing import Final, NamedTuple

from gateway.clock import STALL, Clock
from gateway.page import Seat
from gateway.routing.circuits import now_ms
from gateway.routing.host import Hearsay
from gateway.routing.peer import PeerState
from gateway.upstream.http import Target
from gateway.upstream.inquiry import InquiryError, knock
from gateway.upstream.turn import is_ours

#: Each wait is longer or shorter by up to this part of it.
_JITTER: Final = 0.2
#: A peer that is out, or may soon be, is asked so many times as often, but not within a second.
_FASTER: Final = 5
_FASTEST: Final = 1.0


class Terms(NamedTuple):
    """How a peer is asked: seconds, and how many answers in a row make a verdict."""

    path: bytes
    #: Whether *path* is the operator's choice.
    chosen: bool
    interval: float
    timeout: float
    fall: int
    rise: int


class Check:
    """One peer's."""

    __slots__ = ("due", "state", "target", "task", "terms")

    def __init__(self, state: PeerState, target: Target, terms: Terms) -> None:
        self.state = state
        self.target = target.apart()
        self.terms = terms
        #: When it is asked next, by the clock; 0.0: that is not yet decided.
        self.due = 0.0
        self.task: asyncio.Task[None] | None = None

    def is_well(self, status: int) -> bool:
        """Whether an answer of *status* says so."""
        if self.terms.chosen:
            return 200 <= status < 300
        return status < 500 or status == 501


class Prober:
    """Sweeps through the checks of the present configuration, while it is this worker's turn."""

    def __init__(self, seat: Seat, clock: Clock) -> None:
        self._seat = seat
        self._clock = clock
        self._hearsay = Hearsay(seat)
        #: By the peer's state, which is one for each place.
        self._checks: dict[PeerState, Check] = {}

    def take_over(self, peers: Iterable[tuple[PeerState, Target, Terms]]) -> None:
        """Ask these *peers* from now on. Those that stay are asked when they would have been."""
        former, self._checks = self._checks, {}
        for state, target, terms in peers:
            known = former.get(state)
            if known is None or known.terms != terms:
                self._checks[state] = Check(state, target, terms)
            else:
                self._checks[state] = former.pop(state)
        for check in former.values():
            if check.task is not None:
                check.task.cancel()

    def sweep(self, now: float) -> None:
        """Ask those that are due."""
        if not self._checks:
            return
        if not is_ours(self._seat):
            for check in self._checks.values():
                check.due = 0.0
            return
        for check in self._checks.values():
            if not check.due:
                # Those that are asked for the first time are not asked all at once.
                check.due = now + random() * self._wait(check)
            elif now >= check.due and check.task is None:
                check.task = asyncio.get_running_loop().create_task(self._ask(check))

    def _wait(self, check: Check) -> float:
        """Seconds between two questions: fewer while the peer is out, or about to be."""
        interval = check.terms.interval
        if self._hearsay.is_well(check.state) and not check.state.circuit.is_missed:
            return interval
        return min(interval, max(_FASTEST, interval / _FASTER))

    async def _ask(self, check: Check) -> None:
        terms, began = check.terms, now_ms()
        try:
            try:
                well = check.is_well(await knock(check.target, terms.path, terms.timeout))
            except InquiryError as error:
                if self._is_excused(check, began, error.late):
                    return
                well = False
            self._judge(check, well)
        finally:
            check.task = None
            check.due = self._clock.now + self._wait(check) * uniform(1 - _JITTER, 1 + _JITTER)

    def _is_excused(self, check: Check, began: int, late: bool) -> bool:
        """Whether it says nothing that there was no answer since *began*; *late*: though the question was taken."""
        if now_ms() - began > (check.terms.timeout + STALL) * 1000:
            return True  # the loop stood still
        if late and not check.terms.chosen and self._hearsay.in_flight(check.state):
            return True
        return self._hearsay.answered_since(check.state, began)

    def _judge(self, check: Check, well: bool) -> None:
        state, terms = check.state, check.terms
        if well:
            state.circuit.passed(terms.rise, restores=not self._hearsay.is_well(state))
        else:
            state.circuit.missed(terms.fall)
        state.look()

    async def close(self) -> None:
        """Ask no more."""
        tasks = [check.task for check in self._checks.values() if check.task is not None]
        self._checks = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
