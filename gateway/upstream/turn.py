"""Which of the host's workers asks peers what need not be asked by each: the lowest that serves and whose loop turns.

Owns the choice. It refuses what is asked (`health`, `load`). What is learnt stands in the page, so the next worker goes
on where the former one ended.
"""

from __future__ import annotations

from gateway.clock import monotonic_ns
from gateway.page import SERVING, STATE, Seat
from gateway.pulse import turns


def is_ours(seat: Seat) -> bool:
    """Whether this worker serves, and no lower one that turns."""
    own = seat.row
    now = monotonic_ns()
    for row in seat.page.rows[1 : own.number]:
        if row.cells[STATE] == SERVING and turns(row, now):
            return False
    return own.cells[STATE] == SERVING
