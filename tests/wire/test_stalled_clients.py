"""A client that stops taking its answer is ended in time and blamed for it; one that takes it slowly is served."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.client import Client, chat_request
from tests.wire.process import Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Script, Upstream

CHAT = "/v1/chat/completions"
SIZE = 64 << 20
#: Seconds without progress after which a client is given up; reads of a slow one come much sooner.
IDLE = 1.0

streaming = pytest.mark.parametrize("stream", [False, True], ids=["body", "stream"])


def endless(x: Exchange) -> None:
    """Events without end, as fast as they are taken."""
    x.send(answers.sse_head())
    event = answers.chunk(answers.event({"content": "x" * 4000}))
    while True:
        x.send(event * 16)


def large(x: Exchange) -> None:
    x.send(answers.head(200, ("content-type", "audio/mpeg"), ("content-length", str(SIZE))))
    for _ in range(SIZE >> 16):
        x.send(bytes(1 << 16))


def script_of(stream: bool) -> Script:
    return endless if stream else large


def start(stage: Stage, *upstreams: Upstream, patience: float = IDLE, **timeouts: Any) -> Gateway:
    """A client has *patience* seconds; its upstream's silence is not to blame for what it does not take."""
    fields = {"timeouts": {"idle": IDLE / 2, **timeouts}, "balance": "round_robin"}
    return stage.gateway(configuration(backend(*upstreams, **fields), server={"send_timeout": patience}))


def begin(stage: Stage, gateway: Gateway, *, stream: bool) -> Client:
    client = stage.connect(gateway, receive_buffer=4096)
    client.chat(stream=stream)
    return client


@streaming
def test_a_client_that_stops_reading_is_ended_and_no_peer_is_blamed(stage: Stage, stream: bool) -> None:
    upstream, other = stage.upstream(), stage.upstream()
    gateway = start(stage, upstream, other)
    assert all(gateway.ask("POST", CHAT, chat_request()).status == 200 for _ in range(2))
    upstream.answer = other.answer = script_of(stream)
    client = begin(stage, gateway, stream=stream)
    line = gateway.wait_call(timeout=5.0, request_id=client.id)
    assert (line["status"], line["ending"], line["fault"]) == (200, "cD", "client_stopped_reading")
    upstream.ledger.wait(lambda: any(one.aborted for one in upstream.requests + other.requests), "the abort")
    gateway.wait_gauge(1, "gateway_client_connections", timeout=5.0)  # the one that asks
    metrics = gateway.metrics()
    assert metrics.value("gateway_endings_total", ending="cD") == 1
    assert metrics.value("gateway_peer_cooldowns_total") == 0
    upstream.answer = other.answer = answers.chat()
    assert all(gateway.ask("POST", CHAT, chat_request()).status == 200 for _ in range(2))
    assert len(upstream.requests) + len(other.requests) == 5 and abs(len(upstream.requests) - len(other.requests)) == 1


@streaming
def test_what_it_got_until_then_does_not_look_complete(stage: Stage, stream: bool) -> None:
    upstream = stage.upstream(script_of(stream))
    gateway = start(stage, upstream)
    client = begin(stage, gateway, stream=stream)
    gateway.wait_call(timeout=5.0, request_id=client.id)
    response = client.response()
    assert response.status == 200 and not response.complete
    assert b"[DONE]" not in response.body


@streaming
def test_a_client_that_reads_slowly_is_not_ended(stage: Stage, stream: bool) -> None:
    """By what leaves the gateway alone it stands still: the kernel takes megabytes, and gives room back in lumps."""
    upstream = stage.upstream(script_of(stream))
    gateway = start(stage, upstream)
    client = begin(stage, gateway, stream=stream)
    upstream.ledger.wait_blocked()
    end = time.monotonic() + 3 * IDLE
    while time.monotonic() < end:
        assert client.sock.recv(2048)
        time.sleep(0.02)
    assert gateway.calls(request_id=client.id) == []
    assert upstream.requests[0].aborted is None
    client.close()
    assert gateway.wait_call(request_id=client.id)["ending"] == "CD"


@streaming
def test_a_client_that_stands_still_when_the_total_is_over_is_blamed_for_it(stage: Stage, stream: bool) -> None:
    upstream = stage.upstream(script_of(stream))
    gateway = start(stage, upstream, patience=30, total="700ms")
    client = begin(stage, gateway, stream=stream)
    line = gateway.wait_call(timeout=5.0, request_id=client.id)
    assert (line["ending"], line["fault"]) == ("cD", "client_stopped_reading")


def test_a_client_that_reads_on_is_waited_for_no_more(stage: Stage) -> None:
    """After a pause the upstream is who is waited for again."""
    events = answers.chat_events(2)[:2]

    def script(x: Exchange) -> None:
        x.send(answers.sse_head())
        for _ in range(4000):
            x.send(answers.chunk(answers.event({"content": "x" * 8000})))
        x.send(b"".join(map(answers.chunk, events)))
        x.await_abort()

    upstream = stage.upstream(script)
    gateway = start(stage, upstream)
    client = begin(stage, gateway, stream=True)
    upstream.ledger.wait_blocked()
    response = client.response()
    assert response.events[-3:-1] == events and b"upstream_timeout" in response.events[-1]
    assert gateway.wait_call(request_id=client.id)["ending"] == "uD"
