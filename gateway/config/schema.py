"""The configuration as frozen values: every key, its type and its default.

Owns the names and defaults (the reasons stand in conf/gateway.toml). It refuses to read files or the environment
(`load`), and to build anything (`gateway.build`). Made by `load.load`; read by `gateway.build` and `gateway.cli`.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Seconds(float):
    """A duration: a TOML number of seconds, or text with a unit: "250ms", "10s", "5m", "1h"."""


class Bytes(int):
    """A size: a TOML integer, or text with a unit: "512B", "64KiB", "8MiB", "1GiB"."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of every table: immutable, and a key that is not declared is an error."""


class Server(Section):
    host: str = "127.0.0.1"
    port: int = 8080
    backlog: int = 2048
    max_connections: int = 10_000
    head_limit: Bytes = Bytes(64 << 10)
    body_limit: Bytes = Bytes(8 << 20)
    media_body_limit: Bytes = Bytes(32 << 20)
    body_budget: Bytes = Bytes(256 << 20)
    header_timeout: Seconds = Seconds(10)
    body_timeout: Seconds = Seconds(30)
    keepalive_timeout: Seconds = Seconds(75)
    keepalive_requests: int = 1000
    pre_stop: Seconds = Seconds(5)
    drain_timeout: Seconds = Seconds(300)
    half_close: Literal["abort", "serve"] = "abort"


class Key(Section):
    """One API key, given in exactly one of four ways."""

    name: str
    key: str = ""
    key_env: str = ""
    key_file: str = ""
    sha256: str = ""
    allowed_models: tuple[str, ...] = ("*",)
    passthrough: bool = False


class Auth(Section):
    enabled: bool = True
    header: str = "X-API-Key"
    query_param: str = ""
    bypass_paths: tuple[str, ...] = ("/health*", "/v1/health", "/metrics")
    allow_dev_key: bool = False
    keys: tuple[Key, ...] = ()


class UpstreamAuth(Section):
    """The credentials that a backend is called with."""

    type: Literal["none", "bearer", "header", "basic"] = "none"
    header_name: str = ""
    username: str = ""
    token: str = ""
    token_env: str = ""
    token_file: str = ""


class UpstreamTls(Section):
    ca_file: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True


class Timeouts(Section):
    connect: Seconds = Seconds(2)
    first_byte: Seconds = Seconds(120)
    idle: Seconds = Seconds(120)
    total: Seconds = Seconds(0)


class Retry(Section):
    tries: int = 2


class Pool(Section):
    """Idle upstream connections, per peer."""

    max_idle: int = 256
    idle_timeout: Seconds = Seconds(4)


class Endpoint(Section):
    url: str
    weight: int = 1


class Defaults(Section):
    """What every backend may set, and what it is where it does not."""

    auth: UpstreamAuth = UpstreamAuth()
    tls: UpstreamTls = UpstreamTls()
    balance: Literal["least_connections", "round_robin", "random", "p2c"] = "least_connections"
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    pool: Pool = Pool()
    usage: Literal["inject", "observe"] = "inject"


class Backend(Defaults):
    name: str
    enabled: bool = True
    protocol: Literal["openai", "vllm", "mock"] = "openai"
    endpoints: tuple[str | Endpoint, ...]
    models: tuple[str | dict[str, str], ...] | Literal["auto"] = "auto"
    models_refresh: Seconds = Seconds(60)
    passthrough: tuple[str, ...] = ()


class Routing(Section):
    default_backend: str = ""


class Logging(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "pretty"] = "json"
    output: tuple[str, ...] = ("stdout",)
    buffer: Bytes = Bytes(4 << 20)


class Cors(Section):
    enabled: bool = False
    allow_origins: tuple[str, ...] = ("*",)
    allow_headers: tuple[str, ...] = ("*",)
    max_age: Seconds = Seconds(3600)


class Metrics(Section):
    enabled: bool = True
    path: str = "/metrics"


class Config(Section):
    """The whole configuration of one generation."""

    server: Server = Server()
    auth: Auth = Auth()
    defaults: Defaults = Defaults()
    backends: tuple[Backend, ...] = ()
    routing: Routing = Routing()
    logging: Logging = Logging()
    cors: Cors = Cors()
    metrics: Metrics = Metrics()
