"""Circuits: when they open, who is the probe, and that no peer is left alone for ever."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.page import CIRCUIT_CELLS
from gateway.routing import breaker
from gateway.routing.breaker import (
    BUSY,
    BUSY_LIMIT,
    CELLS,
    CLOSED,
    DUE,
    FAILED,
    FAILURES,
    HALF_OPEN,
    HOLD_TIME,
    JITTER,
    LEASE_TIME,
    LONGEST,
    NEWS_TIME,
    OPEN,
    OPENED,
    RESTORED_AT,
    UNREACHED,
    Circuit,
    Rules,
)
from tests.unit.configuring import STEADY

RESET = 1000


def circuit(failures: int = 5, chance: Callable[[], float] = lambda: 0.5) -> Circuit:
    return Circuit([0] * CELLS, 0, Rules(failures, RESET), chance)


def opened(now: int = 100) -> Circuit:
    made = circuit(1)
    change = made.failed(now, now, FAILED, 0)
    assert change is not None and change.opened
    return made


def test_the_cells_of_a_circuit_have_room_on_the_page() -> None:
    assert breaker.RESTORED_AT < CELLS <= CIRCUIT_CELLS


def test_failures_in_a_row_open_it() -> None:
    one = circuit(3)
    assert [one.failed(now, now, FAILED, 0) is None for now in (1, 2)] == [True, True]
    change = one.failed(3, 3, FAILED, 0)
    assert change == (OPEN, True) and one.state is OPEN and one.cell(OPENED) == 1


def test_a_usable_answer_ends_the_row() -> None:
    one = circuit(2)
    for now in range(1, 20, 2):
        assert one.failed(now, now, FAILED, 0) is None
        assert one.served(now + 1, now + 1) is None
    assert one.state is CLOSED


def test_no_number_of_failures_opens_what_never_opens() -> None:
    one = circuit(0)
    assert all(one.failed(now, now, FAILED, 0) is None for now in range(100))
    assert one.cell(FAILURES) == 0


def test_a_probe_is_due_when_the_open_time_is_over_and_it_is_one() -> None:
    one = opened(100)
    assert one.claim(100 + RESET - 1) == 0
    claim = one.claim(100 + RESET)
    assert claim and one.state is HALF_OPEN
    assert one.claim(100 + RESET) == 0


def test_the_probes_success_closes_and_its_failure_opens_for_twice_as_long_up_to_ten_times() -> None:
    one = opened(0)
    now, spans = 0, []
    for _ in range(40):
        spans.append(one.cell(DUE) - now)
        now = one.cell(DUE)
        claim = one.claim(now)
        change = one.failed(now, now, FAILED, claim)
        assert change is not None and change == (OPEN, False)
    assert spans[:6] == [RESET, 2 * RESET, 4 * RESET, 8 * RESET, LONGEST * RESET, LONGEST * RESET]
    assert one.cell(OPENED) == 1
    claim = one.claim(one.cell(DUE))
    assert one.served(now + LONGEST * RESET, now + LONGEST * RESET, claim) == (CLOSED, False)
    assert one.cell(FAILURES) == 0 and one.failed(now * 2, now * 2, FAILED, 0) == (OPEN, True)
    assert one.cell(DUE) - now * 2 == RESET, "what opens anew begins anew"


@pytest.mark.parametrize(("drawn", "factor"), [(0.0, 1 - JITTER), (1.0, 1 + JITTER)])
def test_open_times_differ_by_a_fifth_and_never_pass_the_longest(drawn: float, factor: float) -> None:
    one = circuit(1, lambda: drawn)
    one.failed(0, 0, FAILED, 0)
    assert one.cell(DUE) == int(RESET * factor)
    for _ in range(20):
        now = one.cell(DUE)
        one.failed(now, now, FAILED, one.claim(now))
        assert one.cell(DUE) - now <= LONGEST * RESET


def test_a_probe_without_a_verdict_makes_room_for_another_at_once() -> None:
    one = opened(0)
    claim = one.claim(RESET)
    assert one.release(RESET + 5, claim) == (OPEN, False)
    assert one.release(RESET + 5, claim) is None, "once"
    assert one.claim(RESET + 5) not in (0, claim)


def test_the_claim_of_a_dead_worker_frees_itself_and_that_of_a_live_one_does_not() -> None:
    one = opened(0)
    claim = one.claim(RESET)
    one.renew(RESET + LEASE_TIME - 1, claim)
    assert one.claim(RESET + LEASE_TIME) == 0
    other = one.claim(RESET + 2 * LEASE_TIME - 1)
    assert other
    one.renew(RESET + 3 * LEASE_TIME, claim)
    assert one.release(RESET + 3 * LEASE_TIME, claim) is None, "it is not its own any more"
    assert one.claim(RESET + 3 * LEASE_TIME - 1)


def test_calls_that_began_before_it_opened_neither_close_nor_lengthen_it() -> None:
    one = opened(100)
    due = one.cell(DUE)
    assert one.served(200, 50) is None and one.state is OPEN
    assert one.failed(200, 50, FAILED, 0) is None and one.failed(200, 150, FAILED, 0) is None
    assert (one.cell(DUE), one.cell(FAILURES)) == (due, 1)


def test_calls_that_began_before_it_closed_do_not_open_it() -> None:
    one = opened(100)
    assert one.served(300, 100 + NEWS_TIME - 1) is None, "its worker may not have known that it was out"
    assert one.served(500, 100 + NEWS_TIME) == (CLOSED, False), "a peer that stays in use may answer before its time"
    assert one.failed(600, 450, FAILED, 0) is None and one.state is CLOSED


def test_who_asks_to_be_left_alone_has_not_failed() -> None:
    one = circuit(1)
    assert one.busy(1000, 2.0, 0) is None
    assert (one.state, one.cell(BUSY)) == (CLOSED, 3000)
    one.busy(1000, 1.0, 0)
    assert one.cell(BUSY) == 3000, "the longer time holds"
    one.busy(1000, 1e9, 0)
    assert one.cell(BUSY) == 1000 + BUSY_LIMIT


def test_a_probe_that_is_told_to_come_again_is_no_verdict_and_the_next_waits_as_long() -> None:
    one = opened(0)
    claim = one.claim(RESET)
    assert one.busy(RESET, 5.0, claim) == (OPEN, False)
    assert one.claim(RESET + 4999) == 0 and one.claim(RESET + 5000)


def test_another_place_of_the_same_name_begins_anew_and_the_same_one_does_not() -> None:
    one = opened(100)
    one.take(7)
    assert one.state is CLOSED and one.cell(OPENED) == 0
    one.failed(200, 200, FAILED, 0)
    one.take(7)
    assert one.state is OPEN


# The health check.


def test_answers_in_a_row_to_the_health_check_open_and_close_it() -> None:
    one, now = circuit(), 10_000
    assert [one.missed(now, 3), one.missed(now, 3), one.missed(now, 3)] == [None, None, (OPEN, True)]
    now += HOLD_TIME
    assert [one.passed(now, 2, restores=True), one.passed(now, 2, restores=True)] == [None, (CLOSED, False)]


def test_one_good_answer_ends_a_row_of_bad_ones_and_the_other_way_round() -> None:
    one = circuit()
    for now in range(10_000, 90_000, 100):
        assert one.missed(now, 2) is None and one.passed(now + 1, 2, restores=False) is None
    one.missed(90_000, 1)
    for now in range(100_000, 190_000, 100):
        assert one.passed(now, 2, restores=True) is None and one.missed(now + 1, 2) is None


def test_it_may_open_what_no_call_opens() -> None:
    assert circuit(0).missed(10_000, 1) == (OPEN, True)


def test_what_calls_opened_is_not_closed_while_the_health_check_finds_nothing() -> None:
    one = opened(10_000)
    assert all(one.passed(10_000 + 100 * count, 2, restores=True) is None for count in range(200))
    assert one.state is OPEN and one.cell(RESTORED_AT) == 0


def test_what_calls_opened_is_closed_once_the_health_check_saw_it_down_and_up_again() -> None:
    one, now = opened(10_000), 10_000 + HOLD_TIME
    assert [one.missed(now, 2), one.missed(now, 2)] == [None, None]
    assert [one.passed(now, 2, restores=True), one.passed(now, 2, restores=True)] == [None, (CLOSED, False)]
    one.failed(now + 1, now + 1, FAILED, 0)
    now += 2 * HOLD_TIME
    assert all(one.passed(now, 1, restores=True) is None for _ in range(9)), "what opens anew is another matter"


def test_what_could_not_be_reached_is_closed_by_the_health_check() -> None:
    one = circuit(1)
    one.failed(10_000, 10_000, UNREACHED, 0)
    now = 10_000 + HOLD_TIME
    assert [one.passed(now, 2, restores=True), one.passed(now, 2, restores=True)] == [None, (CLOSED, False)]
    assert one.cell(RESTORED_AT) == now


def test_an_answer_to_a_call_outdoes_the_bad_answers_before_it() -> None:
    one = circuit()
    one.missed(10_000, 1)
    assert one.served(20_000, 15_000) == (CLOSED, False)
    assert one.missed(20_000 + HOLD_TIME, 2) is None


@pytest.mark.parametrize("period", [50, 500, 1000, 2500])
def test_health_that_flaps_turns_a_circuit_once_in_five_seconds_at_most(period: int) -> None:
    one, turns = circuit(), []
    for now in range(10_000, 130_000, 50):
        change = one.missed(now, 1) if now // period % 2 else one.passed(now, 1, restores=False)
        if change is not None:
            turns.append(now)
    assert len(turns) > 10 and all(later - turn >= HOLD_TIME for turn, later in pairwise(turns))


@STEADY
@given(st.data())
def test_whatever_went_before_a_probe_is_due_within_the_longest_open_time(data: st.DataObject) -> None:
    """Calls fail, leave, answer and hang in any order; then one call at a time is let in."""
    draw = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4000), st.floats(0, 1)), max_size=60))
    chances = iter([chance for *_, chance in draw])
    one = Circuit([0] * CELLS, 0, Rules(2, RESET), lambda: next(chances))
    now, claim, claims = 1, 0, 0
    for what, wait, _ in draw:
        now += wait
        before = one.state
        if what == 0:
            one.failed(now, now, FAILED, 0)
        elif what == 1 and claim:
            one.failed(now, now, FAILED, claim)
        elif what == 2:
            number = one.claim(now)
            assert not number or (before is not CLOSED and number > claims)
            claim, claims = number or claim, max(number, claims)
        elif what == 3:
            one.release(now, claim)
        elif what == 4:
            one.served(now, now - wait)
        elif what == 5:
            one.renew(now, claim)
    if one.state is not CLOSED:
        assert one.left(now) <= max(LONGEST * RESET, LEASE_TIME)
        now += one.left(now)
        claim = one.claim(now)
        assert claim
        assert one.claim(now) == 0
        assert one.served(now, now, claim) == (CLOSED, False)
    assert one.failed(now + 1, now + 1, FAILED, 0) is None or one.cell(FAILURES) == 2
