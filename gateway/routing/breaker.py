"""Circuits: whether a peer that failed is left alone, and when it is tried again.

Owns the state of one peer's circuit, which stands in a few cells, and its rules. It refuses the lock around the cells,
and who is told (`gateway.routing.circuits`, which makes it for each peer), and who is picked (`balance`).

Pure: the time is given, monotonic milliseconds. Every method that changes something is called under the lock, and
returns the change of state that it made, for the log.

| state     | calls                                         | left by                                             |
|-----------|-----------------------------------------------|-----------------------------------------------------|
| CLOSED    | all                                           | `max_failures` in a row, or the health check: OPEN  |
| OPEN      | none, or those for whom nothing else is left  | a call that claims to be the probe: HALF_OPEN;      |
|           |                                               | such a call's answer, or the health check: CLOSED   |
| HALF_OPEN | the probe alone, or as above                  | its success, CLOSED; its failure or its end, OPEN   |

Failures are connections that cannot be made, calls that are lost, first bytes that do not come, answers of 5xx and
streams that do not begin with an answer; any usable answer ends the row. Answers about the request (4xx), clients that
leave and what is our own fault are neither. A circuit is open for `reset` x 2^n, give or take a fifth and never more
than ten times `reset`; n counts failed probes. A probe is due then, whatever went before: no circuit is open for ever.

The health check opens a circuit, and closes one, after several answers that say the same, and at most every 5 s: so one
that flaps is seen to. It does not close what calls opened, though, while it says all the time that the peer is well:
then it does not exercise what fails. Where calls could not even connect, or where it saw the peer down too, its word is
as good as a call's.

A claim is renewed while the probe's call runs, at most for the longest open time; and a killed worker's frees itself.

What began before the state was taken is no news: a call that hung since before an outage says nothing of its end.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from random import random
from typing import Final, NamedTuple, Protocol


class State(IntEnum):
    """How a circuit stands."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


CLOSED, OPEN, HALF_OPEN = State

#: From -> to. Anything else is a bug.
CIRCUIT_MOVES: Final[dict[State, tuple[State, ...]]] = {
    CLOSED: (OPEN,),
    OPEN: (HALF_OPEN, CLOSED),
    HALF_OPEN: (OPEN, CLOSED),
}


class Cause(IntEnum):
    """What the last failure was."""

    NONE = 0
    #: No connection could be made.
    UNREACHED = 1
    #: It took a call and gave no usable answer.
    FAILED = 2
    #: It did not pass the health check.
    MISSED = 3


UNREACHED, FAILED, MISSED = Cause.UNREACHED, Cause.FAILED, Cause.MISSED

#: The cells. Times are monotonic milliseconds.
(
    STATE,
    FAILURES,  # in a row
    TRIPS,  # probes that failed since it was closed
    OPENED,  # how often it opened
    OPENED_AT,  # when it was last closed
    SINCE,  # when the present state was taken
    DUE,  # when an open circuit takes a probe
    PROBE,  # the claim that holds, 0 for none
    LEASE,  # until when, if it is not renewed
    CLAIMS,  # so far: the next one's number
    BUSY,  # until when the peer asked to be left alone
    CAUSE,
    RISEN_AT,  # when it was closed again, 0 for never
    PLACE,  # which place it is the circuit of
    RUN,  # answers in a row to the health check that were good, or, below 0, that were not
    SEEN,  # whether the health check saw it down since it opened
    RESTORED_AT,  # when the health check last found well what calls could not reach
) = range(17)
CELLS: Final = 24

#: Milliseconds that a claim holds without being renewed: a killed worker's probe frees itself.
LEASE_TIME: Final = 3000
#: Milliseconds until every worker has heard of a change: a call that begins before may not know that the peer is out.
NEWS_TIME: Final = 200
#: The longest open time, in resets; and the part by which each is longer or shorter, so that peers do not return, and
#: hosts do not probe, all at once.
LONGEST: Final = 10
JITTER: Final = 0.2
#: Milliseconds for which a peer may ask to be left alone (Retry-After).
BUSY_LIMIT: Final = 60_000
#: Milliseconds from a circuit's opening or closing until the health check may turn it again.
HOLD_TIME: Final = 5_000


