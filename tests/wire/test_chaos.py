"""Thousands of calls whose clients leave and whose upstreams stall and break: nothing is lost, mixed up or held.

HEADRACE_CHAOS_CALLS (default 2000) sets how many, HEADRACE_CHAOS_SEED which; a seed that failed plays the same again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

import pytest

from tests.wire.chaos import ENDLESS, Call, plan, play
from tests.wire.ledger import Request
from tests.wire.process import ROOT, Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CALLS = int(os.environ.get("HEADRACE_CHAOS_CALLS", "2000"))
SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", "1"))


def abort_delays(calls: list[Call], seen: dict[str, list[Request]], *, at_work: bool = True) -> list[float]:
    """Milliseconds from a client's leaving until its upstream saw it, sorted.

    A client may leave before its request has come upstream. Then the upstream works in vain from the request's arrival
    on (*at_work*), while the whole delay has the gateway's accepting and connecting in it.
    """
    return sorted(
        (request.aborted - (max(call.left, request.arrived) if at_work else call.left)) * 1e3
        for call in calls
        for request in seen[call.id]
        if call.left is not None and request.aborted is not None
    )


def spread(delays: list[float]) -> str:
    return f"p50 {delays[len(delays) // 2]:.1f} ms, p99 {p99(delays):.1f} ms, slowest {delays[-1]:.1f} ms"


def p99(delays: list[float]) -> float:
    return delays[int(len(delays) * 0.99)]


def make_all(calls: list[Call], gateway: Gateway) -> None:
    """Let the clients' process make *calls*, and note what became of them."""
    clients = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.wire.chaos", str(gateway.port), str(CALLS), str(SEED)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert clients.returncode == 0 and not clients.stderr, f"seed {SEED}: {clients.stderr}"
    for call, line in zip(calls, clients.stdout.splitlines(), strict=True):
        told = json.loads(line)
        assert told["id"] == call.id
        call.left, call.outcome = told["left"], told["outcome"]


@pytest.mark.timeout(600)
def test_nothing_is_lost_mixed_up_or_held(stage: Stage, record_property: Callable[[str, object], None]) -> None:
    upstream = stage.upstream(play)
    gateway = stage.gateway(configuration(backend(upstream)))
    calls = plan(CALLS, SEED)
    make_all(calls, gateway)
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
        worn_out = sum(request.index > 0 for request in requests[:-1])
        # what is lost is tried twice, and once more where a worn-out connection lost it
        tries = 2 if call.deed == "leave" else 1
        assert len(requests) <= tries + min(1, worn_out), call
        if call.left is not None and call.deed in ENDLESS:
            upstream.ledger.wait(partial(all_aborted, requests), f"the abort of {call}")
    for deed in sorted(ENDLESS):
        delays = abort_delays([call for call in calls if call.deed == deed], seen)
        print(f"\n{deed}: {len(delays)} aborts, {spread(delays)}" if delays else f"\n{deed}: no abort", end="")
    delays = abort_delays(calls, seen)
    record("abort_p99_ms", round(p99(delays), 1))
    print(f"\n{len(delays)} aborts seen upstream: {spread(delays)}")
    print(f"counted from before the request came upstream: {spread(abort_delays(calls, seen, at_work=False))}")
    print(f"outcomes: {dict(Counter(call.outcome for call in calls))}")
    assert len(delays) > CALLS / 20
    assert p99(delays) <= 1000


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
