"""Checks of the keys of `backends` and `defaults`: what one would see from outside were the key ignored."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import pytest

from tests.wire import answers, anthropic_server, tls
from tests.wire.accepted import Gate
from tests.wire.client import KEY, chat_request
from tests.wire.keys_stage import BACKENDS, DEFAULTS, Check, KeyStage
from tests.wire.ledger import Request
from tests.wire.process import DidNotStart, Gateway, free_port, wait_until
from tests.wire.stage import backend, configuration
from tests.wire.upstream import Exchange, Script, Upstream

CHAT = "/v1/chat/completions"


def ok(gateway: Gateway, **more: Any) -> bool:
    return gateway.ask("POST", CHAT, chat_request(**more)).status == 200


# --- keys that `defaults` has too ---


def sent(stage: KeyStage, name: str, env: dict[str, str] | None = None, **auth: Any) -> str | None:
    """The credentials that an upstream is called with, in the header *name*."""
    upstream = stage.upstream()
    fields: dict[str, Any] = {"auth": auth}
    if stage.place == DEFAULTS:
        config = configuration(backend(upstream), defaults=fields)
    else:
        config = configuration(backend(upstream, **fields))
    assert ok(stage.gateway(config, env=env))
    return upstream.ledger.last.header(name)


def auth_type(stage: KeyStage) -> None:
    assert sent(stage, "authorization", type="bearer", token="tok") == "Bearer tok"


def header_name(stage: KeyStage) -> None:
    assert sent(stage, "x-own", type="header", header_name="X-Own", token="tok") == "tok"


def username(stage: KeyStage) -> None:
    expected = "Basic " + base64.b64encode(b"user:tok").decode()
    assert sent(stage, "authorization", type="basic", username="user", token="tok") == expected


def token(stage: KeyStage) -> None:
    assert sent(stage, "authorization", type="bearer", token="other") == "Bearer other"


def token_env(stage: KeyStage) -> None:
    assert sent(stage, "authorization", {"TOK": "tok"}, type="bearer", token_env="TOK") == "Bearer tok"


def token_file(stage: KeyStage) -> None:
    file = stage.folder / "token"
    file.write_text("tok\n")
    assert sent(stage, "authorization", type="bearer", token_file=str(file)) == "Bearer tok"


def ca_file(stage: KeyStage) -> None:
    upstream = stage.upstream(tls=tls.server())
    assert ok(stage.start(upstream, fields={"tls": {"ca_file": tls.CA}}))
    assert upstream.ledger.connections[0].alpn == "http/1.1"


def client_certificate(stage: KeyStage) -> None:
    upstream = stage.upstream(tls=tls.server(ask_client=True))
    fields = {"ca_file": tls.CA, "cert": tls.CLIENT_CERT, "key": tls.CLIENT_KEY}
    assert ok(stage.start(upstream, fields={"tls": fields}))
    assert upstream.ledger.connections[-1].client_name == "test client"


def verify(stage: KeyStage) -> None:
    assert ok(stage.start(stage.upstream(tls=tls.server("nobody")), fields={"tls": {"verify": False}}))


def balance(stage: KeyStage) -> None:
    upstreams = [stage.upstream(), stage.upstream()]
    gateway = stage.start(*upstreams, fields={"balance": "round_robin"})
    for count in range(1, 9):
        assert ok(gateway) and ok(gateway)
        assert [len(upstream.requests) for upstream in upstreams] == [count, count]


def answered_soon(stage: KeyStage, gateway: Gateway, stream: bool) -> int:
    """The status of an answer that begins within 1.5 s."""
    client = stage.connect(gateway, timeout=1.5)
    client.chat(stream=stream)
    return client.response().status


def connect(stage: KeyStage) -> None:
    gateway = stage.start(stage.full_backlog(), fields={"timeouts": {"connect": "150ms"}})
    assert answered_soon(stage, gateway, False) in (503, 504)


def first_byte(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(answers.await_abort), fields={"timeouts": {"first_byte": "200ms"}})
    assert answered_soon(stage, gateway, True) == 504


def idle(stage: KeyStage) -> None:
    upstream = stage.upstream(answers.stalled_stream(Gate(), answers.chat_events(1)[:1]))
    gateway = stage.start(upstream, fields={"timeouts": {"idle": "200ms"}})
    assert answered_soon(stage, gateway, True) == 200
    upstream.ledger.wait_abort()


def total(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(answers.await_abort), fields={"timeouts": {"total": "200ms"}})
    assert answered_soon(stage, gateway, False) == 504


def tries(stage: KeyStage) -> None:
    """One of two peers is dead: whoever meets it has no second try."""
    dead = f"http://127.0.0.1:{free_port()}"
    fields = {"retry": {"tries": 1}, "balance": "round_robin"}
    gateway = stage.start(dead, stage.upstream(), fields=fields)
    assert not (ok(gateway) and ok(gateway))


def on(stage: KeyStage) -> None:
    """One of two peers answers 500 and 425: whoever meets it is served by the other."""
    failing = stage.upstream([answers.error(500), answers.error(425)])
    gateway = stage.start(failing, stage.upstream(), fields={"retry": {"on": [425, 500]}, "balance": "round_robin"})
    assert all(ok(gateway) for _ in range(4))
    assert len(failing.requests) == 2


def budget(stage: KeyStage) -> None:
    """One of two peers answers 503: whoever meets it is not served by the other."""
    fields = {"retry": {"budget": 0}, "balance": "round_robin"}
    gateway = stage.start(stage.upstream(answers.error(503)), stage.upstream(), fields=fields)
    assert not (ok(gateway) and ok(gateway))


def max_failures(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(answers.error(500)), fields={"breaker": {"max_failures": 2}})
    assert [gateway.ask("POST", CHAT, chat_request()).status for _ in range(3)] == [500, 500, 503]


def reset(stage: KeyStage) -> None:
    """Of `max_failures` the default holds: five."""
    upstream = stage.upstream([*[answers.error(500)] * 5, answers.chat()])
    gateway = stage.start(upstream, fields={"breaker": {"max_failures": 5, "reset": "300ms"}})
    assert not any(ok(gateway) for _ in range(6))
    wait_until(lambda: ok(gateway), "the probe is let through", 3.0)


def checked(stage: KeyStage, answer: Script, **health: Any) -> tuple[Upstream, Gateway]:
    """A gateway that asks an upstream, which answers *answer* to that, often whether it is well."""
    upstream = stage.upstream()
    upstream.answers["/v1/models"] = upstream.answers["/own"] = answer
    return upstream, stage.start(upstream, fields={"health": {"interval": "100ms", **health}})


def wait_healthy(gateway: Gateway, value: float, timeout: float = 2.0) -> None:
    gateway.wait_gauge(value, "gateway_backend_healthy", timeout, upstream="alpha")


def health_path(stage: KeyStage) -> None:
    upstream, _ = checked(stage, answers.models("m"), path="/own")
    wait_until(lambda: "/own" in {request.target for request in upstream.requests}, "it is asked there", 2.0)


def interval(stage: KeyStage) -> None:
    upstream, _ = checked(stage, answers.models("m"))
    wait_until(lambda: len(upstream.requests) > 3, "it is asked often", 2.0)


def health_timeout(stage: KeyStage) -> None:
    def late(x: Exchange) -> None:
        x.sleep(0.4)
        answers.models("m")(x)

    wait_healthy(checked(stage, late, timeout="50ms", unhealthy_after=1)[1], 0)


def unhealthy_after(stage: KeyStage) -> None:
    """It is well again at once: whoever asks for more says nothing."""
    upstream, gateway = checked(stage, answers.error(503), unhealthy_after=1)
    upstream.ledger.wait_requests(1)
    upstream.answers = {}
    wait_healthy(gateway, 0)


def healthy_after(stage: KeyStage) -> None:
    """It is well each second time that it is asked."""
    scripts = itertools.cycle([answers.error(503), answers.models("m")])
    _, gateway = checked(stage, lambda x: next(scripts)(x), unhealthy_after=1, healthy_after=1)
    wait_healthy(gateway, 0)
    wait_healthy(gateway, 1, 8.0)


TELLS = answers.metrics("vllm:num_requests_running 7")


def scraped(stage: KeyStage, answer: Script = TELLS, **load: Any) -> tuple[Upstream, Gateway]:
    """A gateway that asks an upstream, which answers *answer* to that, often for its load."""
    upstream = stage.upstream()
    upstream.answers["/metrics"] = upstream.answers["/own"] = answer
    return upstream, stage.start(upstream, fields={"load": {"interval": "200ms", **load}})


def wait_told(gateway: Gateway) -> None:
    gateway.wait_gauge(7, "gateway_backend_load", 2.0, upstream="alpha")


def load_path(stage: KeyStage) -> None:
    upstream, _ = scraped(stage, path="/own")
    wait_until(lambda: "/own" in {request.target for request in upstream.requests}, "it is asked there", 2.0)


def load_interval(stage: KeyStage) -> None:
    wait_told(scraped(stage)[1])


def load_timeout(stage: KeyStage) -> None:
    """It answers later than it has to by default."""

    def late(x: Exchange) -> None:
        x.sleep(1.2)
        TELLS(x)

    gateway = scraped(stage, late, timeout="3s", interval="1500ms")[1]
    gateway.wait_gauge(7, "gateway_backend_load", 5.0, upstream="alpha")


def max_idle(stage: KeyStage) -> None:
    gate = Gate()
    upstream = stage.upstream(answers.stalled(gate))
    gateway = stage.start(upstream, fields={"pool": {"max_idle": 1}})
    clients = [stage.connect(gateway) for _ in range(3)]
    for client in clients:
        client.chat()
    upstream.ledger.wait_requests(3)
    gate.open()
    assert all(client.response().status == 200 for client in clients)
    gateway.wait_gauge(1, "gateway_upstream_connections", state="idle")


def idle_timeout(stage: KeyStage) -> None:
    upstream = stage.upstream()
    assert ok(stage.start(upstream, fields={"pool": {"idle_timeout": "200ms"}}))
    upstream.ledger.wait_left(upstream.ledger.connections[0], 2.0)


def named(stage: KeyStage, **dns: str) -> tuple[Gateway, str]:
    """A gateway over an upstream that has a name everywhere, and the URL by that name."""
    url = f"http://localhost:{stage.upstream().port}"
    gateway = stage.start(url, fields={"dns": dns})
    assert ok(gateway)
    return gateway, url


def refresh(stage: KeyStage) -> None:
    gateway, _ = named(stage, refresh="100ms")
    often = lambda: gateway.gauge("gateway_dns_lookups_total", result="answered") >= 5  # noqa: E731
    wait_until(often, "the name is asked again and again", 3.0)


def peer_per(stage: KeyStage) -> None:
    gateway, url = named(stage, peer_per="address")
    labels = f'endpoint="{url} 127.0.0.1"'
    wait_until(lambda: labels in gateway.metrics().text, "the address is a peer", 2.0)


def usage(stage: KeyStage) -> None:
    upstream = stage.upstream()
    assert ok(stage.start(upstream, fields={"usage": "observe"}), stream=True)
    assert "stream_options" not in upstream.ledger.last.json()


def heartbeat(stage: KeyStage) -> None:
    """A silent upstream's stream begins all the same."""
    gateway = stage.start(stage.upstream(answers.await_abort), fields={"heartbeat": "100ms"})
    client = stage.connect(gateway, timeout=1.5)
    client.chat(stream=True)
    assert client.read_head("POST").status == 200


