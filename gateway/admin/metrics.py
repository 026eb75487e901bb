"""GET /metrics: the counters as Prometheus reads them.

Owns the answer and its content type. It refuses to count (`gateway.observe.counters`). Made by `gateway.build`.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.call import Answer, Call
from gateway.observe.counters import Registry
from gateway.observe.exposition import render

_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """*catch_up* counts what was not yet counted; it is called before each answer."""

    def __init__(self, registry: Registry, catch_up: Callable[[], None]) -> None:
        self._registry = registry
        self._catch_up = catch_up

    def scrape(self, call: Call) -> Answer:
        self._catch_up()
        return Answer(200, _TEXT, render(self._registry))
