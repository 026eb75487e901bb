"""A gateway whose peers are renamed again and again: thousands, and the workers still share what there is to know."""

from __future__ import annotations

import os
import signal

from gateway.page import COLUMNS_LIMIT
from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.process import Configuration, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.test_breakers import ask, states
from tests.wire.test_host_health import one_client_each
from tests.wire.test_reload import reload
from tests.wire.test_workers import held_stream, owner, streams
from tests.wire.upgrading import upgrade, wait_workers

WORKERS, RENAMED, TIMES = 3, 300, 12


class House:
    """Peers behind backends that have another name in each configuration, and many that nobody calls."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.gate = Gate()
        self.even = [stage.upstream(answers.stalled(self.gate)) for _ in range(2)]
        self.failing = stage.upstream(answers.error(500))
        self.held = stage.upstream(held_stream(self.gate))
        self.times = 0
        self.gateway = stage.gateway(self.config())
        (self.stream,) = streams(stage, self.gateway, 1, model="held")

    def config(self) -> Configuration:
        many = [f"http://127.0.0.1:9/{self.times}/{at}" for at in range(RENAMED)]
        fails = {"breaker": {"max_failures": 2, "reset": "60s"}, "retry": {"tries": 1}}
        backends = [
            backend(*self.even, name=f"even-{self.times}", models=["even"]),
            backend(self.failing, name=f"fails-{self.times}", models=["fails"], **fails),
            backend(*many, name="many", models=["many"]),
        ]
        if not self.times:
            return configuration(*backends, backend(self.held, models=["held"]), server={"workers": WORKERS})
        return configuration(*backends, server={"workers": WORKERS, "port": self.gateway.port})

    def rename(self, times: int) -> None:
        for _ in range(times):
            self.times += 1
            told = reload(self.gateway, self.config())
            assert told["msg"] == "reloaded", told

    def assert_calls_are_shared(self) -> None:
        """One after another, each goes to the peer that has fewer, whichever workers' calls they are."""
        before = [len(peer.requests) for peer in self.even]
        clients = [self.stage.connect(self.gateway) for _ in range(12)]
        for count, client in enumerate(clients, 1):
            client.chat(model="even")
            wait_until(lambda count=count: sum(self.taken(before)) == count, "the call has come to a peer")
            first, second = self.taken(before)
            assert abs(first - second) <= 1
        for client in clients:
            client.close()
        self.gateway.wait_gauge(1, "gateway_upstream_connections", state="busy")  # the stream that lasts
        assert self.gateway.gauge("gateway_unshared_peers") == 0

    def taken(self, before: list[int]) -> list[int]:
        return [len(peer.requests) - count for peer, count in zip(self.even, before, strict=True)]

    def assert_circuits_are_shared(self) -> None:
        clients = one_client_each(self.stage, self.gateway)
        assert all("open" not in states(client) for client in clients), "it is no former peer's circuit"
        assert [ask(client, model="fails") for client in clients[:2]] == [500, 500]
        assert all(states(client).count("open") == 1 for client in clients), "two workers met one failure each"
        for client in clients:
            client.close()


def test_peers_that_are_renamed_for_ever_are_shared_by_all_workers(stage: Stage) -> None:
    """A worker is killed on the way, and an old one drains beyond an upgrade with a call to a peer of the beginning."""
    house = House(stage)
    gateway = house.gateway
    house.rename(4)
    house.assert_circuits_are_shared()
    keeper = owner(gateway, house.stream)
    victim = next(pid for pid in gateway.workers if pid != keeper)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in gateway.workers and len(gateway.workers) == WORKERS, "a successor")
    house.rename(2)
    house.assert_calls_are_shared()
    assert upgrade(gateway)["msg"] == "upgraded"
    house.rename(TIMES - 6)
    assert keeper in gateway.workers and house.times * RENAMED > 3000
    house.assert_calls_are_shared()
    house.gate.open()
    assert house.stream.finish().complete
    house.stream.close()
    wait_workers(gateway, WORKERS)
    house.assert_circuits_are_shared()
    house.rename(1)
    house.assert_circuits_are_shared()
    in_use = (len(house.even) + 1 + RENAMED) / COLUMNS_LIMIT
    used = "gateway_page_used_ratio"
    wait_until(lambda: gateway.gauge(used, what="peers") == in_use, lambda: f"{gateway.gauge(used)}, not {in_use}")
