"""A client that leaves stops its upstream at once, in every phase, and nobody upstream is blamed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.client import Client, build_request, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]
Leave = Callable[[Client], None]

leaving = pytest.mark.parametrize(
    "leave", [Client.close, Client.abort, Client.half_close], ids=["close", "rst", "half-close"]
)
streaming = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

ENDPOINTS = [
    CHAT,
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/images/generations",
    "/v1/audio/speech",
]


@pytest.mark.parametrize("sent", [1, 40, 150, -1], ids=["1 B", "in the head", "in the headers", "all but 1 B"])
@leaving
def test_while_the_request_is_read_nothing_goes_upstream(
    connect: Connect, upstream: Upstream, gateway: Gateway, leave: Leave, sent: int
) -> None:
    client = connect()
    client.send(build_request("POST", CHAT, chat_request())[:sent])
    leave(client)
    assert gateway.ask("GET", "/health/live").status == 200
    assert upstream.ledger.connections == []


@leaving
def test_a_large_body_that_breaks_off_gives_its_budget_back(
    connect: Connect, upstream: Upstream, gateway: Gateway, leave: Leave
) -> None:
    client = connect()
    client.send(build_request("POST", CHAT, chat_request(user="x" * 1_000_000))[:-1])
    wait_until(lambda: gateway.gauge("gateway_body_budget_bytes") >= 1_000_000, "the body is held")
    leave(client)
    gateway.wait_gauge(0, "gateway_body_budget_bytes")
    assert upstream.ledger.connections == []


@leaving
@streaming
def test_while_connecting(stage: Stage, leave: Leave, stream: bool) -> None:
    gateway = stage.gateway(
        configuration(backend(stage.full_backlog(), timeouts={"connect": "30s"}, retry={"tries": 1}))
    )
    client = stage.connect(gateway)
    client.chat(stream=stream)
    gateway.wait_gauge(1, "gateway_upstream_connections", state="connecting")
    leave(client)
    gateway.wait_gauge(0, "gateway_upstream_connections", state="connecting")
    line = gateway.wait_call(request_id=client.id)
    assert (line["status"], line["ending"], line["fault"]) == (499, "CC", "client_closed_request")


@leaving
@streaming
@pytest.mark.parametrize("path", ENDPOINTS)
def test_while_waiting_for_the_head(
    connect: Connect, upstream: Upstream, gateway: Gateway, leave: Leave, stream: bool, path: str
) -> None:
    upstream.answer = answers.await_abort
    client = connect()
    client.request("POST", path, chat_request(stream=stream))
    upstream.ledger.wait_requests(1)
    leave(client)
    upstream.ledger.wait_abort(1.0)
    line = gateway.wait_call(request_id=client.id, path=path)
    assert (line["status"], line["ending"], line["fault"]) == (499, "CH", "client_closed_request")


@leaving
@streaming
def test_between_the_head_and_the_first_event(
    connect: Connect, upstream: Upstream, gateway: Gateway, leave: Leave, stream: bool
) -> None:
    sent = threading.Event()

    def script(x: Exchange) -> None:
        x.send(answers.sse_head() if stream else answers.head(200, ("content-length", "5")))
        x.send(answers.chunk(b": not yet\n\n") if stream else b"")
        sent.set()
        x.await_abort()

    upstream.answer = script
    client = connect()
    client.chat(stream=stream)
    assert sent.wait(5)
    leave(client)
    upstream.ledger.wait_abort(1.0)
    line = gateway.wait_call(request_id=client.id)
    assert line["status"] == 499 and line["ending"] in ("CP", "CH")


@leaving
@streaming
def test_amid_the_answer(connect: Connect, upstream: Upstream, gateway: Gateway, leave: Leave, stream: bool) -> None:
    first = answers.chat_events(1)[0]

    def script(x: Exchange) -> None:
        if stream:
            x.send(answers.sse_head() + answers.chunk(first))
        else:
            x.send(answers.head(200, answers.JSON_TYPE, ("content-length", "1000")) + first)
        x.await_abort()

    upstream.answer = script
    client = connect()
    client.chat(stream=stream)
    client.read_head()
    assert client.read_payload() == first
    leave(client)
    upstream.ledger.wait_abort(1.0)
    line = gateway.wait_call(request_id=client.id)
    assert (line["status"], line["ending"], line["fault"]) == (200, "CD", "client_closed_request")


def flood(x: Exchange) -> None:
    """Events without end, as fast as they are taken."""
    x.send(answers.sse_head())
    event = answers.chunk(answers.event({"content": "x" * 4000}))
    while True:
        x.send(event * 16)


@leaving
def test_while_paused_because_the_client_does_not_read(
    stage: Stage, upstream: Upstream, gateway: Gateway, leave: Leave, module_stage: Stage
) -> None:
    upstream.answer = flood
    client = module_stage.connect(gateway, receive_buffer=4096)
    client.chat(stream=True)
    upstream.ledger.wait_blocked()
    leave(client)
    upstream.ledger.wait_abort(1.0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "CD"


@leaving
@streaming
def test_while_the_client_is_not_read_because_it_sent_too_much(
    connect: Connect, upstream: Upstream, gateway: Gateway, leave: Leave, stream: bool
) -> None:
    """A socket that is not read tells neither of a FIN nor of a reset: somebody has to look."""

    def script(x: Exchange) -> None:
        if stream:
            x.send(answers.sse_head() + answers.chunk(answers.chat_events(1)[0]))
        x.await_abort()

    upstream.answer = script
    client = connect()
    client.chat(stream=stream)
    upstream.ledger.wait_requests(1)
    client.send(build_request("POST", CHAT, chat_request()) * 1000)
    leave(client)
    upstream.ledger.wait_abort(1.0)
    assert gateway.wait_call(request_id=client.id)["ending"][0] == "C"
    assert len(upstream.requests) == 1


def test_every_abort_is_counted_and_no_peer_is_blamed(connect: Connect, upstream: Upstream, gateway: Gateway) -> None:
    """Were the peer blamed, the calls after it would meet a cool-down."""
    before = gateway.metrics()
    upstream.answer = answers.await_abort
    for count in range(1, 6):
        client = connect()
        client.chat()
        upstream.ledger.wait_requests(count)
        client.abort()
    gateway.wait_gauge(0, "gateway_in_flight_requests")
    after = gateway.metrics()
    name = "gateway_endings_total"
    assert after.value(name, ending="CH") - before.value(name, ending="CH") == 5
    cooled = "gateway_peer_cooldowns_total"
    assert after.value(cooled) == before.value(cooled)
    upstream.answer = answers.chat()
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def test_a_client_that_leaves_after_its_answer_aborted_nothing(
    connect: Connect, upstream: Upstream, gateway: Gateway
) -> None:
    client = connect()
    client.chat()
    assert client.response().complete
    client.abort()
    line = gateway.wait_call(request_id=client.id)
    assert (line["status"], line["ending"], line["fault"]) == (200, "--", None)
    assert upstream.ledger.last.aborted is None


def test_a_pipelined_request_of_a_client_that_left_is_not_sent(
    connect: Connect, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answer = answers.await_abort
    client = connect()
    client.chat()
    client.chat()
    upstream.ledger.wait_requests(1)
    client.abort()
    upstream.ledger.wait_abort(1.0)
    gateway.wait_call(request_id=client.id)
    gateway.wait_gauge(0, "gateway_in_flight_requests")
    assert len(upstream.requests) == 1
