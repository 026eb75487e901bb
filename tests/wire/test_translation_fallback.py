"""What fails goes on in another dialect, and back, up to the first event that the client sees."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.client import Response
from tests.wire.houses import Houses
from tests.wire.process import Configuration, Gateway, free_port
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upsets import (
    BEFORE,
    DOORS,
    NATIVE,
    PROTOCOLS,
    WORDS,
    Words,
    check_broken,
    check_refusal,
    is_end,
    parts,
    request,
    stream,
    text,
)
from tests.wire.upstream import Script, Upstream

#: Each fails over to the next one, and the last one to the first.
CHAIN = dict(zip(PROTOCOLS, (*PROTOCOLS[1:], PROTOCOLS[0]), strict=True))
FAILURES: dict[str, Any] = {
    "429": lambda words: answers.whole(429, words.refusal, ("retry-after", "9")),
    "503": lambda words: answers.whole(503, words.refusal),
    "529": lambda words: answers.whole(529, words.refusal),
    **{name: BEFORE[name] for name in ("an error first", "empty", "cut at once", "stalled", "nonsense", "compressed")},
    "closed": BEFORE["closed"],
    "whole": BEFORE["whole"],
}


#: What a whole answer may fail with; and what is passed on as it comes where client and backend speak one dialect.
_OF_ANSWERS = ("429", "503", "529", "closed")
_PASSED_ON = ("whole", "compressed")
CASES = [
    (name, door, protocol, streams)
    for name in FAILURES
    for door in DOORS
    for protocol in PROTOCOLS
    for streams in (False, True)
    if door != "/v1/responses"  # it may have had an effect
    and (streams or name in _OF_ANSWERS)
    and not (name in _PASSED_ON and door in NATIVE[protocol])
]


@pytest.fixture(scope="module")
def servers(module_stage: Stage) -> dict[str, Upstream]:
    return {protocol: module_stage.upstream() for protocol in PROTOCOLS}


@pytest.fixture(scope="module")
def config(servers: dict[str, Upstream]) -> Configuration:
    """Of each protocol: a server, and the same for who has no patience."""

    def once(name: str, upstream: Upstream | str, **more: Any) -> dict[str, Any]:
        return backend(upstream, name=name, models=[name], retry={"tries": 1}, **more)

    hasty = {"timeouts": {"first_byte": "300ms"}}
    routes: list[dict[str, Any]] = [
        {"model": f"{pace}{one}", "fallbacks": [then]} for one, then in CHAIN.items() for pace in ("", "hasty-")
    ]
    routes.append({"model": "dead", "fallbacks": ["anthropic", "tgi", "ollama", "openai"]})
    return configuration(
        *(once(one, servers[one], protocol=one) for one in PROTOCOLS),
        *(once(f"hasty-{one}", servers[one], protocol=one, **hasty) for one in PROTOCOLS),
        once("dead", f"http://127.0.0.1:{free_port()}"),
        routes=routes,
    )


def sound(words: Words, streams: bool) -> Script:
    return stream(words, words.begin, words.end) if streams else answers.whole(200, words.whole)


def ask(gateway: Gateway, door: str, model: str, *, streams: bool, **more: Any) -> Response:
    return gateway.ask("POST", door, request(door, model, stream=streams, **more))


def said(door: str, response: Response, streams: bool) -> str:
    if streams:
        found = parts(door, response.body)
        assert response.body.count(b"data: [DONE]") == (door == "/v1/chat/completions")
        assert door == "/v1/chat/completions" or is_end(door, found[-1])
        return text(door, found)
    body = response.json()
    if door == "/v1/chat/completions":
        return str(body["choices"][0]["message"]["content"])
    if door == "/v1/responses":
        return str(body["output"][0]["content"][0]["text"])
    return str(body["content"][0]["text"] if door == "/v1/messages" else body["message"]["content"])


@pytest.mark.parametrize(("name", "door", "protocol", "streams"), CASES)
def test_a_fallback_in_another_dialect_serves(
    gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, streams: bool, name: str
) -> None:
    other = CHAIN[protocol]
    model = f"hasty-{protocol}" if name == "stalled" else protocol
    servers[protocol].answer = FAILURES[name](WORDS[protocol])
    servers[other].answer = sound(WORDS[other], streams)
    response = ask(gateway, door, model, streams=streams)
    assert (response.status, response.complete) == (200, True), response
    assert said(door, response, streams) == "Hi"
    assert (response.header("x-fallback-model"), response.header("x-upstream")) == (other, other)
    assert len(servers[protocol].requests) == len(servers[other].requests) == 1
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["model"], line["fallback"], line["upstream"], line["ending"]) == (model, other, other, "--")


def test_a_fallback_that_cannot_say_the_request_is_passed_over(gateway: Gateway, servers: dict[str, Upstream]) -> None:
    """A seed is no word of Anthropic's."""
    for protocol in PROTOCOLS:
        servers[protocol].answer = sound(WORDS[protocol], False)
    response = ask(gateway, "/api/chat", "dead", streams=False, options={"seed": 7})
    assert response.header("x-fallback-model") == "tgi" and servers["tgi"].ledger.last.json()["seed"] == 7
    assert not servers["anthropic"].requests


