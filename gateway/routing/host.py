"""Peers as the whole host sees them: their calls in flight in all workers, and who has the last word on them.

Owns `HostLoad` (what the other workers' rows say), `SharedPeerState` and its `OwnCalls` (which tell them), the balancer
over both, and `Hearsay`. It refuses the page's layout (`gateway.page`). The balancer is made by `gateway.upstreams` and
states by `gateway.states`, where there are several workers; HostLoad by `gateway.estate`, Hearsay by who asks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import random, sample
from typing import Final

from gateway.page import NO_COLUMN, Row, Seat
from gateway.routing.breaker import RESTORED_AT
from gateway.routing.circuits import PeerCircuit
from gateway.routing.load import Loads
from gateway.routing.peer import Peer, PeerState, Standing, speaks_well, was_good

_INFINITE: Final = float("inf")
#: Up to so many peers are all looked at: each costs a look into every row.
LOOKED_AT: Final = 8
#: Looks at all of them for one call: another where a worker was beaten to the peer that it chose.
LOOKS: Final = 3


class HostLoad:
    """Calls in flight in the other workers that lived at the last sweep, and what servers have of others' (*loads*)."""

    __slots__ = ("_loads", "_seat", "hinted", "others")

    def __init__(self, seat: Seat, loads: Loads) -> None:
        self._seat = seat
        self._loads = loads
        self.sweep(0.0)

    def sweep(self, now: float) -> None:
        """See who lives, and whether any hint counts."""
        self.hinted = self._loads.live
        #: A row of each, by the peer's column.
        self.others: list[Sequence[int]] = [row.calls for row in self._seat.page.neighbours(self._seat.row)]


class OwnCalls:
    """This worker's calls in flight to one peer, and the cell where the others read them; only this worker writes it.

    Kept here too, since a cell is dear to look at. After a reload the former state of a peer and its successor have the
    same one: each adds and takes away. So there is one for a column, and it lives as long as the worker uses that.
    For a peer that has no column the cell is one that nobody else sees.
    """

    __slots__ = ("_at", "_cells", "in_flight")

    def __init__(self, row: Row, column: int) -> None:
        is_seen = column != NO_COLUMN
        self._cells = row.calls if is_seen else memoryview(bytearray(8)).cast("q")
        self._at = column if is_seen else 0
        self.in_flight = 0

    def add(self, calls: int) -> None:
        """So many more, and the others see it at once."""
        self.in_flight += calls
        self._cells[self._at] = self.in_flight


class SharedPeerState(PeerState):
    """A peer's state whose calls in flight, and the last word on it, the other workers see too, if it has a column."""

    __slots__ = ("_announced", "_words", "own")

    def __init__(
        self, standing: Standing, row: Row, column: int, own: OwnCalls, circuit: PeerCircuit | None = None
    ) -> None:
        super().__init__(standing, circuit, column)
        self.own = own
        self._words: memoryview[int] | None = row.words if column != NO_COLUMN else None
        #: The next call to begin is counted in the cell already.
        self._announced = False

    def move(self, row: Row, column: int, own: OwnCalls) -> None:
        """Be seen in *column* from now on, with the calls that run already, and nowhere else; *own* is that one's."""
        calls = self.in_flight + self._announced
        self.own.add(-calls)
        self.own = own
        own.add(calls)
        self.column = column
        self._words = row.words if column != NO_COLUMN else None
        if self._words is not None and self.word:  # without one, what another state of the same peer said stands
            self._words[column] = self.word

    def announce(self) -> None:
        """Let the others see the call that is about to begin; `begin` or `withdraw` comes next."""
        if not self._announced:
            self._announced = True
            self.own.add(1)

    def withdraw(self) -> None:
        """The call goes elsewhere."""
        self._announced = False
        self.own.add(-1)

    def begin(self, now: float) -> bool:
        if self._announced:
            self._announced = False
        else:
            self.own.add(1)
        return super().begin(now)

    def end(self) -> None:
        super().end()
        self.own.add(-1)

    def leave(self) -> None:
        super().leave()
        if self._announced:
            self.withdraw()
        if self._words is not None:
            self._words[self.column] = 0  # what was found out about it says nothing of its successor
            self._words = None  # whose cell it is from now on

    def _say(self, cool: int) -> None:
        super()._say(cool)
        if self._words is not None:
            self._words[self.column] = self.word


class Hearsay:
    """What the host says of its peers: every live worker's last word on a peer is heard, and the last of all holds.

    So an answer that any worker got since speaks for a peer that another worker failed at, and a failure that is newer
    than all answers speaks against it, until its cool-down is over (as Envoy's ejection, it ends by itself). A peer on
    which there is no word is well: nobody has tried it. Words are told by what happened to calls, so a worker that is
    replaced, that has just begun, or that stands still says nothing; and what it said before, a later word outdoes.
    """

    __slots__ = ("_seat",)

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def is_well(self, state: PeerState) -> bool:
        """Whether nothing speaks against the peer: no circuit, which is the host's anyway, and no word."""
        if state.circuit.is_open:
            return False
        return speaks_well(self._last_word(state), state.circuit.cell(RESTORED_AT))

    def answered_since(self, state: PeerState, since: int) -> bool:
        """Whether the last word is that the peer answered a call, later than *since* (monotonic milliseconds)."""
        return was_good(self._last_word(state), since)

    def in_flight(self, state: PeerState) -> int:
        """Calls to the peer that run."""
        if not isinstance(state, SharedPeerState):
            return state.in_flight
        others = self._seat.page.neighbours(self._seat.row)
        return state.own.in_flight + sum(row.calls[state.column] for row in others)

    def _last_word(self, state: PeerState) -> int:
        word = state.word
        if isinstance(state, SharedPeerState):
            others = self._seat.page.neighbours(self._seat.row)
            word = max([word, *(row.words[state.column] for row in others)])
        return word


class HostLeastConnections:
    """The fewest calls in flight on the whole host for its weight; ties at random.

    Of many peers two are drawn at random and the less busy one is taken: that is nearly as even. The loop is that of
    `LeastConnections` written again: a call for each peer's load would be paid by every call of every gateway.

    Rows are read without a lock, so two workers may choose the same peer at once. Hence a choice is announced first and
    then looked at again: whoever finds that another call has come there in the meantime lets go and chooses anew.
    """

    def __init__(self, host: HostLoad) -> None:
        self._host = host

    def pick(self, peers: Sequence[Peer]) -> Peer:
        if len(peers) > LOOKED_AT:
            peers = sample(peers, 2)
        others = self._host.others
        hinted = self._host.hinted
        for looks in range(1, LOOKS + 1):
            least = _INFINITE
            for peer in peers:
                state = peer.state
                if isinstance(state, SharedPeerState):
                    column = state.column
                    in_flight = state.own.in_flight
                    for row in others:
                        in_flight += row[column]
                else:
                    in_flight = state.in_flight
                load = in_flight / peer.weight
                if hinted:
                    load += state.beyond / peer.weight
                if load < least:
                    least = load
                    best = peer
                    ties = 1
                elif load == least:
                    ties += 1
                    if random() * ties < 1.0:  # reservoir sampling: each of the tied is as likely
                        best = peer
            state = best.state
            if not isinstance(state, SharedPeerState):
                break
            state.announce()
            column = state.column
            in_flight = state.own.in_flight - 1  # but for the one announced
            for row in others:
                in_flight += row[column]
            load = in_flight / best.weight
            if hinted:
                load += state.beyond / best.weight
            if load <= least or looks == LOOKS:
                break
            state.withdraw()
        return best
