"""What of a request TGI is asked, what is left out silently, and what is refused by its name."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dialect import Dropped, Terms, Unmappable
from protocols.tgi.chat import ChatBackend
from protocols.tgi.completion import CompletionBackend
from tests.wire.tgi_shapes import Chat, Generate, Refused, check_chat, read, validate

USER = {"role": "user", "content": "Hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
TOOL = {"type": "function", "function": {"name": "f", "strict": True}}


def make(hub: dict[str, Any], dropped: Dropped, stream: bool = False) -> CompletionBackend | ChatBackend:
    side = ChatBackend if "messages" in hub else CompletionBackend
    return side(hub, stream, "id", 1, Terms(), dropped)


def asked(hub: dict[str, Any], stream: bool = False) -> dict[str, Any]:
    """What goes out for *hub*, of which nothing is dropped."""
    dropped = Dropped(lenient=False)
    raw = make(hub, dropped, stream).ask("tgi").body
    assert not dropped.fields
    assert not take(raw, stream)
    body: dict[str, Any] = json.loads(raw)
    return body


def take(body: bytes, stream: bool) -> str:
    """What the scripted server, which refuses what the real one would, says against *body*."""
    request: Any = SimpleNamespace(header=lambda name: "application/json", body=body)
    try:
        if b'"messages"' in body:
            check_chat(read(request, Chat))
        else:
            validate(read(request, Generate), stream)
    except Refused as refusal:
        return refusal.message
    return ""


def parameters(**fields: Any) -> dict[str, Any]:
    """The parameters beyond those that are always there."""
    found = asked({"prompt": "x", **fields})["parameters"]
    always = {"details": True, "decoder_input_details": True, "return_full_text": False}
    assert always.items() <= found.items()
    return {name: value for name, value in found.items() if name not in always}


def chat(**fields: Any) -> dict[str, Any]:
    """The fields beyond model and messages."""
    body = asked({"messages": [USER], **fields})
    assert (body.pop("model"), body.pop("messages")) == ("tgi", [USER])
    return body


def refused(hub: dict[str, Any], stream: bool = False) -> str | None:
    """The field that *hub* is refused for."""
    with pytest.raises(Unmappable) as caught:
        make(hub, Dropped(lenient=False), stream)
    assert caught.value.param is None or f"'{caught.value.param}'" in caught.value.message
    return caught.value.param


# completions


def test_a_bare_prompt_samples_sixteen_tokens_as_openai_does() -> None:
    assert asked({"prompt": "x"})["inputs"] == "x"
    assert parameters() == {"max_new_tokens": 16, "do_sample": True}
    assert asked({"prompt": "x"}, stream=True)["parameters"] == {
        "max_new_tokens": 16,
        "do_sample": True,
        "details": True,
    }


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 0.0, "top_p": 0.5, "top_k": 3, "best_of": 2}, {"do_sample": False}),
        ({"top_p": 0}, {"do_sample": False}),
        ({"top_p": 1.0, "typical_p": 1, "repetition_penalty": 1}, {}),
        ({"temperature": 1.5, "top_p": 0.9}, {"temperature": 1.5, "top_p": 0.9}),
        ({"top_k": 40, "typical_p": 0.3}, {"top_k": 40, "typical_p": 0.3}),
        ({"top_k": -1}, {}),
        ({"top_k": 0}, {}),
        ({"repetition_penalty": 1.1, "frequency_penalty": -2}, {"repetition_penalty": 1.1, "frequency_penalty": -2}),
        ({"max_tokens": 3}, {"max_new_tokens": 3}),
        ({"seed": 7}, {"seed": 7}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"stop": ["a", "", "b"]}, {"stop": ["a", "b"]}),
        ({"stop": []}, {}),
        ({"best_of": 2, "n": 1}, {"best_of": 2}),
        ({"logprobs": 0}, {}),
        ({"logprobs": 5}, {"top_n_tokens": 5}),
    ],
)
def test_sampling_is_said_in_tgi_s_words(fields: dict[str, Any], told: dict[str, Any]) -> None:
    assert parameters(**fields) == {"max_new_tokens": 16, "do_sample": True, **told}


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "n": 1, "echo": False, "suffix": "", "presence_penalty": 0},
        {"logit_bias": {}, "stream_options": {"include_usage": True}, "min_p": 0, "stop": None, "whatever": None},
    ],
)
def test_labels_nulls_and_defaults_go_without_a_word(fields: dict[str, Any]) -> None:
    assert parameters(**fields) == {"max_new_tokens": 16, "do_sample": True}


def test_one_prompt_may_stand_in_a_list() -> None:
    assert asked({"prompt": ["x"]})["inputs"] == "x"


@pytest.mark.parametrize("prompt", [None, "", [], [""], ["a", "b"], [1, 2], [[1]], 7, {}])
def test_anything_but_one_text_is_no_prompt(prompt: Any) -> None:
    assert refused({"prompt": prompt}) == "prompt"


NO_WORDS: list[tuple[str, Any]] = [
    ("n", 2),
    ("n", True),
    ("suffix", "x"),
    ("presence_penalty", 0.5),
    ("logit_bias", {"5": 1}),
    ("min_p", 0.1),
    ("whatever", False),
]


@pytest.mark.parametrize(("field", "value"), [*NO_WORDS, ("messages_of_old", []), ("response_format", {})])
def test_what_has_no_words_there_is_refused_or_noted(field: str, value: Any) -> None:
    assert refused({"prompt": "x", field: value}) == field
    lenient = Dropped(lenient=True)
    assert field not in json.loads(make({"prompt": "x", field: value}, lenient).ask("tgi").body)["parameters"]
    assert lenient.fields == [field]


def test_what_cannot_be_joined_is_refused() -> None:
    assert refused({"prompt": "x", "best_of": 2}, stream=True) == "best_of"
    assert refused({"prompt": "x", "best_of": 2, "seed": 1}) == "seed"
    assert refused({"prompt": "x", "echo": True, "logprobs": 1}) == "logprobs"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "1"),
        ("temperature", -0.1),
        ("temperature", True),
        ("top_p", 1.1),
        ("frequency_penalty", 3),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", 2**32),
        ("seed", 2**64),
        ("stop", ["a"] * 5),
        ("stop", [1]),
        ("stop", {}),
        ("echo", "yes"),
        ("logprobs", 6),
        ("logprobs", True),
        ("top_k", 2**31),
    ],
)
def test_a_wrong_value_is_named(field: str, value: Any) -> None:
    assert refused({"prompt": "x", field: value}) == field


def test_a_model_is_an_adapter_except_the_one_that_is_always_there() -> None:
    side = make({"prompt": "x"}, Dropped(lenient=False))
    assert json.loads(side.ask("lora").body)["parameters"]["adapter_id"] == "lora"
    assert "adapter_id" not in json.loads(side.ask("tgi").body)["parameters"]


# chat


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"top_p": 1.0, "temperature": 0.5}, {"temperature": 0.5}),
        ({"top_p": 0, "temperature": 0.5}, {"temperature": 0}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"logprobs": False, "top_logprobs": 2}, {}),
        ({"n": 1, "logit_bias": {}, "presence_penalty": 0.0, "response_format": {"type": "text"}, "tools": []}, {}),
        ({"parallel_tool_calls": False, "store": False, "user": "u", "function_call": "auto", "functions": []}, {}),
        ({"tool_choice": "auto"}, {}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}}},
            {"response_format": {"type": "json_schema", "value": {"name": "n", "schema": {}}}},
        ),
    ],
)
def test_the_edges_of_its_chat_are_mended(fields: dict[str, Any], told: dict[str, Any]) -> None:
    assert chat(**fields) == told


def test_a_stream_always_asks_for_its_usage() -> None:
    body = asked({"messages": [USER], "stream_options": {"include_usage": False}}, stream=True)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert "stream_options" not in chat(stream_options={"include_usage": True})


@pytest.mark.parametrize("choice", ["none", "auto", "required", {"type": "function", "function": {"name": "f"}}])
def test_tools_have_parameters_and_a_choice(choice: Any) -> None:
    told = chat(tools=[TOOL], tool_choice=choice)
    assert told["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    ]
    assert told["tool_choice"] == choice


def messages(*given: dict[str, Any]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = asked({"messages": list(given)})["messages"]
    return told


def test_a_developer_is_the_system_and_null_is_no_content() -> None:
    assert messages({"role": "developer", "content": "Be brief."}, {"role": "assistant", "content": None}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": ""},
    ]


def test_calls_go_without_content_and_with_it_as_its_text() -> None:
    plain, spoken = messages(
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
    )
    call = CALL | {"function": {"name": "f", "arguments": {"a": 1}}}
    assert plain == {"role": "assistant", "tool_calls": [call]}
    assert set(spoken) == {"role", "content"}
    text, _, calls = spoken["content"].partition("\n")
    assert (text, json.loads(calls)) == ("Let me see.", [call])


def test_parts_are_texts_and_images() -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
    ]
    assert messages({"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": 7}, "messages[0].content"),
        ({"role": "user", "content": [7]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0].image_url.url"),
        ({"role": "assistant", "tool_calls": {}}, None),
        ({"role": "assistant", "tool_calls": [7]}, "messages[0].tool_calls[0].function.name"),
        ({"role": "assistant", "tool_calls": 7}, "messages[0].tool_calls"),
        ({"content": "x"}, "messages[0]"),
    ],
)
def test_a_wrong_message_is_named(message: Any, param: str | None) -> None:
    if param is None:  # empty, so there are none
        assert messages(message) == [{"role": "assistant", "content": ""}]
    else:
        assert refused({"messages": [message]}) == param


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        *((field, value, field) for field, value in NO_WORDS if field != "suffix"),
        ("functions", [TOOL["function"]], "functions"),
        ("reasoning_effort", "low", "reasoning_effort"),
        ("modalities", ["text", "audio"], "modalities"),
        ("top_k", 5, "top_k"),
        ("response_format", {"type": "json_object"}, "response_format.type"),
        ("response_format", {"type": "xml"}, "response_format.type"),
        ("response_format", {"type": "json_schema"}, "response_format.json_schema.schema"),
        ("tools", {}, None),
        ("tools", [{"type": "custom"}], "tools[0].function.name"),
        ("stop", 7, "stop"),
        ("top_p", 2, "top_p"),
    ],
)
def test_what_its_chat_has_no_words_for_is_refused(field: str, value: Any, param: str | None) -> None:
    assert refused({"messages": [USER], field: value}) == (param or field)


@pytest.mark.parametrize("choice", [7, "f", {"type": "function"}, {"type": "allowed_tools"}, []])
def test_a_wrong_choice_of_a_tool_is_named(choice: Any) -> None:
    assert str(refused({"messages": [USER], "tools": [TOOL], "tool_choice": choice})).startswith("tool_choice")


# anything


TEXT = st.text("aZ\u00e9\ud800", max_size=5)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
COMPLETION = ["prompt", "max_tokens", "temperature", "top_p", "top_k", "typical_p", "seed", "stop", "echo", "best_of"]
COMPLETION += ["frequency_penalty", "repetition_penalty", "logprobs", "n", "suffix", "model", "else"]
CHAT = ["messages", "tools", "tool_choice", "response_format", "logprobs", "top_logprobs", "stop", "seed", "top_p"]
CHAT += ["temperature", "max_tokens", "max_completion_tokens", "parallel_tool_calls", "functions", "else"]


@given(st.dictionaries(st.sampled_from(COMPLETION), ANY), st.booleans(), st.booleans())
def test_no_completion_raises_anything_else(hub: dict[str, Any], lenient: bool, stream: bool) -> None:
    try:
        body = CompletionBackend({"prompt": "x"} | hub, stream, "id", 1, Terms(), Dropped(lenient)).ask("m").body
    except Unmappable:
        return
    said = take(body, stream)
    assert not said or "max_new_tokens" in said


@given(
    st.dictionaries(st.sampled_from(CHAT), ANY),
    st.dictionaries(st.sampled_from(["role", "content", "tool_calls", "name"]), ANY | st.just([CALL])),
    st.booleans(),
)
def test_no_chat_raises_anything_else(hub: dict[str, Any], message: dict[str, Any], lenient: bool) -> None:
    try:
        given = {"messages": [USER, {"role": "user"} | message]} | hub
        body = ChatBackend(given, True, "id", 1, Terms(), Dropped(lenient)).ask("m").body
    except Unmappable:
        return
    said = take(body, stream=True)
    assert not said or "mutually exclusive" in said
