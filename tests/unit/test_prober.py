"""Who asks whether peers are well, and when no answer says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.clock import Clock
from gateway.page import BEAT, LEAVING, PID, SERVING, STATE, Page, Seat
from gateway.routing import circuits, peer
from gateway.routing.circuits import Board, PeerCircuit
from gateway.routing.peer import PeerState, Standing
from gateway.upstream import health, turn
from gateway.upstream.health import Prober, Terms
from gateway.upstream.inquiry import InquiryError

DEFAULT = Terms(b"/v1/models", False, 10.0, 1.0, 1, 1)
CHOSEN = DEFAULT._replace(path=b"/health", chosen=True)


class Peer:
    """A peer that is asked by one worker of two, and what it does then."""

    def __init__(self, page: Page, terms: Terms, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.answer: int | InquiryError = 200
        #: What happens while it is asked.
        self.meanwhile = lambda: None
        for module in (circuits, peer, turn):
            monkeypatch.setattr(module, "monotonic_ns", lambda: round(self.now * 1e9))
        monkeypatch.setattr(health, "knock", self.knock)
        self.state = PeerState(Standing(), PeerCircuit(Board.of_host(page)))
        self.prober = Prober(Seat(page, page.rows[2], 1), Clock())
        target: Any = SimpleNamespace(apart=lambda: "a target")
        self.prober.take_over([(self.state, target, terms)])
        self.asked = 0

    async def knock(self, target: object, path: bytes, seconds: float) -> int:
        self.asked += 1
        self.meanwhile()
        if isinstance(self.answer, InquiryError):
            raise self.answer
        return self.answer

    def sweeps(self, seconds: float) -> int:
        """How often it is asked in so many seconds."""

        async def sweep() -> None:
            until = self.now + seconds
            while self.now < until:
                self.prober.sweep(self.now)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                self.now += 0.05
                self.prober._clock.now = self.now

        before = self.asked
        asyncio.run(sweep())
        return self.asked - before


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(4)
    for row in page.rows[1:]:
        row.cells[PID] = 100 + row.number
    page.rows[2].cells[STATE] = SERVING
    yield page
    page.close()


@pytest.fixture
def asked(page: Page, monkeypatch: pytest.MonkeyPatch) -> Peer:
    return Peer(page, DEFAULT, monkeypatch)


def test_a_peer_is_asked_every_interval_give_or_take_a_fifth(asked: Peer) -> None:
    assert 8 <= asked.sweeps(100.0) <= 13


def test_a_peer_that_is_out_is_asked_five_times_as_often(asked: Peer) -> None:
    asked.answer = 500
    asked.sweeps(13.0)
    assert asked.state.is_broken
    assert 40 <= asked.sweeps(100.0) <= 65


def test_whoever_serves_and_turns_and_is_lowest_asks(asked: Peer, page: Page) -> None:
    lower = page.rows[1].cells
    lower[STATE] = SERVING
    lower[BEAT] = round((asked.now + 200) * 1e9)
    assert asked.sweeps(50.0) == 0
    lower[BEAT] = round((asked.now - 2) * 1e9)
    assert asked.sweeps(50.0) > 0, "its loop hangs"
    lower[BEAT] = round((asked.now + 200) * 1e9)
    assert asked.sweeps(50.0) == 0
    lower[STATE] = LEAVING
    assert asked.sweeps(50.0) > 0


def test_a_worker_that_leaves_asks_no_more(asked: Peer, page: Page) -> None:
    page.rows[2].cells[STATE] = LEAVING
    assert asked.sweeps(50.0) == 0


def test_no_answer_is_a_bad_one(asked: Peer) -> None:
    asked.answer = InquiryError("no answer", late=True)
    asked.sweeps(13.0)
    assert asked.state.is_broken


def test_no_answer_says_nothing_where_the_loop_stood_still(asked: Peer) -> None:
    def stall() -> None:
        asked.now += 2.0

    asked.answer, asked.meanwhile = InquiryError("no answer", late=True), stall
    assert asked.sweeps(60.0) > 2 and not asked.state.is_broken


def test_no_answer_says_nothing_where_a_call_was_answered_meanwhile(asked: Peer) -> None:
    def answered() -> None:
        asked.now += 0.5
        asked.state.answered()

    asked.answer, asked.meanwhile = InquiryError("no connection"), answered
    assert asked.sweeps(60.0) > 2 and not asked.state.is_broken
    asked.answer = 503
    asked.sweeps(13.0)
    assert asked.state.is_broken, "that is its own word"


@pytest.mark.parametrize(
    ("terms", "late", "broken"), [(DEFAULT, True, False), (DEFAULT, False, True), (CHOSEN, True, True)]
)
def test_a_late_answer_says_nothing_on_a_default_path_while_the_peer_has_calls(
    page: Page, monkeypatch: pytest.MonkeyPatch, terms: Terms, late: bool, broken: bool
) -> None:
    asked = Peer(page, terms, monkeypatch)
    asked.state.begin(asked.now)
    asked.answer = InquiryError("no answer", late=late)
    asked.sweeps(30.0)
    assert asked.state.is_broken is broken


def test_a_cool_down_ends_where_no_connection_could_be_made_and_the_peer_is_well(asked: Peer) -> None:
    for _ in range(6):
        asked.now += 40.0
        trial = asked.state.begin(asked.now)
        asked.state.failed(asked.now, trial, unreached=True)
        asked.state.end()
    assert not asked.state.proven and asked.now < asked.state.retry_at
    asked.sweeps(13.0)
    assert asked.now >= asked.state.retry_at and not asked.state.proven


def test_a_cool_down_after_a_lost_call_does_not_end_so(asked: Peer) -> None:
    for _ in range(6):
        asked.now += 40.0
        trial = asked.state.begin(asked.now)
        asked.state.failed(asked.now, trial)
        asked.state.end()
    asked.sweeps(13.0)
    assert not asked.state.proven and asked.now < asked.state.retry_at
