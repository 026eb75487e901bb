"""One measurement as figures: from two readings of the clocks and what the load processes saw to a `Run`.

Pure. Owns the divisions. It refuses to read clocks (`measure`) and to compare targets (`summary`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

import msgspec

from bench.figures import percentile
from bench.plan import Kind, Outcome
from bench.scenarios import Scenario

#: Above this share of its core the generator may set the pace.
GENERATOR_BUSY: Final = 0.90
#: A proxy above this share of its core sets the pace itself, however busy the generator is.
PROXY_FULL: Final = 0.95
#: Below this share of its core a proxy in a closed loop waits for the generator.
PROXY_BUSY: Final = 0.85


class Run(msgspec.Struct):
    """What one measurement found. CPU times are user + system; None: there is no such thing here."""

    target: str
    round: int
    #: Answers or events in the window, in all and per second.
    work: int
    rate: float
    #: CPU microseconds of each party per unit of work.
    cpu_us: float | None
    upstream_us: float
    load_us: float
    #: Share of a core: the proxy's (of one for each worker), and the generator's busiest core (upstream and load).
    proxy_core: float | None
    generator_core: float
    generator_bound: bool
    #: Share of the window for which the proxy waited for its CPU: others run there. None where its workers share one.
    waited: float | None
    #: Latency of a call, or one-way delay of an event.
    p50_us: float
    p99_us: float
    #: Streams: by how much the delays of two neighbouring events differ, so how far their distance is off.
    jitter_p99_us: float | None = None
    #: Streams: events received over events due in the window.
    delivered: float | None = None
    #: Resident memory of the proxy at the end of the window.
    rss_mb: float | None = None
    #: The gateway's own figures: its histogram's upper bound, and access lines that it dropped.
    loop_lag_p99_ms: float | None = None
    lines_lost: int = 0


class Instant(msgspec.Struct, frozen=True):
    """The CPU clocks of all parties at one time, nanoseconds. The proxy's is None where there is none."""

    at: int
    proxy: int | None
    #: CPU number -> nanoseconds of the generator's processes on it.
    generator: dict[int, int]
    upstream: int
    #: For how long the proxy's threads were ready to run and had no CPU.
    waited: int = 0


def generator_bound(kind: Kind, proxy_core: float | None, generator_core: float) -> bool:
    """Whether the load generator was the bottleneck."""
    if proxy_core is not None and proxy_core > PROXY_FULL:
        return False
    idle = proxy_core is not None and proxy_core < PROXY_BUSY
    return generator_core > GENERATOR_BUSY or (kind is Kind.CLOSED and idle)


def figures(
    scenario: Scenario,
    duration_s: float,
    ends: tuple[Instant, Instant],
    outcomes: Sequence[Outcome],
    cores: int = 1,
) -> Run:
    """The figures of one window. The caller fills in who was measured, and what is no matter of division.

    *cores*: how many the proxy's processes have; the CPU per unit is that of all of them, the supervisor too.

    The clocks were read a little beside the window that the load counted in, so rates are divided, not sums.
    ValueError where nothing was done.
    """
    first, last = ends
    work = sum(outcome.work for outcome in outcomes)
    rate = work / duration_s
    ns_per_unit = (last.at - first.at) * rate / 1e9
    if not ns_per_unit:
        raise ValueError("nothing was done in the window")
    proxy = None if last.proxy is None or first.proxy is None else last.proxy - first.proxy
    generator = {cpu: spent - first.generator[cpu] for cpu, spent in last.generator.items()}
    upstream = last.upstream - first.upstream
    proxy_core = None if proxy is None else proxy / (last.at - first.at) / cores
    generator_core = max(generator.values()) / (last.at - first.at)
    times, jitters = array("d"), array("d")
    for outcome in outcomes:
        times.frombytes(outcome.times)
        jitters.frombytes(outcome.jitters)
    ordered, jittered = sorted(times), sorted(jitters)
    streams = scenario.kind is Kind.STREAMS
    return Run(
        target="",
        round=0,
        work=work,
        rate=rate,
        cpu_us=None if proxy is None else proxy / ns_per_unit / 1e3,
        upstream_us=upstream / ns_per_unit / 1e3,
        load_us=(sum(generator.values()) - upstream) / ns_per_unit / 1e3,
        proxy_core=proxy_core,
        generator_core=generator_core,
        generator_bound=generator_bound(scenario.kind, proxy_core, generator_core),
        waited=None if proxy is None else (last.waited - first.waited) / (last.at - first.at) / cores,
        p50_us=percentile(ordered, 50) / 1e3,
        p99_us=percentile(ordered, 99) / 1e3,
        jitter_p99_us=percentile(jittered, 99) / 1e3 if jittered else None,
        delivered=rate / (scenario.connections * 1e3 / scenario.period_ms) if streams else None,
    )
