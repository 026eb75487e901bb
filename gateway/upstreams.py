"""Backends, peers and pools made from a configuration, and what of them outlives it.

Owns `Estate` (peers' states and pools, kept from one configuration to the next) and `Upstreams` (one configuration's
backends and model table, which follow the names of their peers to other addresses). It refuses doors and keys
(`gateway.generation`). An Estate is made once per worker by `gateway.build`, an Upstreams by `gateway.generation` for
each configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from gateway.call import Backend
from gateway.clock import Clock
from gateway.config import schema, urls
from gateway.config.routes import targets_of
from gateway.observe.counters import Measures
from gateway.observe.logs import Log
from gateway.page import Seat
from gateway.places import Place, contents, credentials
from gateway.presets import PRESETS, speech_of
from gateway.routing.balance import BALANCERS, Balancer, Hinted
from gateway.routing.breaker import Rules
from gateway.routing.host import HostLeastConnections, HostLoad
from gateway.routing.load import Loads
from gateway.routing.peer import Peer, PeerState, Standing
from gateway.routing.retry import RetryBudget
from gateway.routing.route import Group, Policy, Rule, Share
from gateway.routing.routes import Routes
from gateway.states import StateMaker
from gateway.upstream import load
from gateway.upstream.dial import Dialler
from gateway.upstream.discovery import Discovery, Source
from gateway.upstream.health import Prober, Terms
from gateway.upstream.http import HttpBackend, Target
from gateway.upstream.litellm import LitellmBackend
from gateway.upstream.load import Scraper
from gateway.upstream.lookup import look_up
from gateway.upstream.mock import MockBackend
from gateway.upstream.pool import Address, Pool
from gateway.upstream.resolver import Name, Resolver
from gateway.upstream.tls import client_context


@dataclass
class Crew:
    """A backend over HTTP, and its peers at present."""

    name: str
    #: The peers that endpoints stand for: the place without an address, the weight, and the name whose addresses are
    #: peers; None where the endpoint is one peer itself.
    endpoints: list[tuple[Place, int, Name | None]]
    http: HttpBackend
    protocol: str
    options: schema.Pool
    health: schema.Health
    load: schema.Load
    #: In the order of the endpoints; one that is listed twice is there twice.
    members: dict[tuple[int, Place], tuple[Peer, Target]] = field(default_factory=dict)
    #: Read by the backend's discovery.
    targets: list[Target] = field(default_factory=list)

    def targets_of_states(self) -> Iterable[tuple[PeerState, Target]]:
        """Each peer once."""
        return {peer.state: target for peer, target in self.members.values()}.items()


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
            on_crash=lambda error: self.log.error("a step of a call raised", error=repr(error)),
            dialler=Dialler(name, address.port) if name is not None else None,
        )

    def take_over(self, upstreams: Upstreams) -> None:
        """*upstreams* are in force from now on."""
        for place, state in self._states.items():
            if upstreams.states.get(place) is not state:
                state.leave()
        for place, pool in self._pools.items():
            if upstreams.pools.get(place) is not pool:
                pool.retire(self._reopened)
                self._retired.append(pool)
        self._states, self._pools = upstreams.states, upstreams.pools
        for place, pool in self._pools.items():
            pool.set_options(upstreams.options[place].max_idle, upstreams.options[place].idle_timeout)
        self.backends = [*(one for one in self.backends if one.busy), *upstreams.backends]
        self._present = upstreams
        self.resolver.keep(upstreams.names, upstreams.refresh)
        self._settle_in()
        self._sort()
        self._watch()

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
        """Peers of a configuration that was not taken over were counted too."""
        self.standing.doubtful = sum(state.doubts for state in self._states.values())

    def _sort(self) -> None:
        self._by_name = {}
        for pool in self.pools:
            self._by_name.setdefault(pool.name, []).append(pool)

    def _watch(self) -> None:
        connections = self.measures.upstream_connections

        def total(name: str, count: Callable[[Pool], int]) -> Callable[[], int]:
            return lambda: sum(count(pool) for pool in self._by_name.get(name, ()))

        for name in {place.backend for place in self._pools}:
            if (name, "idle") not in connections.children:
                connections.watch((name, "idle"), total(name, lambda pool: len(pool.idle)))
                connections.watch((name, "busy"), total(name, lambda pool: pool.busy))
                connections.watch((name, "connecting"), total(name, lambda pool: pool.connecting))

    def healthy(self) -> Iterator[tuple[str, str, bool]]:
        """Each peer's backend and endpoint, and whether the host finds it well."""
        return self._maker.healthy(self._states)

    def told(self) -> Iterator[tuple[str, str, int]]:
        """Each peer's backend and endpoint, and how many requests its server has; only those that told lately."""
        for place, state in self._states.items():
            if (told := self.loads.told(state)) is not None:
                yield place.backend, place.label, told

    @property
    def pools(self) -> list[Pool]:
        """Those of the present configuration, then those that retire."""
        return [*self._pools.values(), *self._retired]

    def sweep(self, now: float) -> None:
        """Act on deadlines that are past; forget the retired that are empty."""
        self._maker.sweep(self._states.values())
        for pool in self.pools:
            pool.sweep(now)
        if not all(pool.all for pool in self._retired):
            self._retired = [pool for pool in self._retired if pool.all]
            self._sort()