def asked_messages(stage: KeyStage, **fields: Any) -> Request:
    """What a backend that speaks Anthropic's API is asked for a chat."""
    upstream = stage.upstream(anthropic_server.serve)
    named = {"protocol": "anthropic", "models": [{"m": "claude-echo"}], "auth": anthropic_server.AUTH}
    if stage.place == DEFAULTS:
        config = configuration(backend(upstream, **named), defaults=fields)
    else:
        config = configuration(backend(upstream, **named, **fields))
    assert ok(stage.gateway(config))
    return upstream.ledger.last


def api_version(stage: KeyStage) -> None:
    assert asked_messages(stage, api_version="2026-10-21").header("anthropic-version") == "2026-10-21"


def max_tokens(stage: KeyStage) -> None:
    assert asked_messages(stage, max_tokens=77).json()["max_tokens"] == 77


SHARED: dict[str, Check] = {
    "auth.type": auth_type,
    **{f"auth.{check.__name__}": check for check in (header_name, username, token, token_env, token_file)},
    "tls.ca_file": ca_file,
    "tls.cert": client_certificate,
    "tls.key": client_certificate,
    "tls.verify": verify,
    "balance": balance,
    **{f"timeouts.{check.__name__}": check for check in (connect, first_byte, idle, total)},
    **{f"retry.{check.__name__}": check for check in (tries, on, budget)},
    "breaker.max_failures": max_failures,
    "breaker.reset": reset,
    "health.path": health_path,
    "health.interval": interval,
    "health.timeout": health_timeout,
    "health.unhealthy_after": unhealthy_after,
    "health.healthy_after": healthy_after,
    "load.path": load_path,
    "load.interval": load_interval,
    "load.timeout": load_timeout,
    "pool.max_idle": max_idle,
    "pool.idle_timeout": idle_timeout,
    "dns.refresh": refresh,
    "dns.peer_per": peer_per,
    "usage": usage,
    "heartbeat": heartbeat,
    "api_version": api_version,
    "max_tokens": max_tokens,
}


