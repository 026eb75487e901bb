"""What else every client may say to every backend: system texts, results of tools, completions, embeddings, models.

And what has no equivalent there: a 400 in the client's own dialect, or left out and told where the route is lenient.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.wire.client import Response
from tests.wire.doors import CHATS, Clients, clients
from tests.wire.houses import Houses
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import Stage

WITH_TOOLS = ("openai", "chatonly", "anthropic", "ollama")
#: But for its own responses, of which the scripted server of OpenAI's knows nothing.
PAIRS = [pair for pair in itertools.product(CHATS, WITH_TOOLS) if pair != ("/v1/responses", "openai")]
#: Requests of each door, without their model.
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/responses": {"input": "Hi", "store": False},
    "/v1/moderations": {"input": "Hi"},
    "/v1/rerank": {"query": "Hi", "documents": ["a"]},
    "/v1/images/generations": {"prompt": "Hi"},
    "/v1/audio/speech": {"input": "Hi", "voice": "alloy"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
    "/api/chat": {"messages": [{"role": "user", "content": "Hi"}], "stream": False},
    "/api/generate": {"prompt": "Hi", "stream": False},
    "/api/embed": {"input": "Hi"},
    "/api/embeddings": {"prompt": "Hi"},
}
_MEDIA = ("/v1/moderations", "/v1/rerank", "/v1/images/generations", "/v1/audio/speech")
_VECTORS = ("/v1/embeddings", "/api/embed", "/api/embeddings")
UNSUPPORTED = [
    *(("chatonly", door) for door in ("/v1/completions", *_VECTORS, *_MEDIA)),
    *(("anthropic", door) for door in ("/v1/completions", *_VECTORS, *_MEDIA)),
    *(("ollama", door) for door in _MEDIA),
    *(("tgi", door) for door in (*_VECTORS, *_MEDIA)),
    *(("mute", door) for door in REQUESTS if door not in _VECTORS),
]


@pytest.fixture(scope="module")
def houses(module_stage: Stage) -> Houses:
    return Houses(module_stage)


@pytest.fixture(scope="module")
def config(houses: Houses) -> Configuration:
    made = houses.config()
    made.update(routes=[{"model": "lenient", "targets": ["anthropic"], "lenient": True}])
    mute = {"name": "mute", "endpoints": ["mock://local"], "protocol": "mock", "models": ["mute-echo"]}
    made["backends"].append({**mute, "capabilities": ["embeddings"]})
    return made


@pytest.fixture(scope="module")
def module_clients(module_gateway: Gateway) -> Iterator[Clients]:
    with clients(module_gateway.port) as made:
        yield made


def ask(gateway: Gateway, door: str, model: str, *headers: tuple[str, str], **more: Any) -> Response:
    return gateway.ask("POST", door, json.dumps({"model": model, **REQUESTS.get(door, {}), **more}).encode(), headers)


def error_of(door: str, response: Response) -> tuple[str, str]:
    """The message and the code of an error in the dialect of *door*; Anthropic's and Ollama's have no code."""
    said = response.json()
    if door.startswith("/api/"):
        assert set(said) == {"error"}
        return said["error"], ""
    if door.startswith("/v1/messages"):
        assert said["type"] == "error" and set(said["error"]) == {"type", "message"}
        assert response.header("request-id") == response.header("x-request-id")
        return said["error"]["message"], ""
    assert set(said["error"]) == {"message", "type", "param", "code"}
    return said["error"]["message"], said["error"]["code"]


@pytest.mark.parametrize(("door", "house"), PAIRS)
def test_what_is_told_before_the_question_arrives(
    gateway: Gateway, houses: Houses, module_clients: Clients, door: str, house: str
) -> None:
    CHATS[door](module_clients, houses.asked(house, "echo", system="Be brief."), True)
    assert "Be brief." in houses.upstreams[house].ledger.last.body.decode()


@pytest.mark.parametrize(("door", "house"), [pair for pair in PAIRS if pair[0] != "/api/generate"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_results_of_tools_are_heard(
    gateway: Gateway, houses: Houses, module_clients: Clients, door: str, house: str, stream: bool
) -> None:
    asked = houses.asked(house, "tools", result="rain")
    heard = CHATS[door](module_clients, asked, stream)
    assert (heard.text, heard.calls) == ("weather said rain" if house == "ollama" else "You said: rain", [])


@pytest.mark.parametrize("house", ["ollama", "tgi", "mock"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_prompt_is_completed(
    gateway: Gateway, houses: Houses, module_clients: Clients, house: str, stream: bool
) -> None:
    at = module_clients.openai.completions
    asked: Any = {"model": f"{house}-echo", "prompt": "say: Grüße", "max_tokens": 16}
    if stream:
        parts = list(at.create(**asked, stream=True))
        text = "".join(choice.text for part in parts for choice in part.choices)
        finish = parts[-1].choices[-1].finish_reason
    else:
        answer = at.create(**asked)
        text, finish = answer.choices[0].text, answer.choices[0].finish_reason
    assert (text, finish) == ("Grüße" if house == "ollama" else "You said: Grüße", "stop")


@pytest.mark.parametrize("house", ["ollama-embed", "mock-echo"])
def test_texts_are_embedded(gateway: Gateway, module_clients: Clients, house: str) -> None:
    texts = ["a", "b c"]
    floats = module_clients.openai.embeddings.create(model=house, input=texts, encoding_format="float")
    packed = module_clients.openai.embeddings.create(model=house, input=texts)  # base64, as the package asks
    native = module_clients.ollama.embed(house, texts)
    assert len(floats.data) == 2 and len(native.embeddings) == 2
    for one, other, third in zip(floats.data, packed.data, native.embeddings, strict=True):
        assert one.embedding == pytest.approx(other.embedding, rel=1e-6)
        assert one.embedding == pytest.approx(list(third), rel=1e-6)
    assert floats.usage.prompt_tokens == native.prompt_eval_count
    if house == "ollama-embed":
        return  # the scripted server does not have the older door, which is its own
    old = module_clients.ollama.embeddings(house, "a")
    assert list(old.embedding) == pytest.approx(floats.data[0].embedding, rel=1e-6)


def test_tokens_are_counted_by_the_backend_or_estimated(
    gateway: Gateway, houses: Houses, module_clients: Clients
) -> None:
    door = "/v1/messages/count_tokens"
    question = {"messages": [{"role": "user", "content": "How many words are these?"}]}
    own = ask(gateway, door, "anthropic-echo", **question)
    assert own.json() == {"input_tokens": 10} and own.header("x-token-count") is None
    for model in ("openai-echo", "ollama-echo", "tgi-echo", "mock-echo"):
        estimated = ask(gateway, door, model, **question)
        assert (estimated.status, estimated.header("x-token-count")) == (200, "estimated")
        assert 1 <= estimated.json()["input_tokens"] <= 64
    counted: Any = question["messages"]
    assert module_clients.anthropic.messages.count_tokens(model="ollama-echo", messages=counted).input_tokens > 0


def test_models_are_listed_for_every_client(gateway: Gateway, module_clients: Clients) -> None:
    names = {model.id for model in module_clients.openai.models.list()}
    assert {"openai-echo", "anthropic-echo", "ollama-embed", "tgi-echo", "mock-echo"} <= names
    assert {model.id for model in module_clients.anthropic.models.list(limit=5)} == names
    assert module_clients.anthropic.models.retrieve("tgi-echo").id == "tgi-echo"
    assert {model.model for model in module_clients.ollama.list().models} == names
    assert gateway.ask("GET", "/api/version").json()["version"].count(".") == 2


@pytest.mark.parametrize(("house", "door"), UNSUPPORTED)
def test_what_a_backend_cannot_do_is_refused(gateway: Gateway, houses: Houses, house: str, door: str) -> None:
    model = f"{house}-embed" if house == "ollama" else f"{house}-echo"
    response = ask(gateway, door, model)
    assert response.status == 400, response
    message, code = error_of(door, response)
    assert message == f"The model '{model}' cannot be used at {door}." and code in ("", "unsupported_endpoint")
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["status"], line["fault"]) == (400, "unsupported_endpoint")
    assert house == "mute" or not houses.upstreams[house].requests


@pytest.mark.parametrize(
    ("door", "model", "more", "field"),
    [
        ("/v1/chat/completions", "anthropic-echo", {"seed": 7}, "seed"),
        ("/v1/chat/completions", "ollama-echo", {"logit_bias": {"1": 2}}, "logit_bias"),
        ("/v1/chat/completions", "tgi-echo", {"n": 2}, "n"),
        ("/v1/chat/completions", "anthropic-echo", {"unheard_of": 1}, "unheard_of"),
        ("/v1/responses", "chatonly-echo", {"previous_response_id": "resp_1"}, "previous_response_id"),
        ("/v1/responses", "anthropic-echo", {"store": True}, "store"),
        ("/v1/messages", "openai-echo", {"unheard_of": 1}, "unheard_of"),
        ("/v1/messages", "ollama-echo", {"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0]"),
        ("/api/chat", "openai-echo", {"options": {"typical_p": 0.5}}, "options.typical_p"),
        ("/api/generate", "anthropic-echo", {"context": [1, 2]}, "context"),
    ],
)
def test_a_field_without_an_equivalent_is_named(
    gateway: Gateway, houses: Houses, door: str, model: str, more: dict[str, Any], field: str
) -> None:
    response = ask(gateway, door, model, **more)
    assert response.status == 400, response
    message, code = error_of(door, response)
    assert field in message and code in ("", "unsupported_parameter")
    if code:
        assert response.json()["error"]["param"].startswith(field)
    assert not houses.upstreams[model.partition("-")[0]].requests


def test_a_lenient_route_leaves_it_out_and_says_so(gateway: Gateway, houses: Houses) -> None:
    more = {"seed": 7, "logit_bias": {"1": 2}, "unheard_of": 1, "stream": True}
    for stream in (False, True):
        response = ask(gateway, "/v1/chat/completions", "lenient", **(more | {"stream": stream}))
        assert response.status == 200, response
        assert response.header("x-dropped-fields") == "seed, logit_bias, unheard_of"
        assert not {"seed", "logit_bias", "unheard_of"} & set(houses.last("anthropic"))
    response = ask(gateway, "/v1/chat/completions", "lenient")
    assert response.header("x-dropped-fields") is None


@pytest.mark.parametrize("house", ["openai", "anthropic", "ollama", "tgi"])
@pytest.mark.parametrize("door", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_tokens_are_counted_in_metrics_whoever_says_them(
    gateway: Gateway, houses: Houses, module_clients: Clients, door: str, house: str
) -> None:
    def counted() -> list[float]:
        metrics = gateway.metrics()
        model = f"{house}-echo"
        return [metrics.value("gateway_tokens_total", model=model, kind=kind) for kind in ("prompt", "completion")]

    for stream in (False, True):
        before, calls = counted(), len(gateway.calls(path=door))
        heard = CHATS[door](module_clients, houses.asked(house, "echo"), stream)
        gateway.wait_call(calls + 1, path=door)
        assert heard.tokens > (0, 0)
        assert [now - then for now, then in zip(counted(), before, strict=True)] == list(heard.tokens)
