"""Backends, peers and pools made from a configuration, and what of them outlives it.

Owns `Estate` (peers' states and pools, kept from one configuration to the next) and `Upstreams` (one configuration's
backends and model table). It refuses doors and keys (`gateway.generation`). An Estate is made once per worker by
`gateway.build`, an Upstreams by `gateway.generation` for each configuration.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import NamedTuple

from gateway.call import Backend
from gateway.clock import Clock
from gateway.config import schema, urls
from gateway.observe.counters import Measures
from gateway.observe.logs import Log
from gateway.page import Seat
from gateway.routing.balance import BALANCERS, Balancer
from gateway.routing.host import HostLeastConnections, HostLoad, SharedPeerState
from gateway.routing.peer import Peer, PeerState, Standing
from gateway.routing.routes import Group, Policy, Routes
from gateway.upstream.discovery import Discovery
from gateway.upstream.http import HttpBackend, Target
from gateway.upstream.mock import MockBackend
from gateway.upstream.pool import Address, Pool
from gateway.upstream.tls import client_context


class FileMark(NamedTuple):
    """Tells a file from one that took its place. Nanoseconds, bytes."""

    changed: int
    size: int
    inode: int


class Place(NamedTuple):
    """What makes a peer the same peer: two connections may serve the same calls only where all of it is equal."""

    backend: str
    url: str
    tls: schema.UpstreamTls
    credentials: bytes
    #: Which files those of *tls* are: a renewed certificate has the path of the former one.
    files: tuple[FileMark, ...] = ()


class Estate:
    """Peers' states and pools. A new configuration takes over those that it names too, and the others retire."""

    def __init__(self, measures: Measures, clock: Clock, log: Log, seat: Seat) -> None:
        # process
        self.measures = measures
        self.clock = clock
        self.log = log
        self.seat = seat
        self.standing = Standing()
        self.host = HostLoad(seat)
        # by the present configuration
        self._states: dict[Place, PeerState] = {}
        self._pools: dict[Place, Pool] = {}
        #: No longer configured, and not yet empty.
        self._retired: list[Pool] = []
        #: Both, by their backend's name: what its gauges add up, at each sweep.
        self._by_name: dict[str, list[Pool]] = {}
        #: Every backend that may still have a task, of former configurations too.
        self.backends: list[Backend] = []

    def state(self, place: Place) -> PeerState:
        """The state of the peer at *place*: where there are several workers, one whose calls in flight all see."""
        known = self._states.get(place)
        if known is not None:
            return known
        if self.seat.workers > 1:
            column = self.seat.page.peers.number(f"{place.backend}\0{place.url}".encode())
            if column is not None:
                return SharedPeerState(self.standing, self.seat.row, column)
            self.log.warning("a peer's load is not shared between workers: too many peers", endpoint=place.url)
        return PeerState(self.standing)

    def pool(self, place: Place, url: urls.Url, options: schema.Pool) -> Pool:
        """The pool of the peer at *place*."""
        known = self._pools.get(place)
        if known is not None:
            return known
        tls = place.tls
        context = None
        if url.scheme == "https":
            context = client_context(ca_file=tls.ca_file, cert=tls.cert, key=tls.key, verify=tls.verify)
        return Pool(
            place.backend,
            Address(url.host, url.port, context, url.host),
            max_idle=options.max_idle,
            idle_timeout=options.idle_timeout,
            clock=self.clock,
            on_crash=lambda error: self.log.error("a step of a call raised", error=repr(error)),
        )

    def take_over(self, upstreams: Upstreams) -> None:
        """*upstreams* are in force from now on."""
        for place, state in self._states.items():
            if upstreams.states.get(place) is not state:
                state.leave()
        for place, pool in self._pools.items():
            if upstreams.pools.get(place) is not pool:
                pool.retire()
                self._retired.append(pool)
        self._states, self._pools = upstreams.states, upstreams.pools
        for place, pool in self._pools.items():
            pool.set_options(upstreams.options[place].max_idle, upstreams.options[place].idle_timeout)
        self.backends = [*(one for one in self.backends if one.busy), *upstreams.backends]
        self.recount()
        self._sort()
        self._watch()

    def recount(self) -> None:
        """Peers of a configuration that was not taken over were counted too."""
        self.standing.doubtful = sum(not state.proven for state in self._states.values())

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

    @property
    def pools(self) -> list[Pool]:
        """Those of the present configuration, then those that retire."""
        return [*self._pools.values(), *self._retired]

    def sweep(self, now: float) -> None:
        """Act on deadlines that are past; forget the retired that are empty."""
        for state in self._states.values():
            state.heard = False
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
        self._former = former
        self.backends: list[Backend] = []
        self.states: dict[Place, PeerState] = {}
        self.pools: dict[Place, Pool] = {}
        self.options: dict[Place, schema.Pool] = {}
        self._unasked: list[tuple[schema.Backend, list[Target]]] = []
        groups = [self._group(backend) for backend in config.backends if backend.enabled]
        self.routes = Routes(groups, config.routing.default_backend)
        self.discoveries = [self._discovery(backend, targets) for backend, targets in self._unasked]

    def _group(self, backend: schema.Backend) -> Group:
        endpoints = [_endpoint(given) for given in backend.endpoints]
        models = backend.models
        peers, told = self._mock(backend, endpoints) if backend.protocol == "mock" else self._http(backend, endpoints)
        for peer in peers:
            self._estate.measures.peer_cooldowns.child(backend.name, peer.url)
        group = Group(
            backend.name,
            peers,
            _policy(backend, self._balancer(backend)),
            _names(models) if not isinstance(models, str) else {},
            auto=isinstance(models, str),
            passthrough=backend.passthrough,
        )
        if told:
            group.models = {model: model for model in told}
            group.known = True
        elif group.auto:
            self._remember(group)
        return group

    def _remember(self, group: Group) -> None:
        """What the same backend told before holds until it is asked again."""
        known = self._former.groups.get(group.name) if self._former is not None else None
        if known is None or not (known.auto and known.known):
            return
        if {peer.url for peer in known.peers} & {peer.url for peer in group.peers}:
            group.models = known.models
            group.known = True

    def _balancer(self, backend: schema.Backend) -> Balancer:
        if self._estate.seat.workers > 1 and backend.balance == "least_connections":
            return HostLeastConnections(self._estate.host)
        return BALANCERS[backend.balance]()

    def _peer(self, by: Backend, place: Place, weight: int) -> Peer:
        state = self.states.get(place) or self._estate.state(place)
        self.states[place] = state
        return Peer(by, place.url, weight, state)

    def _mock(self, backend: schema.Backend, endpoints: list[schema.Endpoint]) -> tuple[list[Peer], tuple[str, ...]]:
        mock = MockBackend(backend.name, [endpoint.url for endpoint in endpoints])
        self.backends.append(mock)
        peers = [
            self._peer(mock, Place(backend.name, endpoint.url, backend.tls, b""), endpoint.weight)
            for endpoint in endpoints
        ]
        return peers, mock.models if isinstance(backend.models, str) else ()

    def _http(self, backend: schema.Backend, endpoints: list[schema.Endpoint]) -> tuple[list[Peer], tuple[str, ...]]:
        http = HttpBackend(backend.name, backend.timeouts.connect, self._config.auth.query_param)
        self.backends.append(http)
        credentials = _credentials(backend.auth)
        files = _files(backend.tls)
        peers = []
        targets = []
        for endpoint in endpoints:
            place = Place(backend.name, endpoint.url, backend.tls, credentials, files)
            peer = self._peer(http, place, endpoint.weight)
            target = self._target(place, backend.pool)
            http.add(peer, target)
            peers.append(peer)
            targets.append(target)
        if isinstance(backend.models, str):
            self._unasked.append((backend, targets))
        return peers, ()

    def _target(self, place: Place, options: schema.Pool) -> Target:
        url = urls.parse(place.url)
        self.options[place] = options
        pool = self.pools.get(place) or self._estate.pool(place, url, options)
        self.pools[place] = pool
        host = f"[{url.host}]" if ":" in url.host else url.host
        default = 443 if url.scheme == "https" else 80
        return Target(pool, host if url.port == default else f"{host}:{url.port}", url.path, place.credentials)

    def _discovery(self, backend: schema.Backend, targets: list[Target]) -> Discovery:
        def learn(models: tuple[str, ...]) -> None:
            self.routes.learn(backend.name, models)

        return Discovery(backend.name, targets, backend.models_refresh, learn, self._estate.log)


