"""The fault ledger's schedule, words and judge: each wrong is found in ledgers that have it, and in no others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec import structs

from bench.faults import judge, plan, speech
from bench.faults.answers import Answer, word_of, word_of_flood
from bench.faults.deeds import DEEDS
from bench.faults.judge import Wrong
from bench.faults.ledger import How, Outcome, Start
from bench.faults.matrix import CASES, DONE_TO_GATEWAY, HEALTHY, ROWS, Case, Expect
from bench.faults.options import FaultOptions, numbers
from bench.faults.plan import Visit
from bench.faults.speech import RESPONSES, Ask
from bench.faults.subject import Death, Line
from bench.faults.visits import VISITS
from bench.options import parse

# --- the schedule ---


def test_the_same_seed_makes_the_same_schedule_and_another_one_another() -> None:
    assert plan.make(7, 300) == plan.make(7, 300)
    assert plan.make(7, 300) != plan.make(8, 300)


def test_every_case_and_every_disturbance_is_there_also_in_a_short_run() -> None:
    made = plan.make(1, 300)
    assert {visit.case for visit in made.visits} == {*CASES, *HEALTHY}
    assert {one.row for one in made.disturbances} == set(DONE_TO_GATEWAY)
    assert len(made.visits) == 375


def test_half_of_the_calls_are_streams() -> None:
    asks = [ask for visit in plan.make(1, 10_000).visits for ask in visit.asks]
    assert 0.4 < sum(ask.stream for ask in asks) / len(asks) < 0.6
    assert len({ask.id for ask in asks}) == len(asks)


def test_some_visits_out_of_a_schedule_are_the_same_as_in_it() -> None:
    whole = plan.make(3, 100)
    assert plan.make(3, 100, only=(5, 9)).visits == (whole.visits[5], whole.visits[9])


def test_rows_are_chosen() -> None:
    made = plan.make(1, 40, rows=(29, 57))
    assert {visit.case.row for visit in made.visits} == {0, 29}
    assert {one.row for one in made.disturbances} == {57}


@pytest.mark.parametrize("case", [*CASES, *HEALTHY], ids=lambda case: case.title)
def test_what_a_case_names_exists(case: Case) -> None:
    assert case.deed in DEEDS and case.visit in VISITS
    assert (case.others is not None) == (case.calls[1] > 1)


@pytest.mark.parametrize("text", ["3", "1,3", "1-3", "7,9,29-32"])
def test_numbers_are_read(text: str) -> None:
    expected = {"3": (3,), "1,3": (1, 3), "1-3": (1, 2, 3), "7,9,29-32": (7, 9, 29, 30, 31, 32)}
    assert numbers(text) == expected[text]


def test_options_have_defaults_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["faults"]) == FaultOptions()
    assert parse(["faults", "--rows", "7,29-30", "--seed", "5"]) == FaultOptions(seed=5, rows=(7, 29, 30))
    assert FaultOptions().rows == ROWS
    for wrong in (["--rows", "999"], ["--rows", "x"], ["--count", "0"], ["--workers", "0"], ["--at-once", "0"]):
        with pytest.raises(SystemExit):
            parse(["faults", *wrong])
    assert "expected" in capsys.readouterr().err


# --- what a client saw, in a word ---

STREAM = Ask(id="1-2", deed="fine", number=2, stream=True, count=3)
WHOLE = structs.replace(STREAM, stream=False)
OTHER = structs.replace(STREAM, id="1-3")
ERROR = b'data: {"error":{"message":"lost"}}\n\n'


def answer(ask: Ask, body: bytes, status: int = 200, *, end: str = "", last: bytes = speech.LAST_CHUNK) -> Answer:
    read = Answer()
    head = f"HTTP/1.1 {status} X\r\nx-request-id: {ask.id}\r\ntransfer-encoding: chunked\r\n\r\n"
    read.feed(head.encode() + (speech.chunk(body) if body else b"") + last)
    if end == "fin":
        read.feed(b"")
    elif end:
        read.reset()
    return read


def events(ask: Ask, count: int) -> bytes:
    return b"".join(speech.events(ask)[:count])


@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("ask", [STREAM, WHOLE], ids=["stream", "whole"])
def test_a_cut_answer_is_told_from_a_whole_one(ask: Ask, end: str) -> None:
    sound = speech.stream(ask) if ask.stream else speech.whole(ask)
    assert word_of(answer(ask, sound), ask) == "fine"
    assert word_of(answer(ask, sound[:50], end=end, last=b""), ask) == ("cut" if ask.stream else "broken")
    assert word_of(answer(ask, sound[:50]), ask) == "short"
    assert word_of(answer(ask, sound, end=end, last=b""), ask) != "fine"
    assert word_of(answer(ask, sound, last=b""), ask) == "late"


def test_a_broken_stream_is_one_that_says_so() -> None:
    assert word_of(answer(STREAM, events(STREAM, 2) + ERROR, end="fin", last=b""), STREAM) == "broken"
    assert word_of(answer(STREAM, events(STREAM, 2) + ERROR), STREAM) == "short"
    assert word_of(answer(STREAM, events(STREAM, 2)[:-9] + ERROR, end="fin", last=b""), STREAM) == "mixed"


def test_comments_between_events_are_nobodys() -> None:
    alive = b": keep-alive\n\n"
    body = alive * 2 + events(STREAM, 1) + alive * 3 + speech.stream(STREAM)[len(events(STREAM, 1)) :]
    assert word_of(answer(STREAM, body), STREAM) == "fine"
    assert word_of(answer(STREAM, alive + events(STREAM, 1) + alive + ERROR, end="fin", last=b""), STREAM) == "broken"
    assert word_of(answer(STREAM, events(STREAM, 1)[:9] + alive + events(STREAM, 1)[9:]), STREAM) == "mixed"


@pytest.mark.parametrize(
    ("ask", "body"),
    [
        (STREAM, speech.stream(OTHER)),
        (STREAM, events(STREAM, 2) + events(OTHER, 1)),
        (STREAM, events(OTHER, 1) + ERROR),
        (STREAM, speech.stream(STREAM) + b"x"),
        (WHOLE, speech.whole(OTHER)),
        (WHOLE, speech.whole(WHOLE) + b"x"),
    ],
)
@pytest.mark.parametrize("end", ["", "fin"])
def test_bytes_of_another_call_are_seen(ask: Ask, body: bytes, end: str) -> None:
    assert word_of(answer(ask, body, end=end, last=b"" if end else speech.LAST_CHUNK), ask) == "mixed"


def test_an_answer_under_another_id_is_another_calls() -> None:
    assert word_of(answer(OTHER, speech.stream(STREAM)), STREAM) == "mixed"


def test_refusals_and_the_lack_of_an_answer_have_their_words() -> None:
    assert word_of(answer(STREAM, b'{"error":{}}', 502), STREAM) == "502"
    assert word_of(answer(STREAM, b'{"error":{}}', 502, end="fin", last=b""), STREAM) == "cut"
    assert word_of(answer(STREAM, b"<html>", 502), STREAM) == "garbled"
    nothing = Answer()
    assert word_of(nothing, STREAM) == "late"
    nothing.feed(b"")
    assert word_of(nothing, STREAM) == "nothing"
    junk = Answer()
    junk.feed(b"\0\0\0\r\n\r\n")
    assert word_of(junk, STREAM) == "garbled"


def test_of_a_flood_each_byte_is_judged() -> None:
    event = speech.event(STREAM, 1)
    assert word_of_flood(answer(STREAM, event * 3 + event[:9], end="rst", last=b""), STREAM) == "cut"
    assert word_of_flood(answer(STREAM, event * 3 + ERROR, end="fin", last=b""), STREAM) == "broken"
    assert word_of_flood(answer(STREAM, event * 3), STREAM) == "short"
    assert word_of_flood(answer(STREAM, event + speech.event(OTHER, 1) + event, end="fin", last=b""), STREAM) == "mixed"


# --- the joined ledgers ---


@dataclass
class Books:
    """A sound call that failures are written into."""

    case: Case = CASES[0]
    ask: Ask = STREAM
    outcome: Outcome = field(default_factory=lambda: Outcome("1-2", "fine", begun=1.0, ended=2.0, port=9, opened=0.9))
    starts: list[Start] = field(default_factory=lambda: [start()])
    lines: list[Line] = field(default_factory=lambda: [line()])
    deaths: list[Death] = field(default_factory=list)

    def wrongs(self) -> list[Wrong]:
        visit = Visit(2, self.case, (self.ask,), 0.0, "fin")
        calls = judge.join([visit], [self.outcome], self.starts, self.lines, self.deaths)
        return [finding.wrong for finding in judge.judge(calls, self.deaths)]


def start(how: How = How.ANSWERED, begun: float = 1.1, ended: float = 1.9, **more: Any) -> Start:
    return Start("1-2", "solo", "fine", 1, 0, begun, ended, how, **more)


def line(ending: str = "--", prompt: int | None = 2) -> Line:
    return Line("1-2", ending, 200, prompt_tokens=prompt)


def books(expect: Expect, word: str, starts: list[Start], ending: str, **more: Any) -> Books:
    found = Books(structs.replace(CASES[0], expect=expect), starts=starts, lines=[line(ending, None)])
    found.outcome.word = word
    for name, value in more.items():
        setattr(found.outcome, name, value)
    return found


def test_a_sound_call_is_not_blamed() -> None:
    assert Books().wrongs() == []


BROKEN = Expect(("broken",), ("U",))
LEFT = Expect(("left",), ("C",), 0, 1)
TWICE = Expect(("fine",), ("--",), 1, 2)


@pytest.mark.parametrize(
    ("name", "found", "wrong"),
    [
        ("no outcome", books(BROKEN, "none", [start(How.CUT)], "UD"), [Wrong.LOST, Wrong.UNEXPECTED]),
        ("in vain", books(BROKEN, "late", [start(How.CUT)], "UD"), [Wrong.LOST]),
        ("mixed", books(BROKEN, "mixed", [start(How.CUT)], "UD"), [Wrong.MIXED]),
        ("a body that is another's", books(TWICE, "fine", [start(wrong="x")], "--"), [Wrong.MIXED, Wrong.MISBILLED]),
        ("laundered", books(TWICE, "fine", [start(How.CUT)], "--"), [Wrong.LAUNDERED, Wrong.MISBILLED]),
        ("looks whole", books(BROKEN, "short", [start(How.CUT)], "UD"), [Wrong.LAUNDERED]),
        ("unexpected", books(BROKEN, "502", [start(How.CUT)], "UD"), [Wrong.UNEXPECTED]),
        ("another ending", books(BROKEN, "broken", [start(How.CUT)], "CD"), [Wrong.UNEXPECTED]),
        ("many", books(BROKEN, "broken", [start(How.CUT, 1.1, 1.2), start(How.CUT, 1.3)], "UD"), [Wrong.UNEXPECTED]),
        ("not aborted", books(LEFT, "left", [start(How.OPEN, ended=0.0)], "CH", left=1.5), [Wrong.NOT_ABORTED]),
        ("kept", books(BROKEN, "broken", [start(How.CUT, wrong="did not leave")], "UD"), [Wrong.NOT_ABORTED]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(name: str, found: Books, wrong: list[Wrong]) -> None:
    assert found.wrongs() == wrong


@pytest.mark.parametrize(
    ("first", "then", "wrong"),
    [
        (start(How.CUT, 1.1, 1.2), start(begun=1.3), []),
        (start(How.ABORTED, 1.1, 1.25), start(begun=1.2), []),
        (start(How.ABORTED, 1.1, 1.5), start(begun=1.2), [Wrong.DUPLICATED]),
        (start(How.OPEN, 1.1, 0.0), start(begun=1.2), [Wrong.DUPLICATED]),
    ],
    ids=["over", "aborted, seen a little later", "aborted too late", "never aborted"],
)
def test_a_second_start_is_one_too_many_while_the_first_works(first: Start, then: Start, wrong: list[Wrong]) -> None:
    found = books(TWICE, "fine", [first, then], "--")
    found.lines = [line()]
    assert [one for one in found.wrongs() if one is Wrong.DUPLICATED] == wrong


def test_what_must_not_be_repeated_is_duplicated_by_any_second_start() -> None:
    case = structs.replace(CASES[0], expect=TWICE, door=RESPONSES)
    starts = [start(How.CUT, 1.1, 1.2), start(begun=1.3)]
    assert Books(case, starts=starts).wrongs() == [Wrong.DUPLICATED]
    assert Books(structs.replace(case, headers=("Idempotency-Key: a",)), starts=starts).wrongs() == []


def test_each_call_is_settled_once_with_its_own_tokens() -> None:
    assert Books(lines=[]).wrongs() == [Wrong.UNSETTLED]
    assert Books(lines=[line(), line()]).wrongs() == [Wrong.SETTLED_TWICE]
    assert Books(lines=[line(prompt=3)]).wrongs() == [Wrong.MISBILLED]
    assert Books(lines=[line(prompt=None)]).wrongs() == [Wrong.MISBILLED]


def test_a_request_that_a_reset_destroyed_leaves_no_line_but_one_that_went_upstream_does() -> None:
    gone = books(LEFT, "left", [], "CH", left=1.5)
    gone.lines = []
    assert gone.wrongs() == []
    gone.starts = [start(How.ABORTED)]
    assert gone.wrongs() == [Wrong.UNSETTLED]


def test_healthy_calls_have_a_verdict_of_their_own() -> None:
    found = Books(HEALTHY[0])
    found.outcome.word = "502"
    assert found.wrongs() == [Wrong.UNHEALTHY]


def test_the_calls_of_a_killed_worker_are_excused_and_only_they() -> None:
    found = books(TWICE, "cut", [start(How.ABORTED)], "--")
    found.lines = []
    assert found.wrongs() == [Wrong.UNEXPECTED, Wrong.UNSETTLED]
    for death, excused in (
        (Death(1.5, frozenset({9})), True),
        (Death(1.5, frozenset({8})), False),
        (Death(0.5, frozenset({9})), False),
        (Death(2.5, frozenset({9})), False),
    ):
        found.deaths = [death]
        assert (Wrong.UNEXPECTED not in found.wrongs()) is excused, death


def test_a_killed_worker_excuses_neither_mixing_nor_laundering_nor_repeating() -> None:
    death = [Death(1.5, frozenset({9}))]
    for word, wrong in (("mixed", Wrong.MIXED), ("short", Wrong.LAUNDERED), ("late", Wrong.LOST)):
        found = books(TWICE, word, [start()], "--")
        found.deaths = death
        assert found.wrongs() == [wrong]


def test_delays_count_from_the_leaving_or_from_the_arrival_upstream() -> None:
    visit = Visit(2, CASES[0], (STREAM,), 0.0, "fin")
    for left, begun, delay in ((1.5, 1.1, 20.0), (1.5, 1.51, 10.0)):
        outcome = Outcome("1-2", "left", left=left, ended=left)
        (call,) = judge.join([visit], [outcome], [start(How.ABORTED, begun, 1.52)], [], [])
        found = judge.delay_of(call)
        assert found is not None and round(found, 6) == delay
    assert judge.delays([]).good
    assert not judge.Delays(1, 1.0, 101.0, 101.0).good and not judge.Delays(1, 1.0, 1.0, 1001.0).good
