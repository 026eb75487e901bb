"""The ledgers joined: what the clients saw, what the upstreams did and what the gateway billed, call by call.

Pure: records in, wrongs out. It refuses to read files and to print (`run`, `report`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Final

import msgspec

from bench.faults import answers
from bench.faults.deeds import ALWAYS
from bench.faults.ledger import How, Outcome, Start
from bench.faults.matrix import Case, Expect
from bench.faults.plan import Visit
from bench.faults.speech import RESPONSES, Ask
from bench.faults.subject import Death, Line

#: Milliseconds from a client's leaving to its upstream's sight of it.
ABORT_P99_MS: Final = 100.0
ABORT_MOST_MS: Final = 1000.0
#: Seconds by which an upstream may see an abort later than the start that follows it.
ORDER_S: Final = ABORT_P99_MS / 1e3
#: Seconds of lines that die with a worker: they are written in bundles.
LINES_S: Final = 0.5


class Wrong(Enum):
    """What can be wrong with a call."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    LAUNDERED = "laundered"
    MIXED = "mixed"
    UNSETTLED = "unsettled"
    SETTLED_TWICE = "settled twice"
    MISBILLED = "misbilled"
    NOT_ABORTED = "not aborted"
    UNEXPECTED = "unexpected"
    UNHEALTHY = "healthy calls failed"


class Finding(msgspec.Struct):
    """One wrong of one call, with what each side wrote about it."""

    wrong: Wrong
    visit: int
    title: str
    id: str
    text: str
    outcome: Outcome
    starts: list[Start]
    endings: list[str]


class Call(msgspec.Struct):
    """One call and all that was written about it."""

    ask: Ask
    visit: Visit
    case: Case
    expect: Expect
    outcome: Outcome
    starts: list[Start]
    lines: list[Line]
    excused: bool = False


def join(
    visits: Iterable[Visit],
    outcomes: Iterable[Outcome],
    starts: Iterable[Start],
    lines: Iterable[Line],
    deaths: Sequence[Death],
) -> list[Call]:
    """The calls of *visits* with the records that carry their ids, and those that a killed worker had, excused."""
    outcome_of = {outcome.id: outcome for outcome in outcomes}
    starts_of: dict[str, list[Start]] = defaultdict(list)
    lines_of: dict[str, list[Line]] = defaultdict(list)
    for start in starts:
        starts_of[start.id].append(start)
    for line in lines:
        lines_of[line.request_id].append(line)
    found = []
    for visit in visits:
        for part, ask in enumerate(visit.asks):
            case = visit.case
            expect = case.others if part and case.others is not None else case.expect
            began = sorted(starts_of.get(ask.id, []), key=lambda start: start.begun)
            outcome = outcome_of.get(ask.id) or Outcome(ask.id)
            call = Call(ask, visit, case, expect, outcome, began, lines_of.get(ask.id, []))
            call.excused = (case.crossing and crossed(call)) or any(was_killed(outcome, death) for death in deaths)
            found.append(call)
    return found


def crossed(call: Call) -> bool:
    """Whether its upstream spoke unasked while the call's request was under way, and perhaps was never read."""
    return any(start.crossed for start in call.starts) or (call.outcome.word == "502" and not call.starts)


def was_killed(outcome: Outcome, death: Death) -> bool:
    """Whether the worker had the call's connection when it was killed, and the call was not over."""
    return outcome.port in death.ports and outcome.opened <= death.at <= outcome.ended


def judge(calls: Iterable[Call], deaths: Sequence[Death]) -> list[Finding]:
    """Everything that is wrong."""
    found = []
    for call in calls:
        for wrong, text in wrongs_of(call, deaths):
            endings = [line.ending for line in call.lines]
            case = call.case
            found.append(
                Finding(wrong, call.visit.number, case.title, call.ask.id, text, call.outcome, call.starts, endings)
            )
    return found


def wrongs_of(call: Call, deaths: Sequence[Death]) -> Iterator[tuple[Wrong, str]]:
    word = call.outcome.word
    if word == answers.MIXED and not (call.case.crossing and crossed(call)):
        yield Wrong.MIXED, "the client got bytes that are not its own"
    for start in call.starts:
        if start.wrong:
            yield (Wrong.NOT_ABORTED if "leave" in start.wrong else Wrong.MIXED), f"upstream: {start.wrong}"
    if word in (answers.LATE, "none"):
        yield Wrong.LOST, "the client got no outcome"
    yield from _repeated(call)
    if word == answers.SHORT or (word == answers.FINE and not _answered(call)):
        yield Wrong.LAUNDERED, "the client saw success, and no upstream gave it"
    if call.excused:
        return
    yield from _expected(call)
    yield from _settled(call, deaths)


