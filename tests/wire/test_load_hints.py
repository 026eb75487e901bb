"""Load hints over sockets: who is asked, what balancers make of it, and that nothing else depends on it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.client import chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.test_breakers import ask
from tests.wire.test_health_checks import asked, served
from tests.wire.test_host_health import one_client_each
from tests.wire.test_workers import CHAT
from tests.wire.upstream import Exchange, Script, Upstream

METRICS = "/metrics"
#: Asked often, and what is told holds for a second.
OFTEN = {"interval": "500ms"}

SERVERS = {
    "vllm": ('vllm:num_requests_running{engine="0",model_name="m"} 3.0', 'vllm:num_requests_waiting{engine="1"} 37.0'),
    "sglang": ('sglang:num_running_reqs{model_name="m"} 3.0', 'sglang:num_queue_reqs{model_name="m"} 37.0'),
    "tgi": ("tgi_batch_current_size 3", "tgi_queue_size 37"),
    "llamacpp": ("llamacpp:requests_processing 3", "llamacpp:requests_deferred 37"),
}


def telling(stage: Stage, *lines: str) -> Upstream:
    upstream = stage.upstream()
    upstream.answers[METRICS] = answers.metrics(*lines)
    return upstream


def started(stage: Stage, *upstreams: Upstream, workers: int = 1, **more: Any) -> Gateway:
    fields = {"protocol": "vllm", "load": OFTEN, "retry": {"tries": 1}, **more}
    return stage.gateway(configuration(backend(*upstreams, **fields), server={"workers": workers}))


def loads(gateway: Gateway) -> dict[str, float]:
    """What each endpoint's server told."""
    samples = gateway.metrics().families["gateway_backend_load"].samples
    return {sample.labels["endpoint"]: sample.value for sample in samples}


def streaming(upstream: Upstream) -> bool:
    """Whether it was asked for a stream."""
    bodies = [request.json() for request in upstream.requests if request.target == CHAT and request.body_complete]
    return any(body.get("stream") for body in bodies)


def call(gateway: Gateway, count: int) -> None:
    for _ in range(count):
        assert gateway.ask("POST", CHAT, chat_request()).status == 200


def left_alone(busy: Upstream, call: Callable[[], object]) -> bool:
    """Whether of 30 calls *busy* gets a few at most. Of two peers that are as good it does once in 6,000 times.

    Asked again and again, since on a machine that is busy itself a hint may be too old.
    """
    before = served(busy)
    for _ in range(30):
        call()
    return served(busy) - before <= 5


@pytest.mark.parametrize("protocol", SERVERS)
@pytest.mark.parametrize("balance", ["least_connections", "p2c"])
def test_a_peer_whose_server_tells_of_a_long_queue_gets_fewer_calls(stage: Stage, protocol: str, balance: str) -> None:
    busy, free = telling(stage, *SERVERS[protocol]), telling(stage)
    gateway = started(stage, busy, free, protocol=protocol, balance=balance)
    wait_until(lambda: loads(gateway) == {busy.url: 40}, "it is told")
    wait_until(lambda: left_alone(busy, lambda: call(gateway, 1)), "it gets fewer calls")


def test_every_worker_knows_what_one_was_told(stage: Stage) -> None:
    busy, free = telling(stage, *SERVERS["vllm"]), telling(stage, "vllm:num_requests_running 0")
    gateway = started(stage, busy, free, workers=3)
    clients = one_client_each(stage, gateway)
    wait_until(lambda: loads(gateway) == {busy.url: 40, free.url: 0}, "it is told")
    for client in clients:
        wait_until(lambda client=client: left_alone(busy, lambda: ask(client)), "it gets fewer calls from each")
    begin, known = time.monotonic(), asked(busy, METRICS)
    wait_until(lambda: asked(busy, METRICS) >= known + 4, "it is asked again", 8.0)
    assert time.monotonic() - begin > 1.0, "by one of them"
    os.kill(sorted(gateway.workers)[0], signal.SIGKILL)
    known = asked(busy, METRICS)
    wait_until(lambda: asked(busy, METRICS) > known + 1, "the next one asks", 5.0)


