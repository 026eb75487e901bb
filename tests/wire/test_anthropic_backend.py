"""The backend's side of Anthropic's API against the scripted server: requests are taken, answers understood."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from protocols.anthropic.backend_side import MessagesBackend
from protocols.dialect import Broken, Dropped, Terms
from protocols.pieces import Malformed
from tests.wire import anthropic_server
from tests.wire.anthropic_server import ARGUMENTS, HIDDEN, SCHEMED, THOUGHT
from tests.wire.client import Response
from tests.wire.stage import Stage
from tests.wire.upstream import Upstream

VERSIONS = ["2023-06-01", "2026-10-21"]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"properties": {}}, "strict": True}},
    {"type": "function", "function": {"name": "now"}},
]
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße"}]


@pytest.fixture(scope="module")
def module_server(module_stage: Stage) -> Upstream:
    return module_stage.upstream(anthropic_server.serve)


@pytest.fixture
def server(module_stage: Stage, module_server: Upstream) -> Iterator[Upstream]:
    yield module_server
    module_stage.settle()


class Caller:
    """Asks the server in the hub's words."""

    def __init__(self, stage: Stage, server: Upstream, version: str) -> None:
        self._client = stage.connect(server)
        self._terms = Terms(api_version=version)

    def ask(self, scenario: str, messages: Any, stream: bool, **more: Any) -> tuple[MessagesBackend, Response]:
        hub = {"model": "m", "messages": messages, **more}
        side = MessagesBackend(hub, stream, "ab12", 7, self._terms, Dropped(False))
        asked = side.ask(f"claude-{scenario}")
        headers = [tuple(line.split(": ", 1)) for line in asked.lines.decode().splitlines()]
        self._client.request("POST", asked.path.decode(), asked.body, headers)
        return side, self._client.response("POST")

    def message(self, scenario: str, messages: Any, stream: bool, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The choice and the usage of an answer; of a stream, as a client puts them together."""
        side, response = self.ask(scenario, messages, stream, **more)
        assert response.status == 200, response.body
        if not stream:
            answer = side.answer(response.body)
            return answer["choices"][0], answer["usage"]
        chunks = [chunk for event in response.events for chunk in side.feed(event)] + side.end()
        return put_together(chunks), chunks[-1]["usage"]


def put_together(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "logprobs": None}
    message: dict[str, Any] = {"refusal": None, "content": None}
    for chunk in chunks[:-1]:
        delta = dict(chunk["choices"][0]["delta"])
        for call in delta.pop("tool_calls", []):
            calls = message.setdefault("tool_calls", [])
            if call.pop("index") == len(calls):
                calls.append(call)
            else:
                calls[-1]["function"]["arguments"] += call["function"]["arguments"]
        message["thinking_blocks"] = message.get("thinking_blocks", []) + delta.pop("thinking_blocks", [])
        for name, text in delta.items():
            message[name] = (message.get(name) or "") + text
        choice |= {name: value for name, value in chunk["choices"][0].items() if name not in ("delta", "index")}
    return {**choice, "message": message}


@pytest.fixture(params=VERSIONS)
def caller(request: pytest.FixtureRequest, module_stage: Stage, server: Upstream) -> Caller:
    return Caller(module_stage, server, request.param)


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@both_ways
def test_a_chat_is_answered_and_counted(caller: Caller, stream: bool) -> None:
    choice, usage = caller.message("echo", HELLO, stream, max_tokens=9, user="u")
    assert (choice["message"]["content"], choice["finish_reason"]) == ("You said: Grüße", "stop")
    assert usage["prompt_tokens_details"] == {"cached_tokens": 100, "cache_creation_tokens": 10}
    assert usage["prompt_tokens"] > 110
    assert usage["completion_tokens"] == 5


@both_ways
def test_calls_are_made_and_their_results_heard_with_the_thinking_before_them(caller: Caller, stream: bool) -> None:
    more = {"tools": TOOLS, "reasoning_effort": "high", "tool_choice": "auto"}
    choice, usage = caller.message("thinking", HELLO, stream, **more)
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert message["reasoning_content"] == THOUGHT
    assert message["thinking_blocks"][1] == {"type": "redacted_thinking", "data": HIDDEN}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 10}
    (call,) = message["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    heard = [*HELLO, message, {"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
    answer, _ = caller.message("thinking", heard, stream, **more)
    assert answer["message"]["content"] == "You said: rain"


@both_ways
def test_parallel_calls_are_told_apart(caller: Caller, stream: bool) -> None:
    message = caller.message("parallel", HELLO, stream, tools=TOOLS)[0]["message"]
    assert not message["content"]
    calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]]
    assert calls == [("weather", ARGUMENTS), ("now", {})]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in message["tool_calls"]]
    heard = [*HELLO, message, *results, {"role": "user", "content": "And?"}]
    assert caller.message("echo", heard, stream, tools=TOOLS)[0]["message"]["content"] == "You said: x x And?"
    alone = caller.message("parallel", HELLO, stream, tools=TOOLS, parallel_tool_calls=False)[0]["message"]
    assert len(alone["tool_calls"]) == 1


@both_ways
def test_stops_limits_and_refusals_are_told(caller: Caller, stream: bool) -> None:
    choice, _ = caller.message("stop", HELLO, stream, stop=["END"])
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")
    assert caller.message("length", HELLO, stream)[0]["finish_reason"] == "length"
    assert caller.message("refusal", HELLO, stream)[0]["finish_reason"] == "content_filter"


@both_ways
def test_schemas_images_and_files_are_taken(caller: Caller, stream: bool) -> None:
    content = [
        {"type": "text", "text": "Who?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.webp"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    schema = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}}
    messages = [{"role": "user", "content": content}]
    choice, _ = caller.message("echo", messages, stream, response_format=schema)
    assert choice["message"]["content"] == SCHEMED


def test_odd_orders_of_messages_are_taken(caller: Caller) -> None:
    call = {"id": "functions.now:0", "type": "function", "function": {"name": "now", "arguments": ""}}
    messages = [
        {"role": "assistant", "content": "Welcome."},
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "user", "content": "meanwhile"},
        {"role": "tool", "tool_call_id": call["id"], "content": ""},
        {"role": "system", "content": "Late."},
    ]
    answer, _ = caller.message("echo", messages, stream=False, temperature=1.0, top_p=1)
    assert answer["message"]["content"] == "You said: meanwhile"


def test_sampling_is_taken_by_the_first_version(module_stage: Stage, server: Upstream) -> None:
    caller = Caller(module_stage, server, "2023-06-01")
    caller.message("echo", HELLO, stream=False, temperature=1.8, top_p=0.5, top_k=3)
    assert server.requests[-1].json()["top_k"] == 3


@pytest.mark.parametrize(("scenario", "status"), [("overloaded", 529), ("limited", 429), ("long", 400), ("none", 404)])
@both_ways
def test_errors_are_understood(caller: Caller, scenario: str, status: int, stream: bool) -> None:
    side, response = caller.ask(scenario, HELLO, stream)
    error = side.error(response.status, response.body)
    assert error.status == status
    assert error.message == response.json()["error"]["message"]


def test_a_stream_that_breaks_is_broken(caller: Caller) -> None:
    side, response = caller.ask("broken", HELLO, stream=True)
    with pytest.raises(Broken, match="Overloaded"):
        side.feed(response.body)
    with pytest.raises(Malformed):
        caller.ask("echo", HELLO, stream=True)[0].end()
