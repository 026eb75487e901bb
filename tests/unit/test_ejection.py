"""Who may have a call while circuits are open: the probe, those that are well, and at least half of a backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import Fault, Kind, Retry, Side
from gateway.page import Page
from gateway.routing import balance, circuits, ejection
from gateway.routing.balance import LeastConnections, eligible
from gateway.routing.breaker import CLOSED, DUE, LEASE_TIME, LONGEST, Change, Rules
from gateway.routing.circuits import LEAST_SHARE, RAMP, Board, PeerCircuit
from gateway.routing.ejection import no_peer
from gateway.routing.peer import Peer, PeerState, Standing

RESET = 1000
RULES = Rules(3, RESET)
BROKEN = Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, "500", Retry.REPEATABLE, answered=500)
WAIT = Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, "429", Retry.REPEATABLE, answered=429, wait=5.0)


class Time:
    """Milliseconds."""

    def __init__(self) -> None:
        self.now = 1_000_000

    @property
    def nanos(self) -> int:
        return self.now * 1_000_000


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(circuits, "monotonic_ns", lambda: made.nanos)
    chance = Random(7)
    monkeypatch.setattr(ejection, "random", chance.random)
    monkeypatch.setattr(balance, "random", chance.random)
    return made


class Worker:
    """One worker's view of *count* peers of one backend, whose circuits stand on *board*."""

    def __init__(self, board: Board, count: int) -> None:
        self.standing = Standing()
        self.changes: list[Change] = []
        backend: Any = SimpleNamespace(name="b")
        self.peers = []
        for column in range(count):
            circuit = PeerCircuit(board, column)
            circuit.rules = RULES
            circuit.on_change = self.changes.append
            state = PeerState(self.standing, circuit)
            state.answered()
            self.peers.append(Peer(backend, f"http://{column}", 1, state))

    def sweep(self) -> None:
        for peer in self.peers:
            peer.state.heard = False
            peer.state.look()

    def admits(self, who: object = "somebody") -> list[Peer]:
        return list(eligible(self.peers, 0.0, (), who))

    def call(self, time: Time, who: object) -> Peer | None:
        admitted = self.admits(who)
        return LeastConnections().pick(admitted) if admitted else None

    def fail(self, peer: Peer, time: Time, times: int = RULES.max_failures, fault: Fault = BROKEN) -> None:
        for _ in range(times):
            peer.state.blamed(fault, time.nanos, "a call")


@pytest.fixture
def board() -> Iterator[Board]:
    page = Page.make(2)
    yield Board.of_host(page)
    page.close()


def test_a_peer_whose_circuit_is_open_gets_no_call_from_any_worker(time: Time, board: Board) -> None:
    first, second = Worker(board, 2), Worker(board, 2)
    assert not board.has_news()
    first.fail(first.peers[0], time)
    assert board.has_news() and not board.has_news()
    second.sweep()
    for worker in (first, second):
        assert worker.admits() == [worker.peers[1]] and worker.standing.doubtful == 1
    assert [change.opened for change in first.changes] == [True] and not second.changes


def test_failures_of_all_workers_make_one_row_and_an_answer_to_any_ends_it(time: Time, board: Board) -> None:
    first, second = Worker(board, 1), Worker(board, 1)
    first.fail(first.peers[0], time, 2)
    second.peers[0].state.served(time.nanos, "a call")
    first.fail(first.peers[0], time, 2)
    assert first.peers[0].state.circuit.state is CLOSED
    second.fail(second.peers[0], time, 1)
    assert second.changes == [Change(circuits.OPEN, True)]


def test_an_answer_that_follows_failures_is_never_passed_over_since_one_was_heard_just_before(
    time: Time, board: Board
) -> None:
    worker = Worker(board, 1)
    state = worker.peers[0].state
    for _ in range(9):
        if not state.heard:
            state.served(time.nanos, "a call")
        assert state.heard
        worker.fail(worker.peers[0], time, RULES.max_failures - 1)
    assert not worker.changes


@pytest.mark.parametrize(("count", "out"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (8, 4)])
def test_at_most_half_of_a_backends_peers_are_out_and_at_least_one(
    time: Time, board: Board, count: int, out: int
) -> None:
    worker = Worker(board, count)
    for peer in worker.peers:
        worker.fail(peer, time)
        time.now += 1
    seen = {peer for _ in range(400) for peer in worker.admits()}
    assert seen == set(worker.peers[out:]), "those that opened last stay in use"


