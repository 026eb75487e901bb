"""Paths that pass through: their deadlines, and that no spelling of a path leads out of those that are listed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import KEY, Client
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import backend, configuration
from tests.wire.upstream import Exchange, Upstream

FILES = "/v1/files"
SHORT = "/v1/batches"
Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    streams = {"first_byte": "400ms", "idle": "400ms"}
    return configuration(
        backend(module_upstream, passthrough=["/v1/files*"], timeouts=streams),
        backend(module_upstream, name="short", models=["s"], passthrough=["/v1/batches*"], timeouts={"total": "500ms"}),
        auth={"keys": [{"name": "tester", "key": KEY, "passthrough": True}]},
    )


# --- deadlines ---


def test_a_passed_call_takes_no_longer_than_its_total(connect: Connect, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answer = answers.await_abort
    client = connect()
    client.request("POST", SHORT, b"anything")
    response = client.response()
    assert (response.status, response.code) == (504, "upstream_timeout")
    upstream.ledger.wait_abort()
    assert gateway.wait_call(request_id=client.id)["ending"] == "uH"


def test_the_total_holds_for_a_passed_body_that_stalls(connect: Connect, gateway: Gateway, upstream: Upstream) -> None:
    def script(x: Exchange) -> None:
        x.send(answers.head(200, ("content-length", "100")) + b"begun")
        x.await_abort()

    upstream.answer = script
    client = connect()
    client.request("GET", SHORT)
    response = client.response()
    assert (response.body, response.complete) == (b"begun", False)
    upstream.ledger.wait_abort()
    assert gateway.wait_call(request_id=client.id)["ending"] == "uD"


def test_without_a_total_a_passed_answer_may_take_its_time(connect: Connect, upstream: Upstream) -> None:
    """Nobody can tell a slow answer from a dead one, and only a stream has to go on."""

    def script(x: Exchange) -> None:
        x.sleep(0.8)
        x.send(answers.head(200, ("content-length", "4")) + b"so")
        x.sleep(0.8)
        x.send(b"me")

    upstream.answer = script
    client = connect()
    client.request("GET", FILES)
    assert client.response().body == b"some"


def test_a_passed_stream_that_stalls_ends_with_an_error_event(
    connect: Connect, gateway: Gateway, upstream: Upstream
) -> None:
    upstream.answer = answers.stalled_stream(Gate(), [b"data: whatever\n\n"])
    client = connect()
    client.request("GET", FILES)
    response = client.response()
    assert response.events[0] == b"data: whatever\n\n" and not response.complete
    assert json.loads(response.events[1].removeprefix(b"data: "))["error"]["code"] == "upstream_timeout"
    upstream.ledger.wait_abort()
    assert gateway.wait_call(request_id=client.id)["ending"] == "uD"


def test_a_passed_stream_that_does_not_begin_is_504(connect: Connect, gateway: Gateway, upstream: Upstream) -> None:
    """Its head tells that it is one: from then on the time for a stream's first byte holds."""

    def script(x: Exchange) -> None:
        x.send(answers.sse_head())
        x.await_abort()

    upstream.answer = script
    client = connect()
    client.request("GET", FILES)
    response = client.response()
    assert (response.status, response.code) == (504, "upstream_timeout")
    upstream.ledger.wait_abort()
    assert gateway.wait_call(request_id=client.id)["ending"] == "uP"


# --- spellings ---


CLIMBING = [
    "/v1/files/../x",
    "/v1/files/..",
    "/v1/files/./x",
    "/v1/files/a/../../x",
    "/v1/files/%2e%2e/x",
    "/v1/files/%2E%2E/x",
    "/v1/files/.%2e/x",
    "/v1/files/..%2fx",
    "/v1/files%2f..%2fx",
    "/v1/files/..\\x",
    "/v1/files\\..\\x",
    "/v1/files/..%5cx",
    "/v1/files/%2e%2e%5Cx",
]


@pytest.mark.parametrize("target", CLIMBING)
@pytest.mark.parametrize("query", ["", "?a=b"], ids=["", "with a query"])
def test_a_path_that_climbs_is_404_and_goes_nowhere(
    gateway: Gateway, upstream: Upstream, target: str, query: str
) -> None:
    response = gateway.ask("GET", target + query)
    assert (response.status, response.code) == (404, "unknown_path")
    assert upstream.ledger.connections == []


@pytest.mark.parametrize("target", ["/v1/files/..x", "/v1/files/x..", "/v1/files/.hidden", "/v1/files/a?b=/../c"])
def test_a_path_with_dots_that_do_not_climb_passes(gateway: Gateway, upstream: Upstream, target: str) -> None:
    assert gateway.ask("GET", target).status == 200
    assert upstream.ledger.last.target == target
