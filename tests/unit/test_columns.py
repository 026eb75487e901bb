"""Columns of the page: whose each is, who holds it, and that no count ever goes to the wrong peer."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from gateway import columns as module
from gateway.columns import Columns, held
from gateway.observe.shared import bury
from gateway.page import CIRCUIT_CELLS, COLUMNS_LIMIT, HELD, LOAD_CELLS, PID, Page, PageError, Seat

ROOM = 4


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(5)
    yield page
    page.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with few columns."""
    monkeypatch.setattr(module, "COLUMNS_LIMIT", ROOM)


def worker(page: Page, number: int) -> Columns:
    page.rows[number].cells[PID] = 100 + number
    return Columns(Seat(page, page.rows[number], 3))


def use(columns: Columns, name: str) -> int:
    column = columns.use(name.encode())
    assert column is not None
    return column


def let_go(columns: Columns, *given: int) -> None:
    for column in given:
        columns.leave(column)
    columns.give_back()


def test_a_peer_has_one_column_for_all_workers_and_two_peers_have_two(page: Page) -> None:
    one, two = worker(page, 1), worker(page, 2)
    assert [use(one, "a"), use(one, "b"), use(two, "b"), use(two, "c"), use(one, "c")] == [0, 1, 1, 2, 2]
    assert held(page) == 3


@pytest.mark.usefixtures("small")
def test_a_column_is_another_peers_only_when_every_worker_has_let_go_of_it(page: Page) -> None:
    one, two = worker(page, 1), worker(page, 2)
    given = [use(one, name) for name in "abcd"]
    use(two, "b")
    assert one.use(b"e") is None
    let_go(one, given[1])
    assert one.use(b"e") is None, "another worker, which may not have heard yet that the peer is gone, holds it still"
    let_go(two, given[1])
    assert use(two, "e") == given[1]


@pytest.mark.usefixtures("small")
def test_a_column_is_held_until_the_last_of_a_workers_states_has_let_go(page: Page) -> None:
    one, two = worker(page, 1), worker(page, 2)
    for name in "abc":
        use(two, name)
    column = use(one, "x")
    assert use(one, "x") == column, "its key has changed, say, and the former one's call runs on"
    assert not one.leave(column)
    one.give_back()
    assert two.use(b"y") is None
    assert one.leave(column) and two.use(b"y") is None, "nothing is given back but under the lock"
    one.give_back()
    assert use(two, "y") == column


@pytest.mark.usefixtures("small")
def test_who_is_given_a_column_finds_nothing_of_the_former_peer(page: Page) -> None:
    one = worker(page, 1)
    for name in "abcd":
        column = use(one, name)
    row = page.rows[1]
    circuit = range(1 + column * CIRCUIT_CELLS, 1 + (column + 1) * CIRCUIT_CELLS)
    loads = range(column * LOAD_CELLS, (column + 1) * LOAD_CELLS)
    for at in circuit:
        page.circuits[at] = 7
    for at in loads:
        page.loads[at] = 7
    row.words[column] = 7
    let_go(one, column)
    assert not row.words[column] and not row.holds[column] and row.cells[HELD] == ROOM - 1
    assert use(one, "another") == column
    assert not any(page.circuits[at] for at in circuit) and not any(page.loads[at] for at in loads)


def test_who_comes_back_soon_finds_its_column_as_it_was(page: Page) -> None:
    one = worker(page, 1)
    column = use(one, "a")
    page.circuits[1 + column * CIRCUIT_CELLS] = 7
    let_go(one, column)
    assert use(one, "b") != column and use(one, "a") == column
    assert page.circuits[1 + column * CIRCUIT_CELLS] == 7


def test_any_number_of_peers_have_columns_one_after_another(page: Page) -> None:
    one, two = worker(page, 1), worker(page, 2)
    stays = use(two, "stays")
    for number in range(3 * COLUMNS_LIMIT):
        column = use(one, f"peer {number}")
        assert column != stays
        let_go(one, column)
    assert held(page) == 1 and use(one, "stays") == stays


@pytest.mark.usefixtures("small")
def test_what_a_dead_worker_held_is_free_once_it_is_buried_and_not_before(page: Page) -> None:
    dead, one = worker(page, 1), worker(page, 2)
    column = [use(dead, name) for name in "abcd"][2]
    page.rows[1].calls[column] = 5
    assert one.use(b"x") is None
    bury(page, page.rows[1])
    assert held(page) == 0 and not any(page.rows[1].calls)
    assert sorted(use(one, name) for name in "wxyz") == list(range(ROOM))


