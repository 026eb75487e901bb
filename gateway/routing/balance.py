"""Who of the eligible peers is picked.

Owns `eligible` and the balancers. It refuses to count calls (`PeerState` does) and to know connections. A Balancer is
made for each backend by `gateway.upstreams`.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import random, sample
from typing import Final, Protocol

from gateway.routing.ejection import admitted
from gateway.routing.load import Loads
from gateway.routing.peer import Peer

_INFINITE: Final = float("inf")


class Balancer(Protocol):
    """The seam: one method."""

    def pick(self, peers: Sequence[Peer]) -> Peer:
        """One of *peers*, which is not empty and holds only peers that may be used."""


def eligible(peers: Sequence[Peer], now: float, tried: Sequence[Peer] = (), who: object = None) -> Sequence[Peer]:
    """The peers worth trying by the call *who*: not tried by it, not cooling down; all where nothing else is left.

    Circuits come first (`ejection.admitted`): only they may leave none.
    """
    left = [peer for peer in peers if peer not in tried] or peers if tried else peers
    if any(peer.state.out for peer in peers):
        left = admitted(peers, left, who)
        if len(left) < 2:
            return left
    up = [peer for peer in left if peer.state.proven or now >= peer.state.retry_at]
    return up or left


class LeastConnections:
    """The fewest calls in flight for its weight; ties at random, so that idle peers share evenly."""

    def pick(self, peers: Sequence[Peer]) -> Peer:
        least = _INFINITE
        for peer in peers:
            load = peer.state.in_flight / peer.weight
            if load < least:
                least = load
                best = peer
                ties = 1
            elif load == least:
                ties += 1
                if random() * ties < 1.0:  # reservoir sampling: each of the tied is as likely
                    best = peer
        return best


class RoundRobin:
    """Smooth weighted round robin, as nginx does it: weights 5, 1, 1 give a a b a c a a."""

    def pick(self, peers: Sequence[Peer]) -> Peer:
        total = 0
        best = peers[0]
        for peer in peers:
            peer.state.turn += peer.weight
            total += peer.weight
            if peer.state.turn > best.state.turn:
                best = peer
        best.state.turn -= total
        return best


class Random:
    """At random, by weight."""

    def pick(self, peers: Sequence[Peer]) -> Peer:
        left = random() * sum(peer.weight for peer in peers)
        for peer in peers:
            left -= peer.weight
            if left < 0:
                return peer
        return peers[-1]


class PowerOfTwo:
    """The less busy of two drawn at random: nearly as even as least connections, blind to no peer for long."""

    def pick(self, peers: Sequence[Peer]) -> Peer:
        if len(peers) == 1:
            return peers[0]
        first, second = sample(peers, 2)
        a = first.state.in_flight * second.weight
        b = second.state.in_flight * first.weight
        return first if a <= b else second


class Hinted:
    """As *plain* does it, until servers tell of others' requests: then these count as calls in flight.

    Of all peers, or of two *drawn* at random. Only backends whose servers are asked have one, so the others do not pay.
    """

    def __init__(self, plain: Balancer, loads: Loads, *, drawn: bool) -> None:
        self._plain = plain
        self._loads = loads
        self._drawn = drawn

    def pick(self, peers: Sequence[Peer]) -> Peer:
        if not self._loads.live:
            return self._plain.pick(peers)
        if self._drawn and len(peers) > 2:
            peers = sample(peers, 2)
        return min(peers, key=_load)


def _load(peer: Peer) -> tuple[float, float]:
    """For its weight; ties at random."""
    state = peer.state
    return (state.in_flight + state.beyond) / peer.weight, random()


#: The TOML word -> the class; read by `gateway.upstreams`.
BALANCERS: Final[dict[str, type[Balancer]]] = {
    "least_connections": LeastConnections,
    "round_robin": RoundRobin,
    "weighted": RoundRobin,
    "random": Random,
    "p2c": PowerOfTwo,
}
