"""Requests of POST /v1/responses, as chats: what is mapped, what means nothing, what is refused and how it is named."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.dialect import Dropped, Unmappable
from protocols.openai.responses.client import ResponsesClient
from tests.unit.responding import open_client, whole

LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
HEAR: Any = {"type": "function", "name": "hear", "parameters": None, "strict": None, "description": "Listen."}
CHAT_LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}
CHAT_HEAR = {"type": "function", "function": {"name": "hear", "description": "Listen."}}


def hub(**fields: Any) -> Any:
    return open_client(**fields).hub


def messages(*items: Any, **fields: Any) -> Any:
    return hub(input=list(items), **fields)["messages"]


def refusal(*, lenient: bool = False, **fields: Any) -> Unmappable:
    with pytest.raises(Unmappable) as raised:
        open_client(lenient=lenient, **fields)
    return raised.value


def echoed(**fields: Any) -> Any:
    """What the response says again."""
    return orjson.loads(open_client(**fields).answer(whole({"content": "Hello"})))


# top-level fields


def test_a_text_is_what_the_user_says() -> None:
    assert hub() == {"model": "asked", "messages": [{"role": "user", "content": "Hello"}]}


def test_a_stream_asks_for_its_usage() -> None:
    asked = open_client(stream=True, stream_options={"include_obfuscation": False}).hub
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})


def test_instructions_come_first() -> None:
    assert hub(instructions="Be brief.")["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("max_output_tokens", 9, "max_completion_tokens"),
        ("temperature", 0.5, "temperature"),
        ("top_p", 0, "top_p"),
        ("user", "u", "user"),
        ("safety_identifier", "s", "safety_identifier"),
        ("prompt_cache_key", "k", "prompt_cache_key"),
        ("prompt_cache_retention", "24h", "prompt_cache_retention"),
        ("prompt_cache_options", {"mode": "explicit"}, "prompt_cache_options"),
        ("service_tier", "flex", "service_tier"),
    ],
)
def test_a_field_that_a_chat_has_is_passed_on(field: str, value: Any, name: str) -> None:
    assert hub(**{field: value})[name] == value
    assert name not in hub(**{field: None})


def test_reasoning_and_text_settle_what_a_chat_has_on_top() -> None:
    asked = hub(reasoning={"effort": "low", "summary": "auto"}, text={"verbosity": "high", "format": {"type": "text"}})
    assert (asked["reasoning_effort"], asked["verbosity"]) == ("low", "high")
    assert "response_format" not in asked


def test_formats_of_the_text_have_their_names_in_a_chat() -> None:
    assert hub(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    schema = {"name": "place", "schema": {"type": "object"}, "strict": True, "description": "A place."}
    asked = hub(text={"format": {"type": "json_schema", **schema}})
    assert asked["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert refusal(text={"format": {"type": "grammar"}}).param == "text.format.type"
    assert refusal(text={"format": {"type": "json_schema", "name": "place"}}).param == "text.format.schema"


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False},
        {"background": False},
        {"truncation": "disabled"},
        {"include": ["reasoning.encrypted_content", "web_search_call.results"]},
        {"metadata": {"a": "b"}},
        {"max_tool_calls": 3},
        {"top_logprobs": 0},
        {"parallel_tool_calls": False},
        {"tool_choice": "none"},
        {"reasoning": {"summary": "auto", "context": "auto", "mode": "standard"}},
        {"context_management": []},
        {"previous_response_id": None, "conversation": None, "prompt": None, "unheard_of": None},
    ],
    ids=str,
)
def test_what_means_nothing_to_the_answer_is_left_out_silently(fields: dict[str, Any]) -> None:
    assert hub(**fields) == hub()


@pytest.mark.parametrize(
    ("field", "value", "instead"),
    [
        ("store", True, "say false"),
        ("previous_response_id", "resp_1", "'input'"),
        ("conversation", "conv_1", "'input'"),
        ("conversation", {"id": "conv_1"}, "'input'"),
        ("background", True, "say false"),
        ("prompt", {"id": "pmpt_1"}, "'instructions'"),
    ],
)
def test_what_needs_stored_state_is_refused_with_what_to_do_instead(field: str, value: Any, instead: str) -> None:
    for lenient in (False, True):
        refused = refusal(lenient=lenient, **{field: value})
        assert refused.param == field
        assert instead in refused.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"truncation": "auto"}, "truncation"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"reasoning": {"budget": 9}}, "reasoning.budget"),
        ({"text": {"style": "x"}}, "text.style"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
        ({"stream_options": {"include_more": True}}, "stream_options.include_more"),
        ({"tools": [LOOK, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{**LOOK, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**LOOK, "async": True}]}, "tools[0].async"),
        ({"tools": [{**LOOK, "allowed_callers": ["programmatic"]}]}, "tools[0].allowed_callers"),
        ({"tools": [LOOK], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}, {"role": "user", "content": ""}]}, "input[0].type"),
    ],
    ids=str,
)
def test_what_a_chat_has_not_is_refused_by_name_or_dropped_where_that_is_lenient(
    fields: dict[str, Any], param: str
) -> None:
    assert refusal(**fields).param == param
    dropped = Dropped(lenient=True)
    ResponsesClient({"model": "asked", "input": "Hello", **fields}, False, "ab12", 7, dropped)
    assert dropped.fields == [param]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 1}, "input"),
        ({"input": ["Hello"]}, "input[0]"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [{"type": 1}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "thinking-blocks:e30="}]},
         "input[0].encrypted_content"),
        ({"model": 1}, "model"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{**LOOK, "parameters": "x"}]}, "tools[0].parameters"),
        ({"tools": [LOOK], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "hear"}}, "tool_choice.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"truncation": "middle"}, "truncation"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"include": "all"}, "include"),
        ({"text": {"format": "text"}}, "text.format"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name_on_lenient_routes_too(fields: dict[str, Any], param: str) -> None:
    assert refusal(lenient=True, **fields).param == param


def test_a_response_says_again_what_was_asked() -> None:
    asked: Any = {
        "instructions": "Be brief.",
        "max_output_tokens": 20,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "s",
        "temperature": 0.5,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "look"},
        "tools": [LOOK],
        "top_logprobs": 2,
        "top_p": 0.5,
        "truncation": "disabled",
        "user": "u",
    }
    response = echoed(**asked)
    assert {name: response[name] for name in asked} == asked
    assert (response["store"], response["background"], response["previous_response_id"]) == (False, False, None)
    assert {name: echoed()[name] for name in ("temperature", "top_p", "tool_choice", "tools", "metadata")} == {
        "temperature": None,
        "top_p": None,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
    }


# tools


def test_functions_are_tools_of_the_chat() -> None:
    asked = hub(tools=[LOOK, HEAR], parallel_tool_calls=False)
    assert asked["tools"] == [CHAT_LOOK, CHAT_HEAR]
    assert asked["parallel_tool_calls"] is False
    assert "tool_choice" not in asked


@pytest.mark.parametrize("mode", ["none", "auto", "required"])
def test_a_choice_by_a_word_is_the_same_in_a_chat(mode: str) -> None:
    assert hub(tools=[LOOK], tool_choice=mode)["tool_choice"] == mode


def test_a_chosen_function_is_named() -> None:
    asked = hub(tools=[LOOK], tool_choice={"type": "function", "name": "look"})
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "look"}}


def test_of_allowed_tools_the_model_is_told_alone() -> None:
    choice: Any = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "hear"}]}
    asked = hub(tools=[LOOK, HEAR], tool_choice=choice)
    assert (asked["tools"], asked["tool_choice"]) == ([CHAT_HEAR], "required")
    response = echoed(tools=[LOOK, HEAR], tool_choice=choice)
    assert (len(response["tools"]), response["tool_choice"]) == (2, choice)
    choice["tools"].append({"type": "mcp", "name": "look"})
    assert refusal(tools=[LOOK, HEAR], tool_choice=choice).param == "tool_choice.tools[1]"


# input


def test_messages_of_all_roles_keep_their_roles() -> None:
    said = [{"role": role, "content": role} for role in ("system", "developer", "user", "assistant")]
    labelled = [{"type": "message", "id": "msg_1", "status": "completed", "phase": None, **one} for one in said]
    assert messages(*said) == messages(*labelled) == said


def test_parts_have_their_names_in_a_chat() -> None:
    given = [
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
        {"type": "input_image", "image_url": "http://x/y.png", "detail": "low"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "input_text", "text": "!", "prompt_cache_breakpoint": {"mode": "explicit"}},
    ]
    assert messages({"role": "user", "content": given})[0]["content"] == [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "image_url", "image_url": {"url": "http://x/y.png", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "text", "text": "!", "prompt_cache_breakpoint": {"mode": "explicit"}},
    ]


def test_a_text_alone_is_a_string() -> None:
    said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    said["content"] = [{"type": "output_text", "text": "Yes.", "annotations": [], "logprobs": []}]
    assert messages(said) == [{"role": "assistant", "content": "Yes."}]


def test_a_refusal_is_said_again_by_the_assistant() -> None:
    said = messages({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]})
    assert said == [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}]


@pytest.mark.parametrize(
    ("role", "part", "name"),
    [
        ("user", {"type": "input_image", "file_id": "file-1"}, ".file_id"),
        ("user", {"type": "input_image"}, ".image_url"),
        ("user", {"type": "input_file", "file_url": "http://x/a.pdf"}, ".file_url"),
        ("user", {"type": "input_file"}, ".file_data"),
        ("user", {"type": "input_video", "video": "x"}, ".type"),
        ("user", {"type": "refusal", "refusal": "No."}, ".type"),
        ("system", {"type": "input_image", "image_url": "http://x/y.png"}, ".type"),
        ("assistant", {"type": "input_image", "image_url": "http://x/y.png"}, ".type"),
        ("user", {"type": "input_text", "text": "x", "more": 1}, ".more"),
    ],
)
def test_a_part_that_a_chat_has_not_is_refused_by_name(role: str, part: Any, name: str) -> None:
    assert refusal(input=[{"role": role, "content": [part]}]).param == f"input[0].content[0]{name}"


def call(id: str, **more: Any) -> Any:
    return {"type": "function_call", "call_id": id, "name": "look", "arguments": "{}", **more}


def output(id: str, said: Any = "Sunny") -> Any:
    return {"type": "function_call_output", "call_id": id, "output": said}


def called(id: str) -> Any:
    return {"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}}


def test_what_an_assistant_says_and_calls_in_one_turn_is_one_message() -> None:
    said = {"role": "assistant", "content": "Wait."}
    turn = {"role": "assistant", "content": "Wait.", "tool_calls": [called("a"), called("b")]}
    results = [{"role": "tool", "tool_call_id": id, "content": "Sunny"} for id in ("a", "b")]
    assert messages(said, call("a"), call("b"), output("a"), output("b")) == [turn, *results]
    # What is said behind the calls cannot stand between them and their results.
    assert messages(call("a"), call("b"), said, output("a"), output("b")) == [turn, *results]


def test_what_is_said_before_and_behind_calls_stays_before_their_results() -> None:
    said = [{"role": "assistant", "content": "One."}, call("a"), {"role": "assistant", "content": "Two."}, output("a")]
    turn, result = messages(*said)
    assert turn["content"] == [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    assert result["role"] == "tool"


def test_thoughts_before_a_result_are_not_those_of_a_later_turn() -> None:
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    assert "reasoning_content" not in messages(call("a"), thought, output("a"), call("b"))[2]


def test_calls_one_after_the_other_are_turns_of_their_own() -> None:
    found = messages(call("a"), output("a"), call("b"), output("b"), {"role": "assistant", "content": "Done."})
    assert [one["role"] for one in found] == ["assistant", "tool", "assistant", "tool", "assistant"]


def test_two_answers_in_a_row_stay_two() -> None:
    said = [{"role": "assistant", "content": "One."}, {"role": "assistant", "content": "Two."}]
    assert messages(*said) == said


def test_images_that_tools_gave_are_shown_by_the_user_behind_all_results() -> None:
    image = {"type": "input_image", "image_url": "http://x/y.png"}
    given = [{"type": "input_text", "text": "There:"}, image]
    found = messages(call("a"), call("b"), output("a", given), output("b", [image]), {"role": "user", "content": "?"})
    shown = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    assert found[1:] == [
        {"role": "tool", "tool_call_id": "a", "content": "There:"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "user", "content": [shown, shown]},
        {"role": "user", "content": "?"},
    ]


def test_a_call_by_a_program_or_out_of_a_namespace_is_refused() -> None:
    assert refusal(input=[call("a", caller={"type": "program", "caller_id": "p"})]).param == "input[0].caller"
    assert refusal(input=[call("a", namespace="n")]).param == "input[0].namespace"
    assert messages(call("a", caller={"type": "direct"}))


# reasoning


def test_thoughts_belong_to_what_was_said_or_called_after_them() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "S"}]}
    thought["content"] = [{"type": "reasoning_text", "text": "Hm."}]
    assert messages(thought, call("a")) == [
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [called("a")]}
    ]
    assert messages({"role": "user", "content": "x"}, thought) == [{"role": "user", "content": "x"}]
    assert refusal(input=[thought]).param == "input"


def test_what_another_server_encrypted_is_left_out() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAAB"}
    assert messages(thought, {"role": "assistant", "content": "x"}) == [{"role": "assistant", "content": "x"}]


def test_signed_thoughts_come_back_as_they_were() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm é.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    ]
    said = {"content": None, "reasoning_content": "Hm é.", "thinking_blocks": blocks, "tool_calls": [called("a")]}
    response = orjson.loads(open_client().answer(whole(said, "tool_calls")))
    assert messages(*response["output"], output("a"))[0] == {"role": "assistant", **said}


# hostile requests

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
WORDS = (
    *("message", "function_call", "function_call_output", "reasoning", "item_reference", "function", "allowed_tools"),
    *("input_text", "output_text", "refusal", "input_image", "input_file", "input_audio", "json_schema", "text"),
    *("user", "assistant", "system", "auto", "required", "thinking-blocks:", "thinking-blocks:W10=", "look", "direct"),
)
MEMBERS = (
    *("type", "role", "content", "text", "refusal", "image_url", "file_id", "file_data", "input_audio", "call_id"),
    *("name", "arguments", "output", "summary", "encrypted_content", "id", "caller", "mode", "tools", "format"),
    *("schema", "effort", "parameters", "strict", "detail", "prompt_cache_breakpoint", "verbosity"),
)
FIELDS = (
    *("input", "model", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "store"),
    *("max_output_tokens", "temperature", "top_logprobs", "parallel_tool_calls", "stream_options", "truncation"),
    *("conversation", "prompt", "prompt_cache_options", "service_tier", "max_tool_calls", "more"),
)
likely = st.recursive(
    st.sampled_from(WORDS) | json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(FIELDS), likely, max_size=5),
    st.just("Hello") | likely,
    st.booleans(),
    st.booleans(),
)
def test_whatever_comes_is_a_chat_or_refused(fields: Any, input: Any, lenient: bool, stream: bool) -> None:
    try:
        client = ResponsesClient({"input": input, **fields}, stream, "ab12", 7, Dropped(lenient))
    except Unmappable:
        return
    orjson.dumps(client.hub)
    assert client.hub["messages"]
    orjson.loads(client.answer(whole({"content": "Hello"})))


def test_what_is_too_deep_or_too_large_is_refused() -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": deep}
    for parameters in (deep, {"maximum": 10**30}):
        refusal(tools=[{**LOOK, "parameters": parameters}])
        refusal(text={"format": {"type": "json_schema", "name": "x", "schema": parameters}})
    refusal(input=[{"role": "user", "content": [deep]}])
    refusal(metadata=deep)
    refusal(more=deep)
