"""Who hangs for good: workers whose loops have not turned for so long that nobody waits for them any more.

Owns the rule. It refuses to end them (`gateway.crew`, which makes one) and to tell callers who hangs at present
(`gateway.pulse`). The supervisor looks once a second: a worker that is well has swept ten times meanwhile.

Only time counts in which it is a worker that stands still, and not what it stands on:

- while nobody looked, it does not: the supervisor stood still too (a suspended machine, a stopped group);
- while no worker turns, they have longer: the cause is likely to be another;
- while somebody traces a worker (a debugger, strace), it does not, and afterwards begins anew.

A worker that SIGSTOP has stopped hangs like any other: clients wait for it, and nothing tells that it will go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

#: Seconds between two looks.
LOOK: Final = 1.0
#: Seconds from one look to the next where the supervisor stood still in between.
LATE: Final = 3.0
#: Seconds that a worker may stand still while another turns: more than all that is known to hold up a loop.
HUNG: Final = 15.0
#: Seconds that any may stand still, though no other turns, or there is no other.
ALL_HUNG: Final = 30.0


def told_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process (proc_pid_status(5)); nothing where it is gone."""
    try:
        with open(f"/proc/{pid}/status", errors="replace") as file:  # a long name is cut off within a character
            lines = [line.partition(":") for line in file]
    except OSError:
        return {}
    return {name: text.strip() for name, _, text in lines}


def is_traced(pid: int) -> bool:
    """Whether a debugger, or the like, has hold of the process."""
    return told_of(pid).get("TracerPid", "0") != "0"


class _Stand(NamedTuple):
    """For how many seconds a worker has stood still: while another one turned, and in all."""

    alone: float = 0.0
    whole: float = 0.0


class Vigil:
    """What the looks have found so far. Times are monotonic seconds."""

    def __init__(self, is_excused: Callable[[int], bool] = is_traced) -> None:
        self._is_excused = is_excused
        self._last = -math.inf
        # by pid
        #: The last sweep, as told at the last look.
        self._beats: dict[int, int] = {}
        self._stands: dict[int, _Stand] = {}

    @property
    def due(self) -> float:
        """When to look again."""
        return self._last + LOOK

    def look(self, beats: Mapping[int, int], now: float) -> dict[int, float]:
        """Who hangs for good: its pid, and for how many seconds. *beats*: by pid, anything that each sweep changes."""
        since = now - self._last
        passed = since if since <= LATE else 0.0
        still = {pid for pid, beat in beats.items() if self._beats.get(pid) == beat}
        alone = passed if len(still) < len(beats) else 0.0
        before, self._stands = self._stands, {}
        for pid in still:
            if not self._is_excused(pid):
                stand = before.get(pid, _Stand())
                self._stands[pid] = _Stand(stand.alone + alone, stand.whole + passed)
        self._last = now
        self._beats = dict(beats)
        return {
            pid: stand.whole for pid, stand in self._stands.items() if stand.alone >= HUNG or stand.whole >= ALL_HUNG
        }
