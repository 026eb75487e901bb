"""What every worker of the host has counted, added up.

Owns the way of the counters to the page and back. It refuses to count (`gateway.observe.counters`) and to know who
lives (`gateway.crew`). One `SharedCounts` is made per worker by `gateway.build`.

A worker counts in its own memory, where it is cheapest, and copies what changed into its row at each sweep; so what
others see of it is at most one sweep old, and that much is lost when it is killed. A dead worker's sums are moved to
the row of the supervisor (`bury`), so that no sum ever falls.

A page has cells for so many label sets, and a set that was ever shown keeps its own. One that finds none is counted in
its family's set "other", for which cells are kept: so what a family counts in all stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from gateway.observe.counters import OTHER, RESTARTS, Counter, Gauge, Histogram, Registry, Restart
from gateway.page import Page, PageError, Row, Seat

_NANO: Final = 1_000_000_000
#: The most that a cell of the page holds. A sum stays there: it must end neither a worker's sweeps nor the supervisor.
CELL_LIMIT: Final = (1 << 63) - 1
#: The first byte of an entry's name: whether the dead still count.
_SUM, _LEVEL = b"s", b"l"

_Labels = tuple[str, ...]


class SharedCounts:
    """*registry* is what this worker counts; *blank* makes a registry with the same families and nothing counted."""

    __slots__ = (
        *("_blank", "_children", "_page", "_registry", "_row"),
        *("_beyond", "_counters", "_gauges", "_histograms", "_known", "_shown"),
        "on_full",
    )

    def __init__(self, seat: Seat, registry: Registry, blank: Callable[[], Registry]) -> None:
        # given
        self._page, self._row, _ = seat
        self._registry = registry
        self._blank = blank
        self._children = [family.children for family in registry.families if family.shared]
        #: Told, once, of the first family that has a set for which there are no cells.
        self.on_full: Callable[[str], None] | None = None
        # grows with the children, of which none ever goes
        #: Those that have a place in the row, and its number.
        self._counters: list[tuple[Counter, int]] = []
        self._gauges: list[tuple[Gauge, int]] = []
        self._histograms: list[tuple[Histogram, int]] = []
        #: Those that have none.
        self._beyond: list[_Beyond] = []
        #: Those that need not be looked for again.
        self._known: set[tuple[str, _Labels]] = set()
        #: How many values of a histogram the row tells, by its place.
        self._shown: dict[int, int] = {}

    def publish(self) -> None:
        """Copy what changed into the row. Many children never change from one sweep to the next."""
        while sum(map(len, self._children)) != len(self._known) and self._take_in():
            pass  # a set that finds no cells may need an "other", which is a set too
        for one in self._beyond:
            one.pour()
        cells, shown = self._row.metrics, self._shown
        for counter, at in self._counters:
            if cells[at] != counter.value:
                cells[at] = min(counter.value, CELL_LIMIT)
        for gauge, at in self._gauges:
            cells[at] = min(int(gauge.read()), CELL_LIMIT)
        for histogram, at in self._histograms:
            count = histogram.count
            if shown.get(at) != count:
                shown[at] = count
                for index, value in enumerate(_values(histogram), at):
                    cells[index] = min(value, CELL_LIMIT)

    def _take_in(self) -> bool:
        """Give new children their cells, for which the page's lock is needed.

        While that is held by a process that hangs, what is new waits for the next time, and this returns False.
        """
        for family, labels, child in list(_children(self._registry)):
            if (family, labels) not in self._known:
                try:
                    at = self._first_cell(family, labels, child)
                except PageError:
                    return False
                self._known.add((family, labels))
                if at is not None:
                    self._keep(child, at)
                else:
                    self._fold(family, labels, child)
        return True

    def _fold(self, name: str, labels: _Labels, child: Counter | Gauge | Histogram) -> None:
        """Count *child* in its family's "other"."""
        self._registry.folded(name)
        if self.on_full is not None:
            self.on_full(name)
            self.on_full = None
        if set(labels) <= {OTHER}:
            return  # it is that one, and a former version's has another width
        family = next(family for family in self._registry.families if family.name == name)
        other = family.child(*(OTHER,) * len(labels))
        if isinstance(child, Gauge):
            assert isinstance(other, Gauge)
            other.watch(child.read)
        else:
            self._beyond.append(_Beyond(child, other))

    def _keep(self, child: Counter | Gauge | Histogram, at: int) -> None:
        match child:
            case Counter():
                self._counters.append((child, at))
            case Gauge():
                self._gauges.append((child, at))
            case Histogram():
                self._histograms.append((child, at))

    def _first_cell(self, family: str, labels: _Labels, child: Counter | Gauge | Histogram) -> int | None:
        """The first of its cells in the row; None where there are none. Raises `PageError`."""
        width = len(_values(child))
        kind = _LEVEL if isinstance(child, Gauge) else _SUM
        name = _name(kind, family, labels)
        at = self._page.metrics.first(name, width, kept=set(labels) <= {OTHER})
        # The page is full, or the entry is a former version's.
        return at if at is not None and self._page.metrics.widths[name] == width else None

    def merged(self) -> Registry:
        """Everything that the host has counted. Raises `PageError` while sums are on the move for too long."""
        self.publish()
        directory = self._page.metrics
        sums: list[int] = []
        for _ in self._page.steady():
            directory.refresh()
            count = directory.given
            # The supervisor's row, the first one, holds the sums of the dead.
            rows = [self._page.rows[0], self._row, *self._page.neighbours(self._row)]
            sums = [sum(cells) for cells in zip(*(row.metrics[:count].tolist() for row in rows), strict=True)]
        registry = self._blank()
        families = {family.name: family for family in registry.families}
        for name, at in directory.firsts.items():
            family, *labels = name[1:].decode().split("\0")
            known = families.get(family)
            # An entry that does not fit is a former version's: one of them must not cost the whole scrape.
            if known is not None and len(known.labels) == len(labels):
                child = known.child(*labels)
                if len(_values(child)) == directory.widths[name]:
                    _add(child, sums[at : at + directory.widths[name]])
        return registry


