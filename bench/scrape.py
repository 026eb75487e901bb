"""What the gateway says about itself on /metrics, as far as the benchmark asks.

Owns the reading of two metrics: the event loop's lag, and the access lines that were lost. It refuses every
other one. Used by `measure`, before and after a window, and
by `faults`.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

LOOP_LAG: Final = "gateway_loop_lag_seconds"
LINES_LOST: Final = "gateway_access_dropped_total"


class Scrape(msgspec.Struct):
    """One reading. A metric that the gateway does not have stays empty."""

    #: Upper bound in seconds -> observations so far that were not greater.
    lag: dict[float, float] = {}
    lines_lost: float = 0.0


def read(text: str) -> Scrape:
    """What the Prometheus exposition *text* tells."""
    found = Scrape()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == LOOP_LAG + "_bucket":
                bound = float(sample.labels["le"])
                found.lag[bound] = found.lag.get(bound, 0.0) + sample.value
            elif sample.name == LINES_LOST:
                found.lines_lost += sample.value
    return found


def scrape(ports: Iterable[int]) -> Scrape:
    """What the gateways on *ports* tell now, together. Raises as `text` does."""
    return read("".join(map(text, ports)))


def text(port: int) -> str:
    """Ask the gateway on *port*. OSError or http.client.HTTPException where it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def percentile_bound(before: Mapping[float, float], after: Mapping[float, float], percent: float) -> float | None:
    """Upper bound of the bucket that holds the *percent* percentile between two scrapes; None without any."""
    grown = {bound: count - before.get(bound, 0.0) for bound, count in sorted(after.items())}
    total = max(grown.values(), default=0.0)
    if total <= 0:
        return None
    return next(bound for bound, count in grown.items() if count >= total * percent / 100)
