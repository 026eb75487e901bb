"""Whose each column of the page is.

Owns `Columns`: the columns that one worker holds, how a peer is given one and how it is given back. It refuses which
peers there are and when they let go of theirs (`gateway.states`, which makes it), and what stands in the cells.

A column is the cells of one peer: calls in flight and the last word in each row, a circuit and a load hint for all. A
worker *holds* a column while its peers' states use it: its row says so. The rule that all rests on: **a column changes
its owner under the page's lock only, and only while no row holds it**. So

- who holds a column finds in it the same peer for as long as he does, however late he hears of anything;
- a hold is set under the lock before the first cell is written, and taken away under the lock after the last one was
  cleared: who is given a column finds it as if nobody had had it;
- a worker that dies holds what it held until the supervisor has cleared its row, under the lock, the holds last.

What is written on the way is in such an order that a process may be killed after any of it: an owner without a hold is
nobody's, and a count of holds that is too high costs a look.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from gateway.page import CIRCUIT_CELLS, COLUMNS_LIMIT, HELD, LOAD_CELLS, OWNER_SIZE, Page, Seat

#: Tries to take the lock to give columns back: 10 ms, since the loop waits, and there is a next time.
_TRIES: Final = 20


class Columns:
    """Those of one worker."""

    __slots__ = ("_page", "_row", "_users", "idle")

    def __init__(self, seat: Seat) -> None:
        self._page = seat.page
        self._row = seat.row
        #: Column -> how many of this worker's states use it.
        self._users: dict[int, int] = {}
        #: Columns that are held still though nobody uses them.
        self.idle: set[int] = set()

    def use(self, name: bytes) -> int | None:
        """The column of the peer *name*, held from now on; None where all are held for others. Raises `PageError`."""
        owner = blake2b(name, digest_size=OWNER_SIZE).digest()
        page, row = self._page, self._row
        with page.lock():
            column = self._find(owner)
            if column is None:
                column = self._give(owner)
            if column is None:
                return None
            if not row.holds[column]:
                row.cells[HELD] += 1
                row.holds[column] = 1
        self.idle.discard(column)
        self._users[column] = self._users.get(column, 0) + 1
        return column

    def leave(self, column: int) -> bool:
        """A state of this worker uses *column* no longer. Whether it was the last: nobody here writes to it then."""
        self._users[column] -= 1
        if self._users[column]:
            return False
        del self._users[column]
        self.idle.add(column)
        return True

    def give_back(self) -> None:
        """Let go of the columns that nobody uses. Raises `PageError`."""
        row = self._row
        with self._page.lock(_TRIES):
            for column in self.idle:
                row.calls[column] = row.words[column] = 0
                row.holds[column] = 0
                row.cells[HELD] -= 1
        self.idle.clear()

    def _find(self, owner: bytes) -> int | None:
        """The column that is *owner*'s, or was the last time that it was held; called under the lock."""
        owners = bytes(self._page.owners[: self._page.columns * OWNER_SIZE])
        at = owners.find(owner)
        while at % OWNER_SIZE and at >= 0:  # it begins in one name and ends in the next
            at = owners.find(owner, at + 1)
        return at // OWNER_SIZE if at >= 0 else None

    def _give(self, owner: bytes) -> int | None:
        """A column that nobody holds, made *owner*'s; called under the lock.

        They are given in turn: who comes back soon finds its own as it was.
        """
        page = self._page
        held = [row.holds for row in page.rows if row.cells[HELD]]
        first = page.turns[0]
        for turn in range(first, first + COLUMNS_LIMIT):
            column = turn % COLUMNS_LIMIT
            if not any(holds[column] for holds in held):
                break
        else:
            return None
        page.turns[0] = turn + 1
        at = column * OWNER_SIZE
        page.owners[at : at + OWNER_SIZE] = bytes(OWNER_SIZE)  # nobody's, while what was the former one's goes
        for cell in range(1 + column * CIRCUIT_CELLS, 1 + (column + 1) * CIRCUIT_CELLS):
            page.circuits[cell] = 0
        for cell in range(column * LOAD_CELLS, (column + 1) * LOAD_CELLS):
            page.loads[cell] = 0
        page.owners[at : at + OWNER_SIZE] = owner
        return column


def held(page: Page) -> int:
    """How many columns are held, by any process."""
    rows = [row.holds[: page.columns].tolist() for row in page.rows if row.cells[HELD]]
    return sum(map(any, zip(*rows, strict=True)))
