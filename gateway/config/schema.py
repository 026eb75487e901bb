"""The configuration as frozen values: every key, its type and its default.

Owns the names and defaults (the reasons stand in conf/gateway.toml). It refuses to read files or the
environment (`load`), and to build anything (`gateway.build`). Made by `load.load`; read by `gateway.build`
and `gateway.cli`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

#: Bytes. A longer API key is refused when it is configured, and when it is presented before it costs a hash.
LONGEST_KEY: Final = 256

#: What `server.host` begins with where it is the path of a unix socket.
UNIX: Final = "unix:"


class Seconds(float):
    """A duration: a TOML number of seconds, or text with a unit: "250ms", "10s", "5m", "1h"."""

    __slots__ = ()


class Bytes(int):
    """A size: a TOML integer, or text with a unit: "512B", "64KiB", "8MiB", "1GiB"."""

    __slots__ = ()


class Ratio(float):
    """A share: a TOML number from 0 to 1."""

    __slots__ = ()


class Secret(str):
    """Text that no repr and no printed configuration shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class PemFile(str):
    """The path of a PEM file. Once loaded it has what the file said then: a worker is started when its time comes, and
    by then the file may be another one, or none."""

    __slots__ = ("content",)
    content: bytes

    def __new__(cls, path: str = "", content: bytes = b"") -> PemFile:
        made = super().__new__(cls, path)
        made.content = content
        return made


# msgspec allows numeric bounds on its own types only, so a Seconds or Bytes carries its bound as `extra`;
# `config.convert` reads both.
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
CountOrNone = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
#: The page has two rows for each, and a number far above the machine's cores is a slip.
WORKERS_LIMIT: Final = 256
Workers = Annotated[int, msgspec.Meta(ge=0, le=WORKERS_LIMIT)]
Limit = Annotated[Bytes, msgspec.Meta(extra={"gt": 0})]
#: A wait that must end and must be able to begin; where 0 has a meaning, the key is a plain `Seconds`.
Wait = Annotated[Seconds, msgspec.Meta(extra={"gt": 0})]


#: What may be tried again, beside the statuses of answers.
RetryCause = Literal["connect", "reused", "lost", "timeout"]
#: How a peer is picked; "weighted" is the former gateways' word for "round_robin", which honours weights too.
Balance = Literal["least_connections", "round_robin", "weighted", "random", "p2c"]


#: What a backend is spoken to in. Those of one family speak one dialect, and may serve one model together.
Protocol = Literal[
    "openai", "together", "groq", "vllm", "llamacpp", "sglang", "tgi", "anthropic", "ollama", "mock", "litellm"
]
FAMILIES: Final = {"tgi": "tgi", "anthropic": "anthropic", "ollama": "ollama"}
OPENAI_FAMILY: Final = "openai"

