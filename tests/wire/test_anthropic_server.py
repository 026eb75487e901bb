"""The scripted Anthropic server proves itself: the vendor's unmodified SDK straight to it, no gateway between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.wire import anthropic_server
from tests.wire.anthropic_rules import SIGNATURE
from tests.wire.anthropic_server import ARGUMENTS, HIDDEN, MODELS, REQUEST_ID, SCHEMED, THOUGHT
from tests.wire.client import build_request
from tests.wire.ledger import Request
from tests.wire.stage import Stage
from tests.wire.upstream import Upstream

HELLO: Any = [{"role": "user", "content": "Grüße"}]
TOOLS: Any = [
    {"name": "weather", "description": "The weather", "input_schema": {"type": "object", "properties": {}}},
    {"name": "now", "input_schema": {"type": "object", "properties": {}}},
]


@pytest.fixture(scope="module")
def module_server(module_stage: Stage) -> Upstream:
    return module_stage.upstream(anthropic_server.serve)


@pytest.fixture(scope="module")
def module_client(module_server: Upstream) -> Iterator[anthropic.Anthropic]:
    """The SDK, told to try once only, and to leave no connection behind a test."""
    alone = {"Connection": "close"}
    with anthropic.Anthropic(
        api_key="k", base_url=module_server.url, max_retries=0, timeout=10, default_headers=alone
    ) as client:
        yield client


@pytest.fixture
def server(module_stage: Stage, module_server: Upstream) -> Iterator[Upstream]:
    yield module_server
    module_stage.settle()


@pytest.fixture
def client(server: Upstream, module_client: anthropic.Anthropic) -> anthropic.Anthropic:
    return module_client


def last(server: Upstream) -> Request:
    return server.requests[-1]


def test_a_message_is_answered_with_all_its_counts(client: anthropic.Anthropic, server: Upstream) -> None:
    message = client.messages.create(model="claude-echo", max_tokens=16, messages=HELLO, system="Be brief.")
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "You said: Grüße"}]
    assert message.stop_reason == "end_turn"
    assert (message.usage.cache_read_input_tokens, message.usage.cache_creation_input_tokens) == (100, 10)
    assert message._request_id == REQUEST_ID
    assert last(server).json()["system"] == "Be brief."
    assert last(server).header("anthropic-version") == "2026-10-21"


@pytest.mark.parametrize("scenario", ["echo", "tools", "parallel", "thinking", "length", "refusal", "stop"])
def test_a_stream_becomes_the_message_that_comes_whole(client: anthropic.Anthropic, scenario: str) -> None:
    asked: Any = {"model": f"claude-{scenario}", "max_tokens": 2048, "messages": HELLO, "tools": TOOLS}
    asked["stop_sequences"] = ["END"]
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert streamed.to_dict() == whole.to_dict()


def test_tools_are_called_and_their_results_heard(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "claude-parallel", "max_tokens": 16, "tools": TOOLS}
    message = client.messages.create(messages=HELLO, **asked)
    calls = [block for block in message.content if block.type == "tool_use"]
    assert [(one.name, one.input) for one in calls] == [("weather", ARGUMENTS), ("now", {})]
    assert message.stop_reason == "tool_use"
    results = [{"type": "tool_result", "tool_use_id": one.id, "content": f"of {one.name}"} for one in calls]
    turns: Any = [*HELLO, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    asked["model"] = "claude-tools"
    answer = client.messages.create(messages=turns, **asked)
    assert answer.content[0].to_dict()["text"] == "You said: of weather of now"


def test_choices_of_tools_are_kept(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "claude-parallel", "max_tokens": 16, "tools": TOOLS, "messages": HELLO}
    one = client.messages.create(tool_choice={"type": "auto", "disable_parallel_tool_use": True}, **asked)
    named = client.messages.create(**{**asked, "model": "claude-tools"}, tool_choice={"type": "tool", "name": "now"})
    none = client.messages.create(**{**asked, "model": "claude-tools"}, tool_choice={"type": "none"})
    calls = [[block.name for block in m.content if block.type == "tool_use"] for m in (one, named, none)]
    assert calls == [["weather"], ["now"], []]


def test_thinking_comes_signed_and_goes_back(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "claude-thinking", "max_tokens": 4096, "tools": TOOLS}
    asked["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    with client.messages.stream(messages=HELLO, **asked) as stream:
        message = stream.get_final_message()
    thought, hidden, _, call = (block.to_dict() for block in message.content)
    assert (thought["thinking"], thought["signature"], hidden["data"]) == (THOUGHT, SIGNATURE, HIDDEN)
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == 10
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "rain"}
    turns: Any = [*HELLO, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(messages=turns, **asked).stop_reason == "end_turn"
    turns[1]["content"] = [{**thought, "signature": "forged"}, call]
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
        client.messages.create(messages=turns, **asked)


def test_a_schema_is_kept_to(client: anthropic.Anthropic) -> None:
    output: Any = {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"}
    message = client.messages.create(model="claude-echo", max_tokens=16, messages=HELLO, output_config=output)
    assert message.content[0].to_dict()["text"] == SCHEMED


def test_a_text_chooses_the_scenario_too(client: anthropic.Anthropic) -> None:
    asked: Any = [{"role": "user", "content": "Please scenario:length"}]
    assert client.messages.create(model="claude-echo", max_tokens=16, messages=asked).stop_reason == "max_tokens"


def test_tokens_are_counted(client: anthropic.Anthropic, server: Upstream) -> None:
    counted = client.messages.count_tokens(model="claude-echo", messages=HELLO)
    message = client.messages.create(model="claude-echo", max_tokens=16, messages=HELLO)
    assert counted.input_tokens == message.usage.input_tokens


def test_models_are_listed_page_by_page(client: anthropic.Anthropic, server: Upstream) -> None:
    assert [model.id for model in client.models.list(limit=5)] == MODELS
    assert len(server.requests) == -(-len(MODELS) // 5)
    assert client.models.retrieve("claude-echo").max_tokens == 64000
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-none")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("scenario", "kind", "status"),
    [
        ("overloaded", "overloaded_error", 529),
        ("limited", "rate_limit_error", 429),
        ("failing", "api_error", 500),
        ("forbidden", "permission_error", 403),
        ("huge", "request_too_large", 413),
        ("long", "invalid_request_error", 400),
        ("nothing", "not_found_error", 404),
    ],
)
def test_errors_are_the_sdks_own(
    client: anthropic.Anthropic, scenario: str, kind: str, status: int, stream: bool
) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model=f"claude-{scenario}", max_tokens=16, messages=HELLO, stream=stream)
    assert (caught.value.status_code, caught.value.type, caught.value.request_id) == (status, kind, REQUEST_ID)
    if scenario == "limited":
        assert caught.value.response.headers["retry-after"] == "7"
        assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"


def test_a_stream_that_breaks_says_so(client: anthropic.Anthropic) -> None:
    stream = client.messages.create(model="claude-broken", max_tokens=16, messages=HELLO, stream=True)
    with stream, pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(stream)


def test_a_stream_that_is_cut_ends_in_the_middle(module_stage: Stage, server: Upstream) -> None:
    client = module_stage.connect(server)
    body = json.dumps({**ASKED, "model": "claude-cut", "stream": True}).encode()
    client.request("POST", "/v1/messages", body, [("anthropic-version", "2026-10-21")])
    response = client.response("POST")
    assert b"content_block_delta" in response.body
    assert not response.complete
    assert b"message_stop" not in response.body


def test_a_stream_that_stalls_waits_until_its_client_leaves(client: anthropic.Anthropic, server: Upstream) -> None:
    with client.messages.create(model="claude-stall", max_tokens=16, messages=HELLO, stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                break
    server.ledger.wait_abort()


def without(name: str) -> Any:
    return {key: value for key, value in ASKED.items() if key != name}


ASKED: Any = {"model": "claude-echo", "max_tokens": 16, "messages": HELLO}
CALL = {"type": "tool_use", "id": "t", "name": "now", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "noon"}


def turns(*contents: Any) -> Any:
    return {
        **ASKED,
        "messages": [{"role": ("user", "assistant")[at % 2], "content": one} for at, one in enumerate(contents)],
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (without("max_tokens"), "max_tokens: Field required"),
        (without("messages"), "messages: Field required"),
        ({**ASKED, "messages": []}, "at least one message"),
        ({**ASKED, "n": 1}, "n: Extra inputs"),
        ({**ASKED, "temperature": 1}, "temperature: Extra inputs"),
        ({**ASKED, "messages": [{"role": "assistant", "content": "a"}]}, "first message"),
        ({**ASKED, "messages": [{"role": "tool", "content": "a"}]}, "first message"),
        (turns([{"type": "text", "text": ""}]), "non-empty"),
        (turns([{"type": "text", "text": " "}]), "non-whitespace"),
        (turns([]), "non-empty content"),
        (turns([{"type": "input_audio"}]), "does not match any"),
        (turns([{"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": ""}}]), "media_type"),
        (turns("a", [CALL], "b"), "without `tool_result`"),
        (turns("a", "b", [RESULT]), "unexpected `tool_use_id`"),
        (turns("a", [CALL], [{"type": "text", "text": "b"}, RESULT]), "must come first"),
        (turns("a", [{**CALL, "input": []}], [RESULT]), "valid dictionary"),
        (turns("a", [{**CALL, "id": "a:b"}], [RESULT]), "pattern"),
        ({**ASKED, "tool_choice": {"type": "auto"}}, "while providing tools"),
        ({**ASKED, "tools": [{"name": "f", "input_schema": {}}]}, "input_schema.type"),
        ({**ASKED, "thinking": {"type": "enabled", "budget_tokens": 1024}}, "greater than"),
        ({**ASKED, "stop_sequences": ["\n"]}, "non-whitespace"),
        ({**ASKED, "output_config": {"effort": "minimal"}}, "effort"),
    ],
)
def test_what_the_api_refuses_is_refused(client: anthropic.Anthropic, fields: Any, words: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=words):
        client.post("/v1/messages", body=fields, cast_to=object)


def test_the_first_version_takes_sampling_up_to_its_limits(client: anthropic.Anthropic) -> None:
    older = client.with_options(default_headers={"anthropic-version": "2023-06-01"})
    older.post("/v1/messages", body={**ASKED, "temperature": 1, "top_p": 0.5}, cast_to=object)
    with pytest.raises(anthropic.BadRequestError, match="temperature: range"):
        older.post("/v1/messages", body={**ASKED, "temperature": 1.5}, cast_to=object)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "k"}, 400),
        ({"anthropic-version": "2026-10-21"}, 401),
        ({"anthropic-version": "2026-10-21", "x-api-key": "k"}, 200),
        ({"anthropic-version": "2026-10-21", "authorization": "Bearer k"}, 200),
        ({"anthropic-version": "2020-01-01", "x-api-key": "k"}, 400),
    ],
)
def test_a_key_and_a_version_are_needed(
    module_stage: Stage, server: Upstream, headers: dict[str, str], status: int
) -> None:
    client = module_stage.connect(server)
    client.send(build_request("POST", "/v1/messages", json.dumps(ASKED).encode(), list(headers.items()), key=None))
    assert client.response().status == status
