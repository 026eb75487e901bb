"""A worker that stood still for a while (SIGSTOP, a suspended machine) blames nobody for what it did not read."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange

#: Seconds, above every limit below.
STILL = 2.0
LIMITS = {"connect": "1s", "first_byte": "1s", "idle": "1s"}


@contextmanager
def standing_still(gateway: Gateway) -> Iterator[None]:
    """What is done inside happens while the worker does nothing, for `STILL` seconds in all."""
    end = time.monotonic() + STILL
    pid = gateway.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(
            lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it stands still"
        )
        yield
        time.sleep(end - time.monotonic())
    finally:
        os.kill(pid, signal.SIGCONT)


def served(client: Client) -> bool:
    return client.response().status == 200 and client.ended == ""


def test_an_answer_that_came_meanwhile_is_not_too_late(stage: Stage) -> None:
    gate = Gate()
    upstream = stage.upstream(answers.stalled(gate, answers.stream()))
    gateway = stage.gateway(configuration(backend(upstream, timeouts=LIMITS)))
    clients = [stage.connect(gateway) for _ in range(8)]
    for client in clients:
        client.chat(stream=True)
    upstream.ledger.wait_requests(len(clients))
    with standing_still(gateway):
        gate.open()
    assert all(served(client) for client in clients)
    assert gateway.gauge("gateway_peer_cooldowns_total") == 0


def test_a_stream_goes_on(stage: Stage) -> None:
    gate = Gate()
    events = answers.chat_events(4)
    upstream = stage.upstream(answers.stalled_stream(gate, events[:2], events[2:]))
    gateway = stage.gateway(configuration(backend(upstream, timeouts=LIMITS)))
    client = stage.connect(gateway)
    client.chat(stream=True)
    client.read_head()
    client.read_events(2)
    with standing_still(gateway):
        gate.open()
    answer = client.finish()
    assert answer.complete and answer.body == b"".join(events)


def test_a_call_that_came_meanwhile_has_its_whole_time(stage: Stage) -> None:
    def late(x: Exchange) -> None:
        x.sleep(0.6)
        answers.stream()(x)

    gateway = stage.gateway(configuration(backend(stage.upstream(late), timeouts=LIMITS)))
    known = stage.connect(gateway)
    known.chat(stream=True)
    assert served(known)
    with standing_still(gateway):
        clients = [known, *(stage.connect(gateway) for _ in range(4))]
        for client in clients:
            client.chat(stream=True)
    assert all(served(client) for client in clients)
    assert gateway.gauge("gateway_peer_cooldowns_total") == 0


def test_a_client_that_sent_its_request_meanwhile_was_not_slow(stage: Stage) -> None:
    limits = {"header_timeout": "1s", "body_timeout": "1s", "keepalive_timeout": "1s"}
    gateway = stage.gateway(configuration(backend(stage.upstream()), server=limits))
    begun, idle = stage.connect(gateway), stage.connect(gateway)
    idle.chat()
    assert served(idle)
    begun.send(b"POST /v1/chat/completions HTTP/1.1\r\n")
    time.sleep(0.2)  # its time runs
    with standing_still(gateway):
        begun.send(b"Host: x\r\nContent-Length: 0\r\n\r\n")
        idle.chat()
    assert begun.response().status == 401
    assert served(idle)
