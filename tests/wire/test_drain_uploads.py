"""A request whose body is still coming when the gateway is told to stop is read and served, or ended in time."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire.client import Client, build_request, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
SIZE = 200_000


@pytest.fixture
def upstream(stage: Stage) -> Upstream:
    return stage.upstream()


@pytest.fixture
def start(stage: Stage, upstream: Upstream) -> Callable[..., Gateway]:
    def start(**server: Any) -> Gateway:
        return stage.gateway(configuration(backend(upstream), server=server))

    return start


def begin_upload(stage: Stage, gateway: Gateway, *, chunked: bool = False) -> tuple[Client, bytes]:
    """A client that has sent half of its request, all of which is read, and the rest."""
    client = stage.connect(gateway)
    request = build_request("POST", CHAT, chat_request(user="x" * SIZE), [("X-Request-Id", client.id)], chunked=chunked)
    client.send(request[: SIZE // 2])
    wait_until(lambda: gateway.gauge("gateway_body_budget_bytes") > SIZE // 4, "the body is coming")
    return client, request[SIZE // 2 :]


def stop_accepting(gateway: Gateway) -> None:
    """SIGTERM, and wait until no more connections are taken."""
    gateway.process.send_signal(signal.SIGTERM)

    def refuses() -> bool:
        try:
            Client(gateway.port, timeout=1.0).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(refuses, "it accepts no more", 2.0)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_is_read_and_served_and_its_connection_closed(
    stage: Stage, upstream: Upstream, start: Callable[..., Gateway], chunked: bool
) -> None:
    gateway = start()
    client, rest = begin_upload(stage, gateway, chunked=chunked)
    stop_accepting(gateway)
    client.split(rest, len(rest) // 2, pause=0.2)  # the drain looks every 50 ms whether it is over
    response = client.response()
    assert response.status == 200 and response.header("connection") == "close"
    assert client.read_end() == b"" and client.ended == "fin"
    assert upstream.ledger.last.body_complete and len(upstream.ledger.last.body) > SIZE
    gateway.wait_exit(0)


def test_an_upload_that_stops_is_408_and_holds_nobody_up(stage: Stage, start: Callable[..., Gateway]) -> None:
    gateway = start(body_timeout="500ms")
    client, _ = begin_upload(stage, gateway)
    stop_accepting(gateway)
    response = client.response()
    assert (response.status, response.code) == (408, "request_timeout")
    assert response.header("connection") == "close"
    gateway.wait_exit(0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "cR"


def test_a_head_that_stops_is_408_and_holds_nobody_up(stage: Stage, start: Callable[..., Gateway]) -> None:
    gateway = start(header_timeout="500ms")
    client = stage.connect(gateway)
    client.send(build_request("POST", CHAT, chat_request())[:40])
    gateway.wait_gauge(2, "gateway_client_connections")
    stop_accepting(gateway)
    assert client.response().status == 408
    gateway.wait_exit(0)


def test_an_upload_that_outlasts_the_drain_is_told_so(
    stage: Stage, upstream: Upstream, start: Callable[..., Gateway]
) -> None:
    gateway = start(drain_timeout="300ms")
    client, _ = begin_upload(stage, gateway)
    stop_accepting(gateway)
    response = client.response()
    assert (response.status, response.code) == (503, "draining")
    assert response.header("connection") == "close"
    gateway.wait_exit(0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "GR"
    assert upstream.requests == []


def test_a_second_signal_does_not_wait_for_an_upload(stage: Stage, start: Callable[..., Gateway]) -> None:
    gateway = start()
    begin_upload(stage, gateway)
    stop_accepting(gateway)
    gateway.process.send_signal(signal.SIGTERM)
    gateway.wait_exit(0)
