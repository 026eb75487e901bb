"""What the page says of each worker and each peer, as gauges: which configuration a worker serves, how late its loop
is; whether a peer is well, and what its server tells of its load.

Owns these gauges. It refuses to write the page (`gateway.build`, `gateway.routing`) and to add up what workers count
(`gateway.observe.shared`): here each worker is shown by itself, by its row's number. One `HostRows` and one `HostPeers`
are made per worker by `gateway.build`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.clock import SWEEP_INTERVAL, monotonic_ns
from gateway.columns import held
from gateway.page import BEAT, COLUMNS_LIMIT, GENERATION, LAG, MEMORY, Row, Seat
from gateway.pulse import told_apart

_SECOND: Final = 1e9


class HostRows(Collector):
    """Read at each scrape."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def collect(self) -> Iterator[Metric]:
        turning, hanging = told_apart(self._seat)
        yield GaugeMetricFamily("gateway_workers", "Workers that take calls.", len(turning))
        yield GaugeMetricFamily(
            "gateway_workers_hung",
            "Workers whose event loop has not turned for 2 s: what was sent to them waits.",
            len(hanging),
        )
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
        for row in sorted((*turning, *hanging), key=lambda row: row.number):
            memory.add_metric([str(row.number)], row.cells[MEMORY])
            generations.add_metric([str(row.number)], row.cells[GENERATION])
            lags.add_metric([str(row.number)], _lag(row))
        used = GaugeMetricFamily(
            "gateway_page_used_ratio",
            "How much is taken of the room for peers, and for label sets, on the page that the workers share.",
            labels=["what"],
        )
        used.add_metric(["peers"], held(self._seat.page) / COLUMNS_LIMIT)
        used.add_metric(["label_sets"], self._seat.page.metrics.used_ratio)
        yield from (generations, lags, memory, used)


class HostPeers(Collector):
    """*healthy* tells each peer's backend and endpoint, and whether it is well; *told*, where servers tell it, how many
    requests they have. Read at each scrape."""

    def __init__(
        self,
        healthy: Callable[[], Iterable[tuple[str, str, bool]]],
        told: Callable[[], Iterable[tuple[str, str, int]]],
    ) -> None:
        self._healthy = healthy
        self._told = told

    def collect(self) -> Iterator[Metric]:
        peers = GaugeMetricFamily(
            "gateway_backend_healthy",
            "1 where nothing speaks against a peer: no call, no health check.",
            labels=["upstream", "endpoint"],
        )
        for upstream, endpoint, well in self._healthy():
            peers.add_metric([upstream, endpoint], well)
        loads = GaugeMetricFamily(
            "gateway_backend_load",
            "Requests that a peer's server has, running and waiting, anybody's, as it told last.",
            labels=["upstream", "endpoint"],
        )
        for upstream, endpoint, count in self._told():
            loads.add_metric([upstream, endpoint], count)
        yield from (peers, loads)


def _lag(row: Row) -> float:
    """Seconds. A loop that hangs cannot say so: whoever looks finds that its next sweep is overdue."""
    overdue = (monotonic_ns() - row.cells[BEAT]) / _SECOND - SWEEP_INTERVAL
    return max(row.cells[LAG] / _SECOND, overdue)
