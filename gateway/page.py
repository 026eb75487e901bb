"""The page: memory that all workers of one host share.

Owns the layout, the rows, the directory and the lock. It refuses to know what is counted (`gateway.observe.shared`),
whose columns are (`gateway.columns`) and who lives (`gateway.crew`). The supervisor makes one page; a worker is handed
it with the number of its row. An upgrade keeps it: processes of two versions may write to it, each to its own row.

Two kinds of cells. **Own cells** stand in a row and have one writer, the process that the row belongs to (but for its
PID, which the supervisor writes): aligned int64 written through a memoryview that was cast to "q", which the processor
stores whole (struct.pack_into zeroes first and was seen torn). Of them the holds change under `Page.lock` only.
**Common cells** (the header, the directory, columns' owners, circuits and loads) change only under it, too.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

_CELL: Final = 8
_MAGIC: Final = 0x48454144_52414345  # "HEADRACE"
#: Another number where the layout changes, or the bounds of a histogram: an upgrade then begins with a new page.
LAYOUT: Final = 5

# The header's cells.
_MAGIC_CELL, _LAYOUT_CELL, _ROWS_CELL, _FOLDS_CELL = range(4)
_METRICS_CELLS: Final = slice(8, 10)
_TURNS_CELL: Final = 10
_HEADER_CELLS: Final = 64

#: The first cells of each row: `STATE` is one of the three below; `BEAT` the last sweep, or the beginning of `SERVING`,
#: monotonic nanoseconds; `LAG` by how many the sweep was late; `MEMORY` bytes; `HELD` at least how many columns it
#: holds. Of the supervisor's row only `STATE` is used: whether the host goes down.
PID, CONNECTIONS, GENERATION, STATE, BEAT, LAG, MEMORY, HELD = range(8)
STARTING, SERVING, LEAVING = range(3)
_FIXED_CELLS: Final = 16
#: Peers that have a column at one time (`gateway.columns`); those beyond are balanced by each worker's own count.
COLUMNS_LIMIT: Final = 1024
#: Where whoever has no column finds all cells 0: nobody is given it, so nobody writes there.
NO_COLUMN: Final = COLUMNS_LIMIT
#: Bytes of what tells whose a column is.
OWNER_SIZE: Final = 32
#: Cells of each peer's circuit (`gateway.routing.breaker`); the first of all cells tells when one was changed.
CIRCUIT_CELLS: Final = 24
_CIRCUITS_CELLS: Final = 1 + COLUMNS_LIMIT * CIRCUIT_CELLS
#: Cells of what each peer's server tells of its load (`gateway.routing.load`).
LOAD_CELLS: Final = 3
_LOADS_CELLS: Final = COLUMNS_LIMIT * LOAD_CELLS
#: Cells of counters: a few for each label set, some twenty for a histogram's.
METRIC_CELLS: Final = 64 << 10
_COLUMNS: Final = COLUMNS_LIMIT + 1
_ROW_CELLS: Final = _FIXED_CELLS + 3 * _COLUMNS + METRIC_CELLS

#: Bytes of the directory's names; and what of it is kept for those that must find room: cells, and bytes.
_METRIC_NAMES: Final = 2 << 20
METRIC_CELLS_KEPT: Final = 1 << 10
METRIC_NAMES_KEPT: Final = 64 << 10
_ENTRY_HEAD: Final = 8

#: Tries to take the lock, with a pause after each: a second in all, and 50 ms in a loop that
#: has calls to serve. Its holder does microseconds of work.
_LOCK_TRIES: Final = 2000
_LOOP_TRIES: Final = 100
_LOCK_PAUSE: Final = 0.0005


class PageError(Exception):
    """The page cannot be used; the text is for the operator."""


class Row:
    """The cells of one process: it alone counts there. The supervisor sets its PID, and clears them once it is dead."""

    __slots__ = ("calls", "cells", "holds", "metrics", "number", "words")

    def __init__(self, number: int, cells: memoryview[int]) -> None:
        self.number = number
        #: `PID` and the following.
        self.cells = cells[:_FIXED_CELLS]
        cells = cells[_FIXED_CELLS:]
        #: Calls in flight, by the peer's column.
        self.calls = cells[:_COLUMNS]
        #: The last word on each peer, by the same (`gateway.routing.peer`).
        self.words = cells[_COLUMNS : 2 * _COLUMNS]
        #: Which columns the process uses, and must not be given to another peer: not 0 (`gateway.columns`).
        self.holds = cells[2 * _COLUMNS : 3 * _COLUMNS]
        #: What was counted, by the entries of `Page.metrics`.
        self.metrics = cells[3 * _COLUMNS :]

    def release(self) -> None:
        """Let go of the memory."""
        for part in (self.cells, self.calls, self.words, self.holds, self.metrics):
            part.release()

    def clear(self, columns: int, metrics: int) -> None:
        """Make it as if nobody had used it; called under the lock, and its writer must be dead.

        Only the first *columns* and *metrics* cells were given away: the rest takes no memory, and should not begin to.
        Holds go when nothing stands in their columns any more, and the process last: then the row is free.
        """
        of_columns = (self.calls[:columns], self.words[:columns], self.holds[:columns])
        for part in (*of_columns, self.metrics[:metrics], self.cells):
            part[:] = memoryview(bytes(len(part) * _CELL)).cast("q")

    def __repr__(self) -> str:
        return f"<Row {self.number} of {self.cells[PID]}>"


class Seat(NamedTuple):
    """A worker's place at the page, and how many workers there are."""

    page: Page
    row: Row
    workers: int = 1


