"""The peers of one HTTP backend, as its endpoints and their names now stand for them.

Owns who is one of them. It refuses to make them (`gateway.upstreams`, which makes a Roster for each such backend), and
what is observed of them (`gateway.estate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway.config import schema
from gateway.places import Place
from gateway.presets import PRESETS
from gateway.routing.peer import Peer, PeerState
from gateway.upstream import health, load
from gateway.upstream.http import HttpBackend, Target
from gateway.upstream.resolver import Name


@dataclass
class Roster:
    """A backend over HTTP, and its peers at present."""

    backend: schema.Backend
    #: The peers that endpoints stand for: the place without an address, the weight, and the name whose addresses are
    #: peers; None where the endpoint is one peer itself.
    endpoints: list[tuple[Place, int, Name | None]]
    http: HttpBackend
    #: In the order of the endpoints; one that is listed twice is there twice.
    members: dict[tuple[int, Place], tuple[Peer, Target]] = field(default_factory=dict)
    #: Read by the backend's discovery.
    targets: list[Target] = field(default_factory=list)

    @property
    def peers(self) -> list[Peer]:
        return [peer for peer, _ in self.members.values()]

    def has(self, name: Name) -> bool:
        """Whether the addresses of *name* are peers."""
        return any(one is name for _, _, one in self.endpoints)

    def muster(self, make: Callable[[Place, int], tuple[Peer, Target]]) -> list[Place]:
        """Follow the names: those who stay are the same peers, *make* makes who joins, and who left is returned.

        A name without an answer is a peer itself until there is one: its calls wait for that, each in its own time.
        What is raised on the way leaves the peers as they were.
        """
        former = dict(self.members)
        members: dict[tuple[int, Place], tuple[Peer, Target]] = {}
        for at, (place, weight, name) in enumerate(self.endpoints):
            addresses = name.addresses if name is not None else ()
            for present in [place._replace(address=address) for address in addresses] or [place]:
                known = former.pop((at, present), None)
                members[at, present] = make(present, weight) if known is None else known
        self.members = members
        self.targets[:] = [target for _, target in members.values()]
        return [place for _, place in former]

    def states(self) -> Iterable[tuple[PeerState, Target]]:
        """Each peer once."""
        return {peer.state: target for peer, target in self.members.values()}.items()

    @property
    def health_terms(self) -> health.Terms | None:
        """How its peers are asked whether they are well; None: they are not."""
        given = self.backend.health
        if not given.interval:
            return None
        path = given.path or PRESETS[self.backend.protocol].health
        bounds = (given.unhealthy_after, given.healthy_after)
        return health.Terms(path.encode("ascii"), bool(given.path), given.interval, given.timeout, *bounds)

    @property
    def load_terms(self) -> load.Terms | None:
        """How its peers' servers are asked for their load; None: they are not."""
        given = self.backend.load
        if not given.interval:
            return None
        return load.Terms((given.path or "/metrics").encode("ascii"), given.interval, given.timeout)
