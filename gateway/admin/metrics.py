"""GET /metrics: the counters as Prometheus reads them.

Owns the answer and its content type. It refuses to count (`gateway.observe.counters`). Made by `gateway.generation`.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.registry import CollectorRegistry

from gateway.call import Answer, Call
from gateway.observe.counters import Registry
from gateway.observe.exposition import render

_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """*catch_up* counts what was not yet counted, *merged* adds up what all workers
    counted, in this order; *system* is what the operating system knows."""

    def __init__(self, catch_up: Callable[[], None], merged: Callable[[], Registry], system: CollectorRegistry) -> None:
        self._catch_up = catch_up
        self._merged = merged
        self._system = system

    def scrape(self, call: Call) -> Answer:
        self._catch_up()
        return Answer(200, _TEXT, render(self._merged(), self._system))
