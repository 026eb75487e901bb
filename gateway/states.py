"""Peers' states as one worker makes them, looks at them, and tells of their circuits.

Owns `StateMaker`: which column of the page each state has, and when it lets go of it. It refuses which peers there are
(`gateway.estate`, which makes it, once per worker) and whose each column is (`gateway.columns`).

A peer that is not configured any more keeps its column until its last call here is over. A call of a former
configuration that comes to it later still is counted by nobody else, and its circuit is this worker's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from gateway.columns import Columns
from gateway.observe.counters import Measures
from gateway.observe.logs import Log
from gateway.page import NO_COLUMN, PageError, Seat
from gateway.places import Place
from gateway.routing.breaker import CLOSED, DUE, FAILURES, HALF_OPEN, SINCE, Change
from gateway.routing.circuits import Board, PeerCircuit
from gateway.routing.host import Hearsay, OwnCalls, SharedPeerState
from gateway.routing.peer import PeerState, Standing

#: Seconds between two tries to find columns for peers that have none.
AGAIN: Final = 1.0


class StateMaker:
    """*standing* is the sum of what is made."""

    def __init__(self, standing: Standing, measures: Measures, log: Log, seat: Seat) -> None:
        self._standing = standing
        self._measures = measures
        self._log = log
        self._seat = seat
        self._board = Board.of_host(seat.page)
        self._hearsay = Hearsay(seat)
        self._columns = Columns(seat)
        #: By the column, while it is used.
        self._own: dict[int, OwnCalls] = {}
        # states that were made, until they are forgotten
        self._places: dict[PeerState, Place] = {}
        #: Those of them that found no column, and when the next try is due, by the clock.
        self._waiting: list[PeerState] = []
        self._again = 0.0
        #: Those that nobody configures any more.
        self._leaving: list[PeerState] = []

    def make(self, place: Place) -> PeerState:
        """The state of the peer at *place*: where there are several workers, one whose calls in flight all see."""
        circuit = PeerCircuit(place=place.identity)
        circuit.on_change = lambda change: self._changed(place, circuit, change)
        state: PeerState
        if self._seat.workers > 1:
            row = self._seat.row
            state = SharedPeerState(self._standing, row, NO_COLUMN, OwnCalls(row, NO_COLUMN), circuit)
        else:
            state = PeerState(self._standing, circuit)
        self._places[state] = place
        reason = self._seat_in_column(state)
        if reason:
            self._waiting.append(state)
            self._log.warning(f"a peer is not shared between workers: {reason}", endpoint=place.label)
        return state

    def _seat_in_column(self, state: PeerState) -> str:
        """Give *state* a column. Returns why it cannot be."""
        place = self._places[state]
        try:
            column = self._columns.use(f"{place.backend}\0{place.label}".encode())
        except PageError as error:  # a process that hangs has the lock: balanced worse is better than not served
            return str(error)
        if column is None:
            return "too many peers"
        state.circuit.move(self._board, column)
        self._move(state, column)
        return ""

    def _move(self, state: PeerState, column: int) -> None:
        if isinstance(state, SharedPeerState):
            row = self._seat.row
            own = OwnCalls(row, column)
            state.move(row, column, own if column == NO_COLUMN else self._own.setdefault(column, own))
        state.column = column

    @property
    def waiting(self) -> int:
        """Peers that this worker balances and judges alone, since they have no column."""
        return len(self._waiting)

    def keep(self, present: Collection[PeerState]) -> None:
        """Those that are not *present* are configured no longer, or were never in force."""
        staying = set(present)
        self._leaving = [state for state in self._places if state not in staying]
        self._waiting = [state for state in self._waiting if state in staying]

    def _let_go(self) -> None:
        """Forget those whose last call is over, and give their columns back."""
        staying = []
        for state in self._leaving:
            if state.in_flight:
                staying.append(state)
                continue
            del self._places[state]
            if state.column != NO_COLUMN:
                column = state.column
                state.circuit.move(None)
                state.circuit.take()
                self._move(state, NO_COLUMN)
                if state.out:
                    state.look()
                if self._columns.leave(column):
                    self._own.pop(column, None)
        self._leaving = staying
        if self._columns.idle:
            try:
                self._columns.give_back()
            except PageError:
                pass  # at the next sweep

    def _try_again(self, now: float) -> bool:
        """Find columns for those that have none. Whether one was found."""
        self._again = now + AGAIN
        found = 0
        for state in self._waiting:
            if self._seat_in_column(state):
                break
            found += 1
            self._log.info("a peer is shared between workers after all", endpoint=self._places[state].label)
        left = self._waiting[found:]
        # Another is the first next time: what it looks for may be a column that another worker holds for it by then.
        self._waiting = left[1:] + left[:1]
        return found > 0

    def _changed(self, place: Place, circuit: PeerCircuit, change: Change) -> None:
        """Count and log what this worker changed."""
        where = {"upstream": place.backend, "endpoint": place.label}
        if change.opened:
            self._measures.circuit_open.child(place.backend).value += 1
        if change.state is CLOSED:
            self._log.info("circuit closed", **where)
        elif change.state is HALF_OPEN:
            self._log.info("circuit half-open: one call is the probe", **where)
        else:
            again_in = (circuit.cell(DUE) - circuit.cell(SINCE)) / 1000
            self._log.warning("circuit open", **where, failures=circuit.cell(FAILURES), again_in=again_in)

    def sweep(self, states: Collection[PeerState], now: float) -> bool:
        """Let *states* see what other workers changed. Whether some have a column that had none."""
        news = self._board.has_news()
        for state in states:
            state.heard = False
            if news or state.out:
                state.look()
        if self._leaving or self._columns.idle:
            self._let_go()
        return bool(self._waiting) and now >= self._again and self._try_again(now)

    def healthy(self, states: Mapping[Place, PeerState]) -> Iterator[tuple[str, str, bool]]:
        """Each peer's backend and endpoint, and whether the host finds it well."""
        for place, state in states.items():
            yield place.backend, place.label, self._hearsay.is_well(state)
