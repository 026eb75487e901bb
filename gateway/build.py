"""The composition root: a `Config` made into live objects.

Owns the wiring, and nothing that happens afterwards. The only module that sees Config and every class. Called by
`gateway.worker`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final

from gateway import __version__
from gateway.admin.health import Health
from gateway.admin.metrics import Metrics
from gateway.admin.models import Models
from gateway.admission.budget import ByteBudget
from gateway.admission.keys import Keyring
from gateway.admission.proxies import Proxies
from gateway.arrival import Arrivals
from gateway.call import Backend, Operation
from gateway.certificates import server_context
from gateway.clients import Clients, Limits
from gateway.clock import Clock
from gateway.config import schema, urls
from gateway.front import Cors, Door, Front, Keys
from gateway.observe.access import AccessLog, outlet
from gateway.observe.counters import Measures
from gateway.observe.logs import Level, Log, Stamp
from gateway.proxy import Proxy
from gateway.routing.balance import BALANCERS
from gateway.routing.endpoints import INFERENCE, Body, Endpoint
from gateway.routing.peer import Peer, Standing
from gateway.routing.routes import Group, Policy, Routes
from gateway.settle import Settler
from gateway.upstream.discovery import Discovery
from gateway.upstream.http import HttpBackend, Target
from gateway.upstream.mock import MockBackend
from gateway.upstream.pool import Address, Pool
from gateway.upstream.tls import client_context
from protocols.http1.fields import FieldTable

_GET: Final = (b"GET", b"HEAD")


class Drain:
    """Whether the worker goes down; readiness tells it before anything else changes."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False


class Gateway:
    """The live objects of one worker, as `gateway.worker` starts and ends them."""

    def __init__(self, config: schema.Config) -> None:
        # process
        self.measures = Measures(__version__)
        self.clock = Clock()
        self.drain = Drain()
        self.lines = _lines(config.logging, self.measures)
        stamp = Stamp()
        level = Level[config.logging.level.upper()]
        self.log = Log(self.lines, level, stamp)
        self.budget = ByteBudget(config.server.body_budget)
        # generation
        upstreams = Upstreams(config, self.measures, self.clock, self.log)
        self.backends = upstreams.backends
        self.discoveries = upstreams.discoveries
        self.pools = upstreams.pools
        self.routes = upstreams.routes
        self.settler = settler = Settler(self.measures, self.lines if level <= Level.INFO else None, stamp)
        self.proxy = Proxy(self.routes, upstreams.standing, settler, self.clock)
        proxies = Proxies(config.server.trusted_proxies)
        doors, prefixes = _doors(config, self)
        front = Front(
            doors=doors,
            prefixes=prefixes,
            keys=Keys(Keyring(config.auth.keys) if config.auth.enabled else None, config.auth.query_param),
            proxies=proxies,
            cors=_cors(config.cors),
            routes=self.routes,
            settler=settler,
            budget=self.budget,
            clock=self.clock,
        )
        fields = FieldTable(config.auth.header.encode("ascii"), _credential_fields(config))
        self.clients = Clients(front, self.proxy, _limits(config.server), self.budget, fields, self.clock, self.log)
        self.arrivals = _arrivals(config.server, self.clients, proxies, self.measures)
        #: Makes the protocol of each accepted socket.
        self.accept: Callable[[], asyncio.Protocol] = self.clients.connection
        if config.server.tls.cert or config.server.proxy_protocol:
            self.accept = self.arrivals.connection
        self._watch()

    def _watch(self) -> None:
        """Let gauges and sweeps see the live objects."""
        measures, clock = self.measures, self.clock
        measures.in_flight.watch(lambda: len(self.proxy.active))
        measures.client_connections.watch(lambda: len(self.clients.open) + len(self.arrivals.open))
        measures.body_budget.watch(lambda: self.budget.used)
        clock.on_error = lambda error: self.log.error("a sweep raised", error=repr(error))
        clock.on_lag = measures.loop_lag.observe
        clock.every_sweep(self.proxy.sweep)
        clock.every_sweep(self.clients.sweep)
        clock.every_sweep(self.arrivals.sweep)
        for pool in self.pools:
            clock.every_sweep(pool.sweep)
        clock.every_sweep(lambda now: self.settler.count())
        clock.every_sweep(lambda now: measures.registry.fold())
        clock.every_sweep(lambda now: self.lines.flush())


