"""File descriptors that run out: accepting pauses before that, idly, and goes on."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, build_request, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration

CHAT = "/v1/chat/completions"
LIMIT = 256


def served(client: Client) -> bool:
    """Whether a request on *client* is answered at once; a connection in the backlog is not."""
    client.sock.settimeout(0.3)
    client.timeout = 0.3
    try:
        client.request("GET", "/health/live")
        return client.response().status == 200
    except (OSError, AssertionError):
        return False


def limited(stage: Stage, *backends: dict[str, Any], workers: int = 1) -> Gateway:
    server = {"keepalive_timeout": "1h", "header_timeout": "1h", "workers": workers}
    gateway = stage.gateway(configuration(*backends, server=server))
    for pid in gateway.workers:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    return gateway


def is_closed(client: Client) -> bool:
    client.sock.setblocking(False)
    try:
        return client.sock.recv(1) == b""
    except BlockingIOError:
        return False


@contextmanager
def knocking(gateway: Gateway) -> Iterator[list[int]]:
    """Clients that connect all the while, ask, and give up soon; how many there were."""
    knocks = [0]
    over = threading.Event()

    def knock() -> None:
        while not over.wait(0.01):
            with socket.socket() as sock:
                sock.settimeout(0.02)
                with suppress(OSError):
                    sock.connect((gateway.host, gateway.port))
                    sock.send(build_request("GET", "/health/live"))
                knocks[0] += 1

    knocker = threading.Thread(target=knock)
    knocker.start()
    try:
        yield knocks
    finally:
        over.set()
        knocker.join()


def test_accepting_pauses_before_the_last_descriptor_and_goes_on(stage: Stage) -> None:
    gateway = limited(stage, backend(stage.upstream()))
    assert served(stage.connect(gateway))
    crowd = [stage.connect(gateway) for _ in range(300)]
    wait_until(lambda: any("accepting pauses" in line["msg"] for line in gateway.log_lines()), "accepting pauses")
    # Half of nine tenths of the limit: each of these may ask, which takes a connection to its upstream.
    wait_until(lambda: gateway.fds() >= 0.4 * LIMIT, "it is as full as may be")
    assert gateway.fds() < 0.6 * LIMIT
    with knocking(gateway) as knocks:
        before, start = gateway.cpu(), time.monotonic()
        time.sleep(2.0)
        share = (gateway.cpu() - before) / (time.monotonic() - start)
    assert share < 0.2, f"{share:.0%} of a core go into it"
    assert knocks[0] > 50
    for client in crowd[:250]:
        client.close()
    wait_until(lambda: any("accepting goes on" in line["msg"] for line in gateway.log_lines()), "accepting goes on")
    # Those who left while they waited come first.
    wait_until(lambda: served(stage.connect(gateway)), "who comes is served at once")
    assert gateway.gauge("gateway_accept_pauses_total") >= 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_burst_beyond_the_limit_is_served_all_of_it(stage: Stage, workers: int) -> None:
    """All knock at once and ask at once. Who is in has a connection to its upstream, the others wait for a place."""
    answering = Gate()
    gateway = limited(stage, backend(stage.upstream(answers.stalled(answering, answers.chat()))), workers=workers)
    crowd = [stage.connect(gateway) for _ in range(160 * workers)]
    for client in crowd:
        client.timeout = 20.0
        client.request("POST", CHAT, chat_request(), (("connection", "close"),))
    wait_until(lambda: gateway.fds() >= 0.75 * LIMIT * workers, "every worker has as many calls as it may")
    assert gateway.fds() < LIMIT * workers
    answering.open()
    assert Counter(client.response().status for client in crowd) == {200: len(crowd)}
    assert gateway.gauge("gateway_accept_pauses_total") >= workers


@pytest.mark.parametrize("asked", [True, False], ids=["after an answer", "before they ever asked"])
def test_clients_that_rest_make_room_for_those_who_wait(stage: Stage, asked: bool) -> None:
    gateway = limited(stage, backend(stage.upstream()))
    resting = [stage.connect(gateway) for _ in range(90)]
    for client in resting if asked else []:
        client.request("POST", CHAT, chat_request())
        assert client.response().status == 200
    others = [stage.connect(gateway) for _ in range(90)]
    for client in others:
        client.timeout = 8.0
        client.request("POST", CHAT, chat_request())
    assert Counter(client.response().status for client in others) == {200: len(others)}
    assert any(is_closed(client) for client in resting)


def test_idle_connections_to_upstreams_make_room_for_those_who_wait(stage: Stage) -> None:
    """Two backends are idle with as many connections as there may be; the third one's calls need some."""
    pool = {"max_idle": 100, "idle_timeout": "1h"}
    answering = {name: Gate() for name in "abc"}
    backends = [
        backend(stage.upstream(answers.stalled(gate, answers.chat())), name=name, models=[name], pool=pool)
        for name, gate in answering.items()
    ]
    gateway = limited(stage, *backends)
    for name in "ab":
        crowd = [stage.connect(gateway) for _ in range(90)]
        for client in crowd:
            client.request("POST", CHAT, chat_request(model=name), (("connection", "close"),))
        wait_until(lambda: gateway.gauge("gateway_in_flight_requests") == 90, "all of them run")
        answering[name].open()
        assert Counter(client.response().status for client in crowd) == {200: 90}
    assert gateway.fds() > 180
    answering["c"].open()
    kept = [stage.connect(gateway) for _ in range(60)]
    for client in kept:
        client.timeout = 10.0
        client.request("POST", CHAT, chat_request(model="c"))
    assert Counter(client.response().status for client in kept) == {200: 60}


def test_a_connect_without_a_descriptor_is_no_fault_of_the_peer(stage: Stage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream())))
    client = stage.connect(gateway)
    assert served(client)
    usual = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
    # No number is low enough, not even that of the listener which is given up at the next sweep.
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    client.sock.settimeout(5.0)
    client.timeout = 5.0
    client.request("POST", CHAT, chat_request())
    response = client.response()
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, usual)
    assert (response.status, response.code) == (503, "overloaded")
    assert response.header("retry-after") is not None
    assert gateway.gauge("gateway_peer_cooldowns_total") == 0
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