class Upstreams:
    """One configuration's backends and the model table over them; nothing is in force before `Estate.take_over`."""

    def __init__(self, config: schema.Config, estate: Estate, former: Routes | None) -> None:
        """*former*: the model table so far; backends that tell their models are not forgotten what they told."""
        self._config = config
        self._estate = estate
        self.backends: list[Backend] = []
        self.states: dict[Place, PeerState] = {}
        self.pools: dict[Place, Pool] = {}
        self.options: dict[Place, schema.Pool] = {}
        #: When circuits open, by the backend's name.
        self.rules: dict[str, Rules] = {}
        #: The names that are asked, by the host that they name, and the seconds between two lookups of each.
        self.names: dict[str, Name] = {}
        self.refresh: dict[str, float] = {}
        self._crews: list[Crew] = []
        self._unasked: list[tuple[schema.Backend, list[Target]]] = []
        groups = [self._group(backend, former) for backend in config.backends if backend.enabled]
        routing = config.routing
        rules = [_rule(route) for route in config.routes]
        self.routes = Routes(groups, routing.default_backend, rules, routing.model_mappings)
        self.discoveries = [self._discovery(backend, targets) for backend, targets in self._unasked]

    def _group(self, backend: schema.Backend, former: Routes | None) -> Group:
        endpoints = [_endpoint(given) for given in backend.endpoints]
        models = backend.models
        self.rules[backend.name] = Rules(backend.breaker.max_failures, int(backend.breaker.reset * 1000))
        self._estate.measures.circuit_open.child(backend.name)
        make = self._tasks if backend.protocol in urls.TASKS else self._http
        peers, told = make(backend, endpoints)
        group = Group(
            backend.name,
            peers,
            self._policy(backend),
            _names(models) if not isinstance(models, str) else {},
            auto=isinstance(models, str),
            passthrough=backend.passthrough,
            speech=speech_of(backend),
        )
        if told:
            group.models = {model: model for model in told}
            group.known = True
        elif group.auto:
            self._remember(group, former)
        return group

    def _remember(self, group: Group, former: Routes | None) -> None:
        """What the same backend told before holds until it is asked again."""
        known = former.groups.get(group.name) if former is not None else None
        if known is None or not (known.auto and known.known):
            return
        if {_url(peer) for peer in known.peers} & {_url(peer) for peer in group.peers}:
            group.models = known.models
            group.known = True

    def _policy(self, backend: schema.Backend) -> Policy:
        timeouts, retry = backend.timeouts, backend.retry
        return Policy(
            self._balancer(backend),
            tries=retry.tries,
            on=(*retry.on, *PRESETS[backend.protocol].busy),
            budget=RetryBudget(retry.budget),
            inject_usage=backend.usage == "inject",
            first_byte=timeouts.first_byte,
            idle=timeouts.idle,
            total=timeouts.total,
            heartbeat=backend.heartbeat,
        )

    def _balancer(self, backend: schema.Backend) -> Balancer:
        if self._estate.seat.workers > 1 and backend.balance == "least_connections":
            return HostLeastConnections(self._estate.host)
        plain = BALANCERS[backend.balance]()
        if backend.load.interval and backend.balance in ("least_connections", "p2c"):
            return Hinted(plain, self._estate.loads, drawn=backend.balance == "p2c")
        return plain

    def _peer(self, by: Backend, place: Place, weight: int) -> Peer:
        state = self.states.get(place) or self._estate.state(place)
        self.states[place] = state
        self._estate.measures.peer_cooldowns.child(place.backend, place.label)
        return Peer(by, place.label, weight, state)

    def _tasks(self, backend: schema.Backend, endpoints: list[schema.Endpoint]) -> tuple[list[Peer], tuple[str, ...]]:
        """Peers that tasks of this process are."""
        addresses = [endpoint.url for endpoint in endpoints]
        made: MockBackend | LitellmBackend
        if backend.protocol == "mock":
            made = MockBackend(backend.name, addresses)
        else:
            made = LitellmBackend(backend.name, addresses, str(backend.auth.token))
        self.backends.append(made)
        lines = credentials(backend.auth)
        peers = [
            self._peer(made, Place(backend.name, endpoint.url, backend.tls, lines), endpoint.weight)
            for endpoint in endpoints
        ]
        return peers, made.models if isinstance(backend.models, str) else ()

    def _http(self, backend: schema.Backend, endpoints: list[schema.Endpoint]) -> tuple[list[Peer], tuple[str, ...]]:
        lines = speech_of(backend).lines
        http = HttpBackend(backend.name, backend.timeouts.connect, self._config.auth.query_param, lines)
        self.backends.append(http)
        secret, files = credentials(backend.auth), contents(backend.tls)
        listed = []
        for endpoint in endpoints:
            name = self._name(urls.parse(endpoint.url).host, backend.dns.refresh)
            place = Place(backend.name, endpoint.url, backend.tls, secret, files)
            listed.append((place, endpoint.weight, name if backend.dns.peer_per == "address" else None))
        crew = Crew(backend.name, listed, http, backend.protocol, backend.pool, backend.health, backend.load)
        self._crews.append(crew)
        peers = self._muster(crew)
        if isinstance(backend.models, str):
            self._unasked.append((backend, crew.targets))
        return peers, ()

    def _name(self, host: str, refresh: float) -> Name | None:
        """The Name of *host*, asked as often as the most eager of its backends wants it; None for an address."""
        if urls.is_address(host):
            return None
        host = host.lower()
        self.names[host] = name = self.names.get(host) or self._estate.resolver.name(host)
        self.refresh[host] = min(refresh, self.refresh.get(host, refresh))
        return name

    def checked(self) -> Iterator[tuple[PeerState, Target, Terms]]:
        """The peers whose health is checked, each once."""
        for crew in self._crews:
            if crew.health.interval:
                terms = _terms(crew)
                for state, target in crew.targets_of_states():
                    yield state, target, terms

    def scraped(self) -> Iterator[tuple[PeerState, Target, load.Terms]]:
        """The peers whose servers are asked for their load, each once."""
        for crew in self._crews:
            if crew.load.interval:
                path = (crew.load.path or "/metrics").encode("ascii")
                terms = load.Terms(path, crew.load.interval, crew.load.timeout)
                for state, target in crew.targets_of_states():
                    if state.column >= 0:
                        yield state, target, terms

    def readdress(self, name: Name) -> None:
        """*name* has other addresses: where they are peers, they join and leave."""
        for crew in self._crews:
            if any(one is name for _, _, one in crew.endpoints):
                self.routes.regroup(crew.name, self._muster(crew))
                self._estate.on_reroute()

    def _muster(self, crew: Crew) -> list[Peer]:
        """The peers of *crew* as names now stand for them. Those that stay are the same ones.

        A name without an answer is a peer itself until there is one: its calls wait for that, each in its own time.
        What is raised on the way leaves the peers as they were.
        """
        former = dict(crew.members)
        members: dict[tuple[int, Place], tuple[Peer, Target]] = {}
        joined = []
        for at, (place, weight, name) in enumerate(crew.endpoints):
            addresses = name.addresses if name is not None else ()
            for present in [place._replace(address=address) for address in addresses] or [place]:
                known = former.pop((at, present), None)
                if known is None:
                    joined.append(known := self._join(crew, present, weight))
                members[at, present] = known
        crew.members = members
        for peer, target in joined:
            crew.http.add(peer, target)
        for (_, gone), (peer, _) in former.items():
            crew.http.remove(peer)
            self._estate.dismiss(gone)
            if gone.address:
                self.options.pop(gone, None)
        crew.targets[:] = [target for _, target in crew.members.values()]
        return [peer for peer, _ in crew.members.values()]

    def _join(self, crew: Crew, place: Place, weight: int) -> tuple[Peer, Target]:
        return self._peer(crew.http, place, weight), self._target(place, crew.options, crew.http.lines)

    def _target(self, place: Place, options: schema.Pool, own_lines: bytes) -> Target:
        url = urls.parse(place.url)
        host = f"[{url.host}]" if ":" in url.host else url.host
        default = 443 if url.scheme == "https" else 80
        host = host if url.port == default else f"{host}:{url.port}"
        return Target(self._pool(place, url, options), host, url.path, place.credentials, own_lines)

    def _pool(self, place: Place, url: urls.Url, options: schema.Pool) -> Pool:
        self.options[place] = options
        # TLS settings are made once: the pool of the name itself, used or not, keeps them for its addresses.
        kin = self._pool(place._replace(address=""), url, options) if place.address else None
        pool = self.pools.get(place) or self._estate.known_pool(place)
        if pool is None:
            tls = kin.address.tls if kin is not None else client_context(place.tls) if url.scheme == "https" else None
            name = self.names.get(url.host.lower()) if kin is None else None
            pool = self._estate.pool(place, Address(place.address or url.host, url.port, tls, url.host), options, name)
        self.pools[place] = pool
        return pool

    def _discovery(self, backend: schema.Backend, targets: list[Target]) -> Discovery:
        def learn(models: tuple[str, ...]) -> None:
            self.routes.learn(backend.name, models)
            self._estate.on_reroute()

        preset = PRESETS[backend.protocol]
        source = Source(preset.models.encode("ascii"), preset.parse_models)
        return Discovery(backend.name, targets, source, backend.models_refresh, learn, self._estate.log)


def _endpoint(given: str | schema.Endpoint) -> schema.Endpoint:
    return schema.Endpoint(given) if isinstance(given, str) else given


def _url(peer: Peer) -> str:
    return peer.url.partition(" ")[0]


def _names(models: tuple[str | dict[str, str], ...]) -> dict[str, str]:
    """Client's name -> upstream's name."""
    names: dict[str, str] = {}
    for model in models:
        names.update({model: model} if isinstance(model, str) else model)
    return names


def _terms(crew: Crew) -> Terms:
    health = crew.health
    path = health.path or PRESETS[crew.protocol].health
    bounds = (health.unhealthy_after, health.healthy_after)
    return Terms(path.encode("ascii"), bool(health.path), health.interval, health.timeout, *bounds)


def _rule(route: schema.Route) -> Rule:
    """What [[routes]] says; of canaries the weights are percents, and the first target has the rest."""
    shares = [Share(target.backend, target.weight) for target in targets_of(route)]
    if route.strategy == "canary":
        shares[0] = Share(shares[0].backend, 100 - sum(share.weight for share in shares[1:]))
    return Rule(route.model, tuple(shares), route.fallbacks, route.lenient)
