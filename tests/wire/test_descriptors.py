"""File descriptors that run out: accepting pauses before that, idly, and goes on."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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


def limited(stage: Stage) -> Gateway:
    gateway = stage.gateway(configuration(backend(stage.upstream()), server={"keepalive_timeout": "1h"}))
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    return gateway


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
    gateway = limited(stage)
    first = stage.connect(gateway)
    assert served(first)
    crowd = [stage.connect(gateway) for _ in range(300)]
    wait_until(lambda: any("accepting pauses" in line["msg"] for line in gateway.log_lines()), "accepting pauses")
    # Nine tenths of the limit, and what one turn of the loop accepted beyond.
    wait_until(lambda: gateway.fds() >= 0.85 * LIMIT, "it is nearly full")
    assert gateway.fds() < LIMIT
    with knocking(gateway) as knocks:
        before, start = gateway.cpu(), time.monotonic()
        time.sleep(2.0)
        share = (gateway.cpu() - before) / (time.monotonic() - start)
    assert share < 0.2, f"{share:.0%} of a core go into it"
    assert knocks[0] > 50
    # Who is in is served, upstreams included: there are descriptors left for them.
    first.request("POST", CHAT, chat_request())
    first.sock.settimeout(5.0)
    first.timeout = 5.0
    assert first.response().status == 200
    for client in crowd[:200]:
        client.close()
    wait_until(lambda: any("accepting goes on" in line["msg"] for line in gateway.log_lines()), "accepting goes on")
    assert served(stage.connect(gateway))
    assert gateway.gauge("gateway_accept_pauses_total") >= 1


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