def test_a_peer_that_stays_in_use_although_it_fails_gets_its_fair_share_and_no_more(time: Time, board: Board) -> None:
    worker = Worker(board, 3)
    worker.fail(worker.peers[0], time)
    time.now += 1
    worker.fail(worker.peers[1], time)
    worker.peers[2].state.in_flight = 50  # and so it would never be anybody's choice
    taken = Counter(worker.call(time, "somebody") for _ in range(1000))
    assert 400 < taken[worker.peers[1]] < 600 and taken[worker.peers[0]] == 0


def test_of_all_workers_one_call_is_the_probe_and_a_client_that_leaves_makes_room_for_another(
    time: Time, board: Board
) -> None:
    workers = [Worker(board, 1) for _ in range(4)]
    workers[0].fail(workers[0].peers[0], time)
    for worker in workers:
        worker.sweep()
    assert [worker.admits() for worker in workers] == [[]] * 4
    time.now += 2 * RESET
    assert [len(worker.admits(number)) for number, worker in enumerate(workers)] == [1, 0, 0, 0]
    workers[0].peers[0].state.circuit.over("another call")
    assert not workers[1].admits()
    workers[0].peers[0].state.circuit.over(0)
    assert [len(worker.admits("next")) for worker in workers] == [1, 0, 0, 0]
    workers[0].peers[0].state.served(time.nanos, "next")
    workers[1].sweep()
    assert len(workers[0].admits()) == len(workers[1].admits()) == 1
    assert workers[0].peers[0].state.circuit.state is CLOSED


def test_the_probe_of_a_worker_that_is_killed_frees_itself(time: Time, board: Board) -> None:
    dead, live = Worker(board, 1), Worker(board, 1)
    dead.fail(dead.peers[0], time)
    live.sweep()
    time.now += 2 * RESET
    assert dead.admits("its probe")
    for _ in range(5):
        time.now += LEASE_TIME // 2
        dead.sweep()
        assert not live.admits(), "as long as it lives, it holds the claim"
    time.now += LEASE_TIME
    assert live.admits("another")


def test_a_probe_that_hangs_makes_room_for_another_in_the_end(time: Time, board: Board) -> None:
    worker = Worker(board, 1)
    worker.fail(worker.peers[0], time)
    time.now += 2 * RESET
    assert worker.admits("hangs")
    end = time.now + LONGEST * RESET
    while time.now < end:
        time.now += LEASE_TIME // 2
        worker.sweep()
        assert not worker.admits()
    time.now += LEASE_TIME
    worker.sweep()
    assert worker.admits("another")
    worker.peers[0].state.circuit.over("hangs")
    assert not worker.admits("a third"), "it has no claim to let go"


def test_who_asks_to_be_left_alone_is_as_long_as_there_is_another(time: Time, board: Board) -> None:
    first, second = Worker(board, 2), Worker(board, 2)
    first.fail(first.peers[0], time, 9, WAIT)
    second.sweep()
    assert first.admits() == first.peers[1:] and second.admits() == second.peers[1:]
    assert not first.peers[0].state.circuit.is_open
    first.fail(first.peers[1], time, 1, WAIT)
    assert first.admits() == first.peers, "where all are busy, all are used"
    time.now += 5001
    first.sweep()
    assert first.admits() == first.peers and first.standing.doubtful == 0


def test_who_is_back_gets_its_share_bit_by_bit(time: Time, board: Board) -> None:
    worker = Worker(board, 2)
    back = worker.peers[0]
    worker.fail(back, time)
    time.now += 2 * RESET
    assert worker.admits("probe") == [back]
    back.state.served(time.nanos, "probe")
    shares = []
    for _ in range(4):
        shares.append(sum(back in worker.admits() for _ in range(2000)) / 2000)
        time.now += RAMP // 3
    assert shares == pytest.approx([LEAST_SHARE, 1 / 3, 2 / 3, 1.0], abs=0.05)
    worker.sweep()
    assert worker.standing.doubtful == 0