def _endpoint(given: str | schema.Endpoint) -> schema.Endpoint:
    return schema.Endpoint(given) if isinstance(given, str) else given


def _names(models: tuple[str | dict[str, str], ...]) -> dict[str, str]:
    """Client's name -> upstream's name."""
    names: dict[str, str] = {}
    for model in models:
        names.update({model: model} if isinstance(model, str) else model)
    return names


def _policy(backend: schema.Backend, balancer: Balancer) -> Policy:
    timeouts = backend.timeouts
    return Policy(
        balancer,
        tries=backend.retry.tries,
        inject_usage=backend.usage == "inject",
        first_byte=timeouts.first_byte,
        idle=timeouts.idle,
        total=timeouts.total,
    )


def _files(tls: schema.UpstreamTls) -> tuple[FileMark, ...]:
    """The marks of the files that are named. Raises OSError."""
    found = [os.stat(file) for file in (tls.ca_file, tls.cert, tls.key) if file]
    return tuple(FileMark(one.st_mtime_ns, one.st_size, one.st_ino) for one in found)


def _credentials(auth: schema.UpstreamAuth) -> bytes:
    """The header line that a backend is called with."""
    if auth.type == "bearer":
        line = f"authorization: Bearer {auth.token}"
    elif auth.type == "header":
        line = f"{auth.header_name.lower()}: {auth.token}"
    elif auth.type == "basic":
        pair = f"{auth.username}:{auth.token}".encode()
        line = f"authorization: Basic {base64.b64encode(pair).decode('ascii')}"
    else:
        return b""
    return line.encode("latin-1") + b"\r\n"
