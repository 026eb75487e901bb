"""What the workers' rows on the page say of each, as gauges: which configuration it serves, how late its loop is.

Owns these gauges. It refuses to write rows (`gateway.build`) and to add up what workers count
(`gateway.observe.shared`): here each worker is shown by itself, by its row's number. One `HostRows` is made per worker
by `gateway.build`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.clock import SWEEP_INTERVAL, monotonic_ns
from gateway.page import BEAT, GENERATION, LAG, MEMORY, Row, Seat

_SECOND: Final = 1e9


class HostRows(Collector):
    """Read at each scrape."""

    def __init__(self, seat: Seat) -> None:
        self._page = seat.page

    def collect(self) -> Iterator[Metric]:
        rows = self._page.serving()
        yield GaugeMetricFamily("gateway_workers", "Workers that take calls.", len(rows))
        generations = GaugeMetricFamily(
            "gateway_config_generation",
            "The configuration that a worker serves: each reload adds 1.",
            labels=["worker"],
        )
        lags = GaugeMetricFamily(
            "gateway_loop_lag_present_seconds",
            "How late a worker's event loop was last, or is by now if it has not turned since.",
            labels=["worker"],
        )
        memory = GaugeMetricFamily(
            "gateway_worker_memory_bytes", "What overload.memory_limit is compared with.", labels=["worker"]
        )
        for row in rows:
            memory.add_metric([str(row.number)], row.cells[MEMORY])
            generations.add_metric([str(row.number)], row.cells[GENERATION])
            lags.add_metric([str(row.number)], _lag(row))
        yield from (generations, lags, memory)


def _lag(row: Row) -> float:
    """Seconds. A loop that hangs cannot say so: whoever looks finds that its next sweep is overdue."""
    beat = row.cells[BEAT]
    overdue = (monotonic_ns() - beat) / _SECOND - SWEEP_INTERVAL if beat else 0.0
    return max(row.cells[LAG] / _SECOND, overdue)
