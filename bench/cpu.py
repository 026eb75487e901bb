"""What a process and its descendants have used: CPU time to the nanosecond, and memory.

Owns the reading of /proc and of other processes' CPU clocks (Linux only). It refuses windows and ratios. A Tree
is made by `measure` and `translated` for what they watch.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

NS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

#: The kernel's number for "the CPU time that the scheduler gave to the threads of process PID, dead ones
#: included" (CPUCLOCK_SCHED in linux/posix-timers.h; what clock_getcpuclockid(3) makes). /proc/PID/stat has
#: steps of 10 ms.
CPUCLOCK_SCHED: Final = 2


class ProcessGone(RuntimeError):
    """A watched process ended, so that its work can no longer be told."""


def _stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat behind the command name, or None where the process is gone."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return line[line.rindex(b")") + 2 :].split()


def descendants(root: int) -> list[int]:
    """*root* and every process below it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        fields = _stat(int(entry)) if entry.isdigit() else None
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _clock_ns(pid: int) -> int:
    """User + system nanoseconds of *pid*, all its threads, the kernel's work in its name included."""
    try:
        return time.clock_gettime_ns(~pid << 3 | CPUCLOCK_SCHED)
    except OSError as error:
        raise ProcessGone(f"process {pid} is gone") from error


def _reaped_ns(pid: int) -> int:
    """User + system nanoseconds of the children that *pid* has waited for, in steps of a tick."""
    fields = _stat(pid)
    if fields is None:
        raise ProcessGone(f"process {pid} is gone")
    return (int(fields[13]) + int(fields[14])) * NS_PER_TICK


def waited_ns(pid: int) -> int:
    """Nanoseconds for which *pid*'s threads were ready and had no CPU, by their schedstat; 0 where it is gone."""
    total = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(file.read_bytes().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


class Tree:
    """Processes and their descendants; two readings of `spent` tell the cost of what lies between."""

    __slots__ = ("pids", "roots")

    def __init__(self, *roots: int) -> None:
        self.roots = roots
        self.pids = self._living()

    def spent(self) -> int:
        """Nanoseconds used so far by the known processes; ProcessGone where one ended."""
        return sum(_clock_ns(pid) + _reaped_ns(pid) for pid in self.pids)

    def newcomers(self) -> int:
        """Look for processes born since; their nanoseconds so far, all of them spent after the last look."""
        before = set(self.pids)
        self.pids = self._living()
        return sum(_clock_ns(pid) for pid in self.pids if pid not in before)

    def waited(self) -> int:
        """Nanoseconds so far for which living threads of the tree were ready to run and had no CPU."""
        return sum(waited_ns(pid) for pid in self.pids)

    def resident(self) -> int:
        """Bytes of resident memory, shared pages counted in each process that has them."""
        total = 0
        for pid in self.pids:
            fields = _stat(pid)
            total += int(fields[21]) * PAGE if fields is not None else 0
        return total

    def _living(self) -> list[int]:
        return [pid for root in self.roots for pid in descendants(root)]
