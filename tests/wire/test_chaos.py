"""Thousands of calls whose clients leave and whose upstreams stall and break: nothing is lost, mixed up or held.

HEADRACE_CHAOS_CALLS (default 2000) sets how many, HEADRACE_CHAOS_SEED which; a seed that failed plays the same again.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from tests.wire import answers
from tests.wire.client import Client, Incomplete, Response
from tests.wire.ledger import Request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

CALLS = int(os.environ.get("HEADRACE_CHAOS_CALLS", "2000"))
SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", "1"))
CLIENTS = 16
EVENTS = 5


# --- what upstreams do, by the word in the request ---


def events_of(id: str) -> list[bytes]:
    return [answers.event({"content": f"{id} {number}"}) for number in range(EVENTS)]


def fine(x: Exchange, id: str, pause: float) -> None:
    x.sleep(pause)
    if not x.request.json().get("stream"):
        return answers.chat(id)(x)
    x.send(answers.sse_head())
    for event in events_of(id):
        x.send(answers.chunk(event))
        x.sleep(pause)
    x.send(answers.chunk(answers.DONE) + answers.LAST_CHUNK)


def begin(x: Exchange, id: str, pause: float) -> None:
    """The first half of an answer."""
    x.sleep(pause)
    if x.request.json().get("stream"):
        x.send(answers.sse_head() + b"".join(map(answers.chunk, events_of(id)[:2])))
    else:
        body = answers.chat_body(id)
        x.send(answers.head(200, answers.JSON_TYPE, ("content-length", str(len(body)))) + body[: len(body) // 2])
    x.sleep(pause)


def stall(x: Exchange, id: str, pause: float) -> None:
    x.await_abort(20)


def begin_and_stall(x: Exchange, id: str, pause: float) -> None:
    begin(x, id, pause)
    x.await_abort(20)


def flood(x: Exchange, id: str, pause: float) -> None:
    if not x.request.json().get("stream"):
        return begin_and_stall(x, id, pause)
    x.send(answers.sse_head())
    block = answers.chunk(events_of(id)[0]) * 1000
    while True:
        x.send(block)


def refuse(x: Exchange, id: str, pause: float) -> None:
    answers.error(500, id)(x)


def leave(x: Exchange, id: str, pause: float) -> None:
    x.sleep(pause)
    x.close()


def cut(x: Exchange, id: str, pause: float) -> None:
    begin(x, id, pause)
    x.sleep(0.01)
    x.fin()


def reset(x: Exchange, id: str, pause: float) -> None:
    begin(x, id, pause)
    x.sleep(0.01)
    x.rst()


DEEDS = {deed.__name__: deed for deed in (fine, stall, begin_and_stall, flood, refuse, leave, cut, reset)}
#: After these the client has to leave, since no answer ever ends.
ENDLESS = {"stall", "begin_and_stall", "flood"}
BROKEN = {"cut", "reset"}


def play(x: Exchange) -> None:
    told = x.request.json()["metadata"]
    DEEDS[told["deed"]](x, told["id"], told["pause"])


# --- what clients do ---


@dataclass
class Call:
    """One call: what its upstream does, and whether, when and how its client leaves."""

    id: str
    deed: str
    stream: bool
    pause: float
    leaves_after: float | None
    leaves: Callable[[Client], None]
    #: when the client left, monotonic seconds
    left: float | None = None
    outcome: str = ""


def plan(number: int, dice: random.Random) -> Call:
    deed = dice.choices(list(DEEDS), [50, 9, 9, 1, 5, 5, 10, 10])[0]
    leaving = deed in ENDLESS or dice.random() < 0.1
    return Call(
        id=f"call-{number}",
        deed=deed,
        stream=dice.random() < 0.5,
        pause=dice.choice([0.0, 0.0, 0.001, 0.005]),
        leaves_after=dice.choice([0.0, 0.002, 0.01, 0.05]) if leaving else None,
        leaves=dice.choice([Client.abort, Client.close]),
    )


def make(call: Call, client: Client) -> bool:
    """Make *call* on *client*; True where the connection can be used again."""
    told = {"id": call.id, "deed": call.deed, "pause": call.pause}
    client.id = call.id
    client.chat(stream=call.stream, metadata=told)
    if call.leaves_after is not None:
        time.sleep(call.leaves_after)
        call.left = time.monotonic()
        call.leaves(client)
        call.outcome = "left"
        return False
    response = client.response()
    call.outcome = judge(call, response)
    return response.complete and not response.ended and response.header("connection") != "close"


def judge(call: Call, response: Response) -> str:
    """What came, in a word; bytes of another call, or success where there was none, fail at once."""
    if call.deed == "refuse":
        assert (response.status, response.body) == (500, answers.error_body(call.id))
        return "refused"
    if call.deed == "leave":
        assert (response.status, response.code) == (502, "upstream_lost")
        return "lost"
    if call.deed in BROKEN and response.status == 502:
        return "lost"
    assert response.status == 200, response
    if not call.stream:
        body = answers.chat_body(call.id)
        assert response.complete == (call.deed == "fine")
        assert response.body == body if response.complete else body.startswith(response.body)
        return "fine" if response.complete else "broken"
    if call.deed == "fine":
        assert response.complete and response.events == [*events_of(call.id), answers.DONE]
        return "fine"
    *whole, last = response.events
    assert whole == events_of(call.id)[: len(whole)] and b'"error"' in last
    assert not response.complete and response.ended == "fin"
    return "broken"


def drive(calls: Iterator[Call], lock: threading.Lock, gateway: Gateway, errors: list[str]) -> None:
    """One client after another's heart: take calls until there are none."""
    client: Client | None = None
    while not errors:
        with lock:
            call = next(calls, None)
        if call is None:
            break
        client = client or Client(gateway.port, timeout=20)
        try:
            reusable = make(call, client)
        except (AssertionError, Incomplete, OSError) as error:
            errors.append(f"{call}: {error!r}")
            break
        if not reusable:
            client.close()
            client = None
    if client is not None:
        client.close()