#: What a backend can do: kinds of doors. The last two are the former gateways' words for "completion".
Capability = Literal[
    "chat", "completion", "embeddings", "moderations", "rerank", "images", "audio", "generate", "generate_stream"
]
#: Doors that a backend may answer itself.
NativePath = Literal[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/variations",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every table: immutable, and a key that is not declared is an error."""


class ServerTls(Section, frozen=True):
    """What clients are shown. It is spoken where `cert` is set."""

    cert: PemFile = PemFile()
    key: PemFile = PemFile()
    client_ca: PemFile = PemFile()
    handshake_timeout: Wait = Seconds(10)
    max_handshakes: Count = 256


class Server(Section, frozen=True):
    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Workers = 0
    socket_mode: str = "0660"
    backlog: Count = 2048
    max_connections: Count = 10_000
    head_limit: Limit = Bytes(64 << 10)
    body_limit: Limit = Bytes(8 << 20)
    media_body_limit: Limit = Bytes(32 << 20)
    body_budget: Limit = Bytes(256 << 20)
    header_timeout: Wait = Seconds(10)
    body_timeout: Wait = Seconds(30)
    send_timeout: Wait = Seconds(60)
    keepalive_timeout: Wait = Seconds(75)
    keepalive_requests: Count = 1000
    watch: Seconds = Seconds(0)
    pre_stop: Seconds = Seconds(5)
    drain_timeout: Seconds = Seconds(300)
    half_close: Literal["abort", "serve"] = "abort"
    trusted_proxies: tuple[str, ...] = ()
    proxy_protocol: bool = False
    tls: ServerTls = ServerTls()


class Key(Section, frozen=True, kw_only=True):
    """One API key, given in exactly one of four ways. Once loaded, `sha256` is set and `key` is empty."""

    name: str
    key: Secret = Secret("")
    key_env: str = ""
    key_file: str = ""
    sha256: str = ""
    allowed_models: tuple[str, ...] = ("*",)
    passthrough: bool = False


class Auth(Section, frozen=True):
    enabled: bool = True
    header: str = "X-API-Key"
    query_param: str = ""
    bypass_paths: tuple[str, ...] = ("/health*", "/v1/health", "/metrics")
    allow_dev_key: bool = False
    keys: tuple[Key, ...] = ()


class UpstreamAuth(Section, frozen=True):
    """The credentials that a backend is called with. Once loaded, `token` is set however it was given."""

    type: Literal["none", "bearer", "header", "basic"] = "none"
    header_name: str = ""
    username: str = ""
    token: Secret = Secret("")
    token_env: str = ""
    token_file: str = ""


class UpstreamTls(Section, frozen=True):
    ca_file: PemFile = PemFile()
    cert: PemFile = PemFile()
    key: PemFile = PemFile()
    verify: bool = True


class Timeouts(Section, frozen=True):
    connect: Wait = Seconds(2)
    first_byte: Wait = Seconds(120)
    idle: Wait = Seconds(120)
    total: Seconds = Seconds(0)


class Retry(Section, frozen=True):
    tries: Count = 2
    on: tuple[RetryCause | int, ...] = ("connect", "reused", "lost", 429, 502, 503, 504)
    budget: Ratio = Ratio(0.2)


class Breaker(Section, frozen=True):
    """When a peer that fails is left alone, and for how long at first."""

    max_failures: CountOrNone = 5
    reset: Wait = Seconds(30)


class Health(Section, frozen=True):
    """How a peer is asked whether it is well. An empty path is the protocol's."""

    path: str = ""
    interval: Seconds = Seconds(10)
    timeout: Wait = Seconds(1)
    unhealthy_after: Count = 3
    healthy_after: Count = 2


class Load(Section, frozen=True):
    """How a peer's server is asked how many requests it has; 0: not at all. An empty path is the protocol's."""

    path: str = ""
    interval: Seconds = Seconds(0)
    timeout: Wait = Seconds(1)


class Pool(Section, frozen=True):
    """Idle upstream connections, per peer."""

    max_idle: CountOrNone = 256
    idle_timeout: Wait = Seconds(4)


class Dns(Section, frozen=True):
    """Endpoints that are names: how often they are asked again, and whether a name or an address is a peer."""

    refresh: Wait = Seconds(10)
    peer_per: Literal["name", "address"] = "name"


class Endpoint(Section, frozen=True):
    url: str
    weight: Count = 1


class Defaults(Section, frozen=True):
    """What every backend may set, and what it is where it does not."""

    auth: UpstreamAuth = UpstreamAuth()
    tls: UpstreamTls = UpstreamTls()
    balance: Balance = "least_connections"
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    breaker: Breaker = Breaker()
    health: Health = Health()
    load: Load = Load()
    pool: Pool = Pool()
    dns: Dns = Dns()
    usage: Literal["inject", "observe"] = "inject"
    heartbeat: Seconds = Seconds(0)
    api_version: Literal["2023-06-01", "2026-10-21"] = "2023-06-01"
    max_tokens: Count = 4096


class Backend(Defaults, frozen=True, kw_only=True):
    name: str
    enabled: bool = True
    protocol: Protocol = "openai"
    endpoints: tuple[str | Endpoint, ...]
    models: tuple[str | dict[str, str], ...] | Literal["auto"] = "auto"
    models_refresh: Wait = Seconds(60)
    capabilities: tuple[Capability, ...] = ()
    native: tuple[NativePath, ...] = ()
    passthrough: tuple[str, ...] = ()


def family_of(backend: Backend) -> str:
    """The dialect that *backend* speaks: those of one family may serve one model together."""
    return FAMILIES.get(backend.protocol, OPENAI_FAMILY)


class Target(Section, frozen=True):
    backend: str
    weight: CountOrNone = 1


class Route(Section, frozen=True):
    """What is said of one model, beside which backends list it."""

    model: str
    strategy: Literal["weighted", "canary", "direct"] = "weighted"
    targets: tuple[str | Target, ...] = ()
    fallbacks: tuple[str, ...] = ()
    lenient: bool = False


class Routing(Section, frozen=True):
    default_backend: str = ""
    #: What `balance` is where neither a backend nor [defaults] says it.
    default_strategy: Balance = "least_connections"
    model_mappings: dict[str, str] = {}


class Logging(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "pretty"] = "json"
    output: tuple[str, ...] = ("stdout",)
    buffer: Limit = Bytes(4 << 20)


class Cors(Section, frozen=True):
    enabled: bool = False
    allow_origins: tuple[str, ...] = ("*",)
    allow_headers: tuple[str, ...] = ("*",)
    max_age: Seconds = Seconds(3600)


class Overload(Section, frozen=True):
    memory_limit: Bytes = Bytes(0)
    max_lag: Seconds = Seconds(0.5)


class Metrics(Section, frozen=True):
    enabled: bool = True
    path: str = "/metrics"


class Config(Section, frozen=True):
    """The whole configuration of one generation."""

    server: Server = Server()
    auth: Auth = Auth()
    defaults: Defaults = Defaults()
    backends: tuple[Backend, ...] = ()
    routes: tuple[Route, ...] = ()
    routing: Routing = Routing()
    logging: Logging = Logging()
    cors: Cors = Cors()
    metrics: Metrics = Metrics()
    overload: Overload = Overload()
