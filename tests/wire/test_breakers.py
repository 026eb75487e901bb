"""Circuits over sockets: a peer that fails is left alone by the whole host, and comes back by one probe."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, Response, chat_request
from tests.wire.process import Gateway, free_port, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.test_host_health import one_client_each
from tests.wire.test_workers import owner
from tests.wire.upstream import Exchange, Script, Upstream

CHAT = "/v1/chat/completions"
EMPTY_STREAM = answers.raw(answers.head(200, answers.SSE_TYPE, ("transfer-encoding", "chunked")) + answers.LAST_CHUNK)


def started(stage: Stage, *upstreams: Upstream | str, workers: int = 1, **more: Any) -> Gateway:
    """A gateway whose circuits open after two failures, for a second unless *more* says otherwise."""
    fields = {"breaker": {"max_failures": 2, "reset": "1s"}, "retry": {"tries": 1}, **more}
    return stage.gateway(configuration(backend(*upstreams, **fields), server={"workers": workers}))


def ask(client: Client, **more: Any) -> int:
    client.chat(**more)
    return client.response().status


def circuits(client: Client) -> list[dict[str, Any]]:
    client.request("GET", "/v1/circuit-breakers")
    answer = client.response()
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.json()["circuit_breakers"]
    return found


def states(client: Client) -> list[str]:
    return [circuit["state"] for circuit in circuits(client)]


def fail_on(clients: Sequence[Client], status: int = 500) -> None:
    """Two failures, by different workers where there are several."""
    assert [ask(client) for client in (clients * 2)[:2]] == [status] * 2


def logged(gateway: Gateway, text: str) -> int:
    return sum(line.get("msg", "").startswith(text) for line in gateway.log_lines())


FAILING: dict[str, tuple[Script, dict[str, Any], int]] = {
    "500": (answers.error(500), {}, 500),
    "503": (answers.error(503), {}, 503),
    "lost": (answers.raw(b"", then="rst"), {}, 502),
    "cut": (answers.raw(answers.head(200, ("content-length", "9"), answers.JSON_TYPE) + b"{", then="close"), {}, 200),
    "an empty stream": (EMPTY_STREAM, {"stream": True}, 502),
    "no first byte": (answers.await_abort, {"stream": True}, 504),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_peer_that_fails_is_left_alone(stage: Stage, name: str) -> None:
    script, request, status = FAILING[name]
    failing, sound = stage.upstream(script), stage.upstream()
    breaker = {"max_failures": 2, "reset": "60s"}
    gateway = started(stage, failing, sound, balance="round_robin", timeouts={"first_byte": "200ms"}, breaker=breaker)
    asked: list[Response] = []

    def ask_once() -> None:
        asked.append(gateway.ask("POST", CHAT, chat_request(**request), timeout=3.0))

    # One that was lost is set aside for a second before it is met again.
    wait_until(lambda: ask_once() or len(failing.requests) == 2, "it failed twice")
    for _ in range(8):
        ask_once()
    assert len(failing.requests) == 2
    wrong = [answer for answer in asked if answer.status != 200 or not answer.complete]
    assert len(wrong) == 2 and wrong[0].status == status
    assert gateway.gauge("gateway_circuit_open_total", upstream="alpha") == 1
    wait_until(lambda: logged(gateway, "circuit open") == 1, "it is logged")


@pytest.mark.parametrize("status", [400, 401, 404, 408, 422, 429])
def test_answers_about_the_request_are_no_failures(stage: Stage, status: int) -> None:
    upstream = stage.upstream(answers.error(status))
    gateway = started(stage, upstream)
    assert {gateway.ask("POST", CHAT, chat_request()).status for _ in range(8)} == {502 if status == 401 else status}
    assert len(upstream.requests) == 8


def test_clients_that_leave_are_no_failures(stage: Stage) -> None:
    upstream = stage.upstream(answers.await_abort)
    gateway = started(stage, upstream)
    for count in range(1, 6):
        client = stage.connect(gateway)
        client.chat(stream=count % 2 == 0)
        upstream.ledger.wait_requests(count)
        client.close()
        upstream.ledger.wait_abort()
    upstream.answer = answers.model_server
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def test_a_backend_with_one_peer_fails_fast_and_tells_when_to_come_again(stage: Stage) -> None:
    upstream = stage.upstream(answers.error(500))
    gateway = started(stage, upstream, breaker={"max_failures": 2, "reset": "20s"})
    client = stage.connect(gateway)
    fail_on([client])
    client.chat()
    answer = client.response()
    assert (answer.status, answer.json()["error"]["code"]) == (503, "no_healthy_upstream")
    assert 15 <= int(answer.header("retry-after") or 0) <= 24
    assert len(upstream.requests) == 2
    line = gateway.wait_call(status=503)
    assert (line["ending"], line["tries"], line["upstream"]) == ("UC", 0, None)
    client.request("GET", "/health")
    assert client.response().json()["backends"] == {"total": 1, "healthy": 0, "unhealthy": 1}


def test_a_backend_that_is_out_falls_back_at_once(stage: Stage) -> None:
    failing, sound = stage.upstream(answers.error(500)), stage.upstream()
    first = backend(failing, breaker={"max_failures": 2, "reset": "20s"})
    config = configuration(
        first, backend(sound, name="beta", models=["spare"]), routes=[{"model": "m", "fallbacks": ["spare"]}]
    )
    gateway = stage.gateway(config)
    for stream in (False, True, False, True):
        answer = gateway.ask("POST", CHAT, chat_request(stream=stream))
        assert (answer.status, answer.header("x-fallback-model")) == (200, "spare")
    assert len(failing.requests) == 2


def test_a_peer_that_asks_to_be_left_alone_is_busy_and_not_broken(stage: Stage) -> None:
    busy = stage.upstream(answers.error(429, "later", ("retry-after", "2")))
    sound = stage.upstream()
    gateway = started(stage, busy, sound, workers=2, retry={"tries": 2})
    clients = one_client_each(stage, gateway)
    wait_until(lambda: ask(clients[0]) == 200 and busy.requests, "the one was asked")
    wait_until(lambda: circuits(clients[1])[0]["busy"] > 1, "the other worker knows it too")
    # The other worker hears of it at its next sweep, and may meet it once before.
    assert [ask(clients[number % 2]) for number in range(40)] == [200] * 40
    known = len(busy.requests)
    assert known <= 2
    assert circuits(clients[1])[0]["state"] == "closed"
    wait_until(lambda: ask(clients[1]) == 200 and len(busy.requests) > known, "it is asked again", 4.0)


def test_of_four_workers_one_sends_one_probe(stage: Stage) -> None:
    gate = Gate()
    upstream = stage.upstream(answers.error(500))
    gateway = started(stage, upstream, workers=4, breaker={"max_failures": 2, "reset": "1s"})
    clients = one_client_each(stage, gateway)
    fail_on(clients)
    wait_until(lambda: {ask(client) for client in clients} == {503}, "all know")
    known = len(upstream.requests)
    upstream.answer = answers.stalled(gate)
    crowd = [stage.connect(gateway) for _ in range(30)]
    probes: list[Client] = []

    def probed() -> bool:
        """Everybody asks again and again; who gets no answer is the probe."""
        for client in crowd:
            client.chat()
        for client in crowd:
            if not sees(client, 0.3):
                probes.append(client)
            else:
                assert client.response().status == 503
        return bool(probes)

    wait_until(probed, "a probe is let through")
    assert len(probes) == 1 and len(upstream.requests) == known + 1
    assert states(clients[0]) == ["half_open"]
    assert [ask(client) for client in clients] == [503] * 4
    gate.open()
    assert probes[0].response().status == 200
    wait_until(lambda: states(clients[3]) == ["closed"], "it is closed")
    wait_until(lambda: {ask(client) for client in clients} == {200}, "all use it")
    texts = ("circuit open", "circuit half-open", "circuit closed")
    wait_until(lambda: [logged(gateway, text) for text in texts] == [1, 1, 1], "each change is logged once")


def test_a_client_that_leaves_the_probe_makes_room_for_another(stage: Stage) -> None:
    upstream = stage.upstream(answers.error(500))
    gateway = started(stage, upstream, breaker={"max_failures": 2, "reset": "200ms"})
    client = stage.connect(gateway)
    fail_on([client])
    upstream.answer = answers.await_abort
    probe = stage.connect(gateway, timeout=0.1)

    def waits() -> bool:
        probe.chat()
        if len(upstream.requests) == 2 and not wait_answer(probe):
            return len(upstream.requests) == 3
        return len(upstream.requests) == 3

    wait_until(waits, "the probe runs")
    assert ask(client) == 503
    upstream.answer = answers.model_server
    probe.close()
    wait_until(lambda: ask(client) == 200, "another is let through", 2.0)
    assert len(upstream.requests) == 4


def wait_answer(client: Client) -> bool:
    """Whether *client* is answered soon; the answer is taken."""
    if sees(client, 0.2):
        client.response()
        return True
    return False


def sees(client: Client, seconds: float) -> bool:
    """Whether an answer begins within so many seconds."""
    return bool(select.select([client.sock], [], [], seconds)[0])


def test_an_open_circuit_outlives_the_worker_that_opened_it_and_a_killed_probe(stage: Stage) -> None:
    upstream = stage.upstream(answers.error(500))
    gateway = started(stage, upstream, workers=2, breaker={"max_failures": 2, "reset": "2s"})
    clients = one_client_each(stage, gateway)
    assert [ask(clients[0]) for _ in range(2)] == [500, 500]
    first = owner(gateway, clients[0])
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(gateway.workers) == 2 and first not in gateway.workers, "its successor lives")
    assert states(clients[1]) == ["open"] and ask(clients[1]) == 503
    # The probe hangs, and its worker is killed: the other one makes another.
    upstream.answer = [answers.stalled(Gate()), answers.chat()]
    hung = owner(gateway, clients[1])

    def probes() -> bool:
        clients[1].chat()
        return not wait_answer(clients[1])

    wait_until(probes, "the probe runs", 5.0)
    other = next(client for client in crowd_of(stage, gateway) if owner(gateway, client) != hung)
    assert states(other) == ["half_open"] and ask(other) == 503
    os.kill(hung, signal.SIGKILL)
    wait_until(lambda: ask(other) == 200, "another is let through", 6.0)


def crowd_of(stage: Stage, gateway: Gateway) -> list[Client]:
    return [stage.connect(gateway) for _ in range(16)]


def test_every_worker_tells_the_same_of_circuits(stage: Stage) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    sound = stage.upstream()
    gateway = started(stage, dead, sound, workers=3, breaker={"max_failures": 1, "reset": "60s"})
    clients = one_client_each(stage, gateway)
    wait_until(lambda: ask(clients[0]) == 503, "the dead one was met")
    first, *others = [circuits(client) for client in clients]
    assert [(one["backend"], one["endpoint"], one["state"], one["opened"]) for one in first] == [
        ("alpha", dead, "open", 1),
        ("alpha", sound.url, "closed", 0),
    ]
    assert 40 < first[0]["retry_in"] <= 72 and first[0]["failures"] == 1
    assert all(
        [{**one, "retry_in": 0} for one in other] == [{**one, "retry_in": 0} for one in first] for other in others
    )
    assert gateway.ask("GET", "/v1/circuit-breakers", key=None).status == 401


def storm(stage: Stage, gateway: Gateway, calls: int, at_once: int = 30) -> list[int]:
    """The statuses of so many calls."""

    def run(count: int) -> list[int]:
        client = Client(gateway.port, gateway.host, timeout=10.0)
        try:
            found = []
            for _ in range(count):
                client.chat()
                response = client.response()
                found.append(response.status)
                if response.header("connection") == "close":
                    client.close()
                    client = Client(gateway.port, gateway.host, timeout=10.0)
            return found
        finally:
            client.close()

    with ThreadPoolExecutor(at_once) as pool:
        return [status for found in pool.map(run, [calls // at_once] * at_once) for status in found]


@pytest.mark.parametrize("peers", [1, 3])
def test_a_storm_of_503_is_amplified_by_a_fifth_at_most(stage: Stage, peers: int) -> None:
    upstreams = [stage.upstream(answers.error(503)) for _ in range(peers)]
    gateway = stage.gateway(
        configuration(backend(*upstreams), server={"workers": 2}, defaults={"breaker": {"max_failures": 5}})
    )
    statuses = storm(stage, gateway, 300)
    assert set(statuses) == {503} and len(statuses) == 300
    assert sum(len(upstream.requests) for upstream in upstreams) <= 1.2 * 300


def slowly(seconds: float) -> Script:
    def script(x: Exchange) -> None:
        x.sleep(seconds)
        answers.chat()(x)

    return script


def test_one_of_three_that_is_ten_times_slower_gets_a_fifth_of_a_fair_share(stage: Stage) -> None:
    """Of 50 ms each: least connections sends it a tenth of what it sends to the others."""
    upstreams = [stage.upstream(slowly(seconds)) for seconds in (0.5, 0.05, 0.05)]
    gateway = stage.gateway(configuration(backend(*upstreams), server={"workers": 2}))
    assert set(storm(stage, gateway, 1800)) == {200}
    assert len(upstreams[0].requests) <= 0.2 * 1800 / 3, [len(upstream.requests) for upstream in upstreams]


def test_all_are_back_soon_after_an_outage_of_all(stage: Stage) -> None:
    """Three peers of 50 ms are down for two seconds under load; of what is asked after that 99 in 100 succeed."""
    upstreams = [stage.upstream(slowly(0.05)) for _ in range(3)]
    gateway = stage.gateway(
        configuration(backend(*upstreams), server={"workers": 2}, defaults={"breaker": {"max_failures": 5}})
    )
    assert set(storm(stage, gateway, 60)) == {200}
    for upstream in upstreams:
        upstream.answer = answers.error(500)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        assert set(storm(stage, gateway, 60)) <= {500, 503}
    for upstream in upstreams:
        upstream.answer = upstream.first_answer
    statuses = storm(stage, gateway, 600)
    assert statuses.count(200) >= 0.99 * 600