def alone() -> Seat:
    """A seat at a page of one's own, for a gateway without a supervisor."""
    page = Page.make(2)
    return Seat(page, page.rows[1])


class Directory:
    """Names with cells in each row, for all processes the same. Names are only ever added.

    Each name has *width* cells; the first of them is its.
    """

    __slots__ = ("_lock", "_names", "_read", "_used", "firsts", "given", "widths")

    def __init__(self, page: Page, head: memoryview[int], names: memoryview[int]) -> None:
        self._lock = page.lock
        #: Two common cells: bytes used in *names*, and cells given away.
        self._used = head
        self._names = names
        # read so far
        self._read = 0
        #: Cells given away, as far as this process knows.
        self.given = 0
        #: By name, in the order of their making.
        self.firsts: dict[bytes, int] = {}
        self.widths: dict[bytes, int] = {}

    def first(self, name: bytes, width: int = 1, *, kept: bool = False) -> int | None:
        """The first cell of *name*, which is given some on first use; None where all are given away.

        *kept*: those that are kept may be given to it. Raises `PageError` where it must be given some and the lock is
        held for too long.
        """
        known = self.firsts.get(name)
        if known is not None:
            return known
        self.refresh()  # what another process has named needs no lock
        if name in self.firsts:
            return self.firsts[name]
        cells, size = METRIC_CELLS, len(self._names)
        if not kept:
            cells, size = cells - METRIC_CELLS_KEPT, size - METRIC_NAMES_KEPT
        with self._lock():
            self.refresh()
            if name in self.firsts:
                return self.firsts[name]
            used, taken = self._used
            end = used + _ENTRY_HEAD + len(name)
            if taken + width > cells or end > size:
                return None
            self._names[used + _ENTRY_HEAD : end] = name
            self._names[used : used + 4] = width.to_bytes(4, "little")
            self._names[used + 4 : used + 8] = len(name).to_bytes(4, "little")
            self._used[1] = taken + width
            self._used[0] = end  # last: whoever reads without the lock sees whole entries only
            self.refresh()
        return self.firsts[name]

    @property
    def used_ratio(self) -> float:
        """How much is given away of what is not kept, 1 at most: of the cells, or of the bytes, whichever is more."""
        used, given = self._used
        return min(1.0, max(given / (METRIC_CELLS - METRIC_CELLS_KEPT), used / (len(self._names) - METRIC_NAMES_KEPT)))

    def refresh(self) -> None:
        """Learn the names that other processes added."""
        used = self._used[0]
        while self._read < used:
            at = self._read
            head = bytes(self._names[at : at + _ENTRY_HEAD])
            width = int.from_bytes(head[:4], "little")
            end = at + _ENTRY_HEAD + int.from_bytes(head[4:], "little")
            name = bytes(self._names[at + _ENTRY_HEAD : end])
            self.firsts[name] = self.given
            self.widths[name] = width
            self.given += width
            self._read = end

    def release(self) -> None:
        """Let go of the memory."""
        self._used.release()
        self._names.release()


