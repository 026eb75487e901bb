"""The scripted server of Ollama proves itself: the official client, unmodified, straight to it."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ollama import AsyncClient, Client, ResponseError

from tests.unit.ollama_calls import PNG
from tests.wire.ollama_server import OllamaServer
from tests.wire.stage import Stage
from tests.wire.upstream import Upstream

USER = {"role": "user", "content": "hi"}


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    server = OllamaServer()
    yield server
    server.gate.close()


@pytest.fixture
def upstream(server: OllamaServer, stage: Stage) -> Upstream:
    """The stage ends first."""
    return stage.upstream(server)


@pytest.fixture
def client(upstream: Upstream) -> Iterator[Client]:
    with Client(upstream.url, trust_env=False) as client:
        yield client


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"say: {text}"}]


def get_weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: the city
    """
    return f"fine in {city}"


def test_it_says_that_it_runs_which_version_and_which_models(client: Client, upstream: Upstream) -> None:
    assert httpx.get(upstream.url, trust_env=False).text == "Ollama is running"
    assert httpx.get(f"{upstream.url}/api/version", trust_env=False).json() == {"version": "0.33.0"}
    assert [model.model for model in client.list().models] == ["llama3.2", "qwen3", "llava", "all-minilm"]


def test_a_chat_is_answered_whole_and_streamed(client: Client, upstream: Upstream) -> None:
    answer = client.chat("llama3.2", say("über uns"))
    assert (answer.message.content, answer.done, answer.done_reason) == ("über uns", True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (3, 2)
    parts = list(client.chat("llama3.2", say("über uns"), stream=True))
    assert "".join(part.message.content or "" for part in parts) == "über uns"
    assert [part.done for part in parts] == [False, False, True]
    assert [request.json()["stream"] for request in upstream.requests] == [False, True]


def test_a_stream_is_the_default(upstream: Upstream) -> None:
    body = {"model": "llama3.2", "messages": [USER]}
    answer = httpx.post(f"{upstream.url}/api/chat", json=body, trust_env=False)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert len(answer.text.splitlines()) == 3


def test_tools_are_called_and_their_results_heard(client: Client) -> None:
    answer = client.chat("llama3.2", [USER], tools=[get_weather])
    (call,) = answer.message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Köln"})
    result = {"role": "tool", "tool_name": "get_weather", "content": "fine"}
    answer = client.chat("llama3.2", [USER, answer.message, result], tools=[get_weather])
    assert answer.message.content == "get_weather said fine"
    asked = [{"role": "user", "content": "twice"}]
    parts = list(client.chat("qwen3", asked, tools=[get_weather], stream=True))
    assert sum(len(part.message.tool_calls or []) for part in parts) == 2
    assert "".join(part.message.thinking or "" for part in parts) == "Let me think."


def test_options_formats_and_images_are_heeded(client: Client) -> None:
    answer = client.chat("llama3.2", say("one two three"), options={"num_predict": 2})
    assert (answer.message.content, answer.done_reason) == ("one two", "length")
    assert client.chat("llama3.2", say("one two"), options={"stop": [" two"]}).message.content == "one"
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    assert client.chat("llama3.2", [USER], format=schema).message.content == '{"age":7}'
    assert client.chat("llama3.2", [USER], format="json").message.content == '{"answer": "yes"}'
    image = base64.b64decode(PNG)
    answer = client.chat("llava", [{**USER, "images": [image]}])
    assert answer.message.content == f"I see 1 image of {len(image)} bytes"
    logprobs = client.chat("llama3.2", say("one two"), logprobs=True).logprobs or []
    assert [token.token for token in logprobs] == ["one", " two"]


def test_thinking_is_told_apart_and_can_be_turned_off(client: Client) -> None:
    assert client.chat("qwen3", [USER]).message.thinking == "Let me think."
    assert client.chat("qwen3", [USER], think=False).message.thinking is None
    assert client.generate("qwen3", "hi", think="low").thinking == "Hm."


def test_a_prompt_is_answered_whole_streamed_and_raw(client: Client) -> None:
    assert client.generate("llama3.2", "say: one two", system="be brief").response == "one two"
    assert client.generate("llama3.2", "hi", raw=True).response == "Hello there"
    parts = list(client.generate("llama3.2", "say: one two", stream=True))
    assert [part.response for part in parts] == ["one", " two", ""]


def test_texts_are_embedded(client: Client) -> None:
    answer = client.embed("all-minilm", ["a b", "c"], dimensions=2)
    assert [len(vector) for vector in answer.embeddings] == [2, 2]
    assert answer.prompt_eval_count == 3


def test_a_model_is_loaded_and_unloaded_without_an_answer(client: Client) -> None:
    assert client.chat("llama3.2").done_reason == "load"
    assert client.generate("llama3.2", keep_alive=0).done_reason == "unload"


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("chat", {"model": "nope", "messages": [USER]}, 404, "model 'nope' not found"),
        ("generate", {"prompt": "x"}, 404, "model '' not found"),
        ("chat", {"messages": [USER]}, 400, "model is required"),
        ("chat", {"model": "llama3.2", "messages": [{"role": "user", "content": "busy"}]}, 503, "server busy"),
        ("chat", {"model": "llama3.2", "messages": [USER], "think": True}, 400, "does not support thinking"),
        ("chat", {"model": "llama3.2", "messages": [USER], "think": "a lot"}, 400, "invalid think value"),
        ("chat", {"model": "llava", "messages": [USER], "tools": [{"type": "function"}]}, 400, "not support tools"),
        ("chat", {"model": "all-minilm", "messages": [USER]}, 400, "does not support chat"),
        ("chat", {"model": "llama3.2", "messages": [{"role": "user", "content": [1]}]}, 400, "cannot unmarshal"),
        ("chat", {"model": "llava", "messages": [{**USER, "images": ["http://x/y.png"]}]}, 400, "cannot unmarshal"),
        ("chat", {"model": "llama3.2", "messages": [USER], "options": {"seed": "x"}}, 500, 'option "seed"'),
        ("chat", {"model": "llama3.2", "messages": [USER], "top_logprobs": 21}, 400, "cannot unmarshal"),
        ("chat", {"model": "llama3.2", "messages": [USER], "format": "xml"}, 400, "invalid format"),
        ("generate", {"model": "llama3.2", "prompt": "x", "raw": True, "system": "y"}, 400, "raw mode"),
        ("generate", {"model": "llama3.2", "prompt": "fail midway", "stream": False}, 500, "stopped"),
        ("embed", {"model": "all-minilm", "input": [1]}, 400, "cannot unmarshal"),
    ],
)
def test_wrong_requests_are_refused_as_by_a_real_server(
    upstream: Upstream, path: str, body: dict[str, Any], status: int, text: str
) -> None:
    answer = httpx.post(f"{upstream.url}/api/{path}", json=body, trust_env=False)
    assert (answer.status_code, text in answer.json()["error"]) == (status, True)


