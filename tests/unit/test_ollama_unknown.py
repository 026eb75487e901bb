"""Fields within messages, calls and tools of Ollama's clients that Ollama's have not: refused by their place."""

from __future__ import annotations

from typing import Any

import pytest

from protocols.dialect import Dropped, Unmappable
from protocols.ollama.chat_client import ChatClient
from tests.unit.ollama_calls import CREATED, ID, client

USER = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f", "arguments": {}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def hub_of(**fields: Any) -> dict[str, Any]:
    hub = client("chat", {"model": "m", "messages": [USER], **fields}).hub
    assert isinstance(hub, dict)
    return hub


def refused(**fields: Any) -> str:
    with pytest.raises(Unmappable) as caught:
        hub_of(**fields)
    assert caught.value.param is not None
    assert f"'{caught.value.param}'" in caught.value.message
    return caught.value.param


def called(**call: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "tool_calls": [{"function": FUNCTION, **call}]}]}


@pytest.mark.parametrize(
    ("fields", "without", "param"),
    [
        ({"messages": [USER, {**USER, "weight": 1}]}, {"messages": [USER, USER]}, "messages[1].weight"),
        ({"messages": [{**USER, "name": "ann"}]}, {}, "messages[0].name"),
        (called(urgent=True), called(), "messages[0].tool_calls[0].urgent"),
        (called(function={**FUNCTION, "strict": True}), called(), "messages[0].tool_calls[0].function.strict"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, {"tools": [TOOL]}, "tools[0].defer_loading"),
        (
            {"tools": [{"function": {"name": "f", "returns": {}}}]},
            {"tools": [{"function": {"name": "f"}}]},
            "tools[0].function.returns",
        ),
    ],
)
def test_an_unknown_field_within_is_refused_by_its_place_or_left_out_and_noted(
    fields: dict[str, Any], without: dict[str, Any], param: str
) -> None:
    assert refused(**fields) == param
    dropped = Dropped(lenient=True)
    side = ChatClient({"model": "m", "messages": [USER], **fields}, False, ID, CREATED, dropped)
    assert dropped.fields == [param]
    assert side.hub == hub_of(**without)


def test_a_call_of_another_type_is_refused_and_not_left_out() -> None:
    assert refused(**called(type="custom")) == "messages[0].tool_calls[0].type"


def test_what_servers_know_of_calls_and_what_says_nothing_passes() -> None:
    nothing = {"name": None, "thinking": "", "tool_calls": [], "images": None, "tool_name": "x", "weight": None}
    call = {"id": "c", "type": "function", "index": 0, "function": {"index": 0, **FUNCTION}}
    told = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert hub_of(messages=[USER | nothing, {"role": "assistant", "tool_calls": [call]}])["messages"] == [
        USER,
        {"role": "assistant", "content": None, "tool_calls": told},
    ]


def test_a_field_that_was_left_out_twice_is_noted_once() -> None:
    dropped = Dropped(lenient=True)
    for _ in range(2):
        ChatClient({"model": "m", "messages": [{**USER, "a": 1, "b": 2}]}, False, ID, CREATED, dropped)
    assert dropped.fields == ["messages[0].a", "messages[0].b"]
