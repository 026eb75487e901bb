"""A peer that accepts connections and never answers a TLS handshake keeps nobody from the others."""

from __future__ import annotations

from typing import Any

from tests.wire import tls
from tests.wire.accepted import Wire
from tests.wire.client import Client, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
#: Calls at once, half of them to the black hole: more than there may be handshakes.
CALLS = 80
#: Handshakes towards one peer at once (pool.HANDSHAKES_LIMIT).
LIMIT = 16


def swallow(wire: Wire) -> None:
    while True:
        wire.receive()


def two_peers(stage: Stage, **timeouts: Any) -> tuple[Gateway, Upstream, Upstream]:
    """A gateway with two peers that have proved themselves; the first one has become a black hole since."""
    hole, alive = stage.upstream(tls=tls.server()), stage.upstream(tls=tls.server())
    fields = {"tls": {"ca_file": tls.CA}, "balance": "round_robin", "timeouts": timeouts}
    gateway = stage.gateway(configuration(backend(hole, alive, **fields)))
    assert all(gateway.ask("POST", CHAT, chat_request()).status == 200 for _ in range(2))
    assert [len(hole.requests), len(alive.requests)] == [1, 1]
    hole.reset()
    alive.reset()
    hole.before_handshake = swallow
    gateway.wait_gauge(0, "gateway_upstream_connections")
    return gateway, hole, alive


def burst(stage: Stage, gateway: Gateway) -> list[Client]:
    clients = [stage.connect(gateway) for _ in range(CALLS)]
    for client in clients:
        client.chat()
    return clients


def test_handshakes_that_hang_keep_no_other_peer_from_being_reached(stage: Stage) -> None:
    gateway, hole, alive = two_peers(stage, connect="30s")
    burst(stage, gateway)
    alive.ledger.wait(lambda: sum(bool(one.answered) for one in alive.requests) == CALLS // 2, "all at the other")
    alive.reset()  # who is called now has to be connected to anew
    burst(stage, gateway)
    alive.ledger.wait_requests(CALLS // 2)
    hole.ledger.wait(lambda: len(hole.ledger.connections) >= LIMIT, "as many handshakes as there may be")
    assert len(hole.ledger.connections) == LIMIT and hole.requests == []


def test_calls_to_it_go_on_elsewhere_after_the_connect_timeout(stage: Stage) -> None:
    gateway, hole, alive = two_peers(stage, connect="700ms")
    assert all(client.response().status == 200 for client in burst(stage, gateway))
    assert len(alive.requests) == CALLS and hole.requests == []
    metrics = gateway.metrics()
    assert metrics.value("gateway_retries_total", reason="connect") == CALLS // 2
    assert metrics.value("gateway_peer_cooldowns_total", endpoint=hole.url) == 1
    assert metrics.value("gateway_peer_cooldowns_total", endpoint=alive.url) == 0


def test_when_it_answers_again_it_is_used_again(stage: Stage) -> None:
    gateway, hole, _ = two_peers(stage, connect="300ms")
    assert all(gateway.ask("POST", CHAT, chat_request()).status == 200 for _ in range(4))
    assert hole.requests == []
    hole.drop_connections()
    hole.before_handshake = None

    def used() -> bool:
        assert gateway.ask("POST", CHAT, chat_request()).status == 200
        return bool(hole.requests)

    wait_until(used, "its trial")
