"""What the operating system knows of the host's processes, added up.

Owns the sums over the supervisor and its workers. It refuses to know who they are (given) and to read /proc itself:
prometheus_client does, for each. One `HostProcesses` is made per worker by `gateway.build`; it is asked at each scrape.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_CPU: Final = "process_cpu_seconds_total"
_OLDEST: Final = frozenset({"process_start_time_seconds"})
_SMALLEST: Final = frozenset({"process_max_fds"})
#: Fields 16 and 17 of /proc/PID/stat, counted behind the command's name: time of the children waited for (proc(5)).
_REAPED: Final = slice(13, 15)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
#: Tries to read the sum of processor time while no worker is being buried.
_TRIES: Final = 5


class HostProcesses(Collector):
    """*pids* lists the processes that live, the supervisor first."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids
        #: A scrape that comes amid a worker's burial must not show less than one before.
        self._cpu = 0.0

    def collect(self) -> Iterator[Metric]:
        """One family for each figure, summed; the oldest start, the smallest limit."""
        found: dict[str, list[float]] = {}
        helps: dict[str, str] = {}
        for _ in range(_TRIES):
            pids = self._pids()
            reaped = _reaped(pids[0])
            found = {}
            for pid in pids:
                for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                    for sample in metric.samples:
                        found.setdefault(sample.name, []).append(sample.value)
                        helps[sample.name] = metric.documentation
            if _reaped(pids[0]) == reaped:
                break
        for name, values in found.items():
            if name == _CPU:
                self._cpu = max(self._cpu, round(sum(values) + reaped, 3))
                yield CounterMetricFamily(name, helps[name], self._cpu)
            else:
                value = min(values) if name in _OLDEST or name in _SMALLEST else sum(values)
                yield GaugeMetricFamily(name, helps[name], value)


def _reaped(pid: int) -> float:
    """Seconds of the children that *pid* has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[_REAPED])) / _TICKS
