"""The children's books: who serves, who is due, who is told to leave."""

from __future__ import annotations

import math
import selectors
import signal
from collections.abc import Callable, Iterator

import pytest

from gateway import crew as module
from gateway.channel import Channel, Leave, pair
from gateway.crew import BACK_OFF_LIMIT, Child, Crew, Life, Note
from gateway.observe.counters import RESTARTS
from gateway.page import BEAT, PID, Page, Row
from gateway.vigil import HUNG, LOOK


class Messages:
    """What was logged."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def info(self, text: str, /, **fields: object) -> None:
        self.lines.append({"msg": text, **fields})

    warning = info


class Forks:
    """Processes that are none: their ends of the channels stay here."""

    def __init__(self) -> None:
        self.ends: dict[int, Channel] = {}

    def start(self, live: Callable[[Channel], int]) -> tuple[int, Channel]:
        ours, theirs = pair()
        pid = 1_000_000_000 + len(self.ends)
        self.ends[pid] = theirs
        return pid, ours


class Staged:
    """A crew of *count* at a page for *rows* workers."""

    def __init__(self, count: int, rows: int) -> None:
        self.page = Page.make(1 + rows)
        self.now = module.time.monotonic()
        self.forks = Forks()
        self.log = Messages()
        self.selector = selectors.DefaultSelector()
        self.crew = Crew(count, self.page, self.forks, self.selector, self.be, self.log)  # type: ignore[arg-type]

    def be(self, number: int, row: Row, control: Channel) -> int:
        raise AssertionError("nothing is forked")

    def start(self) -> list[Child]:
        """Start those that are due, and return them."""
        before = set(self.crew.children)
        self.crew.restart(1, 300.0)
        return [child for pid, child in self.crew.children.items() if pid not in before]

    def restarts(self) -> dict[str, int]:
        """What was counted, by the reason."""
        first = self.page.rows[0].metrics
        named = self.page.metrics.firsts.items()
        return {name.partition(b"\0")[2].decode(): first[at] for name, at in named if RESTARTS in name.decode()}

    def pass_time(self, now: pytest.MonkeyPatch, seconds: float, *turning: Child) -> None:
        """The clock is looked at every `LOOK` seconds; *turning* sweep meanwhile."""
        for _ in range(round(seconds / LOOK)):
            self.now += LOOK
            now.setattr(module.time, "monotonic", lambda: self.now)
            for child in turning:
                assert child.row is not None
                child.row.cells[BEAT] += 1
            self.crew.look_at_the_clock()

    def told(self, child: Child) -> list[Leave]:
        return [one for one in self.forks.ends[child.pid].receive() or [] if isinstance(one, Leave)]

    def close(self) -> None:
        for channel in (*self.forks.ends.values(), *self.crew.channels):
            channel.close()
        self.selector.close()
        self.page.close()


@pytest.fixture
def staged() -> Iterator[Staged]:
    staged = Staged(2, 5)
    staged.crew.call_all()
    yield staged
    staged.close()


def serve(*children: Child) -> None:
    for child in children:
        assert child.row is not None
        child.row.cells[BEAT] = 1  # a worker's loop turned before it says that it serves
        child.hears(Life.SERVING)


def test_a_crew_is_complete_once_each_number_serves(staged: Staged) -> None:
    one, two = staged.start()
    assert [child.number for child in (one, two)] == [0, 1] and not staged.crew.due
    assert [child.row.cells[PID] for child in (one, two) if child.row] == [one.pid, two.pid]
    serve(one)
    assert not staged.crew.complete
    serve(two)
    assert staged.crew.complete
    staged.crew.replace(two)
    assert not staged.crew.complete, "one that is replaced does not count"


def test_who_is_replaced_is_told_once_and_nobody_else(staged: Staged) -> None:
    one, two = staged.start()
    serve(one, two)
    staged.crew.hand_over()
    assert not staged.told(one) and not staged.told(two)
    staged.crew.replace(two)
    staged.crew.replace(two)
    (successor,) = staged.start()
    assert successor.number == 1
    for _ in range(2):
        staged.crew.hand_over()
    assert staged.told(two) == [Leave(replaced=True)]
    assert two.life is Life.LEAVING and math.isfinite(two.deadline)
    assert not staged.told(one) and not staged.told(successor)


def test_a_worker_that_was_told_to_leave_does_not_serve_by_saying_so(staged: Staged) -> None:
    one, _ = staged.start()
    one.move(Life.LEAVING)
    serve(one)
    assert one.life is Life.LEAVING
    one.hears(Life.CLOSED)
    assert one.life is Life.CLOSED
    with pytest.raises(AssertionError):
        one.move(Life.SERVING)


def test_all_are_told_when_all_leave_and_nobody_is_due_any_more(staged: Staged) -> None:
    one, two = staged.start()
    serve(one, two)
    staged.crew.replace(one)
    staged.crew.hand_over()
    staged.told(one)
    staged.crew.dismiss(pre_stop=5.0, quick=False)
    assert staged.told(one) == staged.told(two) == [Leave(pre_stop=True)]
    assert not staged.crew.due
    staged.crew.dismiss(pre_stop=None, quick=True)
    assert staged.told(one) == staged.told(two) == [Leave()]


def test_a_worker_for_whom_there_is_no_row_waits_for_one(staged: Staged) -> None:
    for row in staged.page.rows[2:]:
        row.cells[PID] = 1
    (one,) = staged.start()
    assert one.number == 0 and list(staged.crew.due) == [1]
    assert [line["reason"] for line in staged.log.lines] == [
        "the shared page has no free row: too many former workers still drain"
    ]


def test_a_worker_that_dies_young_waits_longer_each_time_and_never_long(staged: Staged) -> None:
    waits = []
    for _ in range(12):
        children = staged.start()
        child = next(child for child in children if child.number == 0)
        waits.append(staged.crew.call_again(0, staged.crew.bury(child)))
        staged.crew.due[0] = 0.0
    assert waits == sorted(waits) and waits[0] < 0.2 and waits[-1] == BACK_OFF_LIMIT


def test_who_does_not_get_ready_or_does_not_end_is_killed(staged: Staged, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(module.os, "kill", lambda *call: killed.append(call))
    one, two = staged.start()
    serve(two)
    staged.crew.replace(two)
    staged.crew.hand_over()
    staged.crew.look_at_the_clock()
    assert not killed
    one.deadline = two.deadline = 0.0
    staged.crew.look_at_the_clock()
    assert killed == [(one.pid, signal.SIGKILL), (two.pid, signal.SIGKILL)]
    said = [line["msg"] for line in staged.log.lines]
    assert said == ["a worker does not get ready and is killed", "a worker does not end and is killed"]


def test_who_does_not_turn_is_killed_and_counted_and_its_successor_is_due(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(module.os, "kill", lambda *call: killed.append(call))
    one, two = staged.start()
    serve(one, two)
    staged.pass_time(monkeypatch, 2 * LOOK, one, two)
    staged.pass_time(monkeypatch, HUNG - LOOK, two)
    assert not killed
    staged.pass_time(monkeypatch, 2 * HUNG, two)
    assert killed == [(one.pid, signal.SIGKILL)], "once, though it does not die of it"
    said = {"msg": "a worker hangs and is killed", "worker": 0, "pid": one.pid, "seconds": HUNG, "state": None}
    assert staged.log.lines == [said]
    assert staged.crew.bury(one) == 0
    assert staged.restarts() == {"hung": 1}


@pytest.mark.parametrize("everybody", [False, True])
def test_who_leaves_and_does_not_turn_does_not_have_the_time_of_its_drain(
    staged: Staged, monkeypatch: pytest.MonkeyPatch, everybody: bool
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(module.os, "kill", lambda *call: killed.append(call))
    one, two = staged.start()
    serve(one, two)
    if everybody:
        staged.crew.dismiss(pre_stop=5.0, quick=False)
    else:
        one.replaced = True
        staged.crew.hand_over()
    assert one.life is Life.LEAVING
    staged.pass_time(monkeypatch, 2 * LOOK + HUNG, two)
    assert killed == [(one.pid, signal.SIGKILL)]
    staged.crew.bury(one)
    assert staged.restarts() == {}, "nobody is started in its place"


def test_who_leaves_before_it_ever_turned_has_its_time(staged: Staged, monkeypatch: pytest.MonkeyPatch) -> None:
    _, two = staged.start()
    serve(two)
    staged.crew.dismiss(pre_stop=5.0, quick=False)
    staged.pass_time(monkeypatch, HUNG + 2 * LOOK, two)
    assert not [line for line in staged.log.lines if "hangs" in str(line)]


def test_who_starts_is_not_expected_to_turn(staged: Staged, monkeypatch: pytest.MonkeyPatch) -> None:
    _, two = staged.start()
    serve(two)
    staged.pass_time(monkeypatch, HUNG + 2 * LOOK, two)
    assert not staged.log.lines


def test_a_look_is_due_while_anybody_is_to_turn(staged: Staged, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = staged.start()
    staged.pass_time(monkeypatch, LOOK)
    assert min(staged.crew.dates()) == one.deadline
    serve(one)
    assert min(staged.crew.dates()) == staged.now + LOOK


def test_each_restart_is_counted_by_its_reason(staged: Staged) -> None:
    one, two = staged.start()
    serve(one)
    staged.crew.bury(one)
    staged.crew.bury(two)
    staged.crew.call_all()
    one, two = staged.start()
    serve(one, two)
    staged.crew.replace(one)
    staged.crew.replace(one)
    staged.crew.bury(one)
    assert staged.restarts() == {"died": 1, "start": 1, "reload": 1}


def test_one_that_never_gets_ready_dies_young_however_long_it_takes(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = staged.start()
    serve(two)
    later = one.at_start + 30.0
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert staged.crew.bury(one) == 1
    assert staged.crew.bury(two) == 0


def noted(staged: Staged, child: Child) -> Note:
    """What the next supervisor is told of *child*, with a descriptor of its own."""
    note = child.noted()
    note.channel = child.channel.sock.dup().detach()
    return note


def test_another_supervisor_takes_the_children_with_their_rows_and_replaces_them(staged: Staged) -> None:
    one, two = staged.start()
    serve(one)
    dead = staged.page.rows[4]
    dead.cells[PID], dead.metrics[0] = 4, 9
    name = staged.page.metrics.first(b"scounted")
    assert name == 0
    notes = [noted(staged, one), noted(staged, two)]
    for child in (one, two):
        staged.selector.unregister(child.channel)
    successor = Crew(1, staged.page, staged.forks, staged.selector, staged.be, staged.log)  # type: ignore[arg-type]
    successor.take(notes, same_page=True)
    taken = list(successor.children.values())
    assert [(child.pid, child.life) for child in taken] == [(one.pid, Life.SERVING), (two.pid, Life.STARTING)]
    assert [child.row.number for child in taken if child.row] == [1, 2] and not successor.present
    successor.look_at_the_clock()
    assert not dead.cells[PID] and staged.page.rows[0].metrics[0] == 9, "whom nobody buried is buried"
    successor.hand_over()
    assert staged.told(one) == staged.told(two) == [Leave(replaced=True)]
    for child in taken:
        successor.bury(child)
    assert not successor.due and not any(row.cells[PID] for row in staged.page.rows)


def test_children_of_another_page_have_no_row_here(staged: Staged) -> None:
    one, _ = staged.start()
    staged.selector.unregister(one.channel)
    successor = Crew(1, staged.page, staged.forks, staged.selector, staged.be, staged.log)  # type: ignore[arg-type]
    successor.take([noted(staged, one)], same_page=False)
    (taken,) = successor.children.values()
    assert taken.row is None
    successor.bury(taken)
    assert one.row is not None and one.row.cells[PID] == one.pid
