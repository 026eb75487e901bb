"""Health checks over sockets: who asks, what is asked, what an answer means, and what it does to calls."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.client import Client, chat_request
from tests.wire.process import Gateway, free_port, wait_until
from tests.wire.stage import Stage, backend, configuration, merge
from tests.wire.test_breakers import CHAT, ask, circuits, logged, slowly, states, storm
from tests.wire.test_host_health import one_client_each
from tests.wire.test_reload import reload
from tests.wire.upstream import Upstream

WELL = "/health"
#: Asked often, of which one answer makes a verdict.
OFTEN = {"interval": "100ms", "unhealthy_after": 1, "healthy_after": 2}
BREAKER = {"max_failures": 2, "reset": "60s"}


def started(stage: Stage, *upstreams: Upstream | str, workers: int = 1, **more: Any) -> Gateway:
    fields = {"health": {**OFTEN, "path": WELL}, "breaker": BREAKER, "retry": {"tries": 1}, **more}
    return stage.gateway(configuration(backend(*upstreams, **fields), server={"workers": workers}))


def asked(upstream: Upstream, target: str = WELL) -> int:
    return sum(request.target == target for request in upstream.requests)


def healthy(client: Client) -> list[str]:
    client.request("GET", "/metrics")
    lines = client.response().body.decode().splitlines()
    return [line.rpartition(" ")[2] for line in lines if line.startswith("gateway_backend_healthy{")]


def served(upstream: Upstream) -> int:
    return asked(upstream, CHAT)


def test_a_peer_that_is_not_well_gets_no_calls_from_any_worker_and_gets_them_again(stage: Stage) -> None:
    ill, sound = stage.upstream(), stage.upstream()
    gateway = started(stage, ill, sound, workers=3)
    clients = one_client_each(stage, gateway)
    assert [healthy(client) for client in clients] == [["1.0", "1.0"]] * 3
    ill.answers[WELL] = answers.error(503)
    wait_until(lambda: [healthy(client) for client in clients] == [["0.0", "1.0"]] * 3, "all tell the same")
    assert states(clients[2]) == ["open", "closed"]

    def left_alone() -> bool:
        before = served(ill)
        assert [ask(clients[number % 3]) for number in range(30)] == [200] * 30
        return served(ill) == before

    wait_until(left_alone, "each has heard of it, at its next sweep")
    assert left_alone()
    known = served(ill)
    ill.answers = {}
    wait_until(lambda: [healthy(client) for client in clients] == [["1.0", "1.0"]] * 3, "it is back", 8.0)
    wait_until(lambda: ask(clients[1]) == 200 and served(ill) > known, "it gets calls again")
    wait_until(lambda: logged(gateway, "circuit open") == logged(gateway, "circuit closed") == 1, "each is logged once")


def test_one_worker_asks_and_the_next_one_when_it_is_dead(stage: Stage) -> None:
    upstream = stage.upstream()
    gateway = started(stage, upstream, workers=3)
    upstream.ledger.wait_requests(3)
    begin = time.monotonic()
    upstream.ledger.wait_requests(len(upstream.requests) + 10)
    # Ten in a second, a fifth more or less: three workers would ask thirty times.
    assert time.monotonic() - begin > 0.6
    for pid in sorted(gateway.workers)[:2]:
        os.kill(pid, signal.SIGKILL)
        known = asked(upstream)
        wait_until(lambda known=known: asked(upstream) > known + 2, "the next one asks", 3.0)


def test_a_worker_that_hangs_does_not_keep_the_others_from_asking(stage: Stage) -> None:
    upstream = stage.upstream()
    gateway = started(stage, upstream, workers=2)
    upstream.ledger.wait_requests(3)
    hung = gateway.workers[0]
    os.kill(hung, signal.SIGSTOP)
    try:
        known = len(upstream.requests)
        wait_until(lambda: len(upstream.requests) > known + 3, "the next one asks", 4.0)
    finally:
        os.kill(hung, signal.SIGCONT)


def test_questions_are_no_calls(stage: Stage) -> None:
    upstream = stage.upstream()
    gateway = started(stage, upstream)
    upstream.ledger.wait_requests(5)
    metrics = gateway.metrics()
    assert metrics.value("gateway_upstream_requests_total") == 0
    assert metrics.value("gateway_upstream_connections") == 0
    assert all(len(connection.requests) <= 1 for connection in upstream.ledger.connections)
    assert {request.method for request in upstream.requests} == {"GET"}


def test_health_that_lies_does_not_bring_back_what_fails(stage: Stage) -> None:
    failing, sound = stage.upstream(answers.error(500)), stage.upstream()
    failing.answers[WELL] = answers.models("m")
    gateway = started(stage, failing, sound, balance="round_robin")
    client = stage.connect(gateway)
    wait_until(lambda: ask(client) and states(client)[0] == "open", "its circuit opens")
    known, count = asked(failing), served(failing)
    failing.ledger.wait_requests(len(failing.requests) + 60, timeout=10.0)  # for longer than five seconds
    assert asked(failing) >= known + 60
    assert states(client) == ["open", "closed"]
    assert [ask(client) for _ in range(10)] == [200] * 10 and served(failing) == count


def test_what_could_not_be_reached_is_back_as_soon_as_it_can_be(stage: Stage) -> None:
    port = free_port()
    gateway = started(stage, f"http://127.0.0.1:{port}", workers=2, health={"interval": "100ms"})
    clients = one_client_each(stage, gateway)
    wait_until(lambda: {tuple(states(client)) for client in clients} == {("open",)}, "its circuit opens")
    assert {ask(client) for client in clients} == {503}
    stage.upstream(port=port)
    wait_until(lambda: [ask(client) for client in clients] == [200, 200], "it is back", 8.0)


@pytest.mark.parametrize(("status", "path", "well"), [
    (401, "", True), (403, "", True), (404, "", True), (429, "", True), (501, "", True), (204, WELL, True),
    (500, "", False), (503, "", False), (404, WELL, False), (401, WELL, False), (302, WELL, False),
])  # fmt: skip
def test_what_an_answer_means(stage: Stage, status: int, path: str, well: bool) -> None:
    upstream = stage.upstream()
    target = path or "/v1/models"
    upstream.answers[target] = answers.no_content() if status == 204 else answers.error(status)
    gateway = started(stage, upstream, health={**OFTEN, "path": path})
    wait_until(lambda: asked(upstream, target) >= 4, "it is asked")
    assert gateway.gauge("gateway_backend_healthy") == well


@pytest.mark.parametrize(("protocol", "target"), [("openai", "/deep/v1/models"), ("vllm", "/deep/health")])
def test_where_a_peer_is_asked_unless_the_operator_says_where(stage: Stage, protocol: str, target: str) -> None:
    upstream = stage.upstream()
    started(stage, f"{upstream.url}/deep/v1", protocol=protocol, health=OFTEN)
    upstream.ledger.wait_requests(2)
    assert {request.target for request in upstream.requests} == {target}


def test_a_peer_that_has_a_call_of_ours_is_not_late_and_one_that_the_operator_asks_is(stage: Stage) -> None:
    upstream = stage.upstream(answers.await_abort)
    health = {**OFTEN, "timeout": "100ms"}
    lenient = started(stage, upstream, health=health)
    client = stage.connect(lenient)
    upstream.answers["/v1/models"] = answers.models("m")
    upstream.answers[CHAT] = answers.await_abort
    client.chat()
    wait_until(lambda: served(upstream) == 1, "the call runs")
    del upstream.answers["/v1/models"]
    known = len(upstream.requests)
    upstream.ledger.wait_requests(known + 5)
    assert lenient.gauge("gateway_backend_healthy") == 1
    client.close()
    lenient.wait_gauge(0, "gateway_backend_healthy", 3.0)


def test_a_peer_that_is_no_longer_configured_is_asked_no_more(stage: Stage) -> None:
    leaving, staying = stage.upstream(), stage.upstream()
    fields = {"health": {**OFTEN, "path": WELL}}
    config = configuration(backend(leaving, staying, **fields))
    gateway = stage.gateway(config)
    leaving.ledger.wait_requests(2)
    reload(gateway, merge(config, {"backends": [backend(staying, **fields)]}))
    known = len(leaving.requests)
    staying.ledger.wait_requests(len(staying.requests) + 10)
    assert len(leaving.requests) <= known + 1, "one may have been under way"


def test_circuits_stay_where_a_peer_stays_and_go_where_it_is_another(stage: Stage) -> None:
    upstream = stage.upstream(answers.error(500))
    config = configuration(backend(upstream, breaker=BREAKER))
    gateway = stage.gateway(config)
    client = stage.connect(gateway)
    assert [ask(client) for _ in range(3)] == [500, 500, 503]
    reload(gateway, merge(config, {"server": {"keepalive_timeout": "9s"}}))
    assert circuits(client)[0]["state"] == "open"
    other = backend(upstream, breaker=BREAKER, auth={"type": "bearer", "token": "another"})
    reload(gateway, merge(config, {"backends": [other]}))
    assert circuits(client)[0]["state"] == "closed" and ask(client) == 500


def test_all_are_back_within_ten_seconds_of_an_outage_of_all(stage: Stage) -> None:
    """Peers of 50 ms are gone for four seconds, as when their host is; health is asked for as it is by default."""
    ports = [free_port() for _ in range(3)]
    upstreams = [stage.upstream(slowly(0.05), port=port) for port in ports]
    config = configuration(
        backend(*upstreams),
        server={"workers": 2},
        defaults={"breaker": {"max_failures": 5, "reset": "30s"}, "health": {"interval": "10s"}},
    )
    gateway = stage.gateway(config)
    assert set(storm(stage, gateway, 60)) == {200}
    for upstream in upstreams:
        upstream.close()
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        assert set(storm(stage, gateway, 60)) <= {502, 503}
    begin = time.monotonic()
    again = [stage.upstream(slowly(0.05), port=port) for port in ports]
    found: list[int] = []
    while time.monotonic() < begin + 6.0:
        found = [gateway.ask("POST", CHAT, chat_request()).status, *storm(stage, gateway, 60)]
    assert found.count(200) >= 0.99 * len(found), found
    wait_until(lambda: storm(stage, gateway, 60) and all(served(upstream) for upstream in again), "all serve", 20.0)
