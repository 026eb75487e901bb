"""What an operator sees: health, metrics, and one access line for each call."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, chat_request
from tests.wire.process import Configuration, Gateway, free_port
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    return configuration(backend(module_upstream, models=["m", "wild-*"]))


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
def test_health_tells_version_and_backends_without_a_key(gateway: Gateway, path: str) -> None:
    response = gateway.ask("GET", path, key=None)
    assert response.status == 200 and response.header("content-type") == "application/json"
    health = response.json()
    assert health["status"] and health["version"]
    assert health["backends"]["total"] == 1
    assert set(health["backends"]) >= {"total", "healthy", "unhealthy"}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_probes_need_no_key(gateway: Gateway, path: str) -> None:
    assert gateway.ask("GET", path, key=None).status == 200


def test_a_backend_that_is_out_is_told_by_health(stage: Stage) -> None:
    gateway = stage.gateway(configuration(backend(f"http://127.0.0.1:{free_port()}")))
    gateway.ask("POST", CHAT, chat_request())
    backends = gateway.ask("GET", "/health").json()["backends"]
    assert (backends["total"], backends["healthy"], backends["unhealthy"]) == (1, 0, 1)


PROMISED = {
    "gateway_requests": {"method", "path", "status"},
    "gateway_request_latency_seconds": {"method", "path"},
    "gateway_in_flight_requests": set(),
    "gateway_upstream_requests": {"upstream", "status"},
    "gateway_upstream_latency_seconds": {"upstream"},
    "gateway_time_to_first_token_seconds": {"upstream"},
    "gateway_overhead_seconds": set(),
    "gateway_tokens": {"model", "kind"},
    "gateway_stream_chunks": {"upstream"},
    "gateway_upstream_connections": {"upstream", "state"},
    "gateway_endings": {"ending"},
    "gateway_retries": {"upstream", "reason"},
    "gateway_fallback_used": {"from_model", "to_model"},
    "gateway_body_budget_bytes": set(),
    "process_resident_memory_bytes": set(),
    "process_open_fds": set(),
    "process_cpu_seconds": set(),
}


def test_every_promised_metric_is_there_with_its_labels(gateway: Gateway) -> None:
    gateway.ask("POST", CHAT, chat_request())
    gateway.ask("POST", CHAT, chat_request(stream=True))
    response = gateway.ask("GET", "/metrics", key=None)
    assert (response.header("content-type") or "").startswith("text/plain; version=")
    families = gateway.metrics().families
    for name, labels in PROMISED.items():
        assert name in families, name
        for sample in families[name].samples:
            assert set(sample.labels) - {"le"} == labels, sample


def test_a_call_is_counted_once_by_path_and_status(gateway: Gateway) -> None:
    before = gateway.metrics()
    gateway.ask("POST", CHAT, chat_request())
    gateway.ask("POST", CHAT, chat_request(stream=True))
    gateway.ask("POST", CHAT, chat_request(model="nobody"))
    after = gateway.metrics()

    def more(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert more("gateway_requests_total", method="POST", path=CHAT, status="200") == 2
    assert more("gateway_requests_total", method="POST", path=CHAT, status="404") == 1
    assert more("gateway_request_latency_seconds_count", method="POST", path=CHAT) == 3
    assert more("gateway_upstream_requests_total", upstream="alpha", status="200") == 2
    assert more("gateway_upstream_latency_seconds_count", upstream="alpha") == 2
    assert more("gateway_time_to_first_token_seconds_count", upstream="alpha") == 1
    assert more("gateway_stream_chunks_total", upstream="alpha") >= 1
    assert more("gateway_overhead_seconds_count") == 2
    assert more("gateway_endings_total", ending="--") >= 2


def test_a_call_in_flight_is_counted_in(gateway: Gateway, upstream: Upstream, connect: Connect) -> None:
    gate = Gate()
    upstream.answer = answers.stalled(gate)
    client = connect()
    client.chat()
    upstream.ledger.wait_requests(1)
    assert gateway.gauge("gateway_in_flight_requests") == 1
    assert gateway.gauge("gateway_upstream_connections", upstream="alpha", state="busy") == 1
    gate.open()
    assert client.response().status == 200
    gateway.wait_gauge(0, "gateway_in_flight_requests")
    assert gateway.gauge("gateway_upstream_connections", upstream="alpha", state="idle") == 1


def test_what_clients_make_up_adds_no_series(gateway: Gateway, upstream: Upstream) -> None:
    def play(round: str) -> None:
        for number in range(20):
            gateway.ask("POST", CHAT, chat_request(model=f"wild-{round}-{number}"))
            gateway.ask("POST", CHAT, chat_request(model=f"{round}-{number}"))
            gateway.ask("GET", f"/{round}/{number}")
            gateway.ask("GET", f"/v1/models/{round}-{number}")
            gateway.ask(f"X{round}{number}", CHAT)

    def series() -> set[str]:
        lines = gateway.metrics().text.splitlines()
        return {line.rpartition(" ")[0] for line in lines if line.startswith("gateway_")}

    play("A")
    before = series()
    play("B")
    assert series() == before
    assert not [name for name in before if re.search(r"A-?\d", name)]


FIELDS = {
    "ts",
    "level",
    "msg",
    "request_id",
    "trace_id",
    "client",
    "key",
    "method",
    "path",
    "model",
    "upstream",
    "status",
    "ending",
    "fault",
    "stream",
    "translated",
    "tries",
    "bytes_in",
    "bytes_out",
    "chunks",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "t_read",
    "t_admit",
    "t_queue",
    "t_connect",
    "t_head",
    "t_first",
    "t_body",
    "t_total",
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_leaves_one_line(connect: Connect, gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    client = connect()
    body = chat_request(stream=stream)
    client.request("POST", CHAT, body)
    response = client.response()
    line = gateway.wait_call(request_id=client.id)
    assert set(line) >= FIELDS
    expected = {
        "level": "info",
        "key": "tester",
        "method": "POST",
        "path": CHAT,
        "model": "m",
        "upstream": "alpha",
        "status": 200,
        "ending": "--",
        "fault": None,
        "stream": stream,
        "translated": None,
        "tries": 1,
        "bytes_in": len(body),
        "bytes_out": len(response.body),
        "trace_id": response.header("x-trace-id"),
    }
    assert {name: line[name] for name in expected} == expected
    assert line["client"].startswith("127.0.0.1")
    reached = ("t_read", "t_admit", "t_connect", "t_head", "t_first", "t_body", "t_total")
    assert all(line[name] >= 0 for name in reached)
    assert line["t_total"] >= max(line[name] for name in reached if name != "t_total")
    assert (line["chunks"] > 0) == stream
    assert len(gateway.calls(request_id=client.id)) == 1


def test_a_phase_that_was_never_reached_is_minus_one(connect: Connect, gateway: Gateway) -> None:
    client = connect()
    client.request("POST", CHAT, b"{")
    client.response()
    line = gateway.wait_call(request_id=client.id)
    assert [line[name] for name in ("t_connect", "t_head", "t_first", "t_body")] == [-1, -1, -1, -1]
    assert (line["upstream"], line["tries"]) == (None, 0)


def test_text_of_a_client_cannot_forge_a_line(connect: Connect, gateway: Gateway) -> None:
    client = connect()
    model = 'x"}\n{"msg": "call", "request_id": "forged"}\u2028\x1b[31m' + "y" * 10_000
    client.chat(model=model)
    assert client.response().status == 404
    line = gateway.wait_call(request_id=client.id)
    assert len(line["model"]) <= 300
    assert gateway.calls(request_id="forged") == []
    assert "\x1b" not in gateway.stdout and "\u2028" not in gateway.stdout