# --- keys of a backend alone ---


def name(stage: KeyStage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream(), name="by-this-name")))
    assert gateway.ask("POST", CHAT, chat_request()).header("x-upstream") == "by-this-name"


def enabled(stage: KeyStage) -> None:
    others = backend(stage.upstream(), name="other", models=["other"])
    gateway = stage.gateway(configuration(backend(stage.upstream(), enabled=False), others))
    assert gateway.ask("POST", CHAT, chat_request()).status == 404


def protocol(stage: KeyStage) -> None:
    """A mock is spoken to at mock:// alone, so this one is refused for what it says it is."""
    with pytest.raises(DidNotStart, match="protocol"):
        stage.gateway(configuration(backend("http://127.0.0.1:1", protocol="mock")))


def endpoints(stage: KeyStage) -> None:
    upstream = stage.upstream()
    assert ok(stage.gateway(configuration(backend(upstream))))
    assert len(upstream.requests) == 1


def url(stage: KeyStage) -> None:
    upstream = stage.upstream()
    base = {**backend(), "endpoints": [{"url": f"{upstream.url}/deep/v1"}]}
    assert ok(stage.gateway(configuration(base)))
    assert upstream.ledger.last.target == "/deep/v1/chat/completions"


def weight(stage: KeyStage) -> None:
    heavy, light = stage.upstream(), stage.upstream()
    urls = [{"url": heavy.url, "weight": 3}, {"url": light.url, "weight": 1}]
    gateway = stage.gateway(configuration({**backend(balance="round_robin"), "endpoints": urls}))
    assert all(ok(gateway) for _ in range(8))
    assert (len(heavy.requests), len(light.requests)) == (6, 2)