class Cells(Protocol):
    """Where a circuit stands: shared memory, or a list."""

    def __getitem__(self, at: int, /) -> int: ...
    def __setitem__(self, at: int, value: int, /) -> None: ...


class Rules(NamedTuple):
    """*max_failures* in a row open a circuit, 0: none do. *reset*: milliseconds of the first open time."""

    max_failures: int = 0
    reset: int = 30_000


class Change(NamedTuple):
    """A circuit is in *state* now."""

    state: State
    #: Whether it was closed before.
    opened: bool = False


class Circuit:
    """One peer's, at *at* in *cells*. *chance* draws from 0 to 1."""

    __slots__ = ("_at", "_cells", "_chance", "rules")

    def __init__(self, cells: Cells, at: int, rules: Rules, chance: Callable[[], float] = random) -> None:
        self._cells = cells
        self._at = at
        self._chance = chance
        #: As the configuration in force has them.
        self.rules = rules

    def cell(self, number: int) -> int:
        """What the cell of this *number* says."""
        return self._cells[self._at + number]

    def _set(self, number: int, value: int) -> None:
        self._cells[self._at + number] = value

    @property
    def state(self) -> State:
        return State(self.cell(STATE))

    @property
    def is_quiet(self) -> bool:
        """Whether a usable answer changes nothing."""
        return self.cell(STATE) == CLOSED and not self.cell(FAILURES)

    def is_due(self, now: int) -> bool:
        """Whether the next call may be the probe: its time has come, or the one who claimed it is dead."""
        state = self.cell(STATE)
        return (state == OPEN and now >= self.cell(DUE)) or (state == HALF_OPEN and now >= self.cell(LEASE))

    def left(self, now: int) -> int:
        """Milliseconds until a probe is due, or the present one's claim is over; 0 where the circuit is closed."""
        state = self.cell(STATE)
        until = self.cell(DUE if state == OPEN else LEASE) if state != CLOSED else 0
        return max(0, until - now)

    # What calls report.

    def failed(self, now: int, began: int, cause: Cause, claim: int) -> Change | None:
        """A call that *began* then failed; *claim* is its own where it was the probe, else 0."""
        if began < self.cell(SINCE):
            return None
        if self.cell(STATE) == CLOSED:
            if not self.rules.max_failures:
                return None
            self._set(CAUSE, cause)
            self._set(FAILURES, self.cell(FAILURES) + 1)
            return self.open(now) if self.cell(FAILURES) >= self.rules.max_failures else None
        self._set(CAUSE, cause)
        if not claim or claim != self.cell(PROBE):
            return None
        self._set(FAILURES, self.cell(FAILURES) + 1)
        self._set(TRIPS, self.cell(TRIPS) + 1)
        return self._opened(now)

    def served(self, now: int, began: int, claim: int = 0) -> Change | None:
        """A call that *began* then was given a usable answer; *claim* is its own where it was the probe, else 0."""
        if self.cell(STATE) == CLOSED:
            if self.cell(FAILURES):
                self._set(FAILURES, 0)
            return None
        is_probe = claim and claim == self.cell(PROBE)
        return self.close(now) if is_probe or began >= self.cell(SINCE) + NEWS_TIME else None

    def busy(self, now: int, wait: float, claim: int) -> Change | None:
        """The peer asks to be left alone for *wait* seconds: neither a failure nor an answer."""
        until = now + min(int(wait * 1000), BUSY_LIMIT)
        self._set(BUSY, max(self.cell(BUSY), until))
        change = self.release(now, claim)
        if self.cell(STATE) == OPEN:
            self._set(DUE, max(self.cell(DUE), until))
        return change

    # The probe.

    def claim(self, now: int) -> int:
        """The number of the claim to be the probe; 0 where none is due, or another has it."""
        if not self.is_due(now):
            return 0
        number = self.cell(CLAIMS) + 1
        self._set(CLAIMS, number)
        self._set(PROBE, number)
        self._set(LEASE, now + LEASE_TIME)
        if self.cell(STATE) != HALF_OPEN:
            self._move(now, HALF_OPEN)
        return number

    def renew(self, now: int, claim: int) -> None:
        """The probe still runs."""
        if claim == self.cell(PROBE):
            self._set(LEASE, now + LEASE_TIME)

    def release(self, now: int, claim: int) -> Change | None:
        """The probe ended without a verdict: another may be made at once."""
        if not claim or claim != self.cell(PROBE):
            return None
        self._set(PROBE, 0)
        self._set(DUE, now)
        return self._move(now, OPEN)

    # What the health check reports.

    def passed(self, now: int, rise: int, *, restores: bool) -> Change | None:
        """The peer is well, as *rise* answers in a row have to say; *restores* where calls found otherwise."""
        run = max(self.cell(RUN), 0) + 1
        self._set(RUN, run)
        if run < rise:
            return None
        if restores and self.cell(CAUSE) != FAILED:
            self._set(RESTORED_AT, now)
        if self.cell(STATE) == CLOSED or not self._may_turn(now):
            return None
        if self.cell(CAUSE) == FAILED and not self.cell(SEEN):
            return None  # it said so all the time
        change = self.close(now)
        self._set(RUN, run)
        self._set(RESTORED_AT, now)
        return change

    def missed(self, now: int, fall: int) -> Change | None:
        """The peer is not well, as *fall* answers in a row have to say."""
        run = min(self.cell(RUN), 0) - 1
        self._set(RUN, run)
        if -run < fall:
            return None
        if self.cell(STATE) != CLOSED:
            self._set(SEEN, 1)
            return None
        if not self._may_turn(now):
            return None
        change = self.open(now)
        self._set(CAUSE, MISSED)
        self._set(SEEN, 1)
        return change

    def _may_turn(self, now: int) -> bool:
        last = max(self.cell(OPENED_AT), self.cell(RISEN_AT))
        return not last or now >= last + HOLD_TIME

    # Changes of state.

    def open(self, now: int) -> Change:
        """Open a closed circuit."""
        self._set(TRIPS, 0)
        self._set(SEEN, 0)
        self._set(OPENED, self.cell(OPENED) + 1)
        self._set(OPENED_AT, now)
        return self._opened(now)._replace(opened=True)

    def _opened(self, now: int) -> Change:
        self._set(PROBE, 0)
        reset = self.rules.reset
        longest = reset * LONGEST
        span = min(longest, reset * 2 ** min(self.cell(TRIPS), 8)) * (1 - JITTER + 2 * JITTER * self._chance())
        self._set(DUE, now + int(min(longest, span)))
        return self._move(now, OPEN)

    def close(self, now: int) -> Change:
        """Close an open circuit."""
        for number in (FAILURES, TRIPS, PROBE, CAUSE, RUN, SEEN):
            self._set(number, 0)
        self._set(RISEN_AT, now)
        return self._move(now, CLOSED)

    def _move(self, now: int, state: State) -> Change:
        if state not in CIRCUIT_MOVES[self.state]:
            raise AssertionError(f"a circuit goes from {self.state.name} to {state.name}")
        self._set(STATE, state)
        self._set(SINCE, now)
        return Change(state)

    def take(self, place: int) -> None:
        """Be the circuit of *place*: what is known of another that had the same name is forgotten."""
        if self.cell(PLACE) != place:
            for number in range(CELLS):
                self._set(number, 0)
            self._set(PLACE, place)

    def __repr__(self) -> str:
        return f"<Circuit {self.state.name} {self.cell(FAILURES)} failures>"
