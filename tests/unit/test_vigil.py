"""Who hangs for good: the rule over sweeps and times, and whom a debugger has hold of."""

from __future__ import annotations

import ctypes
import os
import signal

import pytest

from gateway.vigil import ALL_HUNG, HUNG, LATE, LOOK, Vigil, is_traced, told_of

ONE, TWO, THREE = 101, 102, 103


class Looks:
    """A vigil over three workers, looked at every `LOOK` seconds; whoever is not *still* has swept meanwhile."""

    def __init__(self) -> None:
        self.traced: set[int] = set()
        self.vigil = Vigil(self.traced.__contains__)
        self.now = 1_000.0
        self.beats = dict.fromkeys((ONE, TWO, THREE), 0)
        self.look()

    def look(self, *still: int, after: float = LOOK) -> dict[int, float]:
        self.now += after
        for pid in self.beats:
            self.beats[pid] += pid not in still
        return self.vigil.look(self.beats, self.now)

    def hung(self, *still: int, seconds: float) -> set[int]:
        """Who is found to hang for good within *seconds*, in which *still* do not turn."""
        found: set[int] = set()
        for _ in range(round(seconds / LOOK)):
            found |= set(self.look(*still))
        return found


@pytest.fixture
def looks() -> Looks:
    return Looks()


def test_who_turns_never_hangs(looks: Looks) -> None:
    assert not looks.hung(seconds=10 * ALL_HUNG)


def test_who_stands_still_while_another_turns_hangs_after_the_lesser_time(looks: Looks) -> None:
    assert not looks.hung(ONE, TWO, seconds=HUNG - LOOK)
    assert looks.look(ONE, TWO) == {ONE: HUNG, TWO: HUNG}


def test_one_sweep_gives_the_whole_time_anew(looks: Looks) -> None:
    assert not looks.hung(ONE, seconds=HUNG - LOOK)
    looks.look()
    assert not looks.hung(ONE, seconds=HUNG - LOOK)


def test_who_all_stand_still_have_longer(looks: Looks) -> None:
    everybody = (ONE, TWO, THREE)
    assert not looks.hung(*everybody, seconds=ALL_HUNG - LOOK)
    assert looks.look(*everybody) == dict.fromkeys(everybody, ALL_HUNG)


def test_when_all_go_on_one_by_one_nobody_is_too_late(looks: Looks) -> None:
    """What all stood still is not held against the last of them."""
    everybody = (ONE, TWO, THREE)
    assert not looks.hung(*everybody, seconds=ALL_HUNG - 3 * LOOK)
    assert not looks.look(TWO, THREE)
    assert not looks.look(THREE)
    assert not looks.hung(seconds=HUNG)


def test_others_that_stand_still_at_times_do_not_save_one_that_hangs(looks: Looks) -> None:
    found: set[int] = set()
    for _ in range(round(HUNG)):
        found |= set(looks.look(ONE, TWO, THREE)) | set(looks.look(ONE))
    assert found == {ONE}


def test_the_only_worker_hangs_as_all_do(looks: Looks) -> None:
    del looks.beats[TWO], looks.beats[THREE]
    assert not looks.hung(ONE, seconds=ALL_HUNG - LOOK)
    assert looks.look(ONE) == {ONE: ALL_HUNG}


def test_time_in_which_nobody_looked_counts_for_nobody(looks: Looks) -> None:
    """A group that was stopped goes on in any order; the supervisor may be the first."""
    for _ in range(100):
        assert not looks.look(ONE, TWO, THREE, after=LATE + 0.1)
    assert not looks.hung(TWO, THREE, seconds=HUNG - LOOK)
    assert looks.look(ONE, TWO, THREE, after=3600.0) == {}


def test_whom_somebody_traces_is_left_alone_and_has_the_whole_time_afterwards(looks: Looks) -> None:
    looks.traced.add(ONE)
    assert not looks.hung(ONE, seconds=10 * ALL_HUNG)
    looks.traced.clear()
    assert not looks.hung(ONE, seconds=HUNG - LOOK)
    assert looks.look(ONE)


def test_the_only_worker_is_not_killed_as_its_debugger_lets_it_go(looks: Looks) -> None:
    del looks.beats[TWO], looks.beats[THREE]
    looks.traced.add(ONE)
    assert not looks.hung(ONE, seconds=2 * ALL_HUNG)
    looks.traced.clear()
    assert not looks.look(ONE)


def test_a_pid_that_comes_again_is_another_worker(looks: Looks) -> None:
    assert not looks.hung(ONE, seconds=HUNG - LOOK)
    beat = looks.beats.pop(ONE)
    looks.look()
    looks.beats[ONE] = beat
    assert not looks.hung(ONE, seconds=HUNG - LOOK)


def test_a_look_is_due_once_in_its_interval(looks: Looks) -> None:
    assert looks.vigil.due == looks.now + LOOK
    assert Vigil().due < 0


PTRACE_TRACEME = 0


def test_a_process_with_a_debugger_is_traced_and_one_that_is_merely_stopped_is_not() -> None:
    assert not is_traced(os.getpid())
    pid = os.fork()
    if pid == 0:
        failed = ctypes.CDLL(None).ptrace(PTRACE_TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGKILL if failed else signal.SIGSTOP)
        os._exit(0)
    try:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            pytest.skip("nobody may trace here")
        assert is_traced(pid)
        assert told_of(pid)["State"] == "t (tracing stop)"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not is_traced(pid) and told_of(pid) == {}


PR_SET_NAME = 15


def test_a_process_whose_name_is_cut_off_within_a_character_is_told_of_all_the_same() -> None:
    with open("/proc/self/comm", "rb") as file:
        name = file.read().rstrip(b"\n")
    prctl = ctypes.CDLL(None).prctl
    assert prctl(PR_SET_NAME, "ä".encode() * 8, 0, 0, 0) == 0  # of 16 bytes the kernel keeps 15
    try:
        assert told_of(os.getpid())["TracerPid"] == "0"
    finally:
        prctl(PR_SET_NAME, name, 0, 0, 0)
