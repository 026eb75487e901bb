"""GET /v1/circuit-breakers: how each peer's circuit stands, on the whole host.

Owns the answer. It refuses circuits themselves (`gateway.routing.breaker`). Made by `gateway.generation`.
"""

from __future__ import annotations

import orjson

from gateway.call import Answer, Call
from gateway.routing.breaker import BUSY, FAILURES, OPENED
from gateway.routing.circuits import PeerCircuit, now_ms
from gateway.routing.routes import Routes

_JSON = b"application/json"


class Breakers:
    """In the order of the configuration."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def list(self, call: Call) -> Answer:
        """`retry_in` and `busy` are seconds: until a call is let through as the probe, and as the peer asked for."""
        now = now_ms()
        circuits = [
            {"backend": group.name, "endpoint": peer.url, **_shown(peer.state.circuit, now)}
            for group in self._routes.groups.values()
            for peer in group.peers
        ]
        return Answer(200, _JSON, orjson.dumps({"circuit_breakers": circuits}))


def _shown(circuit: PeerCircuit, now: int) -> dict[str, object]:
    return {
        "state": circuit.state.name.lower(),
        "failures": circuit.cell(FAILURES),
        "opened": circuit.cell(OPENED),
        "retry_in": circuit.left(now) / 1000,
        "busy": max(0, circuit.cell(BUSY) - now) / 1000,
    }