class Page:
    """The shared memory, as one process sees it."""

    def __init__(self, fd: int, *, in_loop: bool = False) -> None:
        """Take the page behind *fd*, which the caller keeps. Raises `PageError`.

        *in_loop*: whoever waits for the lock holds calls up.
        """
        self._tries = _LOOP_TRIES if in_loop else _LOCK_TRIES
        #: The last wait was in vain: until the lock is free again nobody here waits, but looks once.
        self._stuck = False
        size = os.fstat(fd).st_size
        self.fd = fd
        self._memory = mmap.mmap(fd, size)
        whole = memoryview(self._memory)
        header = whole[: _HEADER_CELLS * _CELL].cast("q")
        if size < _HEADER_CELLS * _CELL or header[_MAGIC_CELL] != _MAGIC or header[_LAYOUT_CELL] != LAYOUT:
            raise PageError("the shared page is of another version")
        self._header = header
        # A descriptor that came by fork shares its lock with the parent's: the lock needs an opening of its own.
        self._lock_fd = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        at = _HEADER_CELLS * _CELL
        self.rows: list[Row] = []
        for number in range(header[_ROWS_CELL]):
            self.rows.append(Row(number, whole[at : at + _ROW_CELLS * _CELL].cast("q")))
            at += _ROW_CELLS * _CELL
        #: Common cells: whose each column is (`gateway.columns`), and from which on the next one is looked for.
        self.owners = whole[at : at + COLUMNS_LIMIT * OWNER_SIZE]
        at += COLUMNS_LIMIT * OWNER_SIZE
        self.turns = header[_TURNS_CELL : _TURNS_CELL + 1]
        #: Label sets and their counters.
        self.metrics = Directory(self, header[_METRICS_CELLS], whole[at : at + _METRIC_NAMES])
        at += _METRIC_NAMES
        #: Common cells: peers' circuits, by the column.
        self.circuits = whole[at : at + _CIRCUITS_CELLS * _CELL].cast("q")
        at += _CIRCUITS_CELLS * _CELL
        #: Common cells: what peers' servers tell, by the same.
        self.loads = whole[at : at + _LOADS_CELLS * _CELL].cast("q")

    @classmethod
    def make(cls, rows: int) -> Page:
        """A new page for *rows* processes. Untouched parts of it take no memory."""
        fd = os.memfd_create("headrace-page", os.MFD_CLOEXEC)
        cells = _HEADER_CELLS + rows * _ROW_CELLS + _CIRCUITS_CELLS + _LOADS_CELLS
        os.ftruncate(fd, cells * _CELL + COLUMNS_LIMIT * OWNER_SIZE + _METRIC_NAMES)
        with mmap.mmap(fd, mmap.PAGESIZE) as start:
            header = memoryview(start)[: _HEADER_CELLS * _CELL].cast("q")
            header[_ROWS_CELL] = rows
            header[_LAYOUT_CELL] = LAYOUT
            header[_MAGIC_CELL] = _MAGIC
            header.release()
        return cls(fd)

    @contextmanager
    def lock(self, tries: int | None = None) -> Iterator[None]:
        """Change common cells. The kernel frees the lock when its holder dies.

        Raises `PageError` after a second, in a loop after 50 ms; and at once while a process that hangs holds it still.
        *tries*: half milliseconds, for who has less time.
        """
        for _ in self._attempts(tries or self._tries):
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
        else:
            raise PageError("the page's lock is held for too long")
        self._stuck = False
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _attempts(self, tries: int) -> Iterator[None]:
        """Iterate while it is worth to wait for whoever has the lock: without a pause before the first look."""
        for at in range(1 if self._stuck else tries):
            if at:
                time.sleep(_LOCK_PAUSE)
            yield
        self._stuck = True

    @contextmanager
    def folding(self) -> Iterator[None]:
        """Move sums between rows: whoever reads sums meanwhile reads them again (`steady`)."""
        with self.lock():
            self._header[_FOLDS_CELL] += 1
            try:
                yield
            finally:
                self._header[_FOLDS_CELL] += 1

    @property
    def columns(self) -> int:
        """How many columns were ever given to a peer: the first ones."""
        return min(self.turns[0], COLUMNS_LIMIT)

    def free(self) -> Row:
        """A row that nobody has. Raises `PageError` where there is none."""
        for row in self.rows[1:]:  # the first one is the supervisor's
            if not row.cells[PID]:
                return row
        raise PageError("the shared page has no free row: too many former workers still drain")

    def neighbours(self, own: Row) -> list[Row]:
        """The rows of the other processes that live."""
        return [row for row in self.rows if row.cells[PID] and row.number != own.number]

    def serving(self) -> list[Row]:
        """The rows of the workers that take calls: not those that start, or that end."""
        return [row for row in self.rows[1:] if row.cells[STATE] == SERVING]

    @property
    def leaving(self) -> bool:
        """Whether the whole host goes down."""
        return self.rows[0].cells[STATE] == LEAVING

    def leave(self) -> None:
        """The whole host goes down; called by the supervisor."""
        self.rows[0].cells[STATE] = LEAVING

    def steady(self) -> Iterator[None]:
        """Iterate once, and again while sums were moved between rows in the meantime. Raises `PageError` as `lock`."""
        for _ in self._attempts(self._tries):
            before = self._header[_FOLDS_CELL]
            if before % 2 == 0:
                yield
                if self._header[_FOLDS_CELL] == before:
                    self._stuck = False
                    return
        raise PageError("the page's sums do not come to rest")

    def close(self) -> None:
        """Let go of the memory and its descriptors; nobody may use a row any more."""
        for row in self.rows:
            row.release()
        self.owners.release()
        self.turns.release()
        self.metrics.release()
        self.circuits.release()
        self.loads.release()
        self._header.release()
        self._memory.close()
        os.close(self._lock_fd)
        os.close(self.fd)

    def __repr__(self) -> str:
        live = sum(1 for row in self.rows if row.cells[PID])
        return f"<Page of {len(self.rows)} rows, {live} live>"
