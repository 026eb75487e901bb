"""Balancers: who is eligible, and how each spreads the calls among the eligible."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, get_args, get_type_hints

import pytest

from gateway.config.schema import Defaults
from gateway.routing.balance import (
    BALANCERS,
    Balancer,
    LeastConnections,
    PowerOfTwo,
    Random,
    RoundRobin,
    eligible,
)
from gateway.routing.peer import Peer, PeerState, Standing


class Backend:
    name = "b"


def peers_of(*weights: int) -> list[Peer]:
    backend: Any = Backend()
    peers = [Peer(backend, f"http://{at}", weight, PeerState(Standing())) for at, weight in enumerate(weights)]
    for peer in peers:
        peer.state.answered()
    return peers


def down(peer: Peer, now: float = 0.0) -> None:
    peer.state.failed(now, trial=False)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """The same draws in every run."""
    state = random.getstate()
    random.seed(7)
    yield
    random.setstate(state)


def shares(balancer: Balancer, peers: Sequence[Peer], calls: int = 7_000) -> list[float]:
    counts = Counter(peers.index(balancer.pick(peers)) for _ in range(calls))
    return [counts[at] / calls for at in range(len(peers))]


def names(picked: Sequence[Peer]) -> str:
    return "".join("abcdefg"[int(peer.url[-1])] for peer in picked)


# Who is eligible.


def test_a_peer_that_cools_down_is_not_eligible() -> None:
    peers = peers_of(1, 1, 1)
    down(peers[1])
    assert names(eligible(peers, 0.5)) == "ac"
    assert names(eligible(peers, 1.0)) == "abc"


def test_a_peer_that_this_call_tried_is_not_eligible() -> None:
    peers = peers_of(1, 1, 1)
    assert names(eligible(peers, 0.0, (peers[0],))) == "bc"
    assert names(eligible(peers, 0.0, (peers[0], peers[2]))) == "b"


def test_all_are_eligible_where_nothing_else_is_left() -> None:
    peers = peers_of(1, 1, 1)
    assert names(eligible(peers, 0.0, tuple(peers))) == "abc"
    for peer in peers:
        down(peer)
    assert names(eligible(peers, 0.5)) == "abc"
    assert names(eligible(peers, 0.5, tuple(peers))) == "abc"
    assert names(eligible(peers, 0.5, (peers[0],))) == "bc"


def test_where_all_were_tried_those_that_cool_down_are_still_left_out() -> None:
    peers = peers_of(1, 1, 1)
    down(peers[0])
    assert names(eligible(peers, 0.5, tuple(peers))) == "bc"


def test_a_peer_that_failed_is_eligible_until_its_trial_began() -> None:
    peers = peers_of(1, 1)
    peers[1].state.failed(0.0, trial=False)
    assert names(eligible(peers, 0.5)) == "a"
    assert names(eligible(peers, 1.0)) == "ab"
    assert peers[1].state.begin(1.0)
    assert names(eligible(peers, 1.0)) == "a"


def test_peers_that_nobody_tried_yet_get_their_share_from_the_first_call_on() -> None:
    backend: Any = Backend()
    peers = [*peers_of(1), *(Peer(backend, f"http://{at}", 1, PeerState(Standing())) for at in (1, 2))]
    balancer = LeastConnections()
    for _ in range(30):
        balancer.pick(eligible(peers, 0.0)).state.begin(0.0)
    assert [peer.state.in_flight for peer in peers] == [10, 10, 10]


def test_a_dead_peer_among_three_is_asked_once_per_cool_down() -> None:
    peers = peers_of(1, 1, 1)
    dead = peers[1]
    balancer = LeastConnections()
    asked = []
    for tenth in range(310):
        now = tenth / 10
        peer = balancer.pick(eligible(peers, now))
        trial = peer.state.begin(now)
        if peer is dead:
            asked.append(now)
            peer.state.failed(now, trial)
        else:
            peer.state.answered()
        peer.state.end()
    assert 4 <= len(asked) <= 6
    waits = [after - before for before, after in pairwise(asked)]
    assert all(wait >= 2.0**doublings - 1e-9 for doublings, wait in enumerate(waits))


# Who is picked.


@pytest.mark.parametrize("balancer", [kind() for kind in BALANCERS.values()], ids=BALANCERS.keys())
@pytest.mark.parametrize("weight", [1, 2**31 - 1])
def test_one_peer_is_always_picked(balancer: Balancer, weight: int) -> None:
    peers = peers_of(weight)
    assert shares(balancer, peers, 10) == [1.0]


def test_every_word_of_the_configuration_has_its_balancer() -> None:
    assert set(BALANCERS) == set(get_args(get_type_hints(Defaults)["balance"]))


def test_round_robin_is_smooth() -> None:
    peers = peers_of(5, 1, 1)
    balancer = RoundRobin()
    assert names([balancer.pick(peers) for _ in range(14)]) == "aabacaa" * 2


def test_round_robin_takes_turns_among_equals() -> None:
    peers = peers_of(1, 1, 1)
    balancer = RoundRobin()
    assert names([balancer.pick(peers) for _ in range(6)]) == "abcabc"


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (5, 1, 1), (4, 3, 2, 1), (100, 1)])
def test_round_robin_gives_each_its_weight_in_every_cycle(weights: tuple[int, ...]) -> None:
    peers = peers_of(*weights)
    balancer = RoundRobin()
    for _ in range(3):
        counts = Counter(peers.index(balancer.pick(peers)) for _ in range(sum(weights)))
        assert tuple(counts[at] for at in range(len(weights))) == weights
        assert [peer.state.turn for peer in peers] == [0] * len(weights)


def test_round_robin_is_fair_to_those_that_stay_while_one_is_gone() -> None:
    peers = peers_of(1, 1, 1)
    balancer = RoundRobin()
    balancer.pick(peers)
    counts = Counter(names([balancer.pick(peers[1:])]) for _ in range(100))
    assert abs(counts["b"] - counts["c"]) <= 1
    again = Counter(names([balancer.pick(peers)]) for _ in range(99))
    assert max(again.values()) - min(again.values()) <= 3


def test_least_connections_takes_the_least_loaded_for_its_weight() -> None:
    peers = peers_of(1, 2, 4)
    for peer, calls in zip(peers, (2, 3, 7), strict=True):
        peer.state.in_flight = calls
    assert names([LeastConnections().pick(peers)]) == "b"
    peers[2].state.in_flight = 5
    assert names([LeastConnections().pick(peers)]) == "c"


def test_least_connections_fills_each_up_to_its_weight() -> None:
    peers = peers_of(5, 3, 2)
    for _ in range(100):
        LeastConnections().pick(peers).state.begin(0.0)
    assert [peer.state.in_flight for peer in peers] == [50, 30, 20]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_least_connections_breaks_ties_evenly(count: int) -> None:
    assert shares(LeastConnections(), peers_of(*[1] * count)) == pytest.approx([1 / count] * count, abs=0.02)


def test_least_connections_breaks_ties_among_the_tied_only() -> None:
    peers = peers_of(1, 1, 1, 1)
    peers[0].state.in_flight = peers[2].state.in_flight = 1
    assert shares(LeastConnections(), peers) == pytest.approx([0, 0.5, 0, 0.5], abs=0.02)


@pytest.mark.parametrize("weights", [(1, 1), (5, 1, 1), (1, 2, 3, 4), (100, 1)])
def test_random_follows_the_weights_whatever_is_in_flight(weights: tuple[int, ...]) -> None:
    peers = peers_of(*weights)
    peers[0].state.in_flight = 1_000
    expected = [weight / sum(weights) for weight in weights]
    assert shares(Random(), peers) == pytest.approx(expected, abs=0.02)


def test_random_picks_somebody_at_either_end_of_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = peers_of(3, 2, 2)
    for drawn, name in ((0.0, "a"), (3 / 7 - 1e-9, "a"), (3 / 7 + 1e-9, "b"), (1.0 - 2**-53, "c"), (1.0, "c")):
        monkeypatch.setattr("gateway.routing.balance.random", lambda drawn=drawn: drawn)
        assert names([Random().pick(peers)]) == name


def test_power_of_two_never_takes_the_busiest() -> None:
    peers = peers_of(1, 1, 1, 1)
    for at, peer in enumerate(peers):
        peer.state.in_flight = at
    assert shares(PowerOfTwo(), peers) == pytest.approx([1 / 2, 1 / 3, 1 / 6, 0], abs=0.02)


def test_power_of_two_shares_evenly_among_the_idle() -> None:
    assert shares(PowerOfTwo(), peers_of(1, 1, 1)) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_power_of_two_compares_by_weight() -> None:
    peers = peers_of(1, 4)
    peers[0].state.in_flight, peers[1].state.in_flight = 1, 3
    assert shares(PowerOfTwo(), peers, 100) == [0, 1]
    peers[1].state.in_flight = 5
    assert shares(PowerOfTwo(), peers, 100) == [1, 0]
