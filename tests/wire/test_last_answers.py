"""The last answer on a connection: a slow client gets all of it, one that does not read is let go in time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.client import Client, build_request, chat_request
from tests.wire.ledger import Overdue
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]

#: Each answer is an error that comes in one piece. Many fill the kernel's buffers; what is left waits in the gateway.
BODY = answers.error_body("x" * 60_000)
#: Seconds that an early answer gets for the rest of its request (downstream.LINGER_TIME): others may take longer.
LINGER = 2.0


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    limits = {"send_timeout": "3s", "keepalive_timeout": "1s"}
    return configuration(backend(module_upstream), server=limits)


def ask(client: Client, upstream: Upstream, count: int, *, close: bool = False) -> None:
    """Make *count* calls, the last one with Connection: close, each when the last is answered; read none of it."""
    for number in range(count):
        last = len(upstream.requests)
        client.chat(headers=[("Connection", "close")] if close and number == count - 1 else [])
        answered = lambda at=last: len(upstream.requests) > at and upstream.requests[at].answered  # noqa: E731
        upstream.ledger.wait(answered, "the next call", 1.5)


@pytest.fixture
def enough(connect: Connect, upstream: Upstream) -> int:
    """How many calls are served to a client that does not read: the end of their answers waits in the gateway."""
    upstream.answer = answers.whole(400, BODY)
    client = connect(receive_buffer=4096)
    with contextlib.suppress(Overdue):
        ask(client, upstream, 1000)
    client.abort()
    count = len(upstream.requests)
    assert 2 < count < 1000
    return count


def test_a_slow_client_gets_all_of_it_and_then_the_end(connect: Connect, upstream: Upstream, enough: int) -> None:
    client = connect(receive_buffer=4096)
    ask(client, upstream, enough, close=True)
    time.sleep(1.2 * LINGER)  # it may even stand still for less than send_timeout, and begin again when that is over
    got = bytearray()
    end = time.monotonic() + LINGER
    while time.monotonic() < end:
        got += client.sock.recv(4096)
        time.sleep(0.02)
    got += client.read_end()
    assert client.ended == "fin"
    assert got.count(BODY) == enough and got.endswith(BODY)


@pytest.mark.parametrize("close", [True, False], ids=["close", "keep-alive"])
def test_a_client_that_does_not_read_is_let_go(
    connect: Connect, upstream: Upstream, gateway: Gateway, enough: int, close: bool
) -> None:
    ask(connect(receive_buffer=4096), upstream, enough, close=close)
    gateway.wait_gauge(1, "gateway_client_connections", timeout=10.0)  # the one that asks


def test_a_client_that_sends_on_and_does_not_read_is_served_no_further_and_let_go(
    connect: Connect, upstream: Upstream, gateway: Gateway, enough: int
) -> None:
    """Neither reading nor writing goes on: only time ends that."""
    client = connect(receive_buffer=4096)
    ask(client, upstream, enough)
    before = len(upstream.requests)
    client.sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            client.send(build_request("POST", CHAT, chat_request(user="x" * 60_000)))
    assert len(upstream.requests) - before <= 1, "of the buffers' size two runs may differ a little"
    gateway.wait_gauge(1, "gateway_client_connections", timeout=10.0)