def _answered(call: Call) -> bool:
    return any(start.how is How.ANSWERED for start in call.starts)


def _repeated(call: Call) -> Iterator[tuple[Wrong, str]]:
    """A start while the one before was neither over nor aborted, or where nothing may be repeated."""
    for before, after in zip(call.starts, call.starts[1:], strict=False):
        if before.how is How.OPEN or before.ended > after.begun + ORDER_S:
            yield Wrong.DUPLICATED, "begun again before the first was over"
        elif call.case.door == RESPONSES and not call.case.headers:
            yield Wrong.DUPLICATED, "begun again although it must not be repeated"


def _settled(call: Call, deaths: Sequence[Death]) -> Iterator[tuple[Wrong, str]]:
    count = len(call.lines)
    if count > 1:
        yield Wrong.SETTLED_TWICE, f"{count} access lines"
        return
    outcome = call.outcome
    if not count:
        # A reset may destroy a request before it was read, and a head that is never whole tells no id.
        must = bool(call.starts) or outcome.word.isdigit() or outcome.word == answers.FINE
        lost = any(death.at - LINES_S <= outcome.ended <= death.at for death in deaths)
        if must and not lost and call.case.visit != "drip_head":
            yield Wrong.UNSETTLED, "no access line"
        return
    (line,) = call.lines
    if not any(line.ending == one or line.ending[0] == one for one in call.expect.endings):
        yield Wrong.UNEXPECTED, f"ending {line.ending}, not {' or '.join(call.expect.endings)}"
    billed = line.prompt_tokens
    if billed is not None and billed != call.ask.number:
        yield Wrong.MISBILLED, f"{billed} prompt tokens, not {call.ask.number}"
    elif billed is None and outcome.word == answers.FINE:
        yield Wrong.MISBILLED, "sound, and not billed"


def _expected(call: Call) -> Iterator[tuple[Wrong, str]]:
    expect, outcome, count = call.expect, call.outcome, len(call.starts)
    failed = Wrong.UNHEALTHY if call.case.row == 0 else Wrong.UNEXPECTED
    if outcome.word not in expect.seen and outcome.word not in (answers.LATE, answers.MIXED, answers.SHORT):
        yield failed, f"saw {outcome.word}, not {' or '.join(expect.seen)}"
    if not expect.least <= count <= expect.most:
        yield failed, f"{count} starts upstream, not {expect.least} to {expect.most}"
    if outcome.left and any(start.how is How.OPEN for start in call.starts):
        yield Wrong.NOT_ABORTED, "the client left, and its upstream still works"
    if call.ask.deed in ALWAYS:
        return
    if any(start.how is How.OPEN for start in call.starts) and not outcome.left:
        yield Wrong.NOT_ABORTED, "an upstream's work never ended"


# --- figures ---


class Delays(msgspec.Struct):
    """How long upstreams worked in vain, milliseconds."""

    count: int = 0
    p50: float = 0.0
    p99: float = 0.0
    most: float = 0.0

    @property
    def good(self) -> bool:
        return self.p99 <= ABORT_P99_MS and self.most <= ABORT_MOST_MS


def delay_of(call: Call) -> float | None:
    """From the client's leaving until its upstream saw it; from the request's arrival, where that came later."""
    left = call.outcome.left
    aborted = [start for start in call.starts if start.how is How.ABORTED]
    if not left or not aborted or call.excused:
        return None
    return max(0.0, aborted[-1].ended - max(left, aborted[-1].begun)) * 1e3


def delays(calls: Iterable[Call]) -> Delays:
    found = sorted(delay for call in calls if (delay := delay_of(call)) is not None)
    if not found:
        return Delays()
    at = len(found) - 1
    p50, p99 = (round(found[int(at * share)], 1) for share in (0.5, 0.99))
    return Delays(len(found), p50, p99, round(found[-1], 1))


def shares(calls: Iterable[Call]) -> Counter[str]:
    """Starts by peer."""
    return Counter(start.peer for call in calls for start in call.starts)
