"""How the gateway stops: it says so, lets what runs come to its end, and never lies about what it had to cut."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
EVENTS = answers.chat_events(3)


def start(stage: Stage, upstream: Upstream, **server: Any) -> Gateway:
    return stage.gateway(configuration(backend(upstream), server=server))


def begin_stream(stage: Stage, gateway: Gateway) -> Client:
    """A client whose stream has begun and stalls."""
    client = stage.connect(gateway)
    client.chat(stream=True)
    client.read_head()
    assert client.read_events(2) == EVENTS[:2]
    return client


def refuses(gateway: Gateway) -> bool:
    try:
        Client(gateway.port, timeout=1.0).close()
    except ConnectionRefusedError:
        return True
    return False


def test_while_pre_stop_lasts_it_is_not_ready_and_serves_all_the_same(stage: Stage) -> None:
    upstream = stage.upstream()
    gateway = start(stage, upstream, pre_stop="1500ms")
    assert gateway.ask("GET", "/health/ready").status == 200
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.ask("GET", "/health/ready").status == 503, "readiness goes", 1.0)
    assert gateway.ask("GET", "/health/live").status == 200
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    gateway.wait_exit(0)
    assert refuses(gateway)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_comes_to_its_end(stage: Stage, how: signal.Signals) -> None:
    gate = Gate()
    upstream = stage.upstream(answers.stalled_stream(gate, EVENTS[:2], EVENTS[2:]))
    gateway = start(stage, upstream)
    streaming = begin_stream(stage, gateway)
    upstream.answer = answers.stalled(gate)
    waiting = stage.connect(gateway)
    waiting.chat()
    upstream.ledger.wait_requests(2)
    gateway.process.send_signal(how)
    wait_until(lambda: refuses(gateway), "it accepts no more", 2.0)
    gate.open()
    response = streaming.finish()
    assert response.complete and response.events == EVENTS
    response = waiting.response()
    assert response.complete and response.body == answers.chat_body()
    assert response.header("connection") == "close"
    gateway.wait_exit(0)


def test_sigint_does_not_wait_for_pre_stop(stage: Stage) -> None:
    gateway = start(stage, stage.upstream(), pre_stop="30s")
    gateway.process.send_signal(signal.SIGINT)
    gateway.wait_exit(0)


def test_idle_connections_are_closed(stage: Stage) -> None:
    gate = Gate()
    upstream = stage.upstream(answers.chat())
    gateway = start(stage, upstream)
    idle = stage.connect(gateway)
    idle.chat()
    assert idle.response().complete
    upstream.answer = answers.stalled(gate)
    busy = stage.connect(gateway)
    busy.chat()
    upstream.ledger.wait_requests(2)
    gateway.process.send_signal(signal.SIGTERM)
    assert idle.read_end() == b"" and idle.ended == "fin"
    gate.open()
    assert busy.response().complete
    gateway.wait_exit(0)


def test_at_the_deadline_a_stream_is_told_and_a_whole_call_is_refused(stage: Stage) -> None:
    upstream = stage.upstream(answers.stalled_stream(Gate(), EVENTS[:2]))
    gateway = start(stage, upstream, drain_timeout="300ms")
    streaming = begin_stream(stage, gateway)
    upstream.answer = answers.await_abort
    waiting = stage.connect(gateway)
    waiting.chat()
    upstream.ledger.wait_requests(2)
    gateway.process.send_signal(signal.SIGTERM)
    response = streaming.finish()
    assert response.events[:-1] == EVENTS[:2] and not response.complete and response.ended == "fin"
    assert json.loads(response.events[-1].removeprefix(b"data: "))["error"]["code"]
    assert b"[DONE]" not in response.body
    refused = waiting.response()
    assert (refused.status, refused.code) == (503, "draining")
    assert int(refused.header("retry-after") or 0) >= 1
    gateway.wait_exit(0)
    upstream.ledger.wait(lambda: all(request.aborted for request in upstream.requests), "both aborted")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_is_quick(stage: Stage, how: signal.Signals) -> None:
    upstream = stage.upstream(answers.stalled_stream(Gate(), EVENTS[:2]))
    gateway = start(stage, upstream, pre_stop="20s")
    begin_stream(stage, gateway)
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.ask("GET", "/health/ready").status == 503, "readiness goes", 1.0)
    gateway.process.send_signal(how)
    gateway.wait_exit(0, 2.0)


def test_a_request_half_read_at_the_signal_is_still_served(stage: Stage) -> None:
    upstream = stage.upstream()
    gateway = start(stage, upstream, pre_stop="300ms")
    client = stage.connect(gateway)
    body = chat_request()
    client.send(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: a\r\nX-API-Key: test-key-0123456789\r\n")
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.ask("GET", "/health/ready").status == 503, "readiness goes", 1.0)
    client.send(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    response = client.response()
    assert response.status == 200
    gateway.wait_exit(0)


def test_answers_say_that_their_connection_closes_as_soon_as_the_drain_begins(stage: Stage) -> None:
    """A client that keeps its connection must not find it closed amid its next request."""
    gateway = stage.gateway(configuration(backend(stage.upstream()), server={"pre_stop": "2s"}))
    warm = stage.connect(gateway)
    warm.chat()
    assert warm.response().header("connection") is None
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.ask("GET", "/health/ready").status == 503, "the drain begins")
    warm.chat()
    assert warm.response().header("connection") == "close"
    fresh = stage.connect(gateway)
    fresh.chat()
    assert fresh.response().header("connection") == "close"
    gateway.wait_exit(0)


def test_a_reload_that_hangs_keeps_nobody_connecting(stage: Stage) -> None:
    """Who tries the configuration waits for a file that nobody writes, and would hold the listeners meanwhile."""
    gate = Gate()
    upstream = stage.upstream(answers.stalled_stream(gate, EVENTS[:2], EVENTS[2:]))
    gateway = start(stage, upstream)
    streaming = begin_stream(stage, gateway)
    file = gateway.folder / "gateway.toml"
    file.unlink()
    os.mkfifo(file)
    children = len(gateway.workers)
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(gateway.workers) > children, "it is tried", 5.0)
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: refuses(gateway), "nobody listens", 3.0)
    gate.open()
    assert streaming.finish().events == EVENTS
    gateway.wait_exit(0)