def models(stage: KeyStage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream(), models=["mine"])))
    assert ok(gateway, model="mine") and not ok(gateway, model="m")


def models_refresh(stage: KeyStage) -> None:
    upstream = stage.upstream()
    upstream.answers["/v1/models"] = answers.models("old")
    config = configuration(backend(upstream, models="auto", models_refresh="200ms"))
    gateway = stage.gateway(config)
    wait_until(lambda: ok(gateway, model="old"), "the models are known")
    upstream.answers["/v1/models"] = answers.models("new")
    wait_until(lambda: ok(gateway, model="new"), "the new model is known", 2.0)


def passthrough(stage: KeyStage) -> None:
    keys = [{"name": "tester", "key": KEY, "passthrough": True}]
    config = configuration(backend(stage.upstream(), passthrough=["/v1/files*"]), auth={"keys": keys})
    assert stage.gateway(config).ask("GET", "/v1/files").status == 200


def capabilities(stage: KeyStage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream(), capabilities=["embeddings"])))
    assert gateway.ask("POST", CHAT, chat_request()).status == 400


def native(stage: KeyStage) -> None:
    """A backend that only chats is asked for a chat, whatever the client asks for."""
    upstream = stage.upstream()
    gateway = stage.gateway(configuration(backend(upstream, native=[CHAT])))
    assert gateway.ask("POST", "/v1/responses", b'{"model":"m","input":"Hello","store":false}').status == 200
    assert upstream.ledger.last.target == CHAT


CHECKS: dict[str, Check] = {
    **{f"{BACKENDS}.{path}": check for path, check in SHARED.items()},
    **{f"{DEFAULTS}.{path}": check for path, check in SHARED.items()},
    **{f"{BACKENDS}.{check.__name__}": check for check in (name, enabled, protocol, endpoints)},
    **{f"{BACKENDS}.{check.__name__}": check for check in (models, models_refresh, passthrough, capabilities, native)},
    f"{BACKENDS}.endpoints.url": url,
    f"{BACKENDS}.endpoints.weight": weight,
}
