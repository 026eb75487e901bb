"""Health: alive, ready, and what stands behind the gateway.

Owns the three answers. It refuses to probe backends; a backend counts as healthy while one of its peers is not
cooling down. Made by `gateway.generation`.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from gateway import __version__
from gateway.call import Answer, Call
from gateway.clock import Clock
from gateway.routing.routes import Routes

_JSON = b"application/json"


class Health:
    """*generation* is the configuration's number. *draining*: the worker still serves, but wants no new callers."""

    def __init__(self, routes: Routes, clock: Clock, generation: int, draining: Callable[[], bool]) -> None:
        self._routes = routes
        self._clock = clock
        self._generation = generation
        self._draining = draining

    def live(self, call: Call) -> Answer:
        """The process runs and its loop turns."""
        return Answer(200, _JSON, b'{"status":"alive"}')

    def ready(self, call: Call) -> Answer:
        """Whether a load balancer should send callers here."""
        if self._draining():
            return Answer(503, _JSON, b'{"status":"draining"}')
        return Answer(200, _JSON, b'{"status":"ready"}')

    def health(self, call: Call) -> Answer:
        """Status, version and the count of backends; always 200 while the gateway itself is well."""
        groups = list(self._routes.groups.values())
        now = self._clock.now
        healthy = sum(any(peer.state.available(now) for peer in group.peers) for group in groups)
        status = "draining" if self._draining() else "healthy" if healthy == len(groups) else "degraded"
        body = {
            "status": status,
            "version": __version__,
            "generation": self._generation,
            "backends": {"total": len(groups), "healthy": healthy, "unhealthy": len(groups) - healthy},
        }
        return Answer(200, _JSON, orjson.dumps(body))
