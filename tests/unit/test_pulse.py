"""Who turns and who hangs, as the page tells it to one that asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.page import BEAT, LEAVING, SERVING, STATE, Page, Seat
from gateway.pulse import told_apart, turns

SECOND = 1_000_000_000
#: What the asker's last sweep was at.
NOW = 1_000 * SECOND


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(5)
    for row in page.rows[1:]:
        row.cells[STATE] = SERVING
        row.cells[BEAT] = NOW
    yield page
    page.close()


def numbers(page: Page) -> tuple[list[int], list[int]]:
    """Of those that turn, and of those that hang, as the first worker is told."""
    turning, hanging = told_apart(Seat(page, page.rows[1], 4))
    return [row.number for row in turning], [row.number for row in hanging]


def test_who_has_not_turned_for_two_seconds_hangs(page: Page) -> None:
    page.rows[2].cells[BEAT] -= 2 * SECOND - 1
    page.rows[3].cells[BEAT] -= 2 * SECOND
    assert numbers(page) == ([1, 2, 4], [3])
    assert turns(page.rows[3], NOW - 1) and not turns(page.rows[3], NOW)


def test_who_does_not_take_calls_is_neither(page: Page) -> None:
    page.rows[2].cells[STATE] = LEAVING
    page.rows[3].cells[STATE] = LEAVING
    page.rows[3].cells[BEAT] = 0
    assert numbers(page) == ([1, 4], [])


def test_where_all_stood_still_together_nobody_hangs(page: Page) -> None:
    """Whoever is asked first after a machine's sleep has not swept either."""
    for row in page.rows[1:]:
        row.cells[BEAT] -= 3600 * SECOND
    assert numbers(page) == ([1, 2, 3, 4], [])