class Upstreams:
    """Backends, their peers and pools, and the model table over them."""

    def __init__(self, config: schema.Config, measures: Measures, clock: Clock, log: Log) -> None:
        self._config = config
        self._clock = clock
        self._measures = measures
        self._log = log
        self.standing = Standing()
        self.backends: list[Backend] = []
        self.pools: list[Pool] = []
        self._unasked: list[tuple[schema.Backend, list[Target]]] = []
        groups = [self._group(backend) for backend in config.backends if backend.enabled]
        self.routes = Routes(groups, config.routing.default_backend)
        self.discoveries = [self._discovery(backend, targets) for backend, targets in self._unasked]

    def _group(self, backend: schema.Backend) -> Group:
        endpoints = [_endpoint(given) for given in backend.endpoints]
        models = backend.models
        peers, told = self._mock(backend, endpoints) if backend.protocol == "mock" else self._http(backend, endpoints)
        for peer in peers:
            self._measures.peer_cooldowns.child(backend.name, peer.url)
        group = Group(
            backend.name,
            peers,
            _policy(backend),
            _names(models) if not isinstance(models, str) else {},
            auto=isinstance(models, str),
            passthrough=backend.passthrough,
        )
        if told:
            group.models = {model: model for model in told}
            group.known = True
        return group

    def _mock(self, backend: schema.Backend, endpoints: list[schema.Endpoint]) -> tuple[list[Peer], tuple[str, ...]]:
        mock = MockBackend(backend.name, [endpoint.url for endpoint in endpoints])
        self.backends.append(mock)
        peers = [Peer(mock, endpoint.url, endpoint.weight, self.standing) for endpoint in endpoints]
        return peers, mock.models if isinstance(backend.models, str) else ()

    def _http(self, backend: schema.Backend, endpoints: list[schema.Endpoint]) -> tuple[list[Peer], tuple[str, ...]]:
        http = HttpBackend(backend.name, backend.timeouts.connect, self._config.auth.query_param)
        self.backends.append(http)
        credentials = _credentials(backend.auth)
        peers = []
        targets = []
        for endpoint in endpoints:
            peer = Peer(http, endpoint.url, endpoint.weight, self.standing)
            target = self._target(backend, urls.parse(endpoint.url), credentials)
            http.add(peer, target)
            peers.append(peer)
            targets.append(target)
        if isinstance(backend.models, str):
            self._unasked.append((backend, targets))
        return peers, ()

    def _target(self, backend: schema.Backend, url: urls.Url, credentials: bytes) -> Target:
        tls = backend.tls
        context = None
        if url.scheme == "https":
            context = client_context(ca_file=tls.ca_file, cert=tls.cert, key=tls.key, verify=tls.verify)
        pool = Pool(
            Address(url.host, url.port, context, url.host),
            max_idle=backend.pool.max_idle,
            idle_timeout=backend.pool.idle_timeout,
            clock=self._clock,
            on_crash=lambda error: self._log.error("a step of a call raised", error=repr(error)),
        )
        self.pools.append(pool)
        connections = self._measures.upstream_connections
        connections.watch((backend.name, "idle"), lambda: len(pool.idle))
        connections.watch((backend.name, "busy"), lambda: pool.busy)
        connections.watch((backend.name, "connecting"), lambda: pool.connecting)
        host = f"[{url.host}]" if ":" in url.host else url.host
        default = 443 if context is not None else 80
        return Target(pool, host if url.port == default else f"{host}:{url.port}", url.path, credentials)

    def _discovery(self, backend: schema.Backend, targets: list[Target]) -> Discovery:
        def learn(models: tuple[str, ...]) -> None:
            self.routes.learn(backend.name, models)

        return Discovery(backend.name, targets, backend.models_refresh, learn, self._log)


