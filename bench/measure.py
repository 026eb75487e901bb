"""One measurement: one scenario offered to one target, CPU clocks read at both ends of the window.

Owns the choreography of load processes, window and clocks, and the check that the work was real. It refuses
arithmetic (`run`). Called by `overhead` for each target in each round.
"""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.cpu import ProcessGone, Tree
from bench.loads import LoadProcess
from bench.plan import Kind, Outcome
from bench.processes import Broken, stop, tail
from bench.run import Instant, Run, figures
from bench.scenarios import SETTLE_S, Scenario, plans
from bench.scrape import Scrape, percentile_bound, scrape
from bench.targets import Cpus, Target, Upstream
from bench.upstream import Served


class Parties:
    """The processes whose CPU clocks are read."""

    def __init__(self, target: Target, upstream: Upstream, loads: Sequence[LoadProcess], cpus: Cpus) -> None:
        self.proxy = Tree(*(proxy.process.pid for proxy in target.proxies)) if target.proxies else None
        self.upstream = Tree(upstream.process.pid)
        self.generator: dict[int, list[Tree]] = {cpu: [] for cpu in cpus.generator}
        self.generator[cpus.of_upstream].append(self.upstream)
        for n, load in enumerate(loads):
            self.generator[cpus.of_load(n)].append(Tree(load.process.pid))

    def now(self) -> Instant:
        """Read all clocks, the proxy's first, within some ten microseconds."""
        proxy = self.proxy.spent() if self.proxy else None
        at = time.monotonic_ns()
        return Instant(
            at=at,
            proxy=proxy,
            generator={cpu: sum(tree.spent() for tree in trees) for cpu, trees in self.generator.items()},
            upstream=self.upstream.spent(),
            waited=self.proxy.waited() if self.proxy else 0,
        )

    def at_end(self) -> Instant:
        """The same at the window's end, with what processes have spent that the proxy started in it."""
        last = self.now()
        if self.proxy is None or last.proxy is None:
            return last
        return msgspec.structs.replace(last, proxy=last.proxy + self.proxy.newcomers())


class Meter:
    """Measures one target after another on one set of CPUs."""

    def __init__(self, upstream: Upstream, cpus: Cpus, duration_s: float, processes: int) -> None:
        # process
        self.upstream = upstream
        self.cpus = cpus
        self.duration_s = duration_s
        self.processes = processes
        # run
        self.serial = 0

    def run(self, scenario: Scenario, target: Target, round_: int) -> Run:
        """Offer *scenario* to *target* once; Broken where anything is not as scripted."""
        self.serial += 1
        todo = plans(scenario, target.ports, self.duration_s, self.processes, self.serial)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-load-")))
            try:
                before = served(self.upstream)
                loads = []
                for n, plan in enumerate(todo):
                    loads.append(LoadProcess(plan, self.cpus.of_load(n), folder / f"load-{n}.log"))
                    stack.callback(stop, loads[-1].process)
                run, outcomes = self._window(scenario, target, loads)
                verify(scenario, target.asked.is_gateway, outcomes, before, served(self.upstream))
            except (Broken, ProcessGone, OSError, http.client.HTTPException, ValueError) as error:
                logs = "\n".join(tail(log) for log in (self.upstream.log, *(proxy.log for proxy in target.proxies)))
                raise Broken(f"{scenario.name}, {target.name}, round {round_}: {error}\n{logs}") from error
        run.target, run.round = target.name, round_
        return run

    def _window(self, scenario: Scenario, target: Target, loads: Sequence[LoadProcess]) -> tuple[Run, list[Outcome]]:
        for load in loads:
            load.await_ready()
        told = [_told(target)]
        parties = Parties(target, self.upstream, loads, self.cpus)
        start_ns = time.monotonic_ns() + int(SETTLE_S * 1e9)
        end_ns = start_ns + int(self.duration_s * 1e9)
        for load in loads:
            load.tell(start_ns, end_ns)
        _sleep_until(start_ns)
        first = parties.now()
        _sleep_until(end_ns)
        last = parties.at_end()
        rss = parties.proxy.resident() / 1e6 if parties.proxy else None
        told.append(_told(target))
        outcomes = [load.outcome() for load in loads]
        run = figures(scenario, self.duration_s, (first, last), outcomes, target.cores)
        if target.asked.serving > target.cores:
            run.waited = None  # for each other
        lag = percentile_bound(told[0].lag, told[1].lag, 99)
        run.loop_lag_p99_ms = None if lag is None else lag * 1e3
        run.lines_lost = int(told[1].lines_lost - told[0].lines_lost)
        run.rss_mb = rss
        return run, outcomes


def _told(target: Target) -> Scrape:
    return scrape(target.ports) if target.asked.is_gateway else Scrape()


def _sleep_until(instant_ns: int) -> None:
    while (left := instant_ns - time.monotonic_ns()) > 0:
        time.sleep(left / 1e9)


def served(upstream: Upstream) -> Served:
    """What the upstream says that it has done. OSError or http.client.HTTPException where it says nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", upstream.ports[0], timeout=10)
    try:
        connection.request("GET", "/served")
        return msgspec.json.decode(connection.getresponse().read(), type=Served)
    finally:
        connection.close()


def verify(scenario: Scenario, asks_usage: bool, outcomes: Sequence[Outcome], before: Served, after: Served) -> None:
    """Broken where an answer came from anywhere but the upstream, or the gateway did not ask for usage.

    The load processes have compared every answer with the script, byte for byte, before this.
    """
    verified = sum(outcome.verified for outcome in outcomes)
    streams = scenario.kind is Kind.STREAMS
    made = after.events - before.events if streams else after.calls - before.calls
    if made < verified:
        raise Broken(f"{verified} answers or events came, the upstream made {made}")
    asked, expected = after.usage_asked - before.usage_asked, after.streams - before.streams
    if streams and asks_usage and asked != expected:
        raise Broken(f"the gateway asked for usage on {asked} of {expected} streams; is usage = inject on?")
