"""A worker that runs out of memory: calls are refused in time, the largest ends honestly, and it recovers."""

from __future__ import annotations

import select
import threading
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, build_request, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.test_reload import reload
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
MIB = 1 << 20
PIECE = 256 << 10


class Ballast:
    """A gateway whose memory limit is set, by a reload, above what it uses now."""

    def __init__(self, stage: Stage, upstream: Upstream, **server: Any) -> None:
        self._sections: dict[str, Any] = {"server": {"body_limit": "64MiB", **server}}
        self._backend = backend(upstream)
        self.gateway: Gateway = stage.gateway(configuration(self._backend, **self._sections))
        self._sections["server"]["port"] = self.gateway.port

    def allow(self, more: int) -> None:
        """Let it have *more* bytes than it has now before calls are refused."""
        limit = int((self.gateway.rss() + more) / 0.9)
        config = configuration(self._backend, **self._sections, overload={"memory_limit": limit})
        assert reload(self.gateway, config)["msg"] == "reloaded"


def hold(stage: Stage, gateway: Gateway, size: int) -> Client:
    """A client that has sent all of a body of *size* bytes but the last, or as much as it could before an answer."""
    client = stage.connect(gateway, timeout=10.0)
    data = build_request("POST", CHAT, chat_request(user="x" * size))[:-1]
    try:
        for start in range(0, len(data), PIECE):
            if select.select([client.sock], [], [], 0)[0]:
                break
            client.send(data[start : start + PIECE])
    except OSError:
        pass  # it was answered, and sent on for too long
    return client


def test_calls_are_refused_while_memory_lacks_and_taken_once_it_is_back(stage: Stage) -> None:
    ballast = Ballast(stage, stage.upstream(), body_timeout="60s")
    gateway = ballast.gateway
    ballast.allow(24 * MIB)
    known = stage.connect(gateway)
    known.chat()
    assert known.response().status == 200
    holders = [hold(stage, gateway, 4 * MIB) for _ in range(6)]

    def refused() -> Any:
        answer = gateway.ask("POST", CHAT, chat_request())
        return answer if answer.status == 503 else None

    answer = wait_until(refused, "a call is refused")
    assert answer.code == "load_shed"
    assert answer.header("retry-after") == "1"
    # What is no load is answered, and running calls run.
    assert gateway.ask("GET", "/health").status == 200
    assert gateway.ask("GET", "/health/ready").status == 200
    metrics = gateway.metrics()
    assert metrics.value("gateway_shed_total", reason="memory") >= 1
    assert metrics.value("gateway_worker_memory_bytes") > 0
    line = gateway.wait_call(fault="load_shed")
    assert (line["status"], line["ending"]) == (503, "GR")
    for holder in holders:
        holder.close()
    wait_until(lambda: gateway.ask("POST", CHAT, chat_request()).status == 200, "calls are taken again")
    known.chat()
    assert known.response().status == 200


def test_the_largest_body_ends_first_before_all_end(stage: Stage) -> None:
    gate = Gate()
    upstream = stage.upstream(answers.stalled(gate))
    ballast = Ballast(stage, upstream, body_timeout="60s")
    gateway = ballast.gateway
    small = stage.connect(gateway, timeout=10.0)
    small.chat()
    upstream.ledger.wait_requests(1)
    ballast.allow(12 * MIB)
    large = hold(stage, gateway, 40 * MIB)
    answer = large.response()
    assert (answer.status, answer.code) == (503, "load_shed")
    wait_until(lambda: gateway.gauge("gateway_shed_total", reason="largest") == 1, "it is counted")
    gate.open()
    assert small.response().status == 200


def test_a_call_that_waits_for_its_answer_is_told_and_its_upstream_is_stopped(stage: Stage) -> None:
    upstream = stage.upstream(answers.await_abort)
    ballast = Ballast(stage, upstream)
    client = stage.connect(ballast.gateway)
    client.chat(user="x" * (8 * MIB))
    upstream.ledger.wait_requests(1)
    ballast.allow(-32 * MIB)
    answer = client.response()
    assert (answer.status, answer.code) == (503, "load_shed")
    upstream.ledger.wait_abort()
    line = ballast.gateway.wait_call(request_id=client.id)
    assert (line["ending"], line["tries"]) == ("GH", 1)


def test_a_stream_whose_client_takes_nothing_is_cut_and_not_finished(stage: Stage) -> None:
    def flood(x: Exchange) -> None:
        x.send(answers.sse_head() + answers.chunk(answers.event({"content": "x" * 1000}) * 30_000))
        x.await_abort()

    upstream = stage.upstream(flood)
    ballast = Ballast(stage, upstream)
    gateway = ballast.gateway
    client = stage.connect(gateway, receive_buffer=4096)
    client.chat(stream=True)
    upstream.ledger.wait_blocked()
    ballast.allow(-32 * MIB)
    upstream.ledger.wait_abort(4.0)
    line = gateway.wait_call(request_id=client.id)
    assert (line["ending"], line["fault"], line["status"]) == ("GD", "load_shed", 200)
    answer = client.response()
    assert not answer.complete and b"[DONE]" not in answer.body


def test_a_whole_answer_that_is_collected_to_be_translated_counts_as_held(stage: Stage) -> None:
    def begin(x: Exchange) -> None:
        x.send(answers.head(200, answers.JSON_TYPE, ("transfer-encoding", "chunked")))
        x.send(answers.chunk(b" " * (16 * MIB)))
        x.await_abort()

    upstream = stage.upstream(begin)
    ballast = Ballast(stage, upstream)
    client = stage.connect(ballast.gateway)
    before = ballast.gateway.rss()
    client.request("POST", "/v1/messages", chat_request(max_tokens=9))
    wait_until(lambda: ballast.gateway.rss() > before + 12 * MIB, "most of it is collected")
    ballast.allow(-32 * MIB)
    answer = client.response()
    assert (answer.status, answer.json()["error"]["type"]) == (503, "overloaded_error")
    upstream.ledger.wait_abort()
    line = ballast.gateway.wait_call(request_id=client.id)
    assert (line["ending"], line["fault"]) == ("GP", "load_shed")


@pytest.mark.parametrize("limited", [False, True], ids=["without a limit", "with a limit"])
def test_many_bodies_at_once_do_not_take_a_worker_past_its_limit(stage: Stage, limited: bool) -> None:
    """The same storm with and without: what keeps the worker below its limit is the guard."""
    ballast = Ballast(stage, stage.upstream(), body_timeout="60s")
    gateway = ballast.gateway
    rss = gateway.rss()
    room = 48 * MIB
    if limited:
        ballast.allow(room)
    peak = [0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            peak[0] = max(peak[0], gateway.rss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        clients = [hold(stage, gateway, 4 * MIB) for _ in range(40)]
    finally:
        over.set()
        watcher.join()
    grown = peak[0] - rss
    assert (grown < 1.25 * (rss + room) / 0.9 - rss) == limited, grown / MIB
    for client in clients:
        client.close()
    wait_until(lambda: gateway.ask("POST", CHAT, chat_request()).status == 200, "calls are taken")
