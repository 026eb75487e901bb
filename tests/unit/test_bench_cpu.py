"""CPU accounting against processes that know what they have burnt."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.cpu import ProcessGone, Tree, descendants

#: Burns CPU time in *threads*, says how much it has used, and waits for its end.
BURNER = """
import sys, threading, time
def burn():
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass
thread = threading.Thread(target=burn)
thread.start()
burn()
thread.join()
print(time.process_time_ns(), flush=True)
sys.stdin.read()
"""

#: Starts a burner below itself when it is told to, passes on what that says, and waits for the end of both.
PARENT = f"""
import subprocess, sys
print(0, flush=True)
sys.stdin.readline()
child = subprocess.Popen([sys.executable, "-c", {BURNER!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(child.stdout.readline().decode().strip(), flush=True)
sys.stdin.read()
child.communicate()
"""

#: What a process may use between its own reading and ours, nanoseconds: a print and a read.
AFTERWARDS = 100_000_000


@contextmanager
def running(program: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.communicate()


def said(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_a_burner_has_spent_what_it_says_threads_included() -> None:
    with running(BURNER) as process:
        burnt = said(process)
        assert burnt >= 200_000_000
        assert burnt <= Tree(process.pid).spent() <= burnt + AFTERWARDS


def test_a_process_born_in_the_window_is_counted() -> None:
    with running(PARENT) as process:
        said(process)
        tree = Tree(process.pid)
        before = tree.spent()
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        burnt = said(process)
        known = tree.spent() - before
        assert known < burnt, "the child is not known before newcomers are looked for"
        assert known + tree.newcomers() >= burnt
        assert tree.pids == descendants(process.pid)
        assert len(tree.pids) == 2


def test_memory_is_that_of_the_whole_tree() -> None:
    with running(BURNER) as process:
        said(process)
        assert Tree(process.pid).resident() > 1_000_000


def test_a_process_that_ended_in_the_window_voids_the_figures() -> None:
    with running("print(0)") as process:
        said(process)
        tree = Tree(process.pid)
        process.wait()
        with pytest.raises(ProcessGone):
            tree.spent()
