"""Routes over sockets: what the client is told of them, and what is counted."""

from __future__ import annotations

from tests.wire import answers
from tests.wire.client import chat_request
from tests.wire.process import Gateway, free_port, wait_until
from tests.wire.stage import Stage, backend, configuration

CHAT = "/v1/chat/completions"


def told(gateway: Gateway, model: str = "chat", id: str = "") -> tuple[int, str | None, str | None]:
    """The status, the backend and the fallback of a call's answer."""
    answer = gateway.ask("POST", CHAT, chat_request(model=model), (("x-request-id", id),) if id else ())
    return answer.status, answer.header("x-upstream"), answer.header("x-fallback-model")


def test_calls_are_divided_by_their_ids_and_a_repeated_one_meets_the_same_backend(stage: Stage) -> None:
    backends = [backend(stage.upstream(), name=name, models=["m"]) for name in "ab"]
    gateway = stage.gateway(configuration(*backends, routes=[{"model": "chat", "targets": ["a", "b"]}]))
    for _ in range(2):
        # as in test_routes_rules and in test_cli_explain
        assert "".join(told(gateway, id=str(at))[1] or "" for at in range(16)) == "aababbbbbaabbbbb"


def test_a_target_that_fails_gives_way_to_another_which_is_no_fallback(stage: Stage) -> None:
    broken = backend(stage.upstream(answers.error(503)), name="a", models=["m"])
    upstream = stage.upstream()
    sound = backend(upstream, name="b", models=["n"])
    gateway = stage.gateway(configuration(broken, sound, routes=[{"model": "chat", "targets": ["a", "b"]}]))
    assert {told(gateway, id=str(at)) for at in range(8)} == {(200, "b", None)}
    assert {request.json()["model"] for request in upstream.requests} == {"n"}
    assert gateway.metrics().value("gateway_fallback_used_total") == 0


def test_a_model_whose_backend_is_down_since_the_start_is_served_by_its_fallback(stage: Stage) -> None:
    port = free_port()
    down = backend(f"http://127.0.0.1:{port}", name="a", models="auto", models_refresh="200ms")
    other = backend(stage.upstream(), name="b", models=["n"])
    gateway = stage.gateway(configuration(down, other, routes=[{"model": "chat", "fallbacks": ["n"]}]))
    assert told(gateway) == (200, "b", "n")
    assert gateway.metrics().value("gateway_fallback_used_total", from_model="chat", to_model="n") == 1
    upstream = stage.upstream(port=port)
    upstream.answers["/v1/models"] = answers.models("chat")
    wait_until(lambda: told(gateway) == (200, "a", None), "the model's own backend serves it")
