"""How long an upstream may take: to connect, to begin a stream, to go on with it, and in all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, chat_request
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    limits = {"connect": "200ms", "first_byte": "400ms", "idle": "400ms"}
    short = backend(module_upstream, name="short", models=["short"], timeouts={"total": "700ms"})
    return configuration(backend(module_upstream, timeouts=limits), short)


def error_event(data: bytes) -> dict[str, Any]:
    assert data.startswith(b"data: ") and data.endswith(b"\n\n")
    return dict(json.loads(data[6:])["error"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_connect_that_hangs_goes_on_elsewhere(stage: Stage, stream: bool) -> None:
    alive = stage.upstream()
    fields: dict[str, Any] = {"timeouts": {"connect": "200ms"}, "balance": "round_robin"}
    gateway = stage.gateway(configuration(backend(stage.full_backlog(), alive, **fields)))
    for _ in range(4):
        assert gateway.ask("POST", CHAT, chat_request(stream=stream)).status == 200
    assert len(alive.requests) == 4


def test_a_connect_that_hangs_everywhere_is_told(stage: Stage) -> None:
    gateway = stage.gateway(configuration(backend(stage.full_backlog(), timeouts={"connect": "200ms"})))
    response = gateway.ask("POST", CHAT, chat_request())
    assert response.status in (503, 504)
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert line["ending"] == "uC"


def test_a_stream_that_does_not_begin_is_504(connect: Connect, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answer = answers.await_abort
    client = connect()
    client.chat(stream=True)
    response = client.response()
    assert (response.status, response.code) == (504, "upstream_timeout")
    upstream.ledger.wait_abort()
    assert gateway.wait_call(request_id=client.id)["ending"] == "uH"
    assert len(upstream.requests) == 1, "it may still be at work"


@pytest.mark.parametrize("before", [b"", b": comment\n\n", b'data: {"half'], ids=["head", "comment", "half an event"])
def test_a_stream_whose_first_event_does_not_come_is_504(
    connect: Connect, gateway: Gateway, upstream: Upstream, before: bytes
) -> None:
    def script(x: Exchange) -> None:
        x.send(answers.sse_head() + (answers.chunk(before) if before else b""))
        x.await_abort()

    upstream.answer = script
    client = connect()
    client.chat(stream=True)
    response = client.response()
    assert (response.status, response.code) == (504, "upstream_timeout")
    assert gateway.wait_call(request_id=client.id)["ending"] == "uP"


def test_a_stream_that_stalls_ends_with_an_error_event(connect: Connect, gateway: Gateway, upstream: Upstream) -> None:
    events = answers.chat_events(3)[:2]
    upstream.answer = answers.stalled_stream(Gate(), events)
    client = connect()
    client.chat(stream=True)
    response = client.response()
    assert response.events[:-1] == events and not response.complete and response.ended == "fin"
    assert error_event(response.events[-1])["code"] == "upstream_timeout"
    upstream.ledger.wait_abort()
    assert gateway.wait_call(request_id=client.id)["ending"] == "uD"


def test_a_slow_stream_that_goes_on_is_not_cut(connect: Connect, upstream: Upstream) -> None:
    events = answers.chat_events(8)

    def script(x: Exchange) -> None:
        x.send(answers.sse_head())
        for event in events:
            x.sleep(0.1)
            x.send(answers.chunk(event))
        x.send(answers.LAST_CHUNK)

    upstream.answer = script
    client = connect()
    client.chat(stream=True)
    assert client.response().events == events


def test_an_answer_that_is_no_stream_may_take_its_time(connect: Connect, upstream: Upstream) -> None:
    body = answers.chat_body()

    def script(x: Exchange) -> None:
        x.sleep(0.8)
        x.send(answers.head(200, answers.JSON_TYPE, ("content-length", str(len(body)))) + body[:10])
        x.sleep(0.8)
        x.send(body[10:])

    upstream.answer = script
    client = connect()
    client.chat()
    response = client.response()
    assert response.complete and response.body == body


def test_in_all_a_call_takes_no_longer_than_its_total(connect: Connect, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answer = answers.await_abort
    client = connect()
    client.chat(model="short")
    response = client.response()
    assert (response.status, response.code) == (504, "upstream_timeout")
    upstream.ledger.wait_abort()
    assert gateway.wait_call(request_id=client.id)["ending"] == "uH"


def test_the_total_holds_for_a_stream_that_goes_on_for_ever(
    connect: Connect, gateway: Gateway, upstream: Upstream
) -> None:
    def script(x: Exchange) -> None:
        x.send(answers.sse_head())
        while True:
            x.send(answers.chunk(answers.event({"content": "on and on "})))
            x.sleep(0.02)

    upstream.answer = script
    client = connect()
    client.chat(stream=True, model="short")
    response = client.response()
    assert response.status == 200 and not response.complete and response.ended == "fin"
    assert error_event(response.events[-1])["code"] == "upstream_timeout"
    upstream.ledger.wait_abort()
    assert gateway.wait_call(request_id=client.id)["ending"] == "uD"


def test_the_total_holds_for_a_body_that_stalls(connect: Connect, gateway: Gateway, upstream: Upstream) -> None:
    def script(x: Exchange) -> None:
        x.send(answers.head(200, answers.JSON_TYPE, ("content-length", "100")) + b"{")
        x.await_abort()

    upstream.answer = script
    client = connect()
    client.chat(model="short")
    assert not client.response().complete
    upstream.ledger.wait_abort()
    assert gateway.wait_call(request_id=client.id)["ending"] == "uD"
