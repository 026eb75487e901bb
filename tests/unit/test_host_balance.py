"""Least connections over the rows of several workers: what is seen, what is claimed, and who gives way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.columns import Columns
from gateway.page import PID, Page, Seat
from gateway.routing.host import LOOKED_AT, LOOKS, HostLeastConnections, HostLoad, OwnCalls, SharedPeerState
from gateway.routing.load import Loads
from gateway.routing.peer import Peer, PeerState, Standing
from tests.unit.test_balancers import peers_of, seeded, shares

__all__ = ["seeded"]  # a fixture: the same draws in every run


class Worker:
    """One worker's view of *page*: its peers, by the weights given, and its balancer."""

    def __init__(self, page: Page, number: int, *weights: int) -> None:
        row = page.rows[number]
        row.cells[PID] = 1000 + number
        self.seat = Seat(page, row, workers=len(page.rows) - 1)
        self.host = HostLoad(self.seat, Loads(page))
        self.balancer = HostLeastConnections(self.host)
        self.columns = Columns(self.seat)
        self.own: dict[int, OwnCalls] = {}
        self.peers = peers_of(*weights)
        for at, peer in enumerate(self.peers):
            peer.state = self.state(at)

    def state(self, at: int) -> SharedPeerState:
        column = self.columns.use(b"peer %d" % at)
        assert column is not None
        row = self.seat.row
        return SharedPeerState(Standing(), row, column, self.own.setdefault(column, OwnCalls(row, column)))

    def begin(self) -> Peer:
        peer = self.balancer.pick(self.peers)
        peer.state.begin(0.0)
        return peer

    @property
    def row(self) -> list[int]:
        return self.seat.row.calls[: len(self.peers)].tolist()


class Coming:
    """Another worker's row to which a call comes between two looks: *values* are what each look at it finds."""

    def __init__(self, *values: int) -> None:
        self.values = list(values)

    def __getitem__(self, column: int) -> int:
        return self.values.pop(0)


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(4)
    yield page
    page.close()


def see(worker: Worker, *others: Any) -> None:
    worker.host.others = [*others]


def test_the_calls_of_all_workers_count(page: Page) -> None:
    one, two, three = (Worker(page, number, 1, 1, 1) for number in (1, 2, 3))
    for worker in (one, two, three):
        worker.host.sweep(0.0)
    for worker in (one, two, three, three, two, one, one, one, one):
        worker.begin()
    assert [sum(column) for column in zip(one.row, two.row, three.row, strict=True)] == [3, 3, 3]


def test_a_worker_sees_the_others_from_its_first_call_on(page: Page) -> None:
    first = Worker(page, 1, 1, 1)
    assert first.begin() is not first.begin()
    first.begin().state.end()
    second = Worker(page, 2, 1, 1)
    second.seat.page.rows[1].calls[0] = 5
    assert second.begin() is second.peers[1]


def test_a_worker_that_died_does_not_count_once_it_is_buried(page: Page) -> None:
    worker, dead = Worker(page, 1, 1, 1), Worker(page, 2, 1, 1)
    dead.peers[0].state.begin(0.0)
    worker.host.sweep(0.0)
    chosen = worker.begin()
    assert chosen is worker.peers[1]
    chosen.state.end()
    page.rows[2].clear(2, 0)
    for _ in range(2):
        worker.begin()
    assert worker.row == [1, 1]


def test_calls_count_for_the_weight(page: Page) -> None:
    worker = Worker(page, 1, 5, 3, 2)
    for _ in range(100):
        worker.begin()
    assert worker.row == [50, 30, 20]


def test_ties_are_broken_evenly(page: Page) -> None:
    worker = Worker(page, 1, 1, 1, 1)

    inner = HostLeastConnections(worker.host)

    class Undone:
        def pick(self, peers: Any) -> Peer:
            peer = inner.pick(peers)
            peer.state.begin(0.0)
            peer.state.end()
            return peer

    assert shares(Undone(), worker.peers) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_of_many_peers_the_busier_of_two_is_never_taken(page: Page) -> None:
    worker = Worker(page, 1, *[1] * (LOOKED_AT + 1))
    worker.own[0].add(1000)
    for _ in range(200):
        worker.begin()
    assert worker.row[0] == 1000 and min(worker.row[1:]) > 10


def test_calls_of_before_a_reload_are_seen_by_the_worker_that_has_them(page: Page) -> None:
    worker = Worker(page, 1, 1, 1)
    worker.peers[0].state.begin(0.0)
    worker.peers[0].state = worker.state(0)  # its key has changed, say; the former call runs on
    assert worker.peers[0].state.in_flight == 0
    assert worker.begin() is worker.peers[1]


def test_a_peer_without_a_place_on_the_page_counts_by_this_workers_calls(page: Page) -> None:
    worker = Worker(page, 1, 1, 1)
    worker.peers[0].state = PeerState(Standing())
    assert {id(worker.begin()) for _ in range(2)} == {id(peer) for peer in worker.peers}
    assert worker.peers[0].state.in_flight == 1 and worker.row == [0, 1]


def test_a_call_is_counted_once_and_seen_before_it_begins(page: Page) -> None:
    worker = Worker(page, 1, 1)
    (peer,) = worker.peers
    worker.balancer.pick(worker.peers)
    assert worker.row == [1], "the others see the choice at once"
    worker.balancer.pick(worker.peers)
    assert worker.row == [1], "a choice that nobody made use of is not counted twice"
    peer.state.begin(0.0)
    assert (worker.row, peer.state.in_flight) == ([1], 1)
    peer.state.begin(0.0)  # by another balancer, or as the only peer that is left
    assert (worker.row, peer.state.in_flight) == ([2], 2)
    peer.state.end()
    peer.state.end()
    assert (worker.row, peer.state.in_flight) == ([0], 0)


def test_a_choice_that_nobody_made_use_of_leaves_with_its_peer(page: Page) -> None:
    worker = Worker(page, 1, 1)
    worker.balancer.pick(worker.peers).state.leave()
    assert worker.row == [0]
    worker.peers[0].state = worker.state(0)
    worker.begin().state.end()
    assert worker.row == [0]


def test_who_is_beaten_to_a_peer_goes_to_another(page: Page) -> None:
    worker = Worker(page, 1, 1, 1)
    worker.own[1].add(1)
    # 0 and 1 calls are seen; then the other worker's call comes to the first peer, and another; then 2 and 1 are seen.
    see(worker, Coming(0, 0, 2, 2, 0, 0))
    assert worker.begin() is worker.peers[1]
    assert worker.row == [0, 2]


def test_a_call_that_ended_meanwhile_makes_nobody_look_again(page: Page) -> None:
    worker = Worker(page, 1, 1, 1)
    see(worker, row := Coming(4, 9, 3))
    assert worker.begin() is worker.peers[0] and not row.values


def test_who_is_always_beaten_goes_somewhere_at_last(page: Page) -> None:
    worker = Worker(page, 1, 1)
    see(worker, row := Coming(*range(2 * LOOKS)))
    assert worker.begin() is worker.peers[0] and not row.values
    assert worker.row == [1]
