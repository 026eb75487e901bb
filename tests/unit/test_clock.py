"""The clock: sweeps that go on whatever happens, a date that is never old, and an end that is one."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import clock as module
from gateway.clock import SWEEP_INTERVAL, Clock


class Handle:
    def __init__(self, due: float, step: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.due, self.step, self.args = due, step, args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop whose time is told, with the wall clock beside it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.wall = 1_800_000_000.0
        self.armed: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, step: Callable[..., None], *args: Any) -> Handle:
        handle = Handle(self.now + delay, step, args)
        self.armed.append(handle)
        return handle

    def run(self, seconds: float, late: float = 0.0) -> None:
        """Let *seconds* pass; each step runs *late* seconds after it is due."""
        end = self.now + seconds
        while due := [one for one in self.armed if not one.cancelled and one.due + late <= end + 1e-9]:
            handle = due[0]
            self.armed.remove(handle)
            self._go_to(handle.due + late)
            handle.step(*handle.args)
        self._go_to(end)

    def _go_to(self, time: float) -> None:
        self.wall += time - self.now
        self.now = time

    @property
    def waiting(self) -> int:
        return sum(not handle.cancelled for handle in self.armed)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(module, "monotonic", lambda: made.now)
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: made.wall))
    return made


def started(loop: Loop) -> Clock:
    clock = Clock()
    any_loop: Any = loop
    clock.start(any_loop)
    return clock


def test_every_sweep_is_told_the_time(loop: Loop) -> None:
    clock = started(loop)
    first: list[float] = []
    second: list[float] = []
    clock.every_sweep(first.append)
    clock.every_sweep(second.append)
    loop.run(1.0)
    assert first == second
    assert first == pytest.approx([1_000.0 + SWEEP_INTERVAL * n for n in range(1, 21)])
    assert clock.now == first[-1]


def test_now_stands_still_between_sweeps(loop: Loop) -> None:
    clock = started(loop)
    loop.run(SWEEP_INTERVAL * 0.9)
    assert clock.now == 1_000.0
    loop.run(SWEEP_INTERVAL * 0.2)
    assert clock.now == pytest.approx(1_000.0 + SWEEP_INTERVAL)


def test_there_is_one_timer_whatever_the_sweeps(loop: Loop) -> None:
    clock = started(loop)
    for _ in range(5):
        clock.every_sweep(lambda now: None)
        loop.run(0.2)
        assert loop.waiting == 1


def test_the_lag_is_what_the_loop_was_late(loop: Loop) -> None:
    clock = started(loop)
    lags: list[float] = []
    clock.on_lag = lags.append
    loop.run(SWEEP_INTERVAL)
    loop.run(2.0, late=0.5)
    assert lags[0] == pytest.approx(0.0)
    assert lags[1:] == pytest.approx([0.5] * (len(lags) - 1))
    assert len(lags) > 1


def test_a_loop_that_fires_early_has_no_lag_below_zero(loop: Loop) -> None:
    clock = started(loop)
    lags: list[float] = []
    clock.on_lag = lags.append
    handle = loop.armed.pop()
    handle.step(*handle.args)
    assert lags == [0.0]


def test_the_date_is_renewed_with_each_second(loop: Loop) -> None:
    clock = started(loop)
    dates = []
    for _ in range(30):
        dates.append(clock.date)
        loop.run(0.1)
        name, _, value = clock.date.decode().partition(": ")
        assert (name, value[-6:]) == ("date", " GMT\r\n")
        assert abs(parsedate_to_datetime(value.strip()).timestamp() - loop.wall) <= 1.0 + SWEEP_INTERVAL
    assert len(set(dates)) in (3, 4)


def test_the_date_follows_a_wall_clock_that_is_set_and_the_time_does_not(loop: Loop) -> None:
    clock = started(loop)
    for jump in (3_600.0, -7_200.0):
        loop.wall += jump
        loop.run(0.1)
        value = clock.date.decode().partition(": ")[2].strip()
        assert abs(parsedate_to_datetime(value).timestamp() - loop.wall) <= 1.0 + SWEEP_INTERVAL
        assert clock.now == pytest.approx(loop.now, abs=SWEEP_INTERVAL)


def test_a_new_clock_has_a_date_already(loop: Loop) -> None:
    assert Clock().date == b"date: Fri, 15 Jan 2027 08:00:00 GMT\r\n"


def test_a_stopped_clock_sweeps_no_more(loop: Loop) -> None:
    clock = started(loop)
    swept: list[float] = []
    clock.every_sweep(swept.append)
    loop.run(0.1)
    before = list(swept)
    clock.stop()
    assert loop.waiting == 0
    loop.run(1.0)
    assert swept == before
    clock.stop()


def test_a_sweep_may_stop_the_clock(loop: Loop) -> None:
    clock = started(loop)
    clock.every_sweep(lambda now: clock.stop())
    loop.run(1.0)
    assert loop.waiting == 0


def test_a_timer_that_fires_though_the_clock_was_stopped_does_nothing(loop: Loop) -> None:
    clock = started(loop)
    swept: list[float] = []
    clock.every_sweep(swept.append)
    handle = loop.armed[0]
    clock.stop()
    handle.step(*handle.args)
    assert swept == []
    assert loop.waiting == 0


def test_a_stopped_clock_can_be_started_again(loop: Loop) -> None:
    clock = started(loop)
    clock.stop()
    any_loop: Any = loop
    clock.start(any_loop)
    swept: list[float] = []
    clock.every_sweep(swept.append)
    loop.run(SWEEP_INTERVAL)
    assert len(swept) == 1


def test_a_sweep_that_raises_stops_neither_the_others_nor_the_clock(loop: Loop) -> None:
    clock = started(loop)
    errors: list[Exception] = []
    swept: list[float] = []
    clock.on_error = errors.append

    def broken(now: float) -> None:
        raise ValueError(now)

    clock.every_sweep(broken)
    clock.every_sweep(swept.append)
    loop.run(2 * SWEEP_INTERVAL)
    assert len(swept) == 2
    assert [error.args for error in errors] == [(now,) for now in swept]