class _Beyond:
    """Sums without cells of their own, which are added to *other*."""

    __slots__ = ("_child", "_other", "_poured")

    def __init__(self, child: Counter | Histogram, other: Counter | Gauge | Histogram) -> None:
        self._child = child
        self._other = other
        #: What *other* has of it.
        self._poured = [0] * len(_values(child))

    def pour(self) -> None:
        """Add what was counted since the last time."""
        values = _values(self._child)
        if values != self._poured:
            _add(self._other, [now - before for now, before in zip(values, self._poured, strict=True)])
            self._poured = values


def bury(page: Page, dead: Row) -> None:
    """Move the sums of *dead*, whose process is gone, to the first row, and make the row fit for another."""
    keeper = page.rows[0].metrics
    with page.folding():
        page.metrics.refresh()
        for name, at in page.metrics.firsts.items():
            if name[:1] == _SUM:
                for index in range(at, at + page.metrics.widths[name]):
                    keeper[index] = min(keeper[index] + dead.metrics[index], CELL_LIMIT)
        dead.clear(page.columns, page.metrics.given)


def count_restart(page: Page, why: Restart) -> None:
    """Count it in the first row: no worker does. Called by the supervisor. Raises `PageError`."""
    at = page.metrics.first(_name(_SUM, RESTARTS, (why.value,)), kept=True)
    if at is not None:
        page.rows[0].metrics[at] += 1


def _name(kind: bytes, family: str, labels: _Labels) -> bytes:
    """An entry's name."""
    # NUL stands between the parts, so none may have one.
    text = "\0".join((family, *(label.replace("\0", "\\x00") for label in labels)))
    return kind + text.encode("utf-8", "backslashreplace")


def _children(registry: Registry) -> Iterator[tuple[str, _Labels, Counter | Gauge | Histogram]]:
    for family in registry.families:
        if family.shared:
            for labels, child in family.children.items():
                yield family.name, labels, child


def _values(child: Counter | Gauge | Histogram) -> list[int]:
    """The cells of *child*: whole numbers, a histogram's sum in billionths."""
    match child:
        case Counter():
            return [child.value]
        case Gauge():
            return [int(child.read())]
        case Histogram():
            return [*child.hits, int(child.total * _NANO)]


def _add(child: Counter | Gauge | Histogram, values: list[int]) -> None:
    match child:
        case Counter() | Gauge():
            child.value += values[0]
        case Histogram():
            child.add(values[:-1], values[-1] / _NANO)
