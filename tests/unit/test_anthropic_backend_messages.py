"""The hub's messages become turns as Anthropic's Messages API wants them, whatever a client sends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.anthropic.backend_side import MessagesBackend
from protocols.dialect import Dropped, Terms, Unmappable
from tests.unit.messages_asked import IMAGE, ask, call, chat, refused, talk, text


def test_instructions_are_joined_wherever_they_stand() -> None:
    fields, _ = ask(
        {
            "messages": [
                {"role": "system", "content": "One."},
                {"role": "user", "content": "Hello"},
                {"role": "developer", "content": [{"type": "text", "text": "Two."}, {"type": "text", "text": " "}]},
            ]
        }
    )
    assert fields["system"] == "One.\nTwo."
    assert fields["messages"] == [{"role": "user", "content": text("Hello")}]


def test_turns_alternate_and_a_user_is_first() -> None:
    said = talk(
        {"role": "assistant", "content": "I begin."},
        {"role": "assistant", "content": [{"type": "text", "text": "Still I."}, {"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "a", "name": "Ann"},
        {"role": "user", "content": "b", "name": "Bob"},
    )
    assert said == [
        {"role": "user", "content": text(".")},
        {"role": "assistant", "content": text("I begin.", "Still I.", "No.")},
        {"role": "user", "content": text("a", "b")},
    ]


def test_empty_texts_are_left_out_and_so_are_messages_without_any_other() -> None:
    said = talk(
        {"role": "user", "content": [*text("", " \n"), *text("a")]},
        {"role": "assistant", "content": "", "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
        {"role": "user", "content": ""},
        {"role": "user", "content": " \n"},
    )
    assert said == [
        {"role": "user", "content": text("a")},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1"}]},
    ]


def test_results_of_tools_come_before_all_else_of_their_turn_in_their_order() -> None:
    said = talk(
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call("c:1"), call("c2")]},
        {"role": "user", "content": "meanwhile"},
        {"role": "tool", "tool_call_id": "c:1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [*text("two"), *text("three")]},
    )
    assert said[-1]["content"] == [
        {"type": "tool_result", "tool_use_id": "c_1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "c2", "content": text("two", "three")},
        *text("meanwhile"),
    ]
    assert said[1]["content"][0]["id"] == "c_1", "ids with signs that the API does not take stay the same ones"


def test_arguments_travel_as_they_stand() -> None:
    number = "123456789012345678901234567890.10"
    dropped = Dropped(False)
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call(arguments=f'{{"n":{number}}}')]},
    ]
    body = MessagesBackend({"messages": messages}, False, "ab12", 7, Terms(), dropped).ask("m").body
    assert number.encode() in body


@pytest.mark.parametrize(
    "arguments", ["Infinity", '{"a":Infinity}', "[]", "7", "{", "null", '{"a":1}}', "\ud800", 7, {}]
)
def test_arguments_that_are_no_object_are_refused(arguments: Any) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call(), call("c2", arguments)]}]
    assert refused({"messages": messages}) == "messages[1].tool_calls[1].function.arguments"


def test_thinking_goes_back_with_its_signature_before_text_and_calls() -> None:
    signed = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "d"}
    unsigned = {"type": "thinking", "thinking": "Not yours.", "signature": ""}
    message = {
        "role": "assistant",
        "content": "Hi",
        "tool_calls": [call()],
        "thinking_blocks": [signed, hidden, unsigned],
    }
    said = talk({"role": "user", "content": "a"}, message)
    assert [block["type"] for block in said[1]["content"]] == ["thinking", "redacted_thinking", "text", "tool_use"]
    assert said[1]["content"][:2] == [signed, hidden]


def test_a_signature_that_came_in_a_stream_finds_its_text() -> None:
    alone = {"type": "thinking", "thinking": "", "signature": "s"}
    message = {"role": "assistant", "content": "Hi", "reasoning_content": "Hm.", "thinking_blocks": [alone]}
    said = talk({"role": "user", "content": "a"}, message)
    assert said[1]["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "s"}


def test_reasoning_without_a_signature_stays_behind() -> None:
    said = talk({"role": "user", "content": "a"}, {"role": "assistant", "content": "Hi", "reasoning_content": "Hm."})
    assert said[1]["content"] == text("Hi")


def test_images_come_as_data_or_by_url() -> None:
    fields, _ = ask(chat([IMAGE, {"type": "image_url", "image_url": "HTTPS://example.com/a"}]))
    assert fields["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}},
        {"type": "image", "source": {"type": "url", "url": "HTTPS://example.com/a"}},
    ]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "type"),
        ({"type": "image_url", "image_url": {"url": "data:image/bmp;base64,Qk0="}}, "image_url.url"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "data:text/csv;base64,YQ=="}}, "file.file_data"),
    ],
)
def test_content_of_other_kinds_is_refused_or_left_out(part: dict[str, Any], param: str) -> None:
    hub = chat([*text("a"), part])
    assert refused(hub) == f"messages[0].content[1].{param}"
    fields, left = ask(hub, lenient=True)
    assert fields["messages"][0]["content"] == text("a")
    assert left == [f"messages[0].content[1].{param}"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ROLES = st.sampled_from(["user", "assistant", "tool", "system"])
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "file", "refusal", "x"])},
    optional={"text": JSON, "image_url": JSON, "file": JSON},
)
MESSAGES = st.fixed_dictionaries(
    {"role": ROLES | JSON},
    optional={
        "content": JSON | st.lists(PARTS | JSON, max_size=3),
        "tool_calls": JSON | st.lists(st.just(call()) | JSON, max_size=2),
        "tool_call_id": st.just("c1") | JSON,
        "thinking_blocks": JSON,
    },
)
NAMES = ("temperature", "stop", "tools", "tool_choice", "response_format", "reasoning_effort", "metadata", "max_tokens")


@given(st.fixed_dictionaries({"messages": st.lists(MESSAGES, max_size=4) | JSON}, optional=dict.fromkeys(NAMES, JSON)))
def test_whatever_a_client_sends_is_a_sound_request_or_refused(hub: dict[str, Any]) -> None:
    try:
        fields, _ = ask(hub, lenient=True)
    except Unmappable:
        return
    roles = [message["role"] for message in fields["messages"]]
    assert roles[0] == "user"
    assert all(one != other for one, other in pairwise(roles))
    for message in fields["messages"]:
        assert message["content"]
        results = [block["type"] == "tool_result" for block in message["content"]]
        assert results == sorted(results, reverse=True)
        assert not any(block["type"] == "text" and not block["text"].strip() for block in message["content"])