def test_nobody_ramps_alone(time: Time, board: Board) -> None:
    worker = Worker(board, 1)
    worker.fail(worker.peers[0], time)
    time.now += 2 * RESET
    worker.admits("probe")
    worker.peers[0].state.served(time.nanos, "probe")
    assert all(worker.admits() for _ in range(200))


def test_a_call_that_can_be_made_nowhere_is_told_when_it_can(time: Time, board: Board) -> None:
    worker = Worker(board, 1)
    worker.fail(worker.peers[0], time)
    time.now += 100
    circuit = worker.peers[0].state.circuit
    fault = no_peer(worker.peers)
    assert (fault.retry, fault.kind, fault.is_final) == (Retry.UNSENT, Kind.NO_PEER, True)
    assert fault.wait == (circuit.cell(DUE) - time.now) / 1000


NOT_THE_PEERS = [
    Fault(Side.CLIENT, Kind.CLIENT_GONE, "left"),
    Fault(Side.GATEWAY, Kind.DRAINING, "ours"),
    Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, "worn out", Retry.REUSED),
    *(
        Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, "4xx", Retry.REPEATABLE, answered=status)
        for status in (401, 408, 429)
    ),
    WAIT,
]


@pytest.mark.parametrize("fault", NOT_THE_PEERS, ids=repr)
def test_what_is_not_the_peers_failure_opens_nothing(time: Time, board: Board, fault: Fault) -> None:
    worker = Worker(board, 1)
    worker.fail(worker.peers[0], time, 50, fault)
    assert worker.peers[0].state.circuit.state is CLOSED and not worker.changes


FAILURES = [
    BROKEN,
    Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, "503", Retry.REPEATABLE, answered=503),
    Fault(Side.UPSTREAM, Kind.NO_PEER, "refused", Retry.UNSENT),
    Fault(Side.UPSTREAM, Kind.UPSTREAM_TLS, "no handshake", Retry.UNSENT),
    Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, "lost", Retry.REPEATABLE),
    Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, "cut", Retry.NEVER),
    Fault(Side.UPSTREAM, Kind.UPSTREAM_SLOW, "no first byte", Retry.REPEATABLE, timed_out=True),
    Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, "an empty stream", Retry.REPEATABLE),
]


@pytest.mark.parametrize("fault", FAILURES, ids=repr)
def test_every_failure_of_the_peers_counts(time: Time, board: Board, fault: Fault) -> None:
    worker = Worker(board, 1)
    worker.fail(worker.peers[0], time, RULES.max_failures, fault)
    assert worker.peers[0].state.is_broken


@pytest.mark.parametrize("seed", range(20))
def test_after_faults_end_calls_succeed_soon_whatever_went_before(time: Time, board: Board, seed: int) -> None:
    """Two workers, one to four peers, minutes of faults of all kinds, clients that leave, workers that die."""
    chance = Random(seed)
    count = 1 + seed % 4
    workers = [Worker(board, count), Worker(board, count)]
    for number in range(600):
        time.now += chance.choice((1, 10, 100, 1000))
        if chance.random() < 0.01:
            workers[chance.randrange(2)] = Worker(board, count)
        worker = chance.choice(workers)
        worker.sweep()
        peer = worker.call(time, number)
        if peer is None:
            continue
        what = chance.random()
        if what < 0.8:
            peer.state.blamed(chance.choice(FAILURES), time.nanos, number)
        elif what < 0.85:
            peer.state.blamed(WAIT, time.nanos, number)
        elif what < 0.9:
            peer.state.served(time.nanos, number)
        if chance.random() < 0.98:
            peer.state.circuit.over(number)
    ended, longest = time.now, max(LONGEST * RESET, int(WAIT.wait * 1000), LEASE_TIME)
    served = None
    while served is None:
        time.now += 50
        assert time.now < ended + 2 * longest, "it never recovers"
        worker = chance.choice(workers)
        worker.sweep()
        served = worker.call(time, "a good call")
        if served is not None:
            served.state.served(time.nanos, "a good call")
    time.now += 2 * longest
    for worker in workers:
        worker.sweep()
        for number in range(9):
            peer = worker.call(time, f"after {number}")
            assert peer is not None
            peer.state.served(time.nanos, f"after {number}")
