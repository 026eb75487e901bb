"""What a scrape of any worker tells is the host's: no counter falls and none vanishes, whoever dies or is reloaded."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.wire.client import Client, Incomplete, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration, merge
from tests.wire.test_reload import reload

CHAT = "/v1/chat/completions"
GONE = (OSError, Incomplete, AssertionError)
SCRAPES, DEATHS, RELOADS = 1000, 8, 20


def sums(gateway: Gateway) -> dict[str, float]:
    """Every series that only grows, a histogram's buckets included: the text of its line -> value.

    The exposition is read by its lines, as a parser would take longer than all the rest of the test.
    """
    text = gateway.ask("GET", "/metrics").body.decode()
    found: dict[str, float] = {}
    growing = False
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            growing = line.endswith((" counter", " histogram"))
        elif growing and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            found[series] = float(value)
    return found


@contextmanager
def load(gateway: Gateway, seen: Counter[str]) -> Iterator[None]:
    """Three callers, each with a whole call and a stream by turns on a connection of its own."""
    stopped = threading.Event()

    def call() -> None:
        stream = False
        while not stopped.is_set():
            stream = not stream
            try:
                answer = gateway.ask("POST", CHAT, chat_request(stream=stream))
                seen["answered" if answer.status == 200 and answer.complete else "lost"] += 1
            except GONE:
                seen["lost"] += 1

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        stopped.set()
        for caller in callers:
            caller.join()


def test_no_sum_falls_or_vanishes_in_a_thousand_scrapes_while_workers_die_and_are_reloaded(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()), server={"workers": 3})
    gateway = stage.gateway(config)
    calls = Counter[str]()
    chance = random.Random(4)
    seen: dict[str, float] = {}
    scrapes = deaths = generation = 0
    with load(gateway, calls):
        while scrapes < SCRAPES:
            try:
                found = sums(gateway)
            except GONE:
                continue  # it had come to a worker that was killed
            scrapes += 1
            assert not seen.keys() - found.keys(), (scrapes, "vanished", seen.keys() - found.keys())
            fallen = {key: (seen[key], value) for key, value in found.items() if value < seen.get(key, 0.0)}
            assert not fallen, (scrapes, fallen)
            seen = found
            if scrapes % (SCRAPES // DEATHS) == 60:
                deaths += 1
                os.kill(chance.choice(gateway.workers), signal.SIGKILL)
            if scrapes % (SCRAPES // RELOADS) == 30:
                generation += 1
                told = reload(gateway, merge(config, {"server": {"keepalive_timeout": f"{30 + generation}s"}}))
                assert told["changed"] == "server.keepalive_timeout", told
    names = {series.partition("{")[0] for series in seen}
    assert {"process_cpu_seconds_total", "gateway_requests_total", "gateway_loop_lag_seconds_bucket"} <= names
    assert (deaths, generation) == (DEATHS, RELOADS)
    wait_until(lambda: len(gateway.workers) == 3, "every worker is back", timeout=3.0)
    counted = gateway.metrics().value("gateway_requests_total", path=CHAT, status="200")
    # What a killed worker had counted since its last sweep (50 ms) is lost with it: a few calls of each death.
    assert calls["answered"] - 40 * DEATHS <= counted <= calls["answered"] + calls["lost"]


def test_what_a_worker_has_told_stays_told_and_what_it_held_is_free_once_it_is_killed(stage: Stage) -> None:
    """Counters do not move for a death, gauges are those of the living."""
    gateway = stage.gateway(configuration(backend(stage.upstream()), server={"workers": 2}))
    clients = [Client(gateway.port) for _ in range(16)]
    for number in range(160):
        clients[number % 16].chat()
        assert clients[number % 16].response().status == 200

    def told() -> dict[str, float]:
        metrics = gateway.metrics()
        return {
            "calls": metrics.value("gateway_requests_total", path=CHAT, status="200"),
            "prompt": metrics.value("gateway_tokens_total", kind="prompt"),
        }

    wait_until(lambda: told()["calls"] == 160, "every call is counted")
    before = told()
    for victim in gateway.workers:
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda victim=victim: victim not in gateway.workers and len(gateway.workers) == 2, "a new worker", 2.0
        )
        assert told() == before
    for client in clients:
        client.close()
    # Nobody of those that held the clients lives: what is counted now is a scrape's own connection.
    gateway.wait_gauge(1, "gateway_client_connections")
    for name in ("gateway_in_flight_requests", "gateway_upstream_connections", "gateway_body_budget_bytes"):
        assert gateway.gauge(name) == 0, name
