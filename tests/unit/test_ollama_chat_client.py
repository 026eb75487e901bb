"""/api/chat for Ollama's clients: the request in the hub's words, and what goes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocols.dialect import Dropped, ErrorObject, Task, Unmappable
from protocols.ollama.chat_client import ChatClient
from protocols.pieces import PARTIAL_LIMIT, Malformed
from tests.unit.ollama_calls import CREATED, CREATED_AT, ID, PNG, client, lines, request

USER = {"role": "user", "content": "hi"}


def hub_of(lenient: bool = False, **fields: Any) -> dict[str, Any]:
    hub = client("chat", {"model": "m", "messages": [USER], **fields}, lenient=lenient).hub
    assert isinstance(hub, dict)
    return hub


def refused(**fields: Any) -> str:
    with pytest.raises(Unmappable) as caught:
        hub_of(**fields)
    assert caught.value.param is not None
    assert caught.value.param in caught.value.message
    return caught.value.param


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def streamed(*chunks: dict[str, Any]) -> list[dict[str, Any]]:
    side = client("chat", {"model": "m", "messages": [USER]}, stream=True)
    return lines(b"".join(map(side.feed, chunks)) + side.end())


def test_a_plain_request_says_no_more_than_its_client_did() -> None:
    assert hub_of() == {"model": "m", "stream": False, "messages": [USER]}
    assert client("chat", {"model": "m", "messages": [USER]}).task is Task.CHAT


def test_a_stream_asks_for_usage_because_its_last_line_tells_it() -> None:
    hub = client("chat", {"model": "m", "messages": [USER]}, stream=True).hub
    assert hub["stream"] is True
    assert hub["stream_options"] == {"include_usage": True}


def test_options_have_their_names_in_the_hub() -> None:
    side = client("chat", request("chat-whole"))
    assert {key: value for key, value in side.hub.items() if key not in ("model", "stream", "messages")} == {
        "seed": 101,
        "temperature": 0,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.0,
        "max_completion_tokens": 100,
        "stop": ["\n", "user:"],
        "repetition_penalty": 1.2,
        "presence_penalty": 1.5,
        "frequency_penalty": 1.0,
    }


@pytest.mark.parametrize("limit", [0, -1, -2])
def test_no_limit_of_tokens_is_none_in_the_hub(limit: int) -> None:
    assert "max_completion_tokens" not in hub_of(options={"num_predict": limit})


def test_numbers_may_be_written_as_floats_where_they_are_whole() -> None:
    assert hub_of(options={"num_predict": 5.0})["max_completion_tokens"] == 5
    assert refused(options={"num_predict": 5.5}) == "options.num_predict"


def test_how_a_model_is_held_in_memory_is_left_out() -> None:
    told = hub_of(
        options={"num_ctx": 4096, "num_gpu": 1, "use_mmap": True, "num_thread": 4}, keep_alive=-1, truncate=True
    )
    assert told == hub_of()


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"typical_p": 0.7}, "options.typical_p"),
        ({"repeat_last_n": 0}, "options.repeat_last_n"),
        ({"mirostat": 2, "mirostat_tau": 5.0, "mirostat_eta": 0.1}, "options.mirostat"),
        ({"tfs_z": 0.95}, "options.tfs_z"),
        ({"penalize_newline": False}, "options.penalize_newline"),
        ({"dry_multiplier": 1}, "options.dry_multiplier"),
    ],
)
def test_options_that_change_the_answer_are_refused_by_name_or_left_out_and_noted(options: Any, param: str) -> None:
    assert refused(options=options) == param
    dropped = Dropped(lenient=True)
    ChatClient({"model": "m", "messages": [USER], "options": options}, False, ID, CREATED, dropped)
    assert dropped.fields == [param]


def test_options_at_their_defaults_are_left_out() -> None:
    nothing = {"typical_p": 1.0, "repeat_last_n": 64, "top_k": None, "tfs_z": 1, "penalize_newline": True}
    assert hub_of(options=nothing) == hub_of()


def test_mirostats_terms_say_nothing_while_it_is_off() -> None:
    assert hub_of(options={"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1}) == hub_of()


@pytest.mark.parametrize(
    ("think", "effort"), [(True, "medium"), (False, "none"), ("low", "low"), ("high", "high"), ("max", "max")]
)
def test_think_is_the_reasoning_effort(think: Any, effort: str) -> None:
    assert hub_of(think=think)["reasoning_effort"] == effort


def test_a_format_is_json_or_a_schema() -> None:
    schema = {"type": "object"}
    assert hub_of(format="json")["response_format"] == {"type": "json_object"}
    assert hub_of(format=schema)["response_format"]["json_schema"]["schema"] == schema
    assert "response_format" not in hub_of(format="")
    assert refused(format="yaml") == "format"


def test_an_image_becomes_a_part_with_its_type() -> None:
    content = client("chat", request("chat-image-stream")).hub["messages"][0]["content"]
    assert content[0] == {"type": "text", "text": "what is in this image?"}
    assert content[1] == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


@pytest.mark.parametrize(
    ("image", "media"),
    [
        ("/9j/4AAQSkZJRgABAQAA", "jpeg"),
        ("R0lGODlhAQABAIAAAAAA", "gif"),
        ("UklGRiQAAABXRUJQVlA4", "webp"),
        (PNG[:40] + "\n" + PNG[40:], "png"),
    ],
)
def test_the_type_of_an_image_is_read_from_its_first_bytes(image: str, media: str) -> None:
    hub = hub_of(messages=[{"role": "user", "images": [image]}])
    url = hub["messages"][0]["content"][0]["image_url"]["url"]
    assert url == f"data:image/{media};base64,{image.replace(chr(10), '')}"


@pytest.mark.parametrize("image", ["", "hello", "data:image/png;base64," + PNG, "é", "=" * 16, 7, None])
def test_what_is_no_image_is_refused_with_its_place(image: Any) -> None:
    assert refused(messages=[USER, {"role": "user", "images": [PNG, image]}]) == "messages[1].images[1]"


def test_tools_are_functions() -> None:
    given = request("chat-tools-stream")
    assert client("chat", given).hub["tools"] == given["tools"]
    assert refused(tools=[{"type": "web_search"}]) == "tools[0].type"
    assert "tools" not in hub_of(tools=[{"type": "web_search"}], lenient=True)
    assert refused(tools=[{"type": "function", "function": {}}]) == "tools[0].function.name"


def test_a_call_and_its_result_get_an_id_where_the_client_has_none() -> None:
    messages = client("chat", request("chat-tools-history")).hub["messages"]
    assert messages[1]["content"] is None
    assert messages[1]["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Tokyo"}'}}
    ]
    assert messages[2] == {"role": "tool", "tool_call_id": "call_0", "content": "11 degrees celsius"}


def calls(*names: str) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": {}}} for name in names]}


def test_results_are_matched_by_id_by_name_or_in_order() -> None:
    asked = calls("a", "b", "a", "c")
    asked["tool_calls"][3]["id"] = "own"
    results: list[dict[str, Any]] = [{"tool_name": "b"}, {"tool_call_id": "own"}, {}, {"tool_name": "a"}]
    messages = hub_of(messages=[USER, asked, *({"role": "tool", "content": "x"} | result for result in results)])
    assert [message["tool_call_id"] for message in messages["messages"][2:]] == ["call_1", "own", "call_0", "call_2"]


def test_a_result_may_call_its_tool_name_as_earlier_examples_did() -> None:
    messages = hub_of(messages=[USER, calls("a", "b"), {"role": "tool", "name": "b", "content": "x"}])["messages"]
    assert messages[2] == {"role": "tool", "tool_call_id": "call_1", "content": "x"}


def test_a_result_of_no_call_is_refused() -> None:
    result = {"role": "tool", "content": "x"}
    assert refused(messages=[USER, result]) == "messages[1]"
    assert refused(messages=[USER, calls("a"), result | {"tool_name": "b"}]) == "messages[2].tool_name"
    assert refused(messages=[USER, calls("a"), result, result]) == "messages[3]"


def test_roles_are_taken_in_any_case_and_thinking_comes_along() -> None:
    hub = hub_of(messages=[{"role": "USER", "content": "x"}, {"role": "assistant", "content": "y", "thinking": "z"}])
    assert hub["messages"][0] == {"role": "user", "content": "x"}
    assert hub["messages"][1] == {"role": "assistant", "content": "y", "reasoning_content": "z"}


@pytest.mark.parametrize("messages", [[], None])
def test_a_request_to_load_or_unload_a_model_is_refused(messages: Any) -> None:
    assert refused(messages=messages) == "messages"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": "x", "images": [PNG]}]}, "messages[0].images"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
        ({"options": [1]}, "options"),
        ({"options": {"stop": "x"}}, "options.stop"),
        ({"options": {"seed": True}}, "options.seed"),
        ({"options": {"temperature": "1"}}, "options.temperature"),
        ({"think": "a lot"}, "think"),
        ({"keep_alive": True}, "keep_alive"),
        ({"truncate": 1}, "truncate"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"_debug_render_only": True}, "_debug_render_only"),
    ],
)
def test_what_is_wrong_or_has_no_equivalent_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == param


def test_an_answer_has_all_that_the_hub_said() -> None:
    side = client("chat", {"model": "m", "messages": [USER]})
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1]}'}}
    message = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    assert json.loads(side.answer({"choices": [choice], "usage": usage})) == {
        "model": "m",
        "created_at": CREATED_AT,
        "message": {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": [1]}}}],
        },
        "done": True,
        "done_reason": "stop",
        "total_duration": 0,
        "load_duration": 0,
        "prompt_eval_count": 3,
        "prompt_eval_duration": 0,
        "eval_count": 4,
        "eval_duration": 0,
    }


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "stop"),
        (None, "stop"),
        ("content_filter", "content_filter"),
    ],
)
def test_the_reason_of_the_end_is_told(finish: str | None, reason: str) -> None:
    side = client("chat", {"model": "m", "messages": [USER]})
    answer = json.loads(side.answer({"choices": [{"message": {"content": "x"}, "finish_reason": finish}]}))
    assert answer["done_reason"] == reason
    assert "eval_count" not in answer  # nobody counted
    assert streamed(chunk({"content": "x"}, finish))[-1]["done_reason"] == reason


def test_a_refusal_is_told_as_text() -> None:
    side = client("chat", {"model": "m", "messages": [USER]})
    answer = side.answer({"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]})
    assert json.loads(answer)["message"]["content"] == "No."
    assert streamed(chunk({"refusal": "No."}))[0]["message"]["content"] == "No."


def test_a_stream_is_lines_and_the_last_one_counts() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    told = streamed(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "a"}),
        chunk({"content": "b"}, "length"),
        {"choices": [], "usage": usage},
    )
    assert [line["message"] for line in told] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in told] == [False, False, False, True]
    assert {line["created_at"] for line in told} == {CREATED_AT}
    assert (told[-1]["prompt_eval_count"], told[-1]["eval_count"], told[-1]["done_reason"]) == (1, 2, "length")


def test_usage_that_comes_in_every_chunk_is_not_added_up() -> None:
    told = streamed(*(chunk({"content": "x"}, usage={"completion_tokens": count}) for count in (1, 2, 3)))
    assert told[-1]["eval_count"] == 3


def pieces(index: int, *texts: str, **first: Any) -> list[dict[str, Any]]:
    calls = [{"index": index, "function": {"arguments": text}} for text in texts]
    calls[0]["function"] = {**calls[0]["function"], **first.pop("function", {})}
    calls[0] |= first
    return [chunk({"tool_calls": [call]}) for call in calls]


def test_tool_calls_are_told_whole_even_if_their_pieces_interleave() -> None:
    one = pieces(1, "", '{"a"', ":1}", id="x", function={"name": "f"})
    two = pieces(0, '{"b":', '"é"}', "", id="y", function={"name": "g"})
    mixed = [piece for pair in zip(one, two, strict=True) for piece in pair]
    told = streamed(chunk({"content": "look"}), *mixed, chunk({}, "tool_calls"))
    assert [line["message"].get("tool_calls") for line in told] == [
        None,
        [
            {"id": "y", "function": {"index": 0, "name": "g", "arguments": {"b": "é"}}},
            {"id": "x", "function": {"index": 1, "name": "f", "arguments": {"a": 1}}},
        ],
        None,
    ]


def test_a_call_without_arguments_or_id_gets_them() -> None:
    told = streamed(*pieces(0, "", function={"name": "f"}))
    assert told[0]["message"]["tool_calls"][0] == {
        "id": f"call_{ID}_0",
        "function": {"index": 0, "name": "f", "arguments": {}},
    }


@pytest.mark.parametrize("arguments", ['{"a"', "[1]", "Infinity", "null", "1", '{"a":"\\ud800"}'])
def test_arguments_that_are_no_object_are_an_error_and_no_call(arguments: str) -> None:
    with pytest.raises(Malformed, match="no JSON object"):
        streamed(*pieces(0, arguments, function={"name": "f"}), chunk({}, "tool_calls"))


def test_arguments_without_an_end_are_an_error_before_they_fill_memory() -> None:
    side = client("chat", {"model": "m", "messages": [USER]}, stream=True)
    part = pieces(0, "x" * 1024, function={"name": "f"})[0]
    for _ in range(PARTIAL_LIMIT // 1024 - 1):
        side.feed(part)
    with pytest.raises(Malformed, match="longer than"):
        side.feed(part)


def test_calls_without_an_end_are_an_error_too() -> None:
    side = client("chat", {"model": "m", "messages": [USER]}, stream=True)
    for index in range(PARTIAL_LIMIT // 256):
        side.feed(pieces(index, "", function={"name": "f"})[0])
    with pytest.raises(Malformed, match="longer than"):
        side.feed(pieces(-1, "", function={"name": "f"})[0])


def test_no_line_end_of_unicode_cuts_a_line() -> None:
    text = "a\u2028b\u2029c\x85d\ne\x0bf\x1c\r\n"
    side = client("chat", {"model": f"m{text}", "messages": [USER]}, stream=True)
    data = side.feed(chunk({"content": text, "reasoning_content": text}))
    data += side.feed(pieces(0, json.dumps({text: text}), function={"name": "f"})[0]) + side.end()
    assert len(data.decode().splitlines()) == 3
    told = lines(data)
    assert told[0]["message"]["content"] == told[0]["message"]["thinking"] == text
    assert told[1]["message"]["tool_calls"][0]["function"]["arguments"] == {text: text}


def test_a_stream_that_broke_ends_with_an_error_and_is_never_done() -> None:
    side = client("chat", {"model": "m", "messages": [USER]}, stream=True)
    assert lines(side.fail(ErrorObject(502, "gone"))) == [{"error": "gone"}]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": []},
        {"choices": "x"},
        {"choices": [1]},
        {"choices": [{"message": "x"}]},
        {"choices": [{"message": {"content": ["x"]}}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": 1}]},
        {"choices": [{"message": {"tool_calls": "x"}}]},
        {"choices": [{"message": {"tool_calls": ["x"]}}]},
        {"choices": [{"message": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]},
        {"choices": [{"message": {"tool_calls": [{"index": "0", "function": {"name": "f"}}]}}]},
        {"choices": [{"message": {}}], "usage": 1},
        {"choices": [{"message": {}}], "usage": {"prompt_tokens": "1"}},
        {"choices": [{"message": {}}], "usage": {"completion_tokens": -1}},
        {"choices": [{"message": {}, "logprobs": {"content": 1}}]},
    ],
)
def test_a_wrong_type_in_an_answer_is_malformed(answer: dict[str, Any]) -> None:
    side = client("chat", {"model": "m", "messages": [USER]})
    with pytest.raises(Malformed):
        side.answer(answer)


def test_logprobs_travel_both_ways() -> None:
    side = client("chat", request("chat-logprobs-whole"))
    assert (side.hub["logprobs"], side.hub["top_logprobs"]) == (True, 1)
    tokens = [{"token": "x", "logprob": -1.0, "bytes": [120], "top_logprobs": []}]
    choice = {"message": {"content": "x"}, "logprobs": {"content": tokens}, "finish_reason": "stop"}
    assert json.loads(side.answer({"choices": [choice]}))["logprobs"] == tokens
    line = streamed({"choices": [{"delta": {"content": "x"}, "logprobs": {"content": tokens}}]})[0]
    assert line["logprobs"] == tokens
