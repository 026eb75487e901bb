"""Calls in flight on the whole host: what the other workers have under way counts as a peer's load.

Owns `Neighbours` (what the other workers' rows say), `SharedPeerState` (which tells them) and the balancer over both.
It refuses the page's layout (`gateway.page`). Made by `gateway.upstreams` where there are several workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import random, sample
from typing import Final

from gateway.page import Seat
from gateway.routing.peer import Peer, PeerState, Standing

_INFINITE: Final = float("inf")
#: Up to so many peers are all looked at: each costs a look into every row.
LOOKED_AT: Final = 8


class Neighbours:
    """The rows of the other workers, as of the last sweep."""

    __slots__ = ("_seat", "rows")

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.rows: list[memoryview[int]] = []

    def sweep(self, now: float) -> None:
        """See who lives."""
        self.rows = [row.peers for row in self._seat.page.neighbours(self._seat.row)]


class SharedPeerState(PeerState):
    """A peer's state whose calls in flight the other workers see too.

    After a reload the former state and its successor count in the same cell, so neither writes its own sum there: each
    adds and takes away. No other process writes the cell.
    """

    __slots__ = ("_cells", "column")

    def __init__(self, standing: Standing, cells: memoryview[int], column: int) -> None:
        super().__init__(standing)
        self._cells = cells
        #: The peer's number on the page.
        self.column = column

    def begin(self, now: float) -> bool:
        self._cells[self.column] += 1
        return super().begin(now)

    def end(self) -> None:
        super().end()
        self._cells[self.column] -= 1


class HostLeastConnections:
    """The fewest calls in flight on the whole host for its weight; ties at random.

    Of many peers two are drawn at random and the less busy one is taken: that is nearly as even. The loop is that of
    `LeastConnections` written again: a call for each peer's load would be paid by every call of every gateway.
    """

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours

    def pick(self, peers: Sequence[Peer]) -> Peer:
        if len(peers) > LOOKED_AT:
            peers = sample(peers, 2)
        rows = self._neighbours.rows
        least = _INFINITE
        for peer in peers:
            state = peer.state
            in_flight = state.in_flight
            if isinstance(state, SharedPeerState):
                column = state.column
                for row in rows:
                    in_flight += row[column]
            load = in_flight / peer.weight
            if load < least:
                least = load
                best = peer
                ties = 1
            elif load == least:
                ties += 1
                if random() * ties < 1.0:  # reservoir sampling: each of the tied is as likely
                    best = peer
        return best