def test_while_the_lock_is_held_nothing_is_given_nor_given_back(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.page.time.sleep", lambda _: None)
    one = worker(page, 1)
    column = use(one, "a")
    one.leave(column)
    other = Page(os.dup(page.fd))
    with other.lock():
        with pytest.raises(PageError):
            one.use(b"b")
        with pytest.raises(PageError):
            one.give_back()
    other.close()
    assert one.idle == {column} and held(page) == 1
    assert use(one, "a") == column and not one.idle, "it was held all the while"
    one.give_back()
    assert held(page) == 1


def test_a_name_that_stands_across_two_others_is_not_found(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        def __init__(self, name: bytes, digest_size: int) -> None:
            self.name = name

        def digest(self) -> bytes:
            return self.name

    monkeypatch.setattr(module, "blake2b", Named)
    one = worker(page, 1)
    names = [b"x" * 16 + b"y" * 16, b"z" * 32, b"y" * 16 + b"z" * 16]
    assert [one.use(name) for name in names] == [0, 1, 2]
    assert [one.use(name) for name in names] == [0, 1, 2]


def die_at(line: int, act: Callable[[], object]) -> bool:
    """*act* in a process that is killed at the line of `gateway.columns` that it would run next; whether it was."""
    pid = os.fork()
    if pid == 0:
        left = line

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != module.__file__:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.usefixtures("small")
def test_a_worker_may_be_killed_at_any_line_on_its_way_to_a_column_and_back(page: Page) -> None:
    """A column is given that another peer had; what its successors find is whole, and none is lost."""
    one = worker(page, 1)
    lines = 0
    while True:
        stays, goes = use(one, "stays"), use(one, "goes")
        page.circuits[1 + stays * CIRCUIT_CELLS] = page.circuits[1 + goes * CIRCUIT_CELLS] = 7
        let_go(one, goes)

        def live() -> None:
            mine = Page(page.fd)
            columns = worker(mine, 2)
            for name in ("v", "w", "x"):
                mine.rows[2].calls[column := use(columns, name)] = 9
            assert columns.use(b"y") is None
            let_go(columns, column)

        killed = die_at(lines, live)
        bury(page, page.rows[2])
        assert held(page) == 1 and use(one, "stays") == stays and page.circuits[1 + stays * CIRCUIT_CELLS] == 7
        one.leave(stays)
        others = [use(one, name) for name in ("x", "w", "another")]
        assert sorted((stays, *others)) == list(range(ROOM))
        assert not any(page.circuits[1 + column * CIRCUIT_CELLS] for column in others)
        assert not any(page.rows[2].calls) and not any(page.rows[2].holds)
        let_go(one, stays, *others)
        assert held(page) == 0
        lines += 1
        if not killed:
            break
    assert lines > 50


def churn(page: Page, number: int, until: float) -> None:
    """A worker whose peers come and go; each count says whose it is, so that a wrong one is seen. Never returns."""
    chance = random.Random(number * 1000 + os.getpid())
    columns = Columns(Seat(page, page.rows[number], 3))
    row, names = page.rows[number], [f"peer {at}" for at in range(12)]
    mine: dict[int, int] = {}
    while time.monotonic() < until:
        at = chance.randrange(len(names))
        with suppress(PageError):  # a machine that is busy: as a worker, it tries again later
            if at in mine:
                column = mine.pop(at)
                row.calls[column] = 0
                columns.leave(column)
                if chance.random() < 0.7:
                    columns.give_back()
            elif (given := columns.use(names[at].encode())) is not None:
                mine[at] = given
                row.calls[given] = at + 1
        for at, column in mine.items():
            if any(other.calls[column] not in (0, at + 1) for other in page.rows):
                os._exit(7)
    os._exit(0)


@pytest.mark.usefixtures("small")
def test_no_worker_ever_sees_another_peers_calls_in_its_column_whoever_dies_when(page: Page) -> None:
    until = time.monotonic() + 1.5
    chance = random.Random(7)
    pids: dict[int, int] = {}
    died = 0

    def start(number: int) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                churn(Page(page.fd), number, until)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        page.rows[number].cells[PID] = pid
        pids[pid] = number

    for number in (1, 2, 3):
        start(number)
    while pids:
        if time.monotonic() < until and chance.random() < 0.3:
            os.kill(chance.choice(list(pids)), signal.SIGKILL)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            time.sleep(0.001)
            continue
        number = pids.pop(pid)
        died += os.WIFSIGNALED(status)
        assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL), "7: a count of another peer was seen"
        bury(page, page.rows[number])
        if time.monotonic() < until:
            start(number)
    assert died > 3 and held(page) == 0
