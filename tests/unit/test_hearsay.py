"""What the host says of a peer: the last word of all live workers holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.page import PID, Page, Row, Seat
from gateway.routing import peer as module
from gateway.routing.host import Hearsay, OwnCalls, SharedPeerState
from gateway.routing.peer import COOL_DOWN, PeerState, Standing

COLUMN = 3


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(module, "monotonic_ns", lambda: round(made.now * 1e9))
    return made


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(4)
    for row in page.rows[1:]:
        row.cells[PID] = 100 + row.number
    yield page
    page.close()


class Worker:
    """One worker's view of the one peer."""

    def __init__(self, page: Page, row: Row) -> None:
        self.state = SharedPeerState(Standing(), row, COLUMN, OwnCalls(row, COLUMN))
        self._hearsay = Hearsay(Seat(page, row, 3))

    @property
    def says_well(self) -> bool:
        return self._hearsay.is_well(self.state)

    def answered(self) -> None:
        self.state.heard = False  # a sweep has passed
        self.state.answered()

    def fail(self, time: Time) -> None:
        trial = self.state.begin(time.now)
        assert self.state.failed(time.now, trial)
        self.state.end()


@pytest.fixture
def workers(page: Page, time: Time) -> list[Worker]:
    return [Worker(page, row) for row in page.rows[1:]]


def test_a_peer_that_nobody_has_tried_is_well_and_its_first_call_changes_nothing(
    workers: list[Worker], time: Time
) -> None:
    workers[0].state.begin(time.now)
    assert all(worker.says_well for worker in workers)


def test_a_failure_that_one_worker_met_is_told_by_all_until_its_cool_down_is_over(
    workers: list[Worker], time: Time
) -> None:
    for worker in workers:
        worker.answered()
    time.pass_by(60.0)
    workers[1].fail(time)
    assert not any(worker.says_well for worker in workers)
    time.pass_by(COOL_DOWN)
    assert all(worker.says_well for worker in workers)


def test_a_later_answer_to_any_worker_outdoes_a_failure(workers: list[Worker], time: Time) -> None:
    workers[0].answered()
    time.pass_by(60.0)
    workers[1].fail(time)
    time.pass_by(0.1)
    workers[0].answered()
    assert all(worker.says_well for worker in workers)
    time.pass_by(0.1)
    workers[2].fail(time)
    assert not any(worker.says_well for worker in workers)


def test_of_two_words_of_the_same_moment_the_bad_one_holds(workers: list[Worker], time: Time) -> None:
    workers[0].fail(time)
    workers[1].answered()
    assert not any(worker.says_well for worker in workers)


def test_what_was_said_of_a_peer_that_left_says_nothing_of_its_successor(page: Page, time: Time) -> None:
    first, second, _ = (Worker(page, row) for row in page.rows[1:])
    first.fail(time)
    assert not first.says_well and not second.says_well
    for worker in (first, second):
        worker.state.leave()
    successors = [Worker(page, row) for row in page.rows[1:]]
    assert all(worker.says_well for worker in successors)


def test_a_worker_that_fails_after_an_answer_within_one_sweep_says_so(workers: list[Worker], time: Time) -> None:
    workers[0].answered()
    time.pass_by(0.01)
    workers[0].fail(time)
    assert not workers[1].says_well
    time.pass_by(0.01)
    workers[0].state.answered()
    assert workers[1].says_well


def test_the_words_of_the_dead_are_not_heard(workers: list[Worker], time: Time, page: Page) -> None:
    workers[0].fail(time)
    page.rows[1].clear(COLUMN + 1, 0)
    assert workers[1].says_well and workers[2].says_well


def test_a_peer_that_is_no_longer_configured_says_nothing_of_its_successor(workers: list[Worker], time: Time) -> None:
    workers[0].state.leave()
    workers[0].fail(time)
    assert workers[1].says_well


def test_a_state_of_one_worker_alone_is_judged_by_its_own_word(page: Page, time: Time) -> None:
    hearsay = Hearsay(Seat(page, page.rows[1]))
    state = PeerState(Standing())
    assert hearsay.is_well(state)
    trial = state.begin(time.now)
    assert state.failed(time.now, trial)
    assert not hearsay.is_well(state)
    state.answered()
    assert hearsay.is_well(state)
