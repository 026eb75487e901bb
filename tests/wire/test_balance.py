"""Which of several peers a call goes to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import chat_request
from tests.wire.process import Gateway, free_port, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"


def ask(gateway: Gateway, count: int) -> None:
    for _ in range(count):
        assert gateway.ask("POST", CHAT, chat_request()).status == 200


def shares(upstreams: Sequence[Upstream]) -> list[int]:
    return [len(upstream.requests) for upstream in upstreams]


def has(upstreams: Sequence[Upstream], count: int) -> bool:
    return sum(shares(upstreams)) == count


def hold(stage: Stage, gateway: Gateway, upstreams: Sequence[Upstream], count: int) -> Gate:
    """Begin *count* calls, one after another, that all stall until the gate opens."""
    gate = Gate()
    for upstream in upstreams:
        upstream.answer = answers.stalled(gate)
    for number in range(1, count + 1):
        stage.connect(gateway).chat()
        wait_until(partial(has, upstreams, number), f"request {number}")
    return gate


def test_round_robin_takes_turns(stage: Stage) -> None:
    upstreams = [stage.upstream() for _ in range(3)]
    gateway = stage.gateway(configuration(backend(*upstreams, balance="round_robin")))
    for turn in range(1, 4):
        ask(gateway, 3)
        assert shares(upstreams) == [turn, turn, turn]


def test_round_robin_by_weight_is_smooth(stage: Stage) -> None:
    """The heavy peer's turns are spread: never three of them without the light one between."""
    heavy, light = stage.upstream(), stage.upstream()
    urls = [{"url": heavy.url, "weight": 2}, {"url": light.url, "weight": 1}]
    gateway = stage.gateway(configuration({**backend(balance="round_robin"), "endpoints": urls}))
    for turn in range(1, 5):
        ask(gateway, 3)
        assert shares([heavy, light]) == [2 * turn, turn]


@pytest.mark.parametrize("balance", ["least_connections", "p2c"])
def test_calls_that_run_spread_evenly(stage: Stage, balance: str) -> None:
    upstreams = [stage.upstream() for _ in range(2)]
    gateway = stage.gateway(configuration(backend(*upstreams, balance=balance)))
    gate = hold(stage, gateway, upstreams, 8)
    assert shares(upstreams) == [4, 4]
    gate.open()


def test_least_connections_avoids_the_busy_peer(stage: Stage) -> None:
    busy, free = stage.upstream(), stage.upstream()
    gateway = stage.gateway(configuration(backend(busy, free, retry={"tries": 1})))
    gates = Gate(), Gate()
    for upstream, gate in zip((busy, free), gates, strict=True):
        upstream.answer = answers.stalled(gate)
    clients = [stage.connect(gateway) for _ in range(2)]
    for number, client in enumerate(clients, 1):
        client.chat()
        wait_until(partial(has, [busy, free], number), f"request {number}")
    assert shares([busy, free]) == [1, 1]
    gates[1].open()
    gateway.wait_gauge(1, "gateway_in_flight_requests")
    free.answer = answers.chat()
    ask(gateway, 10)
    assert shares([busy, free]) == [1, 11]
    gates[0].open()


@pytest.mark.parametrize("balance", ["random", "least_connections", "p2c"])
def test_idle_peers_are_taken_at_random(stage: Stage, balance: str) -> None:
    """100 tosses of a fair coin stay within 25 and 75 but once in two million times."""
    upstreams = [stage.upstream() for _ in range(2)]
    gateway = stage.gateway(configuration(backend(*upstreams, balance=balance)))
    ask(gateway, 100)
    assert all(25 <= share <= 75 for share in shares(upstreams))


def test_a_model_of_two_backends_is_balanced_over_all_their_peers(stage: Stage) -> None:
    upstreams = [stage.upstream() for _ in range(3)]
    first = backend(*upstreams[:2], name="first", balance="round_robin")
    second = backend(upstreams[2], name="second", balance="round_robin")
    gateway = stage.gateway(configuration(first, second))
    names = {gateway.ask("POST", CHAT, chat_request()).header("x-upstream") for _ in range(6)}
    assert names == {"first", "second"} and shares(upstreams) == [2, 2, 2]


@pytest.mark.parametrize("balance", ["round_robin", "random", "least_connections", "p2c"])
def test_a_dead_peer_fails_no_call(stage: Stage, balance: str) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    upstreams = [stage.upstream() for _ in range(2)]
    gateway = stage.gateway(configuration(backend(dead, *upstreams, balance=balance)))
    ask(gateway, 40)
    assert sum(shares(upstreams)) == 40 and all(shares(upstreams))


def test_two_dead_peers_of_three_fail_no_call(stage: Stage) -> None:
    """Two tries meet two dead peers at worst; a call must not fail for them."""
    dead = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    upstream = stage.upstream()
    gateway = stage.gateway(configuration(backend(*dead, upstream, retry={"tries": 3})))
    ask(gateway, 40)
    assert len(upstream.requests) == 40
