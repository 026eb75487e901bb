"""Checks of the keys of `auth`, `cors` and `routing`: what one would see from outside were the key ignored."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.wire.client import KEY, chat_request
from tests.wire.keys_stage import Check, KeyStage
from tests.wire.process import DidNotStart, Gateway
from tests.wire.stage import backend, configuration

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
ORIGIN = "https://app.example"


def enabled(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), auth={"enabled": False})
    assert gateway.ask("POST", CHAT, chat_request(), key=None).status == 200


def header(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), auth={"header": "X-Own-Key"})
    assert gateway.ask("GET", MODELS, None, (("X-Own-Key", KEY),), key=None).status == 200


def query_param(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), auth={"query_param": "api_key"})
    assert gateway.ask("GET", f"{MODELS}?api_key={KEY}", key=None).status == 200
    assert gateway.ask("GET", f"{MODELS}?api_key=wrong", key=None).status == 401


def bypass_paths(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), auth={"bypass_paths": ["/v1/mod*"]})
    assert gateway.ask("GET", MODELS, key=None).status == 200
    assert gateway.ask("GET", "/metrics", key=None).status == 401


def allow_dev_key(stage: KeyStage) -> None:
    """The address belongs to nobody (RFC 5737): nothing is opened to the world to see that it would be."""
    config = configuration(backend(stage.upstream()), server={"host": "192.0.2.1"})
    config["auth"] = {"allow_dev_key": True, "keys": [{"name": "dev", "key": "dev-key"}]}
    with pytest.raises(DidNotStart) as refusal:
        stage.gateway(config)
    assert "allow_dev_key" not in str(refusal.value), "refused for the key, not for the address"


def with_key(stage: KeyStage, env: dict[str, str] | None = None, **fields: Any) -> Gateway:
    """A gateway with a second key, called team-a."""
    keys = [{"name": "team-a", **fields}, {"name": "tester", "key": KEY}]
    return stage.gateway(configuration(backend(stage.upstream()), auth={"keys": keys}), env=env)


def known(gateway: Gateway, key: str) -> bool:
    return gateway.ask("POST", CHAT, chat_request(), key=key).status == 200


def key_name(stage: KeyStage) -> None:
    gateway = with_key(stage, key="secret-of-team-a")
    id = gateway.ask("GET", MODELS, key="secret-of-team-a").header("x-request-id")
    assert gateway.wait_call(request_id=id)["key"] == "team-a"


def key_key(stage: KeyStage) -> None:
    assert known(with_key(stage, key="secret-of-team-a"), "secret-of-team-a")


def key_env(stage: KeyStage) -> None:
    gateway = with_key(stage, {"TEAM_A": "secret-of-team-a"}, key_env="TEAM_A")
    assert known(gateway, "secret-of-team-a")


def key_file(stage: KeyStage) -> None:
    file = stage.folder / "team-a"
    file.write_text("secret-of-team-a\n")
    assert known(with_key(stage, key_file=str(file)), "secret-of-team-a")


def sha256(stage: KeyStage) -> None:
    digest = hashlib.sha256(b"secret-of-team-a").hexdigest()
    gateway = with_key(stage, sha256=digest)
    assert known(gateway, "secret-of-team-a") and not known(gateway, digest)


def allowed_models(stage: KeyStage) -> None:
    gateway = with_key(stage, key="secret-of-team-a", allowed_models=["gpt-*"])
    assert gateway.ask("POST", CHAT, chat_request(), key="secret-of-team-a").status == 403


def key_passthrough(stage: KeyStage) -> None:
    keys = [{"name": "tester", "key": KEY, "passthrough": True}]
    config = configuration(backend(stage.upstream(), passthrough=["/v1/files*"]), auth={"keys": keys})
    assert stage.gateway(config).ask("GET", "/v1/files").status == 200


def default_backend(stage: KeyStage) -> None:
    upstream = stage.upstream()
    gateway = stage.start(upstream, routing={"default_backend": "alpha"})
    assert gateway.ask("POST", CHAT, chat_request(model="unheard-of")).status == 200
    assert upstream.ledger.last.json()["model"] == "unheard-of"


# --- cors ---


def cors(stage: KeyStage, **fields: Any) -> Gateway:
    return stage.start(stage.upstream(), cors={"enabled": True, **fields})


def preflight(gateway: Gateway, name: str) -> str | None:
    asked = (
        ("Origin", ORIGIN),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "x-one, x-two"),
    )
    return gateway.ask("OPTIONS", CHAT, None, asked, key=None).header(name)


def cors_enabled(stage: KeyStage) -> None:
    assert preflight(cors(stage), "access-control-allow-origin") in ("*", ORIGIN)


def allow_origins(stage: KeyStage) -> None:
    gateway = cors(stage, allow_origins=["https://other.example"])
    assert preflight(gateway, "access-control-allow-origin") is None


def allow_headers(stage: KeyStage) -> None:
    allowed = preflight(cors(stage, allow_headers=["x-one"]), "access-control-allow-headers") or ""
    assert "x-one" in allowed and "x-two" not in allowed


def max_age(stage: KeyStage) -> None:
    assert preflight(cors(stage, max_age="7s"), "access-control-max-age") == "7"


CHECKS: dict[str, Check] = {
    **{f"auth.{check.__name__}": check for check in (enabled, header, query_param, bypass_paths, allow_dev_key)},
    **{f"auth.keys.{check.__name__}": check for check in (key_env, key_file, sha256, allowed_models)},
    "auth.keys.name": key_name,
    "auth.keys.key": key_key,
    "auth.keys.passthrough": key_passthrough,
    "routing.default_backend": default_backend,
    "cors.enabled": cors_enabled,
    **{f"cors.{check.__name__}": check for check in (allow_origins, allow_headers, max_age)},
}