# --- the run ---


def abort_delays(calls: list[Call], seen: dict[str, list[Request]]) -> list[float]:
    """Seconds from a client's leaving until its upstream saw it, sorted."""
    return sorted(
        request.aborted - max(call.left, request.arrived)
        for call in calls
        for request in seen[call.id]
        if call.left is not None and request.aborted is not None
    )


@pytest.mark.timeout(600)
def test_nothing_is_lost_mixed_up_or_held(stage: Stage, record_property: Callable[[str, object], None]) -> None:
    upstream = stage.upstream(play)
    gateway = stage.gateway(configuration(backend(upstream)))
    dice = random.Random(SEED)
    calls = [plan(number, dice) for number in range(CALLS)]
    errors: list[str] = []
    lock, rest = threading.Lock(), iter(calls)
    threads = [threading.Thread(target=drive, args=[rest, lock, gateway, errors]) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, f"seed {SEED}: {errors}"
    gateway.wait_gauge(0, "gateway_in_flight_requests", timeout=5)
    gateway.wait_gauge(0, "gateway_upstream_connections", timeout=5, state="busy")
    judge_upstream(calls, upstream, record_property)
    judge_lines(calls, gateway)


def all_aborted(requests: list[Request]) -> bool:
    return all(request.aborted for request in requests)


def judge_upstream(calls: list[Call], upstream: Upstream, record: Callable[[str, object], None]) -> None:
    """No call was started twice but for a worn-out connection; every client that left stopped its upstream."""
    seen: dict[str, list[Request]] = defaultdict(list)
    for request in upstream.requests:
        seen[request.json()["metadata"]["id"]].append(request)
    for call in calls:
        requests = seen[call.id]
        assert len(requests) == 1 or call.left is not None or call.deed == "leave", call
        assert len(requests) <= 2 and all(request.index > 0 for request in requests[:-1]), call
        if call.left is not None and call.deed in ENDLESS:
            upstream.ledger.wait(partial(all_aborted, requests), f"the abort of {call}")
    for deed in sorted(ENDLESS):
        told = abort_delays([call for call in calls if call.deed == deed], seen)
        print(f"\n{deed}: {len(told)} aborts, the slowest {max(told, default=0) * 1e3:.1f} ms", end="")
    delays = abort_delays(calls, seen)
    p99 = delays[int(len(delays) * 0.99)]
    record("abort_p99_ms", round(p99 * 1000, 1))
    print(f"\n{len(delays)} aborts seen upstream: p50 {delays[len(delays) // 2] * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")
    print(f"outcomes: {dict(Counter(call.outcome for call in calls))}")
    assert len(delays) > CALLS / 20
    assert p99 <= 1.0


def judge_lines(calls: list[Call], gateway: Gateway) -> None:
    """Every call left exactly one line, and it tells who ended it.

    A reset may destroy a request before the gateway read it: then there was no call.
    """
    answered = {call.id for call in calls if call.left is None}
    wait_until(lambda: answered <= {line["request_id"] for line in gateway.calls()}, "a line for each call")
    lines: dict[str, list[str]] = defaultdict(list)
    for line in gateway.calls():
        lines[line["request_id"]].append(line["ending"])
    for call in calls:
        if call.left is not None and not lines[call.id]:
            continue
        assert len(lines[call.id]) == 1, (call, lines[call.id])
        (ending,) = lines[call.id]
        if call.outcome in ("fine", "refused"):
            assert ending == "--", (call, ending)
        if call.outcome in ("broken", "lost"):
            assert ending[0] == "U", (call, ending)
        if call.deed in ENDLESS:
            assert ending[0] == "C", (call, ending)
