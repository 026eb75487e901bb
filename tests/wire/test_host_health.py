"""Health of the whole host: every worker says the same, whatever it has seen itself."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client
from tests.wire.process import Gateway, Metrics, free_port, wait_until
from tests.wire.stage import Stage, backend, configuration, merge
from tests.wire.test_reload import reload
from tests.wire.test_workers import owner


def one_client_each(stage: Stage, gateway: Gateway) -> list[Client]:
    """A connection to each worker."""
    found: dict[int, Client] = {}

    def complete() -> bool:
        client = stage.connect(gateway)
        if found.setdefault(owner(gateway, client), client) is not client:
            client.close()
        return len(found) == len(gateway.workers)

    wait_until(complete, "a connection to each worker")
    return list(found.values())


def ask(client: Client, path: str = "/health") -> dict[str, Any]:
    client.request("GET", path)
    answer = client.response()
    return {**answer.json(), "answered": answer.status}


def told(clients: list[Client]) -> dict[str, Any]:
    """What all of them are told, which must be the same."""
    first, *others = [ask(client) for client in clients]
    assert all(other == first for other in others), (first, others)
    return first


def workers(client: Client) -> tuple[int, int]:
    """How many serve, and how many hang."""
    health = ask(client)
    return health["workers"], health["workers_hung"]


def test_every_worker_tells_what_any_of_them_has_found_out_of_a_backend(stage: Stage) -> None:
    port = free_port()
    gateway = stage.gateway(configuration(backend(f"http://127.0.0.1:{port}"), server={"workers": 3}))
    clients = one_client_each(stage, gateway)
    assert told(clients) == {
        "answered": 200,
        "status": "healthy",
        "version": ask(clients[0])["version"],
        "generation": 1,
        "workers": 3,
        "workers_hung": 0,
        "backends": {"total": 1, "healthy": 1, "unhealthy": 0},
    }
    clients[0].chat()
    assert clients[0].response().status == 503
    bad = told(clients)
    assert (bad["status"], bad["backends"]) == ("degraded", {"total": 1, "healthy": 0, "unhealthy": 1})
    # It comes back; the worker that has seen it fail never hears of it.
    stage.upstream(port=port)
    clients[1].chat()
    assert clients[1].response().status == 200
    assert told(clients)["status"] == "healthy"


def test_a_worker_that_dies_or_stands_still_takes_nobody_out(stage: Stage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream()), server={"workers": 2}))
    clients = one_client_each(stage, gateway)
    still = owner(gateway, clients[0])
    os.kill(still, signal.SIGSTOP)
    try:
        assert ask(clients[1], "/health/ready")["answered"] == 200
        assert ask(clients[1])["status"] == "healthy"
        name = "gateway_loop_lag_present_seconds"

        def lags() -> list[float]:
            clients[1].request("GET", "/metrics")
            lines = clients[1].response().body.decode().splitlines()
            return [float(line.split()[1]) for line in lines if line.startswith(name)]

        wait_until(lambda: max(lags()) > 0.5, "its lag is told by the other")
        assert len(lags()) == 2 and min(lags()) < 0.5
        wait_until(lambda: workers(clients[1]) == (1, 1), "it is told to hang")
        clients[1].request("GET", "/metrics")
        shown = Metrics(clients[1].response().body.decode())
        assert (shown.value("gateway_workers"), shown.value("gateway_workers_hung")) == (1, 1)
    finally:
        os.kill(still, signal.SIGCONT)
    wait_until(lambda: workers(clients[1]) == (2, 0), "it turns again")
    os.kill(still, signal.SIGKILL)
    wait_until(lambda: ask(clients[1])["workers"] == 1, "one worker serves")
    assert ask(clients[1], "/health/ready")["answered"] == 200
    assert ask(clients[1])["status"] == "healthy"
    wait_until(lambda: ask(clients[1])["workers"] == 2, "its successor serves")


def test_a_host_that_drains_says_so_in_every_worker(stage: Stage) -> None:
    gate = Gate()
    upstream = stage.upstream(answers.stalled(gate))
    gateway = stage.gateway(configuration(backend(upstream), server={"workers": 2, "pre_stop": "20s"}))
    held = stage.connect(gateway)
    held.chat()
    upstream.ledger.wait_requests(1)
    # Each answers once more before it closes its connections.
    clients, others = one_client_each(stage, gateway), one_client_each(stage, gateway)
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.ask("GET", "/health/ready").status == 503, "the drain begins")
    assert [ask(client, "/health/ready")["answered"] for client in clients] == [503, 503]
    assert [ask(client)["status"] for client in others] == ["draining", "draining"]
    gateway.process.send_signal(signal.SIGTERM)
    gate.open()
    gateway.wait_exit(0)


def test_one_scrape_shows_that_all_workers_serve_one_generation(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()), server={"workers": 3})
    gateway = stage.gateway(config)

    def generations() -> list[float]:
        families = gateway.metrics().families
        assert families["gateway_workers"].samples[0].value == 3
        return [sample.value for sample in families["gateway_config_generation"].samples]

    assert generations() == [1, 1, 1]
    verdict = reload(gateway, merge(config, {"server": {"keepalive_timeout": "9s"}}))
    assert verdict["generation"] == 2
    assert generations() == [2, 2, 2]
    assert gateway.ask("GET", "/health").json()["generation"] == 2
