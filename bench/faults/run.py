"""`python -m bench faults`: start everything, disturb the gateway as planned, join the ledgers, tell.

Owns the order of a run and the look at what the gateway still holds when it is over. It refuses to judge single calls
(`judge`) and to word the result (`report`). Called by `bench.__main__`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

import msgspec

from bench import build, machine, scrape
from bench.faults import judge, ledger, plan, report
from bench.faults.crowd import Orders
from bench.faults.ledger import Lag, Outcome, Start
from bench.faults.look import Held
from bench.faults.options import FaultOptions
from bench.faults.peers import Holding
from bench.faults.report import Result, Verdict
from bench.faults.subject import Subject
from bench.processes import Broken, start, stop, tail

#: Seconds in which everything has to be at rest once the last client is gone.
REST: Final = 5.0
#: Healthy calls per client before the first look at memory and descriptors: what a busy gateway keeps is no leak.
WARM: Final = 2
#: What memory may grow by.
RSS_SHARE, RSS_BYTES = 1.05, 8 << 20


class Upstreams:
    """The evil upstreams' process."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.book = folder / "starts"
        log = folder / "peers.log"
        with log.open("wb") as file:
            command = [sys.executable, "-m", "bench.faults.peers", str(self.book)]
            self.process = start(command, _cpus(), file, piped=True)
        stack.callback(stop, self.process)
        self.log = log
        self.ports = msgspec.json.decode(self._line(), type=dict[str, int])

    def _line(self) -> bytes:
        line = _pipe(self.process.stdout).readline()
        if not line:
            raise Broken(f"the upstreams ended\n{tail(self.log)}")
        return line

    def holding(self) -> Holding:
        _pipe(self.process.stdin).write(b"\n")
        return msgspec.json.decode(self._line(), type=Holding)

    def finish(self) -> list[Start]:
        """End them, and read what they wrote."""
        _pipe(self.process.stdin).close()
        if ended(self.process) != 0:
            raise Broken(f"the upstreams broke\n{tail(self.log)}")
        return ledger.read(self.book, Start)


