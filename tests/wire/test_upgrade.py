"""SIGUSR2: new code takes the process over, and nothing that runs is harmed."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Incomplete, chat_request
from tests.wire.process import to_toml, wait_until
from tests.wire.stage import Stage, backend, configuration, merge
from tests.wire.test_reload import reload
from tests.wire.test_workers import lives, streams
from tests.wire.upgrading import (
    CHAT,
    UPGRADED,
    assert_nothing_was_lost,
    busy,
    callers,
    generations,
    health,
    lines,
    upgrade,
    wait_workers,
)


def test_new_code_serves_in_the_same_process_and_nothing_is_lost(stage: Stage) -> None:
    gate = Gate()
    gateway = stage.gateway(busy(stage, gate, server={"workers": 2}))
    old = gateway.workers
    open_streams = streams(stage, gateway, 50, model="s")
    with callers(gateway) as seen, callers(gateway, 2, keep=False) as single:
        verdict = upgrade(gateway)
        assert verdict["msg"] == UPGRADED and verdict["generation"] == 2, verdict
        second = gateway.workers[2:]
        assert len(second) == 2 and set(old) <= set(gateway.workers)
        # The host is as ready as it was, whoever of it is asked.
        assert all(gateway.ask("GET", "/health/ready").status == 200 for _ in range(8))
        assert health(gateway)["status"] == "healthy"
        assert upgrade(gateway)["generation"] == 3
    assert gateway.process.poll() is None
    gateway.wait_gauge(50, "gateway_in_flight_requests")
    gate.open()
    assert all(client.finish().complete for client in open_streams)
    assert_nothing_was_lost(seen)
    assert_nothing_was_lost(single)
    for client in open_streams:
        client.close()
    wait_workers(gateway, 2)
    assert generations(gateway) == {3}


def test_nothing_is_lost_over_a_hundred_reloads_and_two_upgrades(stage: Stage) -> None:
    gate = Gate()
    config = busy(stage, gate, server={"workers": 2}, logging={"level": "info"})
    gateway = stage.gateway(config)
    open_streams = streams(stage, gateway, 50, model="s")
    generation = 1
    with callers(gateway) as seen:
        for number in range(100):
            if number in (33, 67):
                generation += 1
                assert upgrade(gateway, config)["generation"] == generation
            if number % 5 == 4:
                verdict = reload(gateway, to_toml(config) + "\nnonsense = [")
                assert verdict["level"] == "warning" and "gateway.toml" in verdict["reason"], verdict
            else:
                generation += 1
                verdict = reload(gateway, merge(config, {"server": {"keepalive_timeout": f"{30 + number}s"}}))
                assert verdict["generation"] == generation, verdict
            one = lambda: generations(gateway) == {generation}  # noqa: B023, E731
            wait_until(one, f"all serve generation {generation}", timeout=1.0)
    gate.open()
    assert all(client.finish().complete for client in open_streams)
    assert_nothing_was_lost(seen, calls=100)


def test_a_client_of_a_replaced_worker_is_told_to_come_back(stage: Stage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream())))
    idle = stage.connect(gateway)
    idle.chat()
    assert idle.response().header("connection") != "close"
    upgrade(gateway)
    # Its worker stays for it, as long as it may be idle.
    idle.chat()
    response = idle.response()
    assert response.status == 200 and response.header("connection") == "close"
    wait_workers(gateway, 1)
    assert gateway.metrics().value("gateway_requests_total", path=CHAT) == 2, "the last thing it did is counted"


def test_sums_never_fall_over_upgrades(stage: Stage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream()), server={"workers": 2}))
    stopped = threading.Event()
    seen: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    fallen: list[object] = []

    def scrape() -> None:
        while not stopped.is_set():
            for family in gateway.metrics().families.values():
                for sample in family.samples if family.type in ("counter", "histogram") else ():
                    key = (sample.name, tuple(sorted(sample.labels.items())))
                    if sample.value < seen.get(key, 0.0):
                        fallen.append((key, seen[key], sample.value))
                    seen[key] = sample.value

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        with callers(gateway, 3) as called:
            upgrade(gateway)
            wait_workers(gateway, 2)
            upgrade(gateway)
    finally:
        stopped.set()
        scraper.join()
    assert not fallen and seen
    assert_nothing_was_lost(called)
    counted = lambda: gateway.metrics().value("gateway_requests_total", path=CHAT, status="200")  # noqa: E731
    wait_until(lambda: counted() == called["200"], lambda: f"{counted()} of {called} are counted")


@pytest.mark.parametrize("moment", ["at once", "upgrading", "upgraded"])
def test_a_gateway_that_is_told_to_end_amid_an_upgrade_drains(stage: Stage, moment: str) -> None:
    gate = Gate()
    gateway = stage.gateway(busy(stage, gate, server={"workers": 2}))
    open_streams = streams(stage, gateway, 8, model="s")
    idle = stage.connect(gateway)
    idle.chat()
    assert idle.response().status == 200
    gateway.process.send_signal(signal.SIGUSR2)
    if moment != "at once":
        wait_until(lambda: lines(gateway, moment), moment, timeout=40.0)
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: any("signal" in line for line in lines(gateway, "draining")), "the drain", timeout=40.0)
    assert idle.read_end() == b""
    gate.open()
    assert all(client.finish().complete for client in open_streams)
    gateway.wait_exit(0, timeout=10.0)


def test_killed_workers_of_either_version_harm_nobody_else(stage: Stage) -> None:
    gate = Gate()
    gateway = stage.gateway(busy(stage, gate))
    old = gateway.workers[0]
    (stream,) = streams(stage, gateway, 1, model="s")
    upgrade(gateway)
    new = next(pid for pid in gateway.workers if pid != old)
    os.kill(new, signal.SIGKILL)
    wait_until(lambda: len(gateway.workers) == 2 and new not in gateway.workers, "its successor", timeout=4.0)
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    os.kill(old, signal.SIGKILL)
    with pytest.raises((Incomplete, AssertionError, OSError)):
        assert stream.finish().complete
    wait_workers(gateway, 1)
    gateway.wait_gauge(0, "gateway_in_flight_requests")
    assert [line["worker"] for line in lines(gateway, "a worker ended")] == [0]
    gate.open()
    assert upgrade(gateway)["generation"] == 3


def test_no_worker_outlives_a_supervisor_that_was_upgraded(stage: Stage) -> None:
    gate = Gate()
    gateway = stage.gateway(busy(stage, gate, server={"workers": 2}))
    streams(stage, gateway, 4, model="s")
    upgrade(gateway)
    workers = gateway.workers
    assert len(workers) > 2
    gateway.process.kill()
    gateway.process.wait()
    wait_until(lambda: not any(map(lives, workers)), "every worker is dead", timeout=2.0)
    gate.open()


def test_what_still_runs_on_a_replaced_worker_ends_with_the_drain(stage: Stage) -> None:
    gate = Gate()
    gateway = stage.gateway(busy(stage, gate, server={"drain_timeout": "300ms"}))
    (stream,) = streams(stage, gateway, 1, model="s")
    idle = stage.connect(gateway)
    idle.request("GET", "/health/live")
    idle.response()
    upgrade(gateway)
    response = stream.finish()
    assert b"shutting down" in response.body and answers.DONE not in response.body
    assert idle.read_end() == b""
    wait_workers(gateway, 1)
    gate.open()
