"""What goes through the hub from Anthropic's API to Anthropic's API is the same behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.anthropic.backend_side import MessagesBackend
from protocols.anthropic.client import MessagesClient
from protocols.dialect import Dropped, Terms
from tests.wire import anthropic_server
from tests.wire.anthropic_rules import SIGNATURE, check_body

VERSION = "2026-10-21"
HELLO: dict[str, Any] = {"model": "claude-echo", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}


def sides(fields: dict[str, Any]) -> tuple[MessagesClient, MessagesBackend]:
    stream = fields.get("stream", False)
    client = MessagesClient(fields, stream, "ab12", 7, Dropped(False))
    return client, MessagesBackend(client.hub, stream, "ab12", 7, Terms(api_version=VERSION), Dropped(False))


def through(fields: dict[str, Any]) -> Any:
    asked = json.loads(sides(fields)[1].ask(fields["model"]).body)
    check_body(asked, VERSION)
    return asked


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
FILE = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVB"},
    "title": "t.pdf",
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
SAID = st.builds(lambda said: {"type": "text", "text": said}, TEXTS)
THOUGHTS = st.builds(lambda said: {"type": "thinking", "thinking": said, "signature": SIGNATURE}, TEXTS)
HIDDEN = st.just({"type": "redacted_thinking", "data": "d"})
VALUES = st.none() | st.booleans() | st.integers(-(10**25), 10**25) | TEXTS
INPUTS = st.dictionaries(TEXTS, VALUES | st.lists(VALUES, max_size=2), max_size=2)
TOOLS = [
    {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}, "strict": True},
    {"name": "g", "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}}},
]


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A user and a model by turns, with calls whose results follow them."""
    turns: list[dict[str, Any]] = []
    called: list[str] = []
    for at in range(draw(st.integers(0, 2))):
        turns.append({"role": "user", "content": _answered(called) + draw(_asked(bool(called)))})
        inputs = draw(st.lists(INPUTS, max_size=2))
        called = [f"toolu_{at}_{place}" for place in range(len(inputs))]
        calls = [
            {"type": "tool_use", "id": id, "name": "f", "input": given}
            for id, given in zip(called, inputs, strict=True)
        ]
        thoughts = draw(st.lists(THOUGHTS | HIDDEN, max_size=2))
        said = draw(st.lists(SAID, min_size=0 if calls else 1, max_size=1))
        turns.append({"role": "assistant", "content": [*thoughts, *said, *calls]})
    return [*turns, {"role": "user", "content": _answered(called) + draw(_asked(bool(called)))}]


def _answered(called: list[str]) -> list[dict[str, Any]]:
    return [{"type": "tool_result", "tool_use_id": id, "content": f"of {id}"} for id in called]


def _asked(answered: bool) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(SAID | st.sampled_from([IMAGE, FILE]), min_size=0 if answered else 1, max_size=3)


@given(conversations())
def test_conversations_are_the_same_behind_the_hub(turns: list[dict[str, Any]]) -> None:
    fields = {**HELLO, "messages": turns, "tools": TOOLS}
    assert through(fields) == fields


@pytest.mark.parametrize(
    "more",
    [
        {"system": "S", "stop_sequences": ["E"], "metadata": {"user_id": "u"}, "stream": True},
        {"output_config": {"effort": "xhigh", "format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"tools": TOOLS, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "g"}},
        {"tools": TOOLS, "tool_choice": {"type": "none"}},
        {"thinking": {"type": "disabled"}},
    ],
)
def test_fields_are_the_same_behind_the_hub(more: dict[str, Any]) -> None:
    fields = {**HELLO, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], **more}
    assert through(fields) == fields


@pytest.mark.parametrize("scenario", ["echo", "tools", "parallel", "thinking", "stop", "length", "refusal"])
def test_messages_and_streams_are_the_same_behind_the_hub(scenario: str) -> None:
    fields = {**HELLO, "tools": TOOLS, "stop_sequences": ["E"]}
    model = f"claude-{scenario}"
    said = anthropic_server.SCENARIOS[scenario](fields)
    whole = anthropic_server.whole_message(model, said, fields)
    client, backend = sides(fields)
    answered = json.loads(client.answer(backend.answer(json.dumps(whole).encode())))
    client, backend = sides({**fields, "stream": True})
    chunks = backend.feed(b"".join(anthropic_server.events(model, said, fields))) + backend.end()
    streamed = collect(b"".join(map(client.feed, chunks)) + client.end())
    for name in ("content", "stop_reason", "stop_sequence", "model"):
        assert answered[name] == whole[name]
        assert streamed[name] == whole[name]
    for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"):
        assert answered["usage"][name] == whole["usage"][name]
        assert streamed["usage"][name] == whole["usage"][name]


def collect(stream: bytes) -> dict[str, Any]:
    """The message that the events of *stream* tell."""
    message: dict[str, Any] = {}
    told = ""
    for event in stream.decode().split("\n\n")[:-1]:
        data = json.loads(event.partition("data: ")[2])
        if data["type"] == "message_start":
            message = data["message"]
        elif data["type"] == "content_block_start":
            message["content"].append(data["content_block"])
            told = ""
        elif data["type"] == "content_block_delta":
            block, delta = message["content"][-1], data["delta"]
            told += delta.get("partial_json", "")
            for name in ("text", "thinking", "signature"):
                if name in delta:
                    block[name] += delta[name]
        elif data["type"] == "content_block_stop" and message["content"][-1]["type"] == "tool_use":
            message["content"][-1]["input"] = json.loads(told or "{}")
        elif data["type"] == "message_delta":
            message |= data["delta"]
            message["usage"] |= data["usage"]
    return message
