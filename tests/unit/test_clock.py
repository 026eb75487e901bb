"""The clock: sweeps that go on whatever happens, a date that is never old, and an end that is one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from gateway import clock as module
from gateway.clock import STALL, SWEEP_INTERVAL, TURN, Clock
from gateway.within import within


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
    monkeypatch.setattr(module, "wall", lambda: made.wall)
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
    loop.run(20.5 * SWEEP_INTERVAL)
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


def test_time_in_which_the_loop_stood_still_counts_for_no_deadline(loop: Loop) -> None:
    clock = started(loop)
    swept: list[float] = []
    clock.every_sweep(swept.append)
    loop.run(10 * SWEEP_INTERVAL)
    before = clock.now
    loop.run(SWEEP_INTERVAL + 2.0, late=2.0)
    loop.run(SWEEP_INTERVAL + 2 * TURN)
    assert swept[10] - before == pytest.approx(SWEEP_INTERVAL, abs=0.01)
    assert clock.now - before == pytest.approx(2 * SWEEP_INTERVAL, abs=0.01)
    assert clock.lag == pytest.approx(0.0, abs=0.01)


def test_what_begins_after_a_stall_has_its_whole_time_before_any_deadline_is_judged(loop: Loop) -> None:
    clock = started(loop)
    swept: list[float] = []
    clock.every_sweep(swept.append)
    late = loop.armed.pop()
    loop._go_to(late.due + 2.0)
    late.step(*late.args)
    assert swept == []  # the sockets are read first
    assert clock.lag == pytest.approx(2.0)
    begun = clock.now
    loop.run(TURN)
    assert swept == pytest.approx([begun + TURN])


def test_a_loop_that_stands_still_again_and_again_puts_no_deadline_off_for_ever(loop: Loop) -> None:
    clock = started(loop)
    swept: list[float] = []
    clock.every_sweep(swept.append)
    for _ in range(20):
        loop.run(1.0, late=STALL + 0.3)
    passed = loop.now - 1_000.0
    assert clock.now - 1_000.0 > 0.9 * passed
    assert len(swept) > 10


def test_a_limit_is_not_reached_by_a_loop_that_stood_still() -> None:
    async def wait(delay: float) -> bool:
        running = asyncio.get_running_loop()
        came = running.create_future()
        try:
            async with within(0.05):
                running.call_later(delay, came.set_result, None)
                running.call_soon(time.sleep, STALL + 0.1)  # both timers are due when it goes on
                await came
        except TimeoutError:
            return False
        return True

    assert asyncio.run(wait(0.1))
    assert not asyncio.run(wait(5.0))
