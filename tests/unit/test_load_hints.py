"""Load hints: what servers tell, how long it counts, what balancers make of it, and what it never does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.clock import Clock
from gateway.columns import Columns
from gateway.page import PID, SERVING, STATE, Page, Seat
from gateway.routing import load as hints
from gateway.routing.balance import Balancer, Hinted, LeastConnections, PowerOfTwo
from gateway.routing.host import HostLeastConnections, HostLoad, OwnCalls, SharedPeerState
from gateway.routing.load import BLIND, LONGEST, Loads, weight
from gateway.routing.peer import PeerState, Standing
from gateway.upstream import load
from gateway.upstream.inquiry import InquiryError
from gateway.upstream.load import SLOWEST, Scraper, Terms
from tests.unit.configuring import KEYED, loaded
from tests.unit.test_balancers import peers_of, shares

QUEUE = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 30\n"


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(4)
    page.rows[1].cells[STATE] = SERVING
    for row in page.rows[1:]:
        row.cells[PID] = 100 + row.number
    yield page
    page.close()


class House:
    """Two peers of the worker in row 1, at a time that is played."""

    def __init__(self, page: Page, monkeypatch: pytest.MonkeyPatch, *, shared: bool = False) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(hints, "now_ms", lambda: round(self.now * 1000))
        self.seat = Seat(page, page.rows[1], 2)
        self.loads = Loads(page)
        self.host = HostLoad(self.seat, self.loads)
        self.peers = peers_of(1, 1)
        for at, peer in enumerate(self.peers):
            column = Columns(self.seat).use(b"peer %d" % at)
            assert column is not None
            row = page.rows[1]
            made = SharedPeerState(Standing(), row, column, OwnCalls(row, column)) if shared else None
            peer.state = made or PeerState(Standing(), None, column)
        self.busy, self.free = (peer.state for peer in self.peers)
        self.loads.take_over([(peer.state, 2.0) for peer in self.peers])

    def sweep(self) -> None:
        self.loads.sweep(self.now)
        self.host.sweep(self.now)

    def see(self) -> None:
        """Sweep, and be at no blind one."""
        self.sweep()
        if not self.loads.live:
            self.sweep()


@pytest.fixture
def house(page: Page, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(page, monkeypatch)


# --- how long a hint counts ---


def test_a_hint_counts_whole_for_an_interval_and_is_nothing_after_two() -> None:
    assert [weight(age, 2_000) for age in (0, 1_000, 2_000, 2_500, 3_000, 3_999, 4_000, 90_000)] == [
        *(1.0, 1.0, 1.0, 0.75, 0.5),
        *(pytest.approx(0.0005), 0.0, 0.0),
    ]


def test_a_hint_counts_for_a_few_seconds_however_seldom_it_is_told() -> None:
    assert weight(LONGEST // 2, 3_600_000) == 1.0 and weight(LONGEST, 3_600_000) == 0.0


def test_requests_beyond_the_host_s_own_count_until_they_are_too_old(house: House) -> None:
    house.loads.tell(house.busy, 33, 13)
    house.see()
    assert (house.busy.beyond, house.free.beyond, house.loads.told(house.busy)) == (20.0, 0.0, 33)
    house.now += 3.0
    house.see()
    assert house.busy.beyond == 10.0
    house.now += 1.0
    house.sweep()
    assert house.busy.beyond == 0.0 and not house.loads.live and house.loads.told(house.busy) is None


def test_a_server_that_has_fewer_requests_than_it_was_sent_is_not_thought_the_better_for_it(house: House) -> None:
    house.loads.tell(house.busy, 3, 13)
    house.see()
    assert house.busy.beyond == 0.0 and not house.loads.live and house.loads.told(house.busy) == 3


def test_a_peer_whose_server_is_asked_no_more_has_no_hint(house: House) -> None:
    house.loads.tell(house.busy, 33, 0)
    house.see()
    house.loads.take_over([(house.free, 2.0)])
    house.sweep()
    assert house.busy.beyond == 0.0 and house.loads.told(house.busy) is None
    house.loads.take_over([])
    house.sweep()
    assert not house.loads.live


def test_a_reload_leaves_the_hints_of_peers_that_stay(house: House) -> None:
    house.loads.tell(house.busy, 33, 3)
    house.see()
    house.loads.take_over([(peer.state, 2.0) for peer in house.peers])
    assert house.busy.beyond == 30.0


def test_an_interval_shorter_than_a_millisecond_is_one(house: House) -> None:
    house.loads.take_over([(house.busy, 0.0001)])
    house.loads.tell(house.busy, 33, 13)
    house.see()
    assert house.busy.beyond == 20.0


def test_a_hint_is_seen_by_every_worker(house: House, page: Page) -> None:
    other = Loads(page)
    there = PeerState(Standing(), None, house.busy.column)
    other.take_over([(there, 2.0)])
    house.loads.tell(house.busy, 33, 13)
    other.sweep(house.now)
    assert other.told(there) == 33 and there.beyond == 20.0


def test_a_hint_that_cannot_be_written_is_none(house: House, page: Page) -> None:
    other = Page(os.dup(page.fd))
    with other.lock():
        house.loads.tell(house.busy, 33, 13)
    other.close()
    assert house.loads.told(house.busy) is None


# --- what balancers make of it ---


@pytest.mark.parametrize(
    ("balancer", "shared"),
    [
        (lambda house: Hinted(LeastConnections(), house.loads, drawn=False), False),
        (lambda house: Hinted(PowerOfTwo(), house.loads, drawn=True), False),
        (lambda house: Hinted(PowerOfTwo(), house.loads, drawn=True), True),
        (lambda house: HostLeastConnections(house.host), True),
    ],
    ids=["least connections", "p2c", "p2c of several workers", "the host's least connections"],
)
def test_a_peer_that_others_keep_busy_gets_calls_once_the_rest_is_as_busy(
    page: Page, monkeypatch: pytest.MonkeyPatch, balancer: Callable[[House], Balancer], shared: bool
) -> None:
    house = House(page, monkeypatch, shared=shared)
    chosen = balancer(house)
    house.loads.tell(house.busy, 20, 0)
    house.see()
    got = []
    for _ in range(60):
        peer = chosen.pick(house.peers)
        peer.state.begin(0.0)
        got.append(peer.state is house.busy)
    assert not any(got[:20]) and sum(got) == 20
    house.now += 60.0
    house.sweep()
    for _ in range(20):
        chosen.pick(house.peers).state.begin(0.0)
    assert house.busy.in_flight == house.free.in_flight == 40


def test_weights_hold_for_what_servers_tell_too(house: House) -> None:
    house.peers[0].weight = 4
    house.loads.tell(house.busy, 8, 0)
    house.free.begin(0.0)
    house.see()
    assert Hinted(LeastConnections(), house.loads, drawn=False).pick(house.peers) is house.peers[1]
    house.free.begin(0.0)
    house.free.begin(0.0)
    assert Hinted(LeastConnections(), house.loads, drawn=False).pick(house.peers) is house.peers[0]


def test_ties_are_broken_at_random(house: House) -> None:
    balancer = Hinted(LeastConnections(), house.loads, drawn=False)
    for state in (house.busy, house.free):
        house.loads.tell(state, 7, 0)
    house.see()
    assert all(share > 0.4 for share in shares(balancer, house.peers, 1000))


def test_a_server_that_tells_nonsense_still_gets_a_part_of_the_calls(house: House) -> None:
    balancer = Hinted(LeastConnections(), house.loads, drawn=False)
    house.loads.tell(house.busy, 1_000_000_000, 0)
    got = 0
    for _ in range(10 * BLIND):
        house.sweep()
        got += balancer.pick([*house.peers]) is house.peers[0]
    assert 1 <= got <= 10


# --- who is asked, when ---


class Asked:
    """A scraper whose peer's server is played."""

    def __init__(self, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(hints, "now_ms", lambda: round(self.now * 1000))
        monkeypatch.setattr(load, "read", self.read)
        self.seat = Seat(page, page.rows[1], 1)
        self.clock = Clock()
        self.loads = Loads(page)
        self.scraper = Scraper(self.seat, self.clock, self.loads)
        column = Columns(self.seat).use(b"peer")
        assert column is not None
        self.state = PeerState(Standing(), None, column)
        self.target: Any = SimpleNamespace(apart=lambda: "a target")
        self.take_over()
        self.answer: bytes | InquiryError = QUEUE
        self.meanwhile = lambda: None
        self.asked: list[tuple[bytes, float, int]] = []

    def take_over(self, terms: Terms = Terms(b"/metrics", 2.0, 1.0)) -> None:  # noqa: B008 # a value
        self.scraper.take_over([(self.state, self.target, terms)])

    async def read(self, target: object, path: bytes, seconds: float, limit: int) -> bytes:
        self.asked.append((path, seconds, limit))
        self.meanwhile()
        if isinstance(self.answer, InquiryError):
            raise self.answer
        return self.answer

    def sweeps(self, seconds: float) -> int:
        """How often it is asked in so many seconds."""

        async def sweep() -> None:
            until = self.now + seconds
            while self.now < until:
                self.clock.now = self.now
                self.scraper.sweep(self.now)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                self.now += 0.05

        before = len(self.asked)
        asyncio.run(sweep())
        return len(self.asked) - before

    def once(self) -> None:
        while not self.sweeps(0.05):
            pass


@pytest.fixture
def asked(page: Page, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(page, monkeypatch)


def test_a_server_is_asked_every_interval_give_or_take_a_fifth(asked: Asked) -> None:
    assert 40 <= asked.sweeps(100.0) <= 62
    assert asked.loads.told(asked.state) == 33
    assert set(asked.asked) == {(b"/metrics", 1.0, 1 << 20)}


@pytest.mark.parametrize("answer", [InquiryError("no answer"), b"", b"vllm:num_requests_running NaN\n"])
def test_a_server_that_does_not_tell_is_asked_less_and_less(asked: Asked, answer: bytes | InquiryError) -> None:
    asked.answer = answer
    assert 4 <= asked.sweeps(100.0) <= 7
    assert 7 <= asked.sweeps(10 * SLOWEST) <= 13
    assert asked.loads.told(asked.state) is None
    asked.answer = QUEUE
    asked.sweeps(1.2 * SLOWEST)
    assert 40 <= asked.sweeps(100.0) <= 62


def test_calls_that_come_or_go_while_a_server_is_asked_are_not_taken_for_others(asked: Asked) -> None:
    def come() -> None:
        for _ in range(4):
            asked.state.begin(0.0)

    asked.meanwhile = come
    asked.once()
    asked.loads.sweep(asked.now)
    assert asked.state.beyond == 29.0

    def go() -> None:
        for _ in range(asked.state.in_flight):
            asked.state.end()

    asked.meanwhile = go
    asked.once()
    asked.loads.sweep(asked.now)
    assert asked.state.in_flight == 0 and asked.state.beyond == 29.0


def test_only_the_worker_whose_turn_it_is_asks(asked: Asked, page: Page) -> None:
    page.rows[1].cells[STATE] = 0
    assert asked.sweeps(20.0) == 0


def test_a_reload_asks_on_unless_the_terms_are_others(asked: Asked) -> None:
    asked.sweeps(3.0)
    (question,) = asked.scraper._questions.values()
    asked.take_over()
    assert [*asked.scraper._questions.values()] == [question]
    asked.take_over(Terms(b"/other", 2.0, 1.0))
    assert [*asked.scraper._questions.values()] != [question]
    asked.sweeps(3.0)
    assert asked.asked[-1][0] == b"/other"


def test_a_question_that_runs_is_given_up_at_the_end(asked: Asked) -> None:
    async def never(*more: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def story(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load, "read", never)
        for _ in range(60):
            asked.clock.now = asked.now
            asked.scraper.sweep(asked.now)
            asked.now += 0.05
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 2
        await asked.scraper.close()
        assert len(asyncio.all_tasks()) == 1

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(story(patch))


# --- the configuration ---


@pytest.mark.parametrize(
    ("defaults", "fields", "interval"),
    [
        ("", "protocol = 'vllm'", 2.0),
        ("", "protocol = 'sglang'", 2.0),
        ("", "protocol = 'tgi'", 2.0),
        ("", "protocol = 'llamacpp'", 2.0),
        ("", "protocol = 'openai'", 0.0),
        ("", "protocol = 'openai'\nload = { interval = '3s' }", 3.0),
        ("", "protocol = 'vllm'\nload = { interval = 0 }", 0.0),
        ("", "protocol = 'vllm'\nload = { timeout = '2s' }", 2.0),
        ("load = { interval = '7s' }", "protocol = 'vllm'", 7.0),
        ("load = { interval = 0 }", "protocol = 'vllm'", 0.0),
        ("load = { path = '/m' }", "protocol = 'vllm'", 2.0),
    ],
)
def test_servers_that_tell_are_asked_unless_something_else_is_written(
    tmp_path: Path, defaults: str, fields: str, interval: float
) -> None:
    text = f"{KEYED}[defaults]\n{defaults}\n[[backends]]\nname = 'b'\nendpoints = ['http://a:1']\n{fields}\n"
    assert loaded(tmp_path, text).backends[0].load.interval == interval
