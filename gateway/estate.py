"""What of peers outlives a configuration: their states and pools.

Owns `Estate`, which keeps both from one configuration to the next, and who looks after them: health checks, load hints,
names. It refuses which peers there are (`gateway.upstreams`). Made once per worker by `gateway.build`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from gateway.call import Backend
from gateway.clock import Clock
from gateway.config import schema
from gateway.observe.counters import Measures
from gateway.observe.logs import Log
from gateway.page import Seat
from gateway.places import Place
from gateway.routing.host import HostLoad
from gateway.routing.load import Loads
from gateway.routing.peer import PeerState, Standing
from gateway.states import StateMaker
from gateway.upstream.dial import Dialler
from gateway.upstream.health import Prober
from gateway.upstream.load import Scraper
from gateway.upstream.lookup import look_up
from gateway.upstream.pool import Address, Pool
from gateway.upstream.resolver import Name, Resolver

if TYPE_CHECKING:
    from gateway.upstreams import Upstreams

#: What gauges say of connections, by its label.
_COUNTS: Final[dict[str, Callable[[Pool], int]]] = {
    "idle": lambda pool: len(pool.idle),
    "busy": lambda pool: pool.busy,
    "connecting": lambda pool: pool.connecting,
}


class Estate:
    """Peers' states and pools. A new configuration takes over those that it names too, and the others retire."""

    def __init__(self, measures: Measures, clock: Clock, log: Log, seat: Seat) -> None:
        # process
        self.measures = measures
        self.clock = clock
        self.log = log
        self.seat = seat
        self.standing = Standing()
        self.loads = Loads(seat.page)
        self.host = HostLoad(seat, self.loads)
        self._maker = StateMaker(self.standing, measures, log, seat)
        self.prober = Prober(seat, clock)
        self.scraper = Scraper(seat, clock, self.loads)
        self.resolver = Resolver(look_up, measures.dns_lookups, clock, log, self._readdress)
        # by the present configuration
        self._present: Upstreams | None = None
        self._states: dict[Place, PeerState] = {}
        self._pools: dict[Place, Pool] = {}
        #: No longer configured, and not yet empty.
        self._retired: list[Pool] = []
        #: Both, by their backend's name: what its gauges add up, at each sweep.
        self._by_name: dict[str, list[Pool]] = {}
        #: The states of connections that are counted as "other" where there are too many backends.
        self._others: set[str] = set()
        #: Called when there are other routes than before, though the configuration is the same.
        self.on_reroute: Callable[[], None] = lambda: None
        #: Every backend that may still have a task, of former configurations too.
        self.backends: list[Backend] = []

    def state(self, place: Place) -> PeerState:
        """The state of the peer at *place*, which is made where it is a new one."""
        return self._states.get(place) or self._maker.make(place)

    def known_pool(self, place: Place) -> Pool | None:
        return self._pools.get(place)

    def pool(self, place: Place, address: Address, options: schema.Pool, name: Name | None) -> Pool:
        """A new pool for the peer at *place*; *name* tells its addresses where its host is none."""
        return Pool(
            place.backend,
            address,
            max_idle=options.max_idle,
            idle_timeout=options.idle_timeout,
            clock=self.clock,
            on_crash=self.crashed,
            dialler=Dialler(name, address.port) if name is not None else None,
        )

    def crashed(self, error: Exception) -> None:
        """A step of a call raised *error*: a bug of ours."""
        self.log.raised("a step of a call raised", error)

    def take_over(self, upstreams: Upstreams) -> None:
        """*upstreams* are in force from now on."""
        for place, state in self._states.items():
            if upstreams.states.get(place) is not state:
                state.leave()
        for place, pool in self._pools.items():
            if upstreams.pools.get(place) is not pool:
                pool.retire(self._reopened)
                self._retired.append(pool)
        former = {place.backend for place in self._pools}
        self._states, self._pools = upstreams.states, upstreams.pools
        for place, pool in self._pools.items():
            pool.set_options(upstreams.options[place].max_idle, upstreams.options[place].idle_timeout)
        self.backends = [*(one for one in self.backends if one.busy), *upstreams.backends]
        self._present = upstreams
        self.resolver.keep(upstreams.names, upstreams.refresh)
        self._settle_in()
        self._sort()
        self._watch(former)

    def _readdress(self, name: Name) -> None:
        """*name* has other addresses than before."""
        for pool in self.pools:
            pool.readdress(name)
        if self._present is not None:
            self._present.readdress(name)
            self._settle_in()
            self._sort()

    def dismiss(self, place: Place) -> None:
        """Nobody begins a call at *place* any more."""
        state = self._states.pop(place, None)
        if state is not None:
            state.leave()
        pool = self._pools.pop(place, None) if place.address else None
        if pool is not None:
            pool.retire(self._reopened)
            self._retired.append(pool)

    def _reopened(self, pool: Pool) -> None:
        """A call of a former configuration is tried again at a peer that was forgotten, or is about to be."""
        if pool not in self._retired:
            self._retired.append(pool)
            self._sort()

    def _settle_in(self) -> None:
        """Circuits are those of the peers there are now, by the present configuration's rules."""
        assert self._present is not None
        for place, state in self._states.items():
            state.circuit.rules = self._present.rules[place.backend]
            state.circuit.take()
            state.look()
        self.recount()
        self.prober.take_over(self._present.checked())
        self.scraper.take_over(self._present.scraped())

    def recount(self) -> None:
        """Peers of a configuration that was not taken over were counted too, and have columns."""
        self._maker.keep(self._states.values())
        self.standing.doubtful = sum(state.doubts for state in self._states.values())

    def _sort(self) -> None:
        self._by_name = {}
        for pool in self.pools:
            self._by_name.setdefault(pool.name, []).append(pool)

    def _watch(self, former: set[str]) -> None:
        """Let gauges count the connections of backends that are not among the *former* ones."""
        for name in {place.backend for place in self._pools} - former:
            for state, count in _COUNTS.items():
                self._watch_state(name, state, count)

    def _watch_state(self, name: str, state: str, count: Callable[[Pool], int]) -> None:
        gauges = self.measures.upstream_connections
        if (name, state) in gauges.children:
            return
        gauge = gauges.child(name, state)
        if (name, state) in gauges.children:
            gauge.watch(lambda: sum(count(pool) for pool in self._by_name.get(name, ())))
        elif state not in self._others:  # one look for all that have no gauge of their own, whoever they are by then
            self._others.add(state)
            gauge.watch(lambda: sum(count(pool) for pool in self.pools if (pool.name, state) not in gauges.children))

    def healthy(self) -> Iterator[tuple[str, str, bool]]:
        """Each peer's backend and endpoint, and whether the host finds it well."""
        return self._maker.healthy(self._states)

    def told(self) -> Iterator[tuple[str, str, int]]:
        """Each peer's backend and endpoint, and how many requests its server has; only those that told lately."""
        for place, state in self._states.items():
            if (told := self.loads.told(state)) is not None:
                yield place.backend, place.label, told

    @property
    def unshared(self) -> int:
        """Peers that this worker balances and judges alone."""
        return self._maker.waiting

    @property
    def pools(self) -> list[Pool]:
        """Those of the present configuration, then those that retire."""
        return [*self._pools.values(), *self._retired]

    async def close(self) -> None:
        """End what is asked of peers, what still runs at them, and every connection to them."""
        await self.prober.close()
        await self.scraper.close()
        for backend in self.backends:
            await backend.close()
        for pool in self.pools:
            pool.close()

    def sweep(self, now: float) -> None:
        """Act on deadlines that are past; forget the retired that are empty."""
        if self._maker.sweep(self._states.values(), now):
            self._settle_in()
        for pool in self.pools:
            pool.sweep(now)
        if not all(pool.all for pool in self._retired):
            self._retired = [pool for pool in self._retired if pool.all]
            self._sort()
