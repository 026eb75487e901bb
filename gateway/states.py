"""Peers' states as one worker makes them, looks at them, and tells of their circuits.

Owns `StateMaker`. It refuses which peers there are, and how long their states live (`gateway.estate`, which makes it,
once per worker).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gateway.observe.counters import Measures
from gateway.observe.logs import Log
from gateway.page import PageError, Seat
from gateway.places import Place
from gateway.routing.breaker import CLOSED, DUE, FAILURES, HALF_OPEN, SINCE, Change
from gateway.routing.circuits import Board, PeerCircuit
from gateway.routing.host import Hearsay, OwnCalls, SharedPeerState
from gateway.routing.peer import PeerState, Standing


class StateMaker:
    """*standing* is the sum of what is made."""

    def __init__(self, standing: Standing, measures: Measures, log: Log, seat: Seat) -> None:
        self._standing = standing
        self._measures = measures
        self._log = log
        self._seat = seat
        self._board = Board.of_host(seat.page)
        self._hearsay = Hearsay(seat)
        #: By the peer's number, of which the page has so many.
        self._own: dict[int, OwnCalls] = {}

    def make(self, place: Place) -> PeerState:
        """The state of the peer at *place*: where there are several workers, one whose calls in flight all see."""
        try:
            column = self._seat.page.peers.number(f"{place.backend}\0{place.label}".encode())
            reason = "too many peers"
        except PageError as error:  # a process that hangs has the lock: balanced worse is better than not served
            column, reason = None, str(error)
        if column is None:
            self._log.warning(f"a peer is not shared between workers: {reason}", endpoint=place.label)
        board = self._board if column is not None else None
        circuit = PeerCircuit(board, column or 0, place.number)
        circuit.on_change = lambda change: self._changed(place, circuit, change)
        if column is not None and self._seat.workers > 1:
            row = self._seat.row
            own = self._own.setdefault(column, OwnCalls(row, column))
            return SharedPeerState(self._standing, row, column, own, circuit)
        return PeerState(self._standing, circuit, -1 if column is None else column)

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

    def sweep(self, states: Iterable[PeerState]) -> None:
        """Let *states* see what other workers changed."""
        news = self._board.has_news()
        for state in states:
            state.heard = False
            if news or state.out:
                state.look()

    def healthy(self, states: Mapping[Place, PeerState]) -> Iterator[tuple[str, str, bool]]:
        """Each peer's backend and endpoint, and whether the host finds it well."""
        for place, state in states.items():
            yield place.backend, place.label, self._hearsay.is_well(state)
