"""The benchmark's result for people (a plain table) and for programs (JSON).

Owns columns and formats. It refuses to compute figures (`summary`). Called by `overhead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from bench.options import Options
from bench.plan import Kind
from bench.run import Run
from bench.scenarios import Scenario
from bench.summary import Row


class Column(msgspec.Struct, frozen=True):
    """One figure of a table: median, and where it matters the spread of the rounds."""

    title: str
    figure: str
    digits: int = 0
    spread: bool = False
    percent: bool = False

    def cell(self, row: Row) -> str:
        found = row.figures.get(self.figure)
        if found is None:
            return "-"
        middle = self._number(found.median)
        return f"{middle} [{self._number(found.low)}..{self._number(found.high)}]" if self.spread else middle

    def _number(self, value: float) -> str:
        return f"{value * 100:.{self.digits}f}" if self.percent else f"{value:.{self.digits}f}"


_CALLS: Final = (
    Column("req/s", "rate"),
    Column("CPU us/request", "cpu_us", 1, spread=True),
    Column("x nginx", "cpu_x_nginx", 2, spread=True),
    Column("x one worker", "cpu_x_one", 2, spread=True),
    Column("x apart", "cpu_x_apart", 2, spread=True),
    Column("p50 us", "p50_us"),
    Column("p99 us", "p99_us"),
    Column("added p50", "added_p50_us", spread=True),
    Column("added p99", "added_p99_us", spread=True),
    Column("core %", "proxy_core", percent=True),
    Column("generator %", "generator_core", percent=True),
    Column("RSS MB", "rss_mb"),
)

_STREAMS: Final = (
    Column("chunks/s", "rate"),
    Column("of due %", "delivered", 1, percent=True),
    Column("CPU us/chunk", "cpu_us", 1, spread=True),
    Column("x nginx", "cpu_x_nginx", 2, spread=True),
    Column("x one worker", "cpu_x_one", 2, spread=True),
    Column("x apart", "cpu_x_apart", 2, spread=True),
    Column("delay p50 us", "p50_us"),
    Column("p99 us", "p99_us"),
    Column("p99 x nginx", "p99_x_nginx", 2, spread=True),
    Column("jitter p99 us", "jitter_p99_us"),
    Column("x nginx", "jitter_p99_x_nginx", 2, spread=True),
    Column("core %", "proxy_core", percent=True),
    Column("generator %", "generator_core", percent=True),
    Column("RSS MB", "rss_mb"),
    Column("loop lag p99 <= ms", "loop_lag_p99_ms", 2),
)

COLUMNS: Final = {Kind.CLOSED: _CALLS, Kind.PACED: _CALLS, Kind.STREAMS: _STREAMS}


class Part(msgspec.Struct):
    """One scenario's result."""

    scenario: Scenario
    summary: list[Row]
    runs: list[Run]


class Result(msgspec.Struct):
    """All that was found, as the JSON file holds it."""

    machine: dict[str, str]
    settings: Options
    parts: list[Part]


def table(scenario: Scenario, rows: Sequence[Row]) -> str:
    """A title, a line of heads and a line for each target; a column that no target fills is left out."""
    columns = [c for c in COLUMNS[scenario.kind] if any(c.figure in row.figures for row in rows)]
    lines = [["", *(column.title for column in columns), ""]]
    lines += [[row.target, *(column.cell(row) for column in columns), _note(row)] for row in rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    text = [f"{scenario.name}: {scenario.title}"]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)),
        ]
        text.append("  ".join([*cells, line[-1]]).rstrip())
    return "\n".join(text)


#: A proxy that waits longer than this share of the time for its CPU is not measured alone.
DISTURBED: Final = 0.05


def _note(row: Row) -> str:
    notes = []
    waited = row.figures.get("waited")
    if waited is not None and waited.median > DISTURBED:
        notes.append(f"disturbed: waited {waited.median:.0%} of the time for its CPU")
    if row.generator_bound:
        notes.append(f"generator-bound in {row.generator_bound} of {row.rounds}")
    if row.lines_lost:
        notes.append(f"{row.lines_lost} access lines lost")
    return ", ".join(notes)
