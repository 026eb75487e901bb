"""What peers' servers tell of their load, as every worker sees it: a hint to the balancers, never more.

Owns `Loads`: the cells in which the worker that asks leaves what it was told, and what each worker makes of them at
each sweep. It refuses to ask (`gateway.upstream.load`) and to choose (`balance`, `host`). Made by `gateway.estate`,
one per worker.

A server that others use too tells of more requests than this host sent it. Those *beyond* count like calls in flight,
until they are told anew or are too old. They make a peer the lesser choice and never take it out: where all tell
nonsense, it is as if none did, and a server that alone tells nonsense still gets a part of the calls (`BLIND`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.page import LOAD_CELLS, Page, PageError
from gateway.routing.circuits import now_ms
from gateway.routing.peer import PeerState

#: The cells of a peer: monotonic milliseconds, 0: nothing was told; the requests that its server has, and those of them
#: that are none of this host's. Whoever reads them while they are written may find one of before: it is a hint.
AT, TOLD, BEYOND = range(LOAD_CELLS)
#: Intervals for which a hint holds, and milliseconds at most: it is nothing by then.
LIFE: Final = 2
LONGEST: Final = 5_000
#: One sweep in so many no hint counts: so a twentieth of the time all peers are as good as their calls.
BLIND: Final = 20
#: Tries to take the page's lock: 10 ms, since the loop waits. A hint that is not written is told again soon.
_TRIES: Final = 20


def weight(age: int, interval: int) -> float:
    """The part of a hint that still counts, *age* ms after it was told, where it is told each *interval* ms.

    All of it during the first half of its life, and from then on less and less.
    """
    life = min(LIFE * interval, LONGEST)
    return min(1.0, max(0.0, 2.0 - 2.0 * age / life))


class Loads:
    """The hints on the peers of the present configuration."""

    __slots__ = ("_page", "_peers", "_sweeps", "live")

    def __init__(self, page: Page) -> None:
        self._page = page
        #: With the milliseconds between two questions.
        self._peers: dict[PeerState, int] = {}
        self._sweeps = 0
        #: Whether any hint counts now.
        self.live = False

    def take_over(self, peers: Iterable[tuple[PeerState, float]]) -> None:
        """The servers of these *peers* are asked from now on, each every so many seconds."""
        former, self._peers = self._peers, {state: max(1, int(interval * 1000)) for state, interval in peers}
        for state in former:
            if state not in self._peers:
                state.beyond = 0.0

    def tell(self, state: PeerState, told: int, own: int) -> None:
        """The peer's server has *told* requests, and this host had *own* calls in flight to it."""
        cells, at = self._page.loads, state.column * LOAD_CELLS
        try:
            with self._page.lock(_TRIES):
                cells[at + TOLD] = told
                cells[at + BEYOND] = max(0, told - own)
                cells[at + AT] = now_ms()
        except PageError:
            pass

    def told(self, state: PeerState) -> int | None:
        """How many requests the peer's server has, by what it told last; None where that is too long ago."""
        interval = self._peers.get(state)
        at = state.column * LOAD_CELLS
        if interval is None or now_ms() - self._page.loads[at + AT] >= LIFE * interval:
            return None
        return self._page.loads[at + TOLD]

    def sweep(self, now: float) -> None:
        """See what was told, and how old it is."""
        if not self._peers:
            self.live = False
            return
        cells, ms = self._page.loads, now_ms()
        live = False
        for state, interval in self._peers.items():
            at = state.column * LOAD_CELLS
            beyond = float(cells[at + BEYOND])
            if beyond:
                beyond *= weight(ms - cells[at + AT], interval)
                live = live or beyond > 0.0
            state.beyond = beyond
        self._sweeps += 1
        self.live = live and self._sweeps % BLIND != 0