def _endpoint(given: str | schema.Endpoint) -> schema.Endpoint:
    return schema.Endpoint(given) if isinstance(given, str) else given


def _names(models: tuple[str | dict[str, str], ...]) -> dict[str, str]:
    """Client's name -> upstream's name."""
    names: dict[str, str] = {}
    for model in models:
        names.update({model: model} if isinstance(model, str) else model)
    return names


def _policy(backend: schema.Backend) -> Policy:
    timeouts = backend.timeouts
    return Policy(
        BALANCERS[backend.balance](),
        tries=backend.retry.tries,
        inject_usage=backend.usage == "inject",
        first_byte=timeouts.first_byte,
        idle=timeouts.idle,
        total=timeouts.total,
    )


def _credential_fields(config: schema.Config) -> list[bytes]:
    """The header fields that carry credentials to some backend."""
    return [backend.auth.header_name.encode("ascii") for backend in config.backends if backend.auth.header_name]


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


def _lines(logging: schema.Logging, measures: Measures) -> AccessLog:
    outlets = [outlet(name) for name in logging.output]
    return AccessLog(outlets, logging.buffer, logging.format, measures.access_dropped)


def _limits(server: schema.Server) -> Limits:
    return Limits(
        head=server.head_limit,
        body=server.body_limit,
        media_body=server.media_body_limit,
        connections=server.max_connections,
        header_timeout=server.header_timeout,
        body_timeout=server.body_timeout,
        send_timeout=server.send_timeout,
        keepalive_timeout=server.keepalive_timeout,
        keepalive_requests=server.keepalive_requests,
        half_close_serves=server.half_close == "serve",
    )


def _arrivals(server: schema.Server, clients: Clients, proxies: Proxies, measures: Measures) -> Arrivals:
    tls = server.tls
    return Arrivals(
        clients,
        proxies,
        measures.connections_failed,
        tls=server_context(tls.cert, tls.key, tls.client_ca) if tls.cert else None,
        proxy_protocol=server.proxy_protocol,
        handshake_timeout=tls.handshake_timeout,
        max_handshakes=tls.max_handshakes,
    )


def _cors(cors: schema.Cors) -> Cors:
    return Cors(cors.allow_origins if cors.enabled else (), cors.allow_headers, int(cors.max_age))


def _doors(config: schema.Config, gateway: Gateway) -> tuple[dict[bytes, Door], list[tuple[bytes, Door]]]:
    """Every path that the gateway knows by itself; what backends list beside them is the front's."""
    health = Health(gateway.routes, gateway.clock, lambda: gateway.drain.begun)
    models = Models(gateway.routes)
    operations: dict[str, Operation] = {
        "/health": health.health,
        "/v1/health": health.health,
        "/health/live": health.live,
        "/health/ready": health.ready,
        "/v1/models": models.list,
    }
    if config.metrics.enabled:
        operations[config.metrics.path] = Metrics(gateway.measures.registry, gateway.settler.count).scrape

    def is_open(path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in config.auth.bypass_paths)

    doors = {endpoint.path.encode(): Door(endpoint, is_open(endpoint.path), None) for endpoint in INFERENCE}
    for path, operation in operations.items():
        doors[path.encode()] = Door(Endpoint(path, Body.NONE, methods=_GET), is_open(path), operation)
    one = Endpoint("/v1/models/{id}", Body.NONE, methods=_GET)
    return doors, [(b"/v1/models/", Door(one, is_open("/v1/models/x"), models.one))]
