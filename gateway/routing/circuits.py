"""Circuits as one worker handles them: the lock, the news to the other workers and to the log, and the probe.

Owns `Board` (where circuits stand, and when they last changed) and `PeerCircuit` (a peer's `Circuit`, changed under
the board's lock, and the call of this worker that is its probe). It refuses the rules (`breaker`) and the choice among
peers (`ejection`). Made by `gateway.states`, on the page; for a peer that has no column there, in plain cells.

A change that cannot be made because a process holds the lock for too long is not made: the next call makes it.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from gateway.clock import monotonic_ns
from gateway.errors import Fault, Kind, Retry, Side
from gateway.page import CIRCUIT_CELLS, Page, PageError
from gateway.routing.breaker import (
    BUSY,
    CLOSED,
    FAILED,
    LEASE_TIME,
    LONGEST,
    OPEN,
    PLACE,
    RISEN_AT,
    RUN,
    STATE,
    UNREACHED,
    Cause,
    Change,
    Circuit,
    Rules,
    State,
)

#: Tries to take the lock for a change: 10 ms in all, since the loop waits for it.
_TRIES: Final = 20
_MILLI: Final = 1_000_000
#: Answers that say when to come again.
_BUSY: Final = frozenset({429, 503})
#: Milliseconds until a peer that came back has its whole share; and the least part of it, at the beginning.
RAMP: Final = 10_000
LEAST_SHARE: Final = 0.1


def now_ms() -> int:
    """Monotonic milliseconds, the same in all processes of the host."""
    return monotonic_ns() // _MILLI


class Board:
    """The cells of all circuits: the first one is raised with each change that other workers should hear of."""

    __slots__ = ("_seen", "cells", "lock")

    def __init__(
        self, cells: MutableSequence[int] | memoryview[int], lock: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.cells = cells
        self.lock = lock
        self._seen = cells[0]

    @classmethod
    def of_host(cls, page: Page) -> Board:
        """The one that all workers share."""
        return cls(page.circuits, lambda: page.lock(_TRIES))

    @classmethod
    def alone(cls) -> Board:
        """A board for one circuit, which nobody else sees."""
        return cls([0] * (1 + CIRCUIT_CELLS), nullcontext)

    def raise_epoch(self) -> None:
        """Something changed; called under the lock."""
        self.cells[0] += 1

    def has_news(self) -> bool:
        """Whether something changed since it was last asked."""
        seen, self._seen = self._seen, self.cells[0]
        return seen != self._seen


class PeerCircuit:
    """One peer's circuit. *column* is the peer's on the page, *place* the identity of its place."""

    __slots__ = ("_board", "_circuit", "_claim", "_probe", "_renew_at", "_until", "on_change", "place")

    def __init__(self, board: Board | None = None, column: int = 0, place: int = 0) -> None:
        self._board = board = board or Board.alone()
        self._circuit = Circuit(board.cells, 1 + column * CIRCUIT_CELLS, Rules())
        #: Told of each change that is made here.
        self.on_change: Callable[[Change], None] = _nobody
        #: Whose circuit it is: that of another place with the same name is not touched.
        self.place = place
        # The call of this worker that is the probe, its claim, when that is renewed, and until when it is.
        self._probe: object | None = None
        self._claim = 0
        self._renew_at = self._until = 0

    def move(self, board: Board | None, column: int = 0) -> None:
        """Be the circuit in that *column* of *board*; None: one that nobody else sees. `take` comes next.

        A call that was the probe of the former one is none of this one.
        """
        rules = self._circuit.rules
        self._board = board = board or Board.alone()
        self._circuit = Circuit(board.cells, 1 + column * CIRCUIT_CELLS, rules)
        self._probe, self._claim = None, 0

    @property
    def rules(self) -> Rules:
        return self._circuit.rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._circuit.rules = rules

    def take(self) -> None:
        """Be the circuit of `place`, and nobody's before."""
        self._act(lambda now: self._circuit.take(self.place), of_any=True)

    # What the cells say.

    def cell(self, number: int) -> int:
        return self._circuit.cell(number)

    @property
    def state(self) -> State:
        return self._circuit.state

    @property
    def is_open(self) -> bool:
        """Whether it is not closed."""
        return self.cell(STATE) != CLOSED

    def is_busy(self, now: int) -> bool:
        return now < self.cell(BUSY)

    def is_plain(self, now: int) -> bool:
        """Whether the peer is like any other: nothing keeps a call from it, or makes it the lesser choice."""
        risen = self.cell(RISEN_AT)
        return self.cell(STATE) == CLOSED and now >= self.cell(BUSY) and (not risen or now >= risen + RAMP)

    def left(self, now: int) -> int:
        """Milliseconds until a call may be the probe."""
        return self._circuit.left(now)

    def share(self, now: int) -> float:
        """The part of its share that a peer with a closed circuit gets: all of it, but for the time after it rose."""
        risen = self.cell(RISEN_AT)
        return 1.0 if not risen else min(1.0, max(LEAST_SHARE, (now - risen) / RAMP))

    # What calls report. *who* is the call; *began* monotonic nanoseconds.

    def claim(self, now: int, who: object) -> bool:
        """Whether the call *who* is the probe from now on."""
        circuit = self._circuit
        if not circuit.is_due(now):
            return False
        state = circuit.state
        claim = 0

        def claimed(now: int) -> Change | None:
            nonlocal claim
            claim = circuit.claim(now)
            return Change(circuit.state) if claim and state is OPEN else None

        self._act(claimed)
        if not claim:
            return False
        self._probe, self._claim = who, claim
        self._renew_at = now + LEASE_TIME // 3
        self._until = now + LONGEST * circuit.rules.reset
        return True

    def failed(self, fault: Fault, began: int, who: object) -> None:
        """The call *who* met *fault*; what is not the peer's is nothing to it."""
        if fault.side is not Side.UPSTREAM or fault.retry is Retry.REUSED:
            return
        claim = self._claim if self._probe is who else 0
        if fault.answered in _BUSY and fault.wait:
            wait = fault.wait
            self._act(lambda now: self._circuit.busy(now, wait, claim), news=True)
        elif not fault.answered or fault.answered >= 500:
            cause = _cause(fault)
            self._act(lambda now: self._circuit.failed(now, began // _MILLI, cause, claim))

    def served(self, began: int, who: object) -> None:
        """The call *who* was given a usable answer."""
        if not self._circuit.is_quiet:
            claim = self._claim if self._probe is who else 0
            self._act(lambda now: self._circuit.served(now, began // _MILLI, claim))
        self.over(who)

    # What the health check reports.

    @property
    def is_missed(self) -> bool:
        """Whether the last answer to the health check was not good."""
        return self.cell(RUN) < 0

    def passed(self, rise: int, *, restores: bool) -> None:
        """The peer answered as it should; *restores*: although calls found otherwise."""
        self._act(lambda now: self._circuit.passed(now, rise, restores=restores), news=restores)

    def missed(self, fall: int) -> None:
        """The peer did not answer as it should."""
        self._act(lambda now: self._circuit.missed(now, fall))

    def over(self, who: object) -> None:
        """The call *who* has ended: if it was the probe and there is no verdict, another may be made."""
        if self._probe is who:
            claim, self._claim, self._probe = self._claim, 0, None
            self._act(lambda now: self._circuit.release(now, claim))

    def forget(self) -> None:
        """No call is the probe any more: somebody found the peer well."""
        self._probe = None

    def renew(self, now: int) -> None:
        """Keep the claim of a probe that runs; not for ever, since it may hang where no time bounds it."""
        if self._probe is not None and self._renew_at <= now < self._until:
            self._renew_at = now + LEASE_TIME // 3
            self._act(lambda now: self._circuit.renew(now, self._claim))

    def _act(self, act: Callable[[int], Change | None], *, news: bool = False, of_any: bool = False) -> None:
        """Change cells, tell the other workers if it is *news* to them, and the log if the state is another."""
        try:
            with self._board.lock():
                if not of_any and self.cell(PLACE) != self.place:
                    return
                change = act(now_ms())
                if news or change is not None:
                    self._board.raise_epoch()
        except PageError:
            return
        if change is not None:
            self.on_change(change)

    def __repr__(self) -> str:
        return f"<PeerCircuit {self._circuit!r}>"


def _cause(fault: Fault) -> Cause:
    reached = fault.retry is not Retry.UNSENT or fault.kind not in (Kind.NO_PEER, Kind.UPSTREAM_TLS)
    return FAILED if reached else UNREACHED


def _nobody(change: Change) -> None:
    """Nobody hears."""
