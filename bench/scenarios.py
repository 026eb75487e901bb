"""What is offered to a proxy: the scenarios, and their division over the load processes.

Owns the numbers of each scenario. It refuses to run anything. Read by `overhead` and `measure`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from bench.plan import Kind, Plan

#: Seconds between "every stream or connection runs" and the window.
SETTLE_S: Final = 0.25
#: Seconds that a stream outlives the window at least, on a machine that keeps time.
OUTLIVE_S: Final = 2.0
#: Seconds a load process may take beyond what its plan needs.
SPARE_S: Final = 20.0
#: Streams are opened at least this far apart, so that opening them is no burst.
LEAST_OPENING_MS: Final = 1.0


class Scenario(msgspec.Struct, frozen=True):
    """One kind of load."""

    name: str
    title: str
    kind: Kind
    #: What the cost is divided by.
    unit: str
    connections: int
    #: PACED: requests per second.
    rate: float = 0.0
    #: STREAMS: milliseconds between two events of a stream.
    period_ms: int = 0


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("json", "whole calls, 32 connections, closed loop", Kind.CLOSED, "request", 32),
        Scenario("json500", "whole calls, 500 per second", Kind.PACED, "request", 32, rate=500),
        Scenario("sse", "100 streams, an event each 20 ms", Kind.STREAMS, "chunk", 100, period_ms=20),
        Scenario("sse1000", "1,000 streams, an event each 50 ms", Kind.STREAMS, "chunk", 1000, period_ms=50),
    )
}


def opening_ms(streams: int, period_ms: int) -> float:
    """Milliseconds between two openings such that the events of all streams are spread evenly over the
    period.

    The n-th part of the period times a step that has no divisor in common with n: every stream gets a phase
    of its own, though opening takes longer than a period.
    """
    part = period_ms / streams
    step = max(1, math.ceil(LEAST_OPENING_MS / part))
    while math.gcd(step, streams) != 1:
        step += 1
    return step * part


def shares(total: int, processes: int) -> list[int]:
    """*total* in *processes* whole parts that differ by at most one, none of them 0."""
    count = max(1, min(total, processes))
    return [total // count + (n < total % count) for n in range(count)]


def plans(scenario: Scenario, ports: Sequence[int], duration_s: float, processes: int, serial: int) -> list[Plan]:
    """One plan for each load process; *serial* tells this run's requests from those of all others."""
    parts = shares(scenario.connections, processes)
    gap_ms = opening_ms(scenario.connections, scenario.period_ms) * len(parts) if scenario.period_ms else 0.0
    events, needed_s = 0, duration_s
    if scenario.period_ms:
        lasting_s = parts[0] * gap_ms / 1e3 + SETTLE_S + duration_s + OUTLIVE_S
        events = math.ceil(lasting_s * 1e3 / scenario.period_ms)
        needed_s = 2 * lasting_s
    return [
        Plan(
            kind=scenario.kind,
            ports=tuple(ports),
            connections=part,
            limit_s=needed_s + SPARE_S,
            rate=scenario.rate * part / scenario.connections,
            period_ms=scenario.period_ms,
            events=events,
            opening_ms=gap_ms,
            first=(serial * 256 + n) << 32,
        )
        for n, part in enumerate(parts)
    ]