def test_the_client_raises_for_errors_also_in_the_middle_of_a_stream(client: Client) -> None:
    with pytest.raises(ResponseError) as caught:
        client.chat("nope", [USER])
    assert (caught.value.status_code, caught.value.error) == (404, "model 'nope' not found")
    parts = client.chat("llama3.2", [{"role": "user", "content": "fail midway"}], stream=True)
    assert next(parts).message.content == "Hello"
    with pytest.raises(ResponseError, match="unexpectedly stopped"):
        next(parts)


def test_a_stream_that_stops_midway_is_no_whole_answer(client: Client) -> None:
    parts = client.chat("llama3.2", [{"role": "user", "content": "stop midway"}], stream=True)
    assert next(parts).message.content == "Hello"
    with pytest.raises(httpx.RemoteProtocolError):
        next(parts)


def test_a_stalled_stream_goes_on_when_its_gate_opens(client: Client, server: OllamaServer) -> None:
    parts = client.chat("llama3.2", [{"role": "user", "content": "stall midway"}], stream=True)
    assert next(parts).message.content == "Hello"
    threading.Thread(target=server.gate.open).start()
    assert [part.message.content for part in parts] == [" there", ""]


async def _ask(url: str) -> str | None:
    async with AsyncClient(url, trust_env=False) as client:
        text = ""
        async for part in await client.chat("llama3.2", say("one two"), stream=True):
            text += part.message.content or ""
        return text


def test_the_asynchronous_client_is_served_alike(upstream: Upstream) -> None:
    assert asyncio.run(_ask(upstream.url)) == "one two"


def test_its_openai_face_answers_too(upstream: Upstream) -> None:
    body = {"model": "llama3.2", "messages": [USER]}
    answer = httpx.post(f"{upstream.url}/v1/chat/completions", json=body, trust_env=False).json()
    assert answer["choices"][0]["message"]["content"] == "Hello"
