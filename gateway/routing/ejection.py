"""Which peers may have a call where some of them are broken, busy, or only just back.

Owns `admitted`. It refuses the circuits (`circuits`) and the balance among those that it lets through (`balance`, which
calls it, and only while some peer is out of the ordinary).

Circuits take at most half of a backend's peers out, at least one: those that opened first. The others stay in use even
if they fail too (what is left must not be overrun, and a fleet that fails for a common reason is better tried than
not), each drawn at random for its fair share and no more: who fails at once is never busy, and would be everybody's
choice. So of several peers some are always tried, and the first usable answer closes a circuit; of those that are out,
one call at a time, on the whole host, is the probe. Only a backend with a single peer can have none that may be used:
its calls fail at once, or go to the route's fallbacks, until the probe is due.

Who asked to be left alone (429 or 503 with Retry-After) is, unless all have. Who is back gets its share bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import random

from gateway.errors import Fault, Kind, Retry, Side
from gateway.routing.breaker import OPENED_AT
from gateway.routing.circuits import now_ms
from gateway.routing.peer import Peer


def admitted(peers: Sequence[Peer], left: Sequence[Peer], who: object) -> Sequence[Peer]:
    """Those of *left*, which are of a route's *peers*, that the call *who* may go to; none, where all are out.

    Where a probe is due, the call is it, and its peer stands alone. Where all of *left* are out, it may be one that is
    not *left* any more.
    """
    now = now_ms()
    for peer in left:
        if peer.state.out and peer.state.circuit.claim(now, who):
            return (peer,)
    ejected = _ejected(peers)
    kept = [peer for peer in left if peer not in ejected] or [peer for peer in peers if peer not in ejected]
    kept = [peer for peer in kept if not peer.state.circuit.is_busy(now)] or kept
    drawn = [peer for peer in kept if not peer.state.out or random() < _share(peer, len(kept), now)]
    return drawn or kept


def no_peer(peers: Sequence[Peer]) -> Fault:
    """Why a call cannot be made: all *peers* are out. It says when the first of them is tried again."""
    now = now_ms()
    wait = min(peer.state.circuit.left(now) for peer in peers) / 1000
    text = "No upstream of this model is healthy."
    return Fault(Side.UPSTREAM, Kind.NO_PEER, text, Retry.UNSENT, wait=wait, is_final=True)


def _share(peer: Peer, among: int, now: int) -> float:
    circuit = peer.state.circuit
    return 1 / among if circuit.is_open else circuit.share(now)


def _ejected(peers: Sequence[Peer]) -> list[Peer]:
    """Those that are out: of each backend at most half, and at least one."""
    open_ones: dict[str, list[Peer]] = {}
    for peer in peers:
        if peer.state.out and peer.state.circuit.is_open:
            open_ones.setdefault(peer.backend.name, []).append(peer)
    found: list[Peer] = []
    for name, broken in open_ones.items():
        limit = max(1, sum(peer.backend.name == name for peer in peers) // 2)
        found += sorted(broken, key=lambda peer: peer.state.circuit.cell(OPENED_AT))[:limit]
    return found
