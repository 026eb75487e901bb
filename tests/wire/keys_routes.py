"""Checks of the keys of `routes` and `routing`: what one would see from outside were the key ignored."""

from __future__ import annotations

from typing import Any

from tests.wire import answers, anthropic_server
from tests.wire.client import chat_request
from tests.wire.keys_stage import Check, KeyStage
from tests.wire.process import Gateway
from tests.wire.stage import backend, configuration

CHAT = "/v1/chat/completions"


def served(gateway: Gateway, model: str = "chat", id: str = "") -> list[str | None]:
    """Which backend served a call, and as which fallback."""
    headers = (("x-request-id", id),) if id else ()
    answer = gateway.ask("POST", CHAT, chat_request(model=model), headers)
    assert answer.status == 200, answer
    return [answer.header("x-upstream"), answer.header("x-fallback-model")]


def many(gateway: Gateway) -> list[str | None]:
    """Which backends serve the ids 0 to 15: half of them each of two that are as heavy."""
    return [served(gateway, id=str(at))[0] for at in range(16)]


def three(stage: KeyStage, *routes: dict[str, Any], **sections: Any) -> Gateway:
    """A gateway over the backends a, b and c, that list the models ma, mb and mc; a answers 503."""
    upstreams = {"a": stage.upstream(answers.error(503)), "b": stage.upstream(), "c": stage.upstream()}
    backends = [backend(upstream, name=name, models=[f"m{name}"]) for name, upstream in upstreams.items()]
    return stage.gateway(configuration(*backends, **({"routes": list(routes)} if routes else {}), **sections))


def model(stage: KeyStage) -> None:
    assert served(three(stage, {"model": "ch?t", "targets": ["b"]})) == ["b", None]


def strategy(stage: KeyStage) -> None:
    """A canary of 1 percent; as weights both would be as heavy."""
    targets = ["b", {"backend": "c", "weight": 1}]
    assert many(three(stage, {"model": "chat", "strategy": "canary", "targets": targets})) == ["b"] * 16


def targets(stage: KeyStage) -> None:
    gateway = three(stage, {"model": "chat", "targets": ["a", "b"], "fallbacks": ["c"]})
    assert [served(gateway, id=str(at)) for at in range(16)] == [["b", None]] * 16


def target(stage: KeyStage) -> None:
    assert served(three(stage, {"model": "chat", "targets": [{"backend": "c"}]})) == ["c", None]


def weight(stage: KeyStage) -> None:
    assert many(three(stage, {"model": "chat", "targets": ["b", {"backend": "c", "weight": 0}]})) == ["b"] * 16


def fallbacks(stage: KeyStage) -> None:
    gateway = three(stage, {"model": "chat", "targets": ["a"], "fallbacks": ["mb", "c"]})
    assert served(gateway) == ["b", "mb"]


def lenient(stage: KeyStage) -> None:
    """Anthropic's API has no seed: it is refused, or left out and said to be."""
    named = {"protocol": "anthropic", "models": [{"m": "claude-echo"}], "auth": anthropic_server.AUTH}
    messages = backend(stage.upstream(anthropic_server.serve), **named)
    gateway = stage.gateway(configuration(messages, routes=[{"model": "m", "targets": ["alpha"], "lenient": True}]))
    answer = gateway.ask("POST", CHAT, chat_request(seed=7))
    assert (answer.status, answer.header("x-dropped-fields")) == (200, "seed"), answer


def default_strategy(stage: KeyStage) -> None:
    upstreams = [stage.upstream(), stage.upstream()]
    gateway = stage.gateway(configuration(backend(*upstreams), routing={"default_strategy": "weighted"}))
    for count in range(1, 9):
        assert served(gateway, "m") and served(gateway, "m")
        assert [len(upstream.requests) for upstream in upstreams] == [count, count]


def model_mappings(stage: KeyStage) -> None:
    gateway = three(stage, routing={"model_mappings": {"gpt-4": "mb", "gpt-5": "c"}})
    assert [served(gateway, "gpt-4"), served(gateway, "gpt-5")] == [["b", None], ["c", None]]


CHECKS: dict[str, Check] = {
    **{f"routes.{check.__name__}": check for check in (model, strategy, targets, fallbacks, lenient)},
    "routes.targets.backend": target,
    "routes.targets.weight": weight,
    "routing.default_strategy": default_strategy,
    "routing.model_mappings": model_mappings,
}
