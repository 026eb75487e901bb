"""Requests of the Messages API -> the hub's: every field that is said there, left out in silence, or refused."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.anthropic.client import MessagesClient
from protocols.anthropic.count import count_body
from protocols.dialect import Dropped, JsonObject, Task, Unmappable

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
MARK = {"cache_control": {"type": "ephemeral"}}
TOOL = {"name": "get_weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}
FUNCTION = {"name": "get_weather", "description": "d", "parameters": {"type": "object", "properties": {}}}


def request(**fields: Any) -> JsonObject:
    return {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}], **fields}


def read(stream: bool = False, lenient: bool = False, **fields: Any) -> JsonObject:
    client = MessagesClient(request(**fields), stream, "id", 0, Dropped(lenient))
    assert client.task is Task.CHAT
    return client.hub


def turns(*messages: Any) -> list[JsonObject]:
    return read(messages=[{"role": role, "content": content} for role, content in messages])["messages"]


def test_a_small_request() -> None:
    assert read() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 10,
    }


def test_a_stream_asks_for_usage() -> None:
    hub = read(stream=True)
    assert hub["stream"] is True
    assert hub["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}),
        ({"temperature": 0.5, "top_p": 1, "top_k": 3}, {"temperature": 0.5, "top_p": 1, "top_k": 3}),
        ({"temperature": None}, {}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"metadata": {"user_id": None}}, {}),
        ({"metadata": None}, {}),
        ({"cache_control": {"type": "ephemeral"}, "service_tier": "auto", "speed": "fast", "diagnostics": {}}, {}),
        ({"container": None, "inference_geo": None, "what_nobody_knows": None}, {}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, {}),
        ({"thinking": {"type": "between_tools"}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 16384}}, {"reasoning_effort": "high"}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "max"}},
            {"reasoning_effort": "max"},
        ),
        ({"output_config": {"effort": "xhigh", "format": None}}, {"reasoning_effort": "xhigh"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        ({"tools": [TOOL]}, {"tools": [{"type": "function", "function": FUNCTION}]}),
        (
            {"tools": [TOOL | MARK | {"strict": True, "type": "custom", "eager_input_streaming": True}]},
            {"tools": [{"type": "function", "function": FUNCTION | {"strict": True}}]},
        ),
        (
            {"tools": [TOOL | {"allowed_callers": ["direct"], "defer_loading": False, "input_examples": []}]},
            {"tools": [{"type": "function", "function": FUNCTION}]},
        ),
        ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
        ({"tool_choice": {"type": "none"}}, {}),
    ],
)
def test_what_the_top_level_says(fields: JsonObject, said: JsonObject) -> None:
    assert read(**fields) == read() | said


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"type": "any", "disable_parallel_tool_use": False}, {"tool_choice": "required"}),
    ],
)
def test_which_tool_is_to_be_called(choice: JsonObject, said: JsonObject) -> None:
    assert read(tools=[TOOL], tool_choice=choice) == read(tools=[TOOL]) | said


@pytest.mark.parametrize(
    ("system", "messages"),
    [
        ("Be brief.", [{"role": "system", "content": "Be brief."}]),
        (
            [{"type": "text", "text": "One."} | MARK, {"type": "text", "text": "Two.", "citations": None}],
            [{"role": "system", "content": "One.\nTwo."}],
        ),
        ("", []),
        ([], []),
        (None, []),
    ],
)
def test_the_system_text_is_the_first_message(system: Any, messages: list[JsonObject]) -> None:
    assert read(system=system)["messages"][:-1] == messages


def test_a_system_text_amid_the_turns_stays_there() -> None:
    assert turns(("user", "a"), ("system", [{"type": "text", "text": "b"}]), ("user", "c")) == [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "b"},
        {"role": "user", "content": "c"},
    ]


def test_turns_of_one_role_are_one_turn() -> None:
    assert turns(("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("user", "e")) == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "cd"},
        {"role": "user", "content": "e"},
    ]


@pytest.mark.parametrize(
    ("block", "parts"),
    [
        ({"type": "text", "text": "t"} | MARK, [{"type": "text", "text": "t"}]),
        ({"type": "text", "text": ""}, []),
        (PNG | MARK, [PNG_PART]),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}],
        ),
        (
            {
                "type": "document",
                "title": "a.pdf",
                "context": "about",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
                "citations": {"enabled": False},
            },
            [
                {"type": "text", "text": "about"},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}},
            ],
        ),
        (
            {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "body"}},
            [{"type": "text", "text": "T"}, {"type": "text", "text": "body"}],
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}, PNG]}},
            [{"type": "text", "text": "x"}, PNG_PART],
        ),
        ({"type": "document", "source": {"type": "content", "content": "x"}}, [{"type": "text", "text": "x"}]),
        (
            {"type": "search_result", "title": "T", "source": "https://x", "content": [{"type": "text", "text": "x"}]},
            [{"type": "text", "text": "T\nhttps://x\nx"}],
        ),
    ],
)
def test_what_the_user_shows(block: JsonObject, parts: list[JsonObject]) -> None:
    content = [PNG, block]
    assert turns(("user", content)) == [{"role": "user", "content": [PNG_PART, *parts]}]


def test_one_text_block_is_a_plain_text() -> None:
    assert turns(("user", [{"type": "text", "text": "t"}])) == [{"role": "user", "content": "t"}]


def call(id: str) -> JsonObject:
    return {"type": "tool_use", "id": id, "name": "f", "input": {"n": 10**30, "é": [None]}}


def test_the_model_calls_thinks_and_speaks() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    content = [thought, hidden, {"type": "text", "text": "a"}, call("1") | {"caller": {"type": "direct"}}, call("2")]
    arguments = '{"n":1000000000000000000000000000000,"é":[null]}'
    (message,) = turns(("assistant", content))
    assert message == {
        "role": "assistant",
        "content": "a",
        "reasoning_content": "hm",
        "thinking_blocks": [thought, hidden],
        "tool_calls": [
            {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}} for id in ("1", "2")
        ],
    }
    assert turns(("assistant", [call("1")]))[0]["content"] is None


def test_results_of_tools_stand_before_what_the_user_says() -> None:
    first = {"type": "tool_result", "tool_use_id": "1", "content": "r1"} | MARK
    second = {"type": "tool_result", "tool_use_id": "2", "is_error": True, "content": [{"type": "text", "text": "bad"}]}
    third = {"type": "tool_result", "tool_use_id": "3"}
    said = {"type": "text", "text": "And?"}
    assert turns(("user", [said, first]), ("user", [second, third])) == [
        {"role": "tool", "tool_call_id": "1", "content": "r1"},
        {"role": "tool", "tool_call_id": "2", "content": "Error: bad"},
        {"role": "tool", "tool_call_id": "3", "content": ""},
        {"role": "user", "content": "And?"},
    ]


def test_images_that_tools_gave_are_shown_by_the_user() -> None:
    content = [{"type": "text", "text": "a"}, PNG, {"type": "text", "text": "b"}]
    assert turns(("user", [{"type": "tool_result", "tool_use_id": "1", "content": content}, PNG])) == [
        {"role": "tool", "tool_call_id": "1", "content": "a\nb"},
        {"role": "user", "content": [{"type": "text", "text": "Result of tool call 1:"}, PNG_PART, PNG_PART]},
    ]


SAID = {"type": "text", "text": "x"}

WITHOUT_EQUIVALENT = [
    ({"container": "c"}, "container"),
    ({"inference_geo": "eu"}, "inference_geo"),
    ({"mcp_servers": []}, "mcp_servers"),
    ({"what_nobody_knows": 1}, "what_nobody_knows"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
    ({"tools": [TOOL | {"input_examples": [{}]}]}, "tools[0].input_examples"),
    ({"tools": [TOOL | {"allowed_callers": ["code_execution_20250825"]}]}, "tools[0].allowed_callers"),
    ({"tools": [TOOL | {"x": 1}]}, "tools[0].x"),
    ({"output_config": {"x": 1}}, "output_config.x"),
    ({"thinking": {"type": "adaptive", "x": 1}}, "thinking.x"),
]

BLOCKS_WITHOUT_EQUIVALENT = [
    ({"type": "image", "source": {"type": "file", "file_id": "f"}}, ".source.type"),
    ({"type": "document", "source": {"type": "url", "url": "https://x"}}, ".source.type"),
    ({"type": "document", "source": {"type": "file", "file_id": "f"}}, ".source.type"),
    (
        {"type": "document", "source": {"type": "content", "content": "x"}, "citations": {"enabled": True}},
        ".citations.enabled",
    ),
    ({"type": "container_upload", "file_id": "f"}, ".type"),
    ({"type": "never_heard_of"}, ".type"),
    ({"type": "text", "text": "x", "new": 1}, ".new"),
    (PNG | {"transformations": {}}, ".transformations"),
    ({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "tool_reference"}]}, ".content[0].type"),
]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        *WITHOUT_EQUIVALENT,
        *(
            ({"messages": [{"role": "user", "content": [SAID, block]}]}, "messages[0].content[1]" + param)
            for block, param in BLOCKS_WITHOUT_EQUIVALENT
        ),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
        (
            {"messages": [{"role": "assistant", "content": [SAID, {"type": "server_tool_use"}]}]},
            "messages[0].content[1].type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [SAID, call("1") | {"caller": {"type": "x"}}]}]},
            "messages[0].content[1].caller",
        ),
    ],
)
def test_what_has_no_equivalent_is_refused_or_left_out_and_noted(fields: JsonObject, param: str) -> None:
    with pytest.raises(Unmappable, match="no equivalent") as caught:
        read(**fields)
    assert caught.value.param == param
    dropped = Dropped(lenient=True)
    MessagesClient(request(**fields), False, "id", 0, dropped)
    assert dropped.fields == [param]


def user(block: Any) -> JsonObject:
    return {"messages": [{"role": "user", "content": [block]}]}


def assistant(block: Any) -> JsonObject:
    return {"messages": [{"role": "assistant", "content": [block]}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 1}, "model"),
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        (user(1), "messages[0].content[0]"),
        (user({}), "messages[0].content[0].type"),
        (user({"type": ["text"]}), "messages[0].content[0].type"),
        (user({"type": "text"}), "messages[0].content[0].text"),
        (user({"type": "image"}), "messages[0].content[0].source"),
        (user({"type": "image", "source": {}}), "messages[0].content[0].source.type"),
        (user({"type": "image", "source": {"type": "url"}}), "messages[0].content[0].source.url"),
        (
            user({"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": "x"}}),
            "messages[0].content[0].source.media_type",
        ),
        (
            user({"type": "document", "source": {"type": "base64", "media_type": "text/html", "data": "x"}}),
            "messages[0].content[0].source.media_type",
        ),
        (
            user({"type": "document", "source": {"type": "content", "content": [{"type": "document"}]}}),
            "messages[0].content[0].source.content[0].type",
        ),
        (user({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (user({"type": "tool_result", "tool_use_id": "1", "content": 1}), "messages[0].content[0].content"),
        (user({"type": "tool_result", "tool_use_id": "1", "is_error": 1}), "messages[0].content[0].is_error"),
        (assistant({"type": "tool_use", "id": "1", "name": "f"}), "messages[0].content[0].input"),
        (assistant({"type": "tool_use", "id": "1", "name": "f", "input": "{}"}), "messages[0].content[0].input"),
        (assistant({"type": "thinking"}), "messages[0].content[0].thinking"),
        (assistant({"type": "redacted_thinking"}), "messages[0].content[0].data"),
        ({"system": 1}, "system"),
        ({"system": [PNG]}, "system[0].type"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"stop_sequences": ["x", 1]}, "stop_sequences[1]"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"metadata": {"user_id": 1}}, "metadata.user_id"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "x"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "x"}}, "thinking.type"),
        ({"thinking": {"type": "adaptive", "display": "x"}}, "thinking.display"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "x"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "x"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)
def test_a_wrong_field_is_named_however_lenient_the_route(fields: JsonObject, param: str) -> None:
    with pytest.raises(Unmappable) as caught:
        read(lenient=True, **fields)
    assert caught.value.param == param
    assert f"'{param}'" in caught.value.message


WORDS = st.sampled_from(
    [
        *("user", "assistant", "system", "text", "image", "document", "search_result", "tool_use", "tool_result"),
        *("thinking", "redacted_thinking", "base64", "url", "content", "image/png", "auto", "any", "tool", "enabled"),
        *("json_schema", "custom", "high", ""),
    ]
)
KEYS = st.sampled_from(
    [
        *("role", "content", "type", "text", "source", "data", "media_type", "url", "title", "context", "citations"),
        *("enabled", "tool_use_id", "is_error", "id", "name", "input", "thinking", "signature", "caller", "schema"),
        *("format", "effort", "budget_tokens", "display", "user_id", "input_schema", "strict", "description"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)
BLOCKS = st.dictionaries(KEYS, VALUES, max_size=5).flatmap(lambda d: WORDS.map(lambda kind: d | {"type": kind}))
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": WORDS | st.lists(BLOCKS, max_size=4)}
)
FIELDS = st.sampled_from(
    [
        *("model", "max_tokens", "messages", "system", "stop_sequences", "tools", "tool_choice", "thinking"),
        *("output_config", "metadata", "temperature", "top_p", "top_k"),
    ]
)


@settings(max_examples=400)
@given(
    st.dictionaries(FIELDS, VALUES, max_size=4),
    st.none() | st.lists(TURNS, min_size=1, max_size=4),
    st.booleans(),
)
def test_a_hostile_request_is_unmappable_and_nothing_else(
    fields: JsonObject, messages: list[JsonObject] | None, lenient: bool
) -> None:
    whole = request(**fields) if messages is None else request(**fields) | {"messages": messages}
    for door in (lambda: MessagesClient(whole, True, "id", 0, Dropped(lenient)).hub, lambda: count(whole, lenient)):
        try:
            hub = door()
        except Unmappable:
            continue
        msgspec.json.encode(hub)


def count(fields: JsonObject, lenient: bool = False) -> JsonObject:
    return orjson.loads(count_body(fields, Dropped(lenient)))


def test_nothing_of_the_request_is_changed() -> None:
    fields = request(
        messages=[{"role": "user", "content": [PNG, {"type": "tool_result", "tool_use_id": "1", "content": [PNG]}]}],
        tools=[TOOL],
        system=[{"type": "text", "text": "x"}],
    )
    before = orjson.dumps(fields)
    MessagesClient(fields, True, "id", 0, Dropped(False))
    assert orjson.dumps(fields) == before