def _cpus() -> set[int]:
    return os.sched_getaffinity(0)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def ended(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of *process*, whose work is done; None where it does not end."""
    try:
        return process.wait(REST * 3)
    except subprocess.TimeoutExpired:
        return None


class Run:
    """One run; the stack stops what it started."""

    def __init__(self, options: FaultOptions, stack: ExitStack, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.stack = stack
        self.plan = plan.make(options.seed, options.count, options.rows, options.only)
        self.upstreams = Upstreams(stack, folder)
        self.subject = Subject(stack, folder, self.upstreams.ports, options.workers)
        self.lag: dict[str, Lag] = {}

    def crowd(self, name: str, seed: int, count: int, rows: tuple[int, ...], *, disturbing: bool) -> list[Outcome]:
        """Let the clients make the visits of a plan; disturb the gateway when the planned ones begin."""
        book, log = self.folder / name, self.folder / f"{name}.log"
        only = self.options.only if disturbing else ()
        orders = Orders(self.subject.port, str(book), seed, count, rows, only, self.options.at_once)
        with log.open("wb") as file:
            command = [sys.executable, "-m", "bench.faults.crowd", msgspec.json.encode(orders).decode()]
            process = start(command, _cpus(), file, piped=True)
        self.stack.callback(stop, process)
        last = self._attend(process, disturbing=disturbing)
        if ended(process) != 0:
            raise Broken(f"the clients broke\n{tail(log)}")
        self.lag["the clients"] = msgspec.json.decode(last, type=Lag)
        return ledger.read(book, Outcome)

    def _attend(self, process: subprocess.Popen[bytes], *, disturbing: bool) -> bytes:
        """Read the numbers of the visits that begin; the last line, which is none."""
        due = list(self.plan.disturbances) if disturbing else []
        begun, line = 0, b""
        for line in _pipe(process.stdout):
            if line.strip().isdigit():
                begun += 1
                while due and begun > due[0].at:
                    self._disturb(due.pop(0).row)
        return line

    def _disturb(self, row: int) -> None:
        if row == 49:
            self.subject.kill_worker()
        elif row == 56:
            self.subject.turn_extra()
        elif row == 57:
            self.subject.reload()
        else:
            self.subject.reload_in_vain()

    def at_rest(self, fds: float = math.inf) -> tuple[Held, Holding, float]:
        """What is held once it is nothing, and no more than *fds* descriptors; or else after REST. Seconds, too."""
        began = time.monotonic()
        while True:
            held, holding = self.subject.held(), self.upstreams.holding()
            waited = time.monotonic() - began
            idle = not (held.busy or holding.open) and held.most_fds <= fds
            if idle or waited > REST:
                return held, holding, waited
            time.sleep(0.05)


def run(options: FaultOptions) -> Result:
    """Run the ledger and print its report; everything is stopped on the way out. Broken where it cannot run."""
    measured = {**machine.described(), "gateway": str(build.measured())}
    print(machine.header(measured), flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        one = Run(options, stack, folder)
        one.crowd("warm", 0, WARM * options.at_once, (), disturbing=False)
        before, _, _ = one.at_rest()
        began = time.monotonic()
        outcomes = one.crowd("outcomes", options.seed, options.count, options.rows, disturbing=True)
        seconds = time.monotonic() - began
        after, holding, waited = one.at_rest(before.most_fds)
        one.lag["the upstreams"] = holding.lag
        status = one.subject.stop()
        starts, lines, deaths = one.upstreams.finish(), one.subject.lines(), one.subject.deaths
        calls = judge.join(one.plan.visits, outcomes, starts, lines, deaths)
        findings = judge.judge(calls, deaths)
        verdicts = report.of_wrongs(findings)
        verdicts.append(aborts(judge.delays(calls)))
        verdicts.append(report.tried_again(calls))
        verdicts += leaks(before, after, holding, waited)
        verdicts.append(quiet(one.subject.complaints()))
        verdicts.append(Verdict("exit status after SIGTERM", str(status), status == 0))
        result = Result(
            measured, options.shown(), seconds, report.rows(calls, findings),
            report.disturbances(one.plan), verdicts, findings, one.lag,
            [*report.notes(calls), *report.of_deaths(deaths), delayed(before, after)],
        )  # fmt: skip
    print(report.text(result))
    if findings:
        print(f"\n{report.told(findings, options.command())}")
    if options.json:
        Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    return result


def aborts(found: judge.Delays) -> Verdict:
    text = f"{found.count}: p50 {found.p50:.1f}, p99 {found.p99:.1f}, slowest {found.most:.1f} ms"
    return Verdict("aborts seen upstream", text, found.good)


def leaks(before: Held, after: Held, holding: Holding, waited: float) -> list[Verdict]:
    """What is held that an idle gateway does not hold, or that it did not hold before."""
    rss, was = max(after.rss.values()), max(before.rss.values())
    busy = {**after.busy, **({"at the upstreams": holding.open} if holding.open else {})}
    return [
        Verdict("held after the last call", str(busy or f"nothing, {waited:.1f} s later"), not busy),
        Verdict("descriptors of a worker", f"{before.most_fds} to {after.most_fds}", after.most_fds <= before.most_fds),
        Verdict("memory of a worker", f"{was >> 20} to {rss >> 20} MiB", rss <= was * RSS_SHARE + RSS_BYTES),
        Verdict("access lines dropped", f"{after.lines_lost:.0f}", not after.lines_lost),
    ]


def delayed(before: Held, after: Held) -> str:
    """How far the gateway's processes had to wait, for others of this machine as for their own turns."""
    bound = scrape.percentile_bound(before.lag, after.lag, 99)
    return (
        f"the gateway's loops woke up late by p99 <= {(bound or 0) * 1e3:.0f} ms; "
        f"its workers were ready and had no processor for {after.waited - before.waited:.1f} s"
    )


def quiet(complaints: list[str]) -> Verdict:
    return Verdict("words of exceptions", complaints[0][:200] if complaints else "none", not complaints)
