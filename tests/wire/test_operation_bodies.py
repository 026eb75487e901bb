"""A body that comes with a question to the gateway itself is read and ignored, up to 8 KiB and no further."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire.client import Client, build_request
from tests.wire.process import Gateway, wait_until

Connect = Callable[..., Client]
LIMIT = 8 << 10
OPERATIONS = ["/health", "/health/live", "/v1/health", "/metrics", "/v1/models"]

chunking = pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])


@chunking
@pytest.mark.parametrize("path", OPERATIONS)
def test_a_small_body_is_ignored(connect: Connect, path: str, chunked: bool) -> None:
    client = connect()
    for _ in range(2):
        client.request("GET", path, bytes(LIMIT), chunked=chunked)
        assert client.response().status == 200


@chunking
@pytest.mark.parametrize("path", OPERATIONS)
def test_a_larger_body_is_413(connect: Connect, path: str, chunked: bool) -> None:
    client = connect()
    client.request("GET", path, bytes(LIMIT + 1), chunked=chunked)
    response = client.response()
    assert (response.status, response.code) == (413, "body_too_large")


@pytest.mark.parametrize("path", OPERATIONS)
def test_a_body_that_says_it_is_larger_is_refused_before_it_comes(
    connect: Connect, gateway: Gateway, path: str
) -> None:
    client = connect()
    request = build_request("GET", path, bytes(1 << 20))
    client.send(request[: -(1 << 20)])
    response = client.response()
    assert (response.status, response.header("connection")) == (413, "close")
    assert gateway.gauge("gateway_body_budget_bytes") == 0


def test_of_a_larger_body_in_chunks_no_more_than_that_is_held(connect: Connect, gateway: Gateway) -> None:
    client = connect()
    request = build_request("GET", "/health", bytes(1 << 20), chunked=True)
    client.send(request[:LIMIT])
    wait_until(lambda: LIMIT // 2 < gateway.gauge("gateway_body_budget_bytes") <= LIMIT, "what is allowed is read")
    client.send(request[LIMIT : 2 * LIMIT])
    assert client.response().status == 413
    gateway.wait_gauge(0, "gateway_body_budget_bytes")
