"""Checks of the keys of [overload]."""

from __future__ import annotations

import os
import signal
import time

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Response, chat_request
from tests.wire.keys_stage import Check, KeyStage
from tests.wire.process import Gateway

CHAT = "/v1/chat/completions"


def memory_limit(stage: KeyStage) -> None:
    """Any worker is larger than this; while one call runs, others are refused."""
    gate = Gate()
    upstream = stage.upstream(answers.stalled(gate))
    gateway = stage.start(upstream, overload={"memory_limit": "1MiB"})
    held = stage.connect(gateway)
    held.chat()
    upstream.ledger.wait_requests(1)
    gateway.wait_gauge(1, "gateway_in_flight_requests")
    time.sleep(0.2)  # a few sweeps
    upstream.answer = answers.model_server
    refused = gateway.ask("POST", CHAT, chat_request())
    assert refused.status == 503 and refused.code == "load_shed"
    gate.open()
    assert held.response().status == 200


def stagger(gateway: Gateway, still: float, moves: float) -> None:
    """Let the worker stand still, and move for a moment."""
    os.kill(gateway.pid, signal.SIGSTOP)
    time.sleep(still)
    os.kill(gateway.pid, signal.SIGCONT)
    time.sleep(moves)


def max_lag(stage: KeyStage) -> None:
    """A worker that stands still again and again for less than the default sheds calls, with this limit."""
    gateway = stage.start(stage.upstream(), overload={"max_lag": "50ms"})
    client = stage.connect(gateway, timeout=2.0)
    seen: list[Response] = []
    for _ in range(30):
        client.chat()
        stagger(gateway, 0.15, 0.02)
        seen.append(client.response())
        if seen[-1].status != 200:
            break
    assert seen[-1].status == 503 and seen[-1].code == "load_shed"


CHECKS: dict[str, Check] = {
    "overload.memory_limit": memory_limit,
    "overload.max_lag": max_lag,
}