def test_where_no_fallback_can_say_it_the_first_failure_is_told(gateway: Gateway, servers: dict[str, Upstream]) -> None:
    servers["openai"].answer = answers.whole(503, WORDS["openai"].refusal)
    response = ask(gateway, "/v1/chat/completions", "openai", streams=False, seed=7)
    assert response.status == 502 and not servers["anthropic"].requests
    assert check_refusal("/v1/chat/completions", response) == "The upstream answered 503."


@pytest.mark.parametrize(
    ("door", "protocol"),
    [pair for pair in itertools.product(DOORS, PROTOCOLS) if pair != ("/v1/responses", "openai")],  # other words
)
def test_nothing_is_asked_anew_once_an_event_was_told(
    gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    servers[protocol].answer = stream(WORDS[protocol], WORDS[protocol].begin, then="cut")
    servers[CHAIN[protocol]].answer = sound(WORDS[CHAIN[protocol]], True)
    response = ask(gateway, door, protocol, streams=True)
    check_broken(door, response)
    assert not servers[CHAIN[protocol]].requests and response.header("x-fallback-model") is None


def test_a_responses_call_that_may_have_had_an_effect_does_not_go_on(
    gateway: Gateway, servers: dict[str, Upstream]
) -> None:
    servers["anthropic"].answer = answers.whole(503, WORDS["anthropic"].refusal)
    servers["ollama"].answer = sound(WORDS["ollama"], False)
    assert ask(gateway, "/v1/responses", "anthropic", streams=False).status == 503
    body = request("/v1/responses", "anthropic", stream=False)
    response = gateway.ask("POST", "/v1/responses", body, (("Idempotency-Key", "once"),))
    assert (response.status, response.header("x-fallback-model")) == (200, "ollama")


def test_the_houses_serve_each_other(stage: Stage) -> None:
    """The whole way with judging servers: what a fallback is asked is what it takes."""
    houses = Houses(stage)
    for upstream in (houses.upstreams["openai"], houses.upstreams["anthropic"]):
        upstream.answer = answers.error(503)
    chain = ["anthropic-echo", "ollama-echo"]
    made = houses.config()
    made["routes"] = [{"model": "openai-echo", "fallbacks": chain}]
    gateway = stage.gateway(made)
    for door in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
        response = gateway.ask("POST", door, request(door, "openai-echo", stream=False))
        assert (response.status, response.header("x-fallback-model")) == (200, "ollama-echo"), response
        assert said(door, response, False) == "Hello there"


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_another_peer_of_the_same_backend_is_tried_first(stage: Stage, streams: bool) -> None:
    words = WORDS["anthropic"]
    failing, fine = stage.upstream(answers.whole(529, words.refusal)), stage.upstream(sound(words, streams))
    gateway = stage.gateway(configuration(backend(failing, fine, protocol="anthropic", balance="round_robin")))
    for _ in range(2):
        response = ask(gateway, "/api/chat", "m", streams=streams)
        assert response.status == 200 and said("/api/chat", response, streams) == "Hi"
    assert (len(failing.requests), len(fine.requests)) == (1, 2)
    assert failing.ledger.last.body == fine.requests[0].body or failing.ledger.last.body == fine.requests[1].body
