"""Backends, peers and pools made from a configuration, and the model table over them.

Owns `Upstreams`, which follows the names of its peers to other addresses. It refuses what outlives a configuration
(`gateway.estate`), which peers a name stands for (`gateway.roster`), and doors and keys (`gateway.generation`, which
makes an Upstreams for each configuration).
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.call import Backend
from gateway.config import schema, urls
from gateway.config.routes import targets_of
from gateway.estate import Estate
from gateway.page import NO_COLUMN
from gateway.places import Place, contents, credentials
from gateway.presets import PRESETS, speech_of
from gateway.roster import Roster
from gateway.routing.balance import BALANCERS, Balancer, Hinted
from gateway.routing.breaker import Rules
from gateway.routing.host import HostLeastConnections
from gateway.routing.peer import Peer, PeerState
from gateway.routing.retry import RetryBudget
from gateway.routing.route import Group, Policy, Rule, Share
from gateway.routing.routes import Routes
from gateway.upstream import health, load
from gateway.upstream.discovery import Discovery, Source
from gateway.upstream.http import HttpBackend, Target
from gateway.upstream.litellm import LitellmBackend
from gateway.upstream.mock import MockBackend
from gateway.upstream.pool import Address, Pool
from gateway.upstream.resolver import Name
from gateway.upstream.tls import client_context


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
        self._rosters: list[Roster] = []
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

    def _peer(self, by: Backend, place: Place, weight: int, target: Target | None = None) -> Peer:
        state = self.states.get(place) or self._estate.state(place)
        self.states[place] = state
        self._estate.measures.peer_cooldowns.child(place.backend, place.label)
        return Peer(by, place.label, weight, state, target)

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
        roster = Roster(backend, listed, http)
        self._rosters.append(roster)
        peers = self._muster(roster)
        if isinstance(backend.models, str):
            self._unasked.append((backend, roster.targets))
        return peers, ()

    def _name(self, host: str, refresh: float) -> Name | None:
        """The Name of *host*, asked as often as the most eager of its backends wants it; None for an address."""
        if urls.is_address(host):
            return None
        host = host.lower()
        self.names[host] = name = self.names.get(host) or self._estate.resolver.name(host)
        self.refresh[host] = min(refresh, self.refresh.get(host, refresh))
        return name

    def checked(self) -> Iterator[tuple[PeerState, Target, health.Terms]]:
        """The peers whose health is checked, each once."""
        for roster in self._rosters:
            if (terms := roster.health_terms) is not None:
                for state, target in roster.states():
                    yield state, target, terms

    def scraped(self) -> Iterator[tuple[PeerState, Target, load.Terms]]:
        """The peers whose servers are asked for their load, each once."""
        for roster in self._rosters:
            if (terms := roster.load_terms) is not None:
                for state, target in roster.states():
                    if state.column != NO_COLUMN:
                        yield state, target, terms

    def readdress(self, name: Name) -> None:
        """*name* has other addresses: where they are peers, they join and leave."""
        for roster in self._rosters:
            if roster.has(name):
                self.routes.regroup(roster.backend.name, self._muster(roster))
                self._estate.on_reroute()

    def _muster(self, roster: Roster) -> list[Peer]:
        """The peers of *roster* as names now stand for them."""
        http, options = roster.http, roster.backend.pool

        def join(place: Place, weight: int) -> tuple[Peer, Target]:
            target = self._target(place, options, http.lines)
            return self._peer(http, place, weight, target), target

        for gone in roster.muster(join):
            self._estate.dismiss(gone)
            if gone.address:
                self.options.pop(gone, None)
        return roster.peers

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


def _rule(route: schema.Route) -> Rule:
    """What [[routes]] says; of canaries the weights are percents, and the first target has the rest."""
    shares = [Share(target.backend, target.weight) for target in targets_of(route)]
    if route.strategy == "canary":
        shares[0] = Share(shares[0].backend, 100 - sum(share.weight for share in shares[1:]))
    return Rule(route.model, tuple(shares), route.fallbacks, route.lenient)
