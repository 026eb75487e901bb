"""Whole answers of the hub -> messages, as the vendor's SDK reads them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from protocols.anthropic.client import MessagesClient
from protocols.dialect import Dropped, JsonObject
from protocols.pieces import Malformed


def write(answer: JsonObject, **fields: Any) -> JsonObject:
    request = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}], **fields}
    body = msgspec.json.decode(MessagesClient(request, False, "abc", 0, Dropped(False)).answer(answer))
    Message.model_validate(body, strict=True)
    return body


def answer(finish: str | None = "stop", stop: Any = None, **message: Any) -> JsonObject:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, "stop_reason": stop}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "served-as", "choices": [choice]}


def call(arguments: str | None, id: str | None = "c1") -> JsonObject:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def test_text_and_tokens() -> None:
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 5,
        "total_tokens": 25,
        "prompt_tokens_details": {"cached_tokens": 8, "cache_creation_tokens": 2, "audio_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert write(answer(content="Hello") | {"usage": usage}) == {
        "id": "msg_abc",
        "type": "message",
        "role": "assistant",
        "model": "served-as",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 2,
            "cache_read_input_tokens": 8,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 3},
        },
    }


def test_without_tokens_told_both_numbers_are_there() -> None:
    assert write(answer(content="Hello"))["usage"] == {"input_tokens": 0, "output_tokens": 0}
    nulls = {"prompt_tokens": None, "completion_tokens": 2, "prompt_tokens_details": None}
    assert write(answer(content="Hello") | {"usage": nulls})["usage"]["output_tokens"] == 2
    odd = {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}}
    assert write(answer(content="Hello") | {"usage": odd})["usage"]["input_tokens"] == 0


def test_an_answer_that_names_no_model_has_the_requests() -> None:
    assert write(answer(content="x") | {"model": None})["model"] == "m"


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": None}, []),
        ({"content": ""}, []),
        (
            {"content": "a", "reasoning_content": "hm"},
            [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "a"}],
        ),
        (
            {
                "content": "a",
                "reasoning_content": "hm",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "xyz"},
                ],
            },
            [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "text", "text": "a"},
            ],
        ),
        (
            {"content": "a", "tool_calls": [call('{"n": 12345678901234567890123, "é": []}'), call("", None)]},
            [
                {"type": "text", "text": "a"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"n": 12345678901234567890123, "é": []}},
                {"type": "tool_use", "id": "toolu_abc_1", "name": "f", "input": {}},
            ],
        ),
        (
            {"content": None, "function_call": {"name": "f", "arguments": "null"}},
            [{"type": "tool_use", "id": "toolu_abc_0", "name": "f", "input": {}}],
        ),
        ({"content": None, "refusal": "No."}, [{"type": "text", "text": "No."}]),
    ],
)
def test_what_the_model_said(message: JsonObject, content: list[JsonObject]) -> None:
    assert write(answer(**message))["content"] == content


def test_thinking_that_nobody_wants_to_see_is_not_shown() -> None:
    body = write(answer(content="a", reasoning_content="hm"), thinking={"type": "disabled"})
    assert body["content"] == [{"type": "text", "text": "a"}]


@pytest.mark.parametrize(
    ("said", "reason", "sequence"),
    [
        (answer("stop", content="a"), "end_turn", None),
        (answer("stop", "END", content="a"), "stop_sequence", "END"),
        (answer("stop", 2, content="a"), "end_turn", None),
        (answer("length", content="a"), "max_tokens", None),
        (answer("content_filter", content="a"), "refusal", None),
        (answer("stop", refusal="no"), "refusal", None),
        (answer(None, content="a"), "end_turn", None),
        (answer("tool_calls", content="a"), "end_turn", None),
        (answer("tool_calls", tool_calls=[call("{}")]), "tool_use", None),
        (answer("stop", "END", tool_calls=[call("{}")]), "tool_use", None),
        (answer("length", tool_calls=[call('{"a')]), "max_tokens", None),
    ],
)
def test_why_the_model_stopped(said: JsonObject, reason: str, sequence: str | None) -> None:
    body = write(said)
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, sequence)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        answer(content=1),
        answer(content=[{"type": "text", "text": "a"}]),
        answer(tool_calls=[{}]),
        answer(tool_calls=[{"function": {"name": None}}]),
        answer(tool_calls=[call('{"a')]),
        answer(tool_calls=[call("Infinity")]),
        answer(tool_calls=[call("[]")]),
        answer(thinking_blocks=[{"type": "text"}]),
        answer(content="a") | {"usage": {"prompt_tokens": "1"}},
    ],
)
def test_an_answer_that_is_none_is_malformed(wrong: JsonObject) -> None:
    with pytest.raises(Malformed):
        write(wrong)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["message", "content", "tool_calls", "function", "name", "arguments", "id", "finish_reason"]
            ),
            inner,
            max_size=5,
        )
    ),
)


@given(st.fixed_dictionaries({"choices": st.lists(VALUES)}, optional={"usage": VALUES, "model": VALUES}))
def test_a_hostile_answer_is_malformed_and_nothing_else(value: JsonObject) -> None:
    try:
        write(value)
    except Malformed:
        return
