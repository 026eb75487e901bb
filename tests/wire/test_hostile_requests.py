"""RELIABILITY's section 2.1 over real sockets: one answer to each hostile request, and nothing of it upstream."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.wire.client import Client, Response, build_request
from tests.wire.hostile import BODY_LIMIT, CHAT, GOOD, HOSTILE, SMUGGLED, judge_forwarded
from tests.wire.process import Configuration
from tests.wire.stage import backend, configuration
from tests.wire.upstream import Upstream

Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    return configuration(backend(module_upstream), server={"body_limit": BODY_LIMIT})


def sent(client: Client, data: bytes, cuts: list[int]) -> None:
    """Send *data* in pieces; the gateway may have heard enough before its end."""
    try:
        client.split(data, *cuts)
    except (BrokenPipeError, ConnectionResetError):
        pass


def refused(client: Client, status: int) -> Response:
    """The answer is *status*, whole, with a body as OpenAI's are, and the last one."""
    response = client.response()
    assert response.status == status, response
    assert response.complete and response.header("connection") == "close"
    assert response.code
    assert client.read_end() == b""
    assert client.ended == "fin"
    return response


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "in pieces"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_gets_its_one_answer_and_ends_the_connection(
    connect: Connect, upstream: Upstream, name: str, cut: bool
) -> None:
    """In pieces nothing comes behind it: the gateway must not wait for more to refuse it."""
    data, status = HOSTILE[name]
    dice = random.Random(name)
    cuts = [dice.randrange(1, min(len(data), 4000)) for _ in range(6)] if cut else []
    client = connect()
    sent(client, data if cut else data + SMUGGLED, cuts)
    refused(client, status)
    assert upstream.ledger.connections == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_good_request_before_a_hostile_one_is_served_and_nothing_behind_it(
    connect: Connect, upstream: Upstream, name: str
) -> None:
    data, status = HOSTILE[name]
    client = connect()
    for body in (GOOD, GOOD.replace(b"}", b',"n":2}')):  # the second is read by the pattern of the first
        client.send(build_request("POST", CHAT, body))
        assert client.response().status == 200
    sent(client, build_request("POST", CHAT, GOOD) + data + SMUGGLED, [])
    assert client.response().status == 200
    refused(client, status)
    assert len(upstream.requests) == 3
    for request in upstream.requests:
        judge_forwarded(request)
