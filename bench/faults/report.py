"""The fault ledger's result for people: a table of rows, the verdicts, and the first calls that went wrong.

Owns the words. It refuses to judge (`judge`). Called by `run`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from bench.faults.judge import Call, Delays, Finding, Wrong, delays, shares
from bench.faults.ledger import How, Lag, Outcome, Start
from bench.faults.matrix import BREAKER, DONE_TO_GATEWAY
from bench.faults.plan import Plan
from bench.faults.subject import Death

#: Findings that are told in full.
SHOWN: Final = 5
#: The share of repeated calls that a budget of 1 has to allow, where there are more than FEW.
TRIED_AGAIN: Final = 0.8
FEW: Final = 50


class Verdict(msgspec.Struct):
    """One line of the promise: what, how much was found, and whether that is good."""

    what: str
    found: str
    good: bool


class RowResult(msgspec.Struct):
    """One case of the matrix."""

    title: str
    visits: int
    calls: int
    seen: dict[str, int]
    starts: int
    aborts: Delays
    wrongs: int
    loose: str


class Result(msgspec.Struct):
    """All that was found, as the JSON file holds it."""

    machine: dict[str, str]
    settings: dict[str, str]
    seconds: float
    rows: list[RowResult]
    disturbances: dict[str, int]
    verdicts: list[Verdict]
    findings: list[Finding]
    lag: dict[str, Lag]
    notes: list[str]

    @property
    def good(self) -> bool:
        return all(verdict.good for verdict in self.verdicts)


def rows(calls: Sequence[Call], findings: Sequence[Finding]) -> list[RowResult]:
    by_title: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_title[call.case.title].append(call)
    wrong = Counter(finding.title for finding in findings)
    found = []
    for title, its in sorted(by_title.items(), key=lambda item: (item[1][0].case.row, item[0])):
        seen = Counter("excused" if call.excused else call.outcome.word for call in its)
        found.append(
            RowResult(
                title,
                len({call.visit.number for call in its}),
                len(its),
                dict(seen.most_common()),
                sum(len(call.starts) for call in its),
                delays(its),
                wrong[title],
                its[0].case.loose,
            )
        )
    return found


def disturbances(plan: Plan) -> dict[str, int]:
    count = Counter(one.row for one in plan.disturbances)
    return {f"{row} {DONE_TO_GATEWAY[row]}": times for row, times in sorted(count.items())}


def notes(calls: Sequence[Call]) -> list[str]:
    """What no verdict hangs on yet."""
    found = [f"loose: {BREAKER}"] if any(call.case.loose == BREAKER for call in calls) else []
    for row, peer, of in ((63, "lame", 3), (64, "hole", 3)):
        share = shares([call for call in calls if call.case.row == row])
        if share:
            found.append(f"row {row}: {peer} got {share[peer] * of / sum(share.values()):.0%} of a fair share")
    streams = sum(call.ask.stream for call in calls)
    found.append(f"{streams / max(len(calls), 1):.0%} of {len(calls)} calls were streams")
    storm = [call for call in calls if call.case.row == 12 and not call.excused]
    if storm:
        starts = sum(len(call.starts) for call in storm) / len(storm)
        found.append(
            f"row 12: {starts:.2f} starts upstream per call; few calls have the budget's reserve for themselves"
        )
    return found


def of_deaths(deaths: Sequence[Death]) -> list[str]:
    return [
        f"row 49: another worker after {death.mourned:.1f} s, {len(death.ports)} connections lost" for death in deaths
    ]


def of_wrongs(findings: Sequence[Finding]) -> list[Verdict]:
    count = Counter(finding.wrong for finding in findings)
    return [Verdict(wrong.value, str(count[wrong]), not count[wrong]) for wrong in Wrong]


def tried_again(calls: Sequence[Call]) -> Verdict:
    """Calls that went on at the other peer of the same backend, as the retry law says; the others fell back.

    A burst may ask for more repetitions than the budget has saved up.
    """
    second = [call.starts[1].peer for call in calls if call.case.model == "pair" and len(call.starts) > 1]
    at_peer = sum(peer in ("left", "right") for peer in second)
    good = at_peer >= TRIED_AGAIN * len(second) or len(second) < FEW
    return Verdict("tried again, not fallen back", f"{at_peer} of {len(second)}", good)


# --- text ---


def table(result: Result) -> str:
    lines = [["row", "faults", "calls", "starts", "seen by the client", "abort p99 ms", "slowest", ""]]
    for row in result.rows:
        seen = ", ".join(f"{count} {word}" for word, count in row.seen.items())
        aborts = [f"{row.aborts.p99:.1f}", f"{row.aborts.most:.1f}"] if row.aborts.count else ["-", "-"]
        mark = f"{row.wrongs} WRONG" if row.wrongs else "loose" if row.loose else "ok"
        lines.append([row.title, str(row.visits), str(row.calls), str(row.starts), seen, *aborts, mark])
    lines += [[title, str(times), *[""] * 5, "ok"] for title, times in result.disturbances.items()]
    left = (0, 4)
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n in left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line[:-1], widths[:-1], strict=True))
        )
        + "  "
        + line[-1]
        for line in lines
    )


def text(result: Result) -> str:
    """The whole report, but for the machine."""
    width = max(len(verdict.what) for verdict in result.verdicts)
    parts = [table(result), ""]
    parts += [f"{v.what:{width}}  {v.found:24}  {'ok' if v.good else 'WRONG'}" for v in result.verdicts]
    parts += ["", *result.notes]
    parts += [
        f"the bench itself: {name} woke up late by p50 {lag.p50_ms} ms, p99 {lag.p99_ms} ms, at most {lag.most_ms} ms"
        for name, lag in result.lag.items()
    ]
    return "\n".join([*parts, f"{result.seconds:.0f} s"])


def told(findings: Sequence[Finding], command: str) -> str:
    """The first findings with both ledgers' words, and a line that repeats just those."""
    first: dict[int, Finding] = {}
    for finding in findings:
        first.setdefault(finding.visit, finding)
    shown = list(first.values())[:SHOWN]
    parts = []
    for finding in shown:
        parts.append(f"{finding.wrong.value.upper()} {finding.id}, row {finding.title}: {finding.text}")
        parts.append(f"  client:   {_client(finding.outcome)}")
        parts += [f"  upstream: {_upstream(start)}" for start in finding.starts]
        parts.append(f"  gateway:  {', '.join(finding.endings) or 'no access line'}")
    more = len(first) - len(shown)
    parts += [f"... and {more} more visits"] if more else []
    numbers = ",".join(str(one.visit) for one in shown)
    return "\n".join([*parts, "", f"these again: {command} --only {numbers}", f"all again:   {command}"])


def _client(outcome: Outcome) -> str:
    left = f", left at {outcome.left:.3f}" if outcome.left else ""
    return f"{outcome.word}, {outcome.begun:.3f} to {outcome.ended:.3f}{left}; {outcome.detail}"


def _upstream(start: Start) -> str:
    end = f"to {start.ended:.3f}" if start.ended else "without end"
    by = f" by {start.by}" if start.how is How.ABORTED else ""
    return f"{start.peer}, {start.deed}: {start.how.value}{by}, {start.begun:.3f} {end}, {start.sent} bytes"
