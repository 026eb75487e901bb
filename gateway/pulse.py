"""Whether the workers' loops turn, as their rows of the page tell.

Owns the one bound. It refuses to write the page (`gateway.build`) and to end who hangs (`gateway.vigil`).
"""

from __future__ import annotations

from typing import Final

from gateway.page import BEAT, Row, Seat

#: Nanoseconds without a sweep, of which there are ten a second, after which a worker's loop is taken to hang.
_STILL: Final = 2_000_000_000


def turns(row: Row, now: int) -> bool:
    """Whether the loop of *row*'s worker turns. *now*: monotonic nanoseconds."""
    return now - row.cells[BEAT] < _STILL


def told_apart(seat: Seat) -> tuple[list[Row], list[Row]]:
    """The workers that take calls: those that turn, and those that hang. Called in one that turns: *seat* is its own.

    The present is its own last sweep: when all stood still together, as on a suspended machine, nobody hangs.
    """
    now = seat.row.cells[BEAT]
    turning: list[Row] = []
    hanging: list[Row] = []
    for row in seat.page.serving():
        (turning if turns(row, now) else hanging).append(row)
    return turning, hanging
