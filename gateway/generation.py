"""One configuration in force: its doors, keys, limits and model table.

Owns what a reload replaces as a whole. It refuses what outlives it (`gateway.estate.Estate`, `gateway.build`). Made
by `gateway.build` for each configuration; a call keeps the routes and policies of the one it began in.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from gateway.admin.breakers import Breakers
from gateway.admin.health import Health
from gateway.admin.metrics import Metrics
from gateway.admin.models import Models
from gateway.admission.keys import Keyring
from gateway.admission.proxies import Proxies
from gateway.arrival import Terms
from gateway.call import Operation
from gateway.certificates import server_context
from gateway.clients import Limits
from gateway.config import schema
from gateway.front import Cors, Door, Front, Keys
from gateway.routing.endpoints import INFERENCE, Body, Endpoint
from gateway.routing.routes import Routes
from gateway.upstreams import Upstreams
from protocols.anthropic.dialect import ANTHROPIC
from protocols.dialect import Dialect
from protocols.http1.fields import FieldTable
from protocols.ollama.dialect import OLLAMA
from protocols.openai.dialect import OPENAI

if TYPE_CHECKING:
    from gateway.build import Gateway

_GET: Final = (b"GET", b"HEAD")


class Generation:
    """Made whole, or not at all: a configuration that cannot be served raises OSError or ValueError."""

    def __init__(self, number: int, config: schema.Config, gateway: Gateway, former: Routes | None) -> None:
        self.number = number
        self.config = config
        self.upstreams = Upstreams(config, gateway.estate, former)
        self.limits = _limits(config.server)
        proxies = Proxies(config.server.trusted_proxies)
        self.terms = _terms(config.server, proxies)
        self.fields = FieldTable(config.auth.header.encode("ascii"), _credential_fields(config))
        doors, prefixes = _doors(config, gateway, self.upstreams.routes, number)
        self.front = Front(
            doors=doors,
            prefixes=prefixes,
            keys=Keys(Keyring(config.auth.keys) if config.auth.enabled else None, config.auth.query_param),
            proxies=proxies,
            cors=_cors(config.cors),
            routes=self.upstreams.routes,
            settler=gateway.settler,
            budget=gateway.budget,
            clock=gateway.clock,
        )

    def __repr__(self) -> str:
        return f"<Generation {self.number}>"


def _credential_fields(config: schema.Config) -> list[bytes]:
    """The header fields that carry credentials to some backend."""
    return [backend.auth.header_name.encode("ascii") for backend in config.backends if backend.auth.header_name]


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


def _terms(server: schema.Server, proxies: Proxies) -> Terms:
    tls = server.tls
    return Terms(
        server_context(tls.cert, tls.key, tls.client_ca) if tls.cert else None,
        proxies if server.proxy_protocol else None,
        tls.handshake_timeout,
        tls.max_handshakes,
    )


def _cors(cors: schema.Cors) -> Cors:
    return Cors(cors.allow_origins if cors.enabled else (), cors.allow_headers, int(cors.max_age))


def _doors(
    config: schema.Config, gateway: Gateway, routes: Routes, generation: int
) -> tuple[dict[bytes, Door], list[tuple[bytes, Door]]]:
    """Every path that the gateway knows by itself; what backends list beside them is the front's."""
    health = Health(routes, gateway.seat, generation)
    models = Models(routes)
    operations: dict[str, Operation] = {
        "/health": health.health,
        "/v1/health": health.health,
        "/health/live": health.live,
        "/health/ready": health.ready,
        "/v1/circuit-breakers": Breakers(routes).list,
    }
    if config.metrics.enabled:
        operations[config.metrics.path] = Metrics(gateway.settler.count, gateway.shared.merged, gateway.system).scrape

    def is_open(path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in config.auth.bypass_paths)

    def door(path: str, operation: Operation, dialect: Dialect = OPENAI, twin: Door | None = None) -> Door:
        endpoint = Endpoint(path, Body.NONE, methods=_GET, dialect=dialect)
        return Door(endpoint, is_open(path.replace("{id}", "x")), operation, twin)

    doors = {endpoint.path.encode(): Door(endpoint, is_open(endpoint.path), None) for endpoint in INFERENCE}
    for path, operation in operations.items():
        doors[path.encode()] = door(path, operation)
    doors[b"/v1/models"] = door("/v1/models", models.list, twin=door("/v1/models", models.page, ANTHROPIC))
    doors[b"/api/tags"] = door("/api/tags", models.tags, OLLAMA)
    doors[b"/api/version"] = door("/api/version", models.version, OLLAMA)
    one = door("/v1/models/{id}", models.one, twin=door("/v1/models/{id}", models.one_of_page, ANTHROPIC))
    return doors, [(b"/v1/models/", one)]
