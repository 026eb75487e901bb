"""Health: alive, ready, and what stands behind the gateway; of the whole host, whichever worker is asked.

Owns the three answers. It refuses to probe backends, and to judge peers (`gateway.routing.host`); a backend counts as
healthy while one of its peers is. Made by `gateway.generation`.
"""

from __future__ import annotations

import orjson

from gateway import __version__
from gateway.call import Answer, Call
from gateway.page import GENERATION, Seat
from gateway.pulse import told_apart
from gateway.routing.host import Hearsay
from gateway.routing.routes import Routes

_JSON = b"application/json"


class Health:
    """*generation* is the number of the configuration that has *routes*."""

    def __init__(self, routes: Routes, seat: Seat, generation: int) -> None:
        self._routes = routes
        self._seat = seat
        self._page = seat.page
        self._hearsay = Hearsay(seat)
        self._generation = generation

    def live(self, call: Call) -> Answer:
        """The process runs and its loop turns."""
        return Answer(200, _JSON, b'{"status":"alive"}')

    def ready(self, call: Call) -> Answer:
        """Whether a load balancer should send callers here: until the host goes down, not just one of its workers."""
        if self._page.leaving:
            return Answer(503, _JSON, b'{"status":"draining"}')
        return Answer(200, _JSON, b'{"status":"ready"}')

    def health(self, call: Call) -> Answer:
        """Status, version and the count of backends; always 200 while the gateway itself is well.

        `generation` is the least that a worker serves: once it is a reload's number, the reload is everywhere. A worker
        that hangs is told as such (`workers_hung`) and not as one that serves.
        """
        groups = list(self._routes.groups.values())
        healthy = sum(any(self._hearsay.is_well(peer.state) for peer in group.peers) for group in groups)
        turning, hanging = told_apart(self._seat)
        status = "draining" if self._page.leaving else "healthy" if healthy == len(groups) else "degraded"
        body = {
            "status": status,
            "version": __version__,
            "generation": min((row.cells[GENERATION] for row in (*turning, *hanging)), default=self._generation),
            "workers": len(turning),
            "workers_hung": len(hanging),
            "backends": {"total": len(groups), "healthy": healthy, "unhealthy": len(groups) - healthy},
        }
        return Answer(200, _JSON, orjson.dumps(body))