def test_the_host_s_own_calls_are_not_taken_for_others(stage: Stage) -> None:
    one, other = telling(stage, "vllm:num_requests_running 0"), telling(stage, "vllm:num_requests_running 0")
    gateway = started(stage, one, other)
    # Of ten calls one peer gets none once in 512 times; and who never answered gets one call a second, on trial.
    wait_until(lambda: call(gateway, 1) or (served(one) and served(other)), "both have answered")
    one.answer = other.answer = answers.await_abort
    for _ in range(2):
        stage.connect(gateway).chat(stream=True)
    wait_until(lambda: streaming(one) and streaming(other), "it runs")
    one.answers[METRICS] = answers.metrics("vllm:num_requests_running 1")
    wait_until(lambda: loads(gateway) == {one.url: 1, other.url: 0}, "it is told")
    one.answer = other.answer = answers.chat()
    before = served(one), served(other)
    call(gateway, 60)
    assert served(one) - before[0] > 15 and served(other) - before[1] > 15, "as if nothing had been told"


def test_what_was_told_is_forgotten(stage: Stage) -> None:
    busy, free = telling(stage, *SERVERS["vllm"]), telling(stage)
    gateway = started(stage, busy, free)
    wait_until(lambda: loads(gateway) == {busy.url: 40}, "it is told")
    busy.answers[METRICS] = answers.error(404)
    wait_until(lambda: loads(gateway) == {}, "it is too old", 3.0)
    known = served(busy)

    def gets_calls() -> bool:
        call(gateway, 1)
        return served(busy) > known

    wait_until(gets_calls, "the balancers look at the next sweep")
    known = served(busy)
    call(gateway, 60)
    assert served(busy) - known > 15


def endless(x: Exchange) -> None:
    """50 MB of it, which nobody reads."""
    x.send(answers.head(200, ("content-type", "text/plain"), ("content-length", str(50_000_000))))
    line = b"vllm:other_metric 1.0\n" * 4000
    while True:
        x.send(line)


HOSTILE: dict[str, Script] = {
    "hangs": answers.await_abort,
    "50 MB": endless,
    "no HTTP": answers.raw(b"\xff" * 1000, then="close"),
    "no metrics": answers.whole(200, b"<html>" + b"\xff\0" * 10_000, type="text/html"),
    "no counts": answers.metrics("vllm:num_requests_running -5", "vllm:num_requests_waiting 1e400"),
    "a redirect": answers.whole(302, b"", ("location", "/elsewhere")),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_server_whose_metrics_are_hostile_costs_no_call_and_no_memory(stage: Stage, how: str) -> None:
    hostile, sound = stage.upstream(), telling(stage, "vllm:num_requests_running 0")
    hostile.answers[METRICS] = HOSTILE[how]
    gateway = started(stage, hostile, sound)
    call(gateway, 10)
    before = gateway.rss()
    wait_until(lambda: asked(hostile, METRICS) >= 2, "it is asked", 8.0)
    call(gateway, 60)
    assert served(hostile) > 15 and loads(gateway) == {sound.url: 0}
    assert gateway.rss() - before < 16 << 20
    metrics = gateway.metrics()
    assert metrics.value("gateway_upstream_requests_total") == 70, "questions are no calls"
    assert metrics.value("gateway_backend_healthy", endpoint=hostile.url) == 1
    hostile.answers = {}


def test_questions_have_connections_of_their_own(stage: Stage) -> None:
    upstream = telling(stage, *SERVERS["vllm"])
    gateway = started(stage, upstream, auth={"type": "bearer", "token": "tok"})
    wait_until(lambda: asked(upstream, METRICS) >= 3, "it is asked")
    assert gateway.metrics().value("gateway_upstream_connections") == 0
    assert all(len(connection.requests) <= 1 for connection in upstream.ledger.connections)
    assert {request.header("authorization") for request in upstream.requests} == {"Bearer tok"}


def test_a_server_that_does_not_tell_is_left_alone_more_and_more(stage: Stage) -> None:
    upstream = stage.upstream()
    upstream.answers[METRICS] = answers.error(501)
    gateway = started(stage, upstream)
    wait_until(lambda: asked(upstream, METRICS) >= 2, "it is asked", 8.0)
    begin = time.monotonic()
    upstream.ledger.wait_requests(len(upstream.requests) + 1, timeout=10.0)
    assert time.monotonic() - begin > 1.0
    assert loads(gateway) == {}
