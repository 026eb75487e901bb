"""`python -m bench overhead`: what the gateway costs beside nginx and beside no proxy at all.

Owns the rounds: every target is up all the time, each is measured once a round while the others idle, and the
order turns from round to round so that a machine that warms up or is disturbed favours nobody. It refuses the
measuring (`measure`) and the arithmetic (`summary`). Called by `bench.__main__`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench import build, machine, nginx, report, targets
from bench.measure import Meter
from bench.options import Options
from bench.run import Run
from bench.scenarios import SCENARIOS, Scenario
from bench.summary import summarise
from bench.targets import Target


def turned(order: Sequence[Target], round_: int) -> list[Target]:
    """The order of round *round_*: everybody comes first in turn."""
    at = round_ % len(order)
    return [*order[at:], *order[:at]]


def run(options: Options) -> report.Result:
    """Start everything, measure, print a table for each scenario; everything is stopped on the way out.

    Broken where something is missing, does not start, or an answer is not the scripted one.
    """
    cpus = targets.cpus(spread=options.spread)
    if not cpus.apart:
        print("one CPU only: proxy, upstream and load share it", file=sys.stderr)
    result = report.Result(machine={**machine.described(), **_measured(options.targets)}, settings=options, parts=[])
    print(machine.header(result.machine), flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        upstream = targets.start_upstream(stack, folder, cpus.of_upstream)
        running = [targets.start_target(name, stack, folder, cpus, upstream.ports) for name in options.targets]
        meter = Meter(upstream, cpus, options.duration, options.load_processes)
        for name in options.scenarios:
            scenario = SCENARIOS[name]
            runs = _rounds(meter, scenario, running, options.rounds)
            rows = summarise(runs, options.targets)
            result.parts.append(report.Part(scenario, rows, runs))
            print(report.table(scenario, rows), end="\n\n", flush=True)
    if options.json:
        Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    return result


def _measured(names: Sequence[str]) -> dict[str, str]:
    """Which gateway and which nginx. Broken where one is missing."""
    what = {targets.asked(name).what for name in names}
    return {
        "gateway": str(build.measured()) if targets.GATEWAY in what else "not measured",
        "nginx": nginx.described() if targets.NGINX in what else "not measured",
    }


def _rounds(meter: Meter, scenario: Scenario, running: Sequence[Target], rounds: int) -> list[Run]:
    runs = []
    for round_ in range(rounds):
        for target in turned(running, round_):
            told = f"{scenario.name}: round {round_ + 1} of {rounds}, {target.name}"
            print(told, file=sys.stderr, flush=True)
            runs.append(meter.run(scenario, target, round_))
    return runs
