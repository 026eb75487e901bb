"""Ollama's sides against a server that judges them: what they ask is what it takes, what it says is what they read.

No gateway between: a request goes through both sides to the scripted server and the answer back to the official
client's types.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from ollama import ChatResponse, EmbedResponse, GenerateResponse

from protocols.dialect import Task
from tests.unit.ollama_calls import PNG, backend, client, lines, told
from tests.wire.ollama_server import OllamaServer
from tests.wire.stage import Stage
from tests.wire.upstream import Upstream

TYPES = {"chat": ChatResponse, "generate": GenerateResponse, "embed": EmbedResponse}
PATHS = {Task.CHAT: "chat", Task.COMPLETION: "generate", Task.EMBEDDINGS: "embed"}
PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": PROPERTIES}}}
USER = {"role": "user", "content": "say: über 天空"}
CALL = {"function": {"name": "f", "arguments": {"city": "x"}}}
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}


@pytest.fixture
def upstream(stage: Stage) -> Upstream:
    return stage.upstream(OllamaServer())


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a chat": ("chat", {"model": "llama3.2", "messages": [{"role": "system", "content": "be brief"}, USER]}),
    "options": (
        "chat",
        {"model": "llama3.2", "messages": [USER], "options": {"num_predict": 1, "seed": 7, "top_p": 1, "stop": ["x"]}},
    ),
    "thinking": ("chat", {"model": "qwen3", "messages": [USER], "think": "max"}),
    "no thinking": ("chat", {"model": "qwen3", "messages": [USER], "think": False}),
    "tools": ("chat", {"model": "qwen3", "messages": [{"role": "user", "content": "twice"}], "tools": [TOOL]}),
    "results of tools": (
        "chat",
        {
            "model": "llama3.2",
            "tools": [TOOL],
            "messages": [
                USER,
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL]},
                {"role": "tool", "tool_name": "f", "content": "fine"},
            ],
        },
    ),
    "a schema": ("chat", {"model": "llama3.2", "messages": [USER], "format": SCHEMA}),
    "logprobs": ("chat", {"model": "llama3.2", "messages": [USER], "logprobs": True, "top_logprobs": 2}),
    "an image": ("chat", {"model": "llava", "messages": [{**USER, "images": [PNG]}]}),
    "a raw prompt": ("generate", {"model": "llama3.2", "prompt": "say: a b", "raw": True}),
    "embeddings": ("embed", {"model": "all-minilm", "input": ["a", "b c"], "dimensions": 2}),
}


def without(value: Any, *names: str) -> Any:
    """*value* without *names*, at every depth: the times, and the ids that are not asked for."""
    if isinstance(value, dict):
        return {key: without(inner, *names) for key, inner in value.items() if key not in names}
    return [without(inner, *names) for inner in value] if isinstance(value, list) else value


TIMES = ("created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


@pytest.mark.parametrize("name", REQUESTS)
def test_a_call_through_both_sides_says_what_a_direct_one_says(upstream: Upstream, name: str) -> None:
    path, given = REQUESTS[name]
    given = given if path == "embed" else given | {"stream": False}
    direct = httpx.post(f"{upstream.url}/api/{path}", json=given, trust_env=False)
    assert direct.status_code == 200
    door = client(path, given)
    behind = backend(PATHS[door.task], door.hub)
    ask = behind.ask(given["model"])
    answer = httpx.post(f"{upstream.url}{ask.path.decode()}", content=ask.body, trust_env=False)
    assert answer.status_code == 200, answer.text
    found = json.loads(door.answer(behind.answer(answer.content)))
    TYPES[path](**found)
    assert without(found, *TIMES) == without(direct.json(), *TIMES)


@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "embeddings"])
def test_a_stream_through_both_sides_says_what_a_direct_one_says(upstream: Upstream, name: str) -> None:
    path, given = REQUESTS[name]
    direct = lines(httpx.post(f"{upstream.url}/api/{path}", json=given, trust_env=False).content)
    door = client(path, given, stream=True)
    behind = backend(PATHS[door.task], door.hub, stream=True)
    ask = behind.ask(given["model"])
    answer = httpx.post(f"{upstream.url}{ask.path.decode()}", content=ask.body, trust_env=False)
    assert answer.headers["content-type"] == "application/x-ndjson", answer.text
    chunks, ending = told(behind, answer.content)
    assert ending == ""
    found = lines(b"".join(map(door.feed, chunks)) + door.end())
    for line in found:
        TYPES[path](**line)
    calls = [call for line in direct for call in line.get("message", {}).get("tool_calls", [])]
    if not calls:
        assert without(found, *TIMES) == without(direct, *TIMES)
        return
    (told_calls,) = [line["message"]["tool_calls"] for line in found if "tool_calls" in line.get("message", {})]
    assert told_calls == calls  # all in one line, before the last
    assert without(found[-1], *TIMES) == without(direct[-1], *TIMES)


@pytest.mark.parametrize(
    ("model", "text", "status", "code"),
    [("nope", "x", 404, "model_not_found"), ("llama3.2", "busy", 503, "overloaded")],
)
def test_its_errors_are_read(upstream: Upstream, model: str, text: str, status: int, code: str) -> None:
    behind = backend("chat", {"model": model, "messages": [{"role": "user", "content": text}]})
    ask = behind.ask(model)
    answer = httpx.post(f"{upstream.url}{ask.path.decode()}", content=ask.body, trust_env=False)
    error = behind.error(answer.status_code, answer.content)
    assert (error.status, error.code) == (status, code)
    assert error.message == answer.json()["error"]


def test_a_stream_that_fails_midway_is_broken(upstream: Upstream) -> None:
    behind = backend("chat", {"model": "m", "messages": [{"role": "user", "content": "fail midway"}]}, stream=True)
    ask = behind.ask("llama3.2")
    answer = httpx.post(f"{upstream.url}{ask.path.decode()}", content=ask.body, trust_env=False)
    chunks, ending = told(behind, answer.content)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["Hello"]
    assert ending == "Broken: model runner has unexpectedly stopped"
