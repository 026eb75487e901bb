"""/api/chat of a server of Ollama: what is asked there, and its answers in the hub's words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from protocols.dialect import Broken, Dropped, Terms, Unmappable
from protocols.ollama.chat_backend import ChatBackend
from protocols.pieces import PARTIAL_LIMIT, Malformed
from tests.unit.ollama_calls import CREATED, ID, PNG, backend, chat_backend, told

USER = {"role": "user", "content": "hi"}


def body_of(lenient: bool = False, stream: bool = False, **fields: Any) -> dict[str, Any]:
    ask = backend("chat", {"model": "m", "messages": [USER], **fields}, stream, lenient).ask("n")
    assert (ask.path, ask.lines) == (b"/api/chat", b"")
    body = json.loads(ask.body)
    assert isinstance(body, dict)
    return body


def refused(**fields: Any) -> str:
    with pytest.raises(Unmappable) as caught:
        body_of(**fields)
    assert caught.value.param is not None
    assert caught.value.param in caught.value.message
    return caught.value.param


def line(content: str = "", done: bool = False, **more: Any) -> bytes:
    message = {"role": "assistant", "content": content} | more.pop("message", {})
    return json.dumps({"model": "n", "message": message, "done": done} | more).encode() + b"\n"


LAST = line("", True, done_reason="stop", prompt_eval_count=3, eval_count=4)


def deltas(chunks: Sequence[dict[str, Any]]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def test_a_plain_request_leaves_sampling_to_the_model() -> None:
    assert body_of() == {"model": "n", "messages": [USER], "stream": False}
    assert body_of(stream=True)["stream"] is True


def test_sampling_and_limits_are_options() -> None:
    fields = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "frequency_penalty": 0, "presence_penalty": 1}
    fields |= {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1}
    expected = {key: value for key, value in fields.items() if key != "repetition_penalty"}
    expected |= {"repeat_penalty": 1.1, "stop": ["x"], "num_predict": 9}
    assert body_of(**fields, stop="x", max_completion_tokens=9, max_tokens=5)["options"] == expected
    assert body_of(max_tokens=5, stop=["a", "b"])["options"] == {"num_predict": 5, "stop": ["a", "b"]}


def test_labels_hints_and_defaults_are_left_out() -> None:
    labels = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "prompt_cache_key": "k"}
    defaults = {"n": 1, "logit_bias": {}, "logprobs": False, "parallel_tool_calls": True, "tool_choice": "auto"}
    defaults |= {"modalities": ["text"], "response_format": {"type": "text"}, "verbosity": "medium", "audio": None}
    assert body_of(**labels, **defaults, stream_options={"include_usage": True}) == body_of()


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("high", "high"), ("xhigh", "max"), ("max", "max")],
)
def test_the_reasoning_effort_is_a_level_of_thinking(effort: str, think: Any) -> None:
    assert body_of(reasoning_effort=effort)["think"] == think
    assert "think" not in body_of(reasoning_effort=None)


def test_a_response_format_is_json_or_the_schema_itself() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    assert body_of(response_format=form)["format"] == schema
    assert body_of(response_format={"type": "json_object"})["format"] == "json"
    assert body_of(response_format={"type": "json_schema", "json_schema": {"name": "n"}})["format"] == "json"


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def test_tools_are_functions_with_parameters() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    tools = [tool(description="d", parameters=parameters, strict=True), tool("g")]
    assert body_of(tools=tools)["tools"] == [
        tool(description="d", parameters=parameters),
        tool("g", parameters={"type": "object", "properties": {}}),
    ]
    assert refused(tools=[{"type": "custom", "custom": {"name": "x"}}]) == "tools[0].type"


def test_that_no_tool_may_be_called_is_said_by_offering_none() -> None:
    assert "tools" not in body_of(tools=[tool()], tool_choice="none")
    assert refused(tools=[tool()], tool_choice="required") == "tool_choice"
    assert refused(tools=[tool()], tool_choice=tool()) == "tool_choice"
    assert refused(tools=[tool()], parallel_tool_calls=False) == "parallel_tool_calls"
    assert "tools" not in body_of(parallel_tool_calls=False)


def test_a_conversation_with_tools_keeps_its_ids_and_names() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":"é"}'}}
    empty = {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call, empty], "reasoning_content": "hm"}
    result = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "r"}]}
    system = {"role": "developer", "content": "be brief"}
    messages = body_of(messages=[system, USER, asked, result, {**result, "tool_call_id": "?"}])["messages"]
    assert messages == [
        {"role": "system", "content": "be brief"},
        USER,
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"id": "c1", "function": {"name": "f", "arguments": {"b": 1, "a": "é"}}},
                {"id": "c2", "function": {"name": "g", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "r", "tool_call_id": "c1", "tool_name": "f"},
        {"role": "tool", "content": "r", "tool_call_id": "?"},
    ]


@pytest.mark.parametrize("arguments", ["Infinity", "[1]", "{", "null"])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    param = refused(messages=[USER, {"role": "assistant", "tool_calls": [call]}])
    assert param == "messages[1].tool_calls[0].function.arguments"


def test_reasoning_may_come_as_blocks_of_anthropics() -> None:
    blocks = [{"type": "thinking", "thinking": "h", "signature": "s"}, {"type": "redacted_thinking", "data": "x"}]
    asked = {"role": "assistant", "content": "y", "thinking_blocks": blocks}
    assert body_of(messages=[USER, asked])["messages"][1]["thinking"] == "h"


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def test_parts_are_one_text_and_its_images() -> None:
    parts = [
        {"type": "text", "text": "a"},
        image(f"data:image/png;base64,{PNG}"),
        {"type": "text", "text": "b"},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
    ]
    message = body_of(messages=[{"role": "user", "content": parts}])["messages"][0]
    assert message == {"role": "user", "content": "a\nb", "images": [PNG, "QUJD"]}


@pytest.mark.parametrize("url", ["http://a/b.png", "HTTPS://a/b.png", "file:///x", "data:image/png,abc", "data:", ""])
def test_an_image_that_would_have_to_be_fetched_is_refused_by_its_place(url: str) -> None:
    parts = [{"type": "text", "text": "a"}, image(url)]
    assert refused(messages=[USER, {"role": "user", "content": parts}]) == "messages[1].content[1].image_url.url"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"verbosity": "low"}, "verbosity"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"guided_json": {}}, "guided_json"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"reasoning_effort": "lots"}, "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": "json"}, "response_format"),
        ({"stop": [1]}, "stop[0]"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "messages[0].function_call"),
    ],
)
def test_what_is_wrong_or_has_no_equivalent_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == param


def test_a_lenient_route_leaves_out_and_notes() -> None:
    dropped = Dropped(lenient=True)
    hub = {"model": "m", "messages": [USER], "n": 2, "tools": [{"type": "custom"}], "x": 1}
    side = ChatBackend(hub, False, ID, CREATED, Terms(), dropped)
    assert json.loads(side.ask("n").body) == body_of()
    assert dropped.fields == ["x", "n", "tools[0].type"]


def test_an_answer_is_a_chat_completion() -> None:
    message = {"thinking": "hm", "tool_calls": [{"function": {"name": "f", "arguments": {"a": "é", "b": [1.0]}}}]}
    reply = line("", True, message=message, done_reason="stop", prompt_eval_count=3, eval_count=4)
    answer = chat_backend().answer(reply)
    function = {"name": "f", "arguments": '{"a": "\\u00e9", "b": [1.0]}'}
    assert answer == {
        "id": f"chatcmpl-{ID}",
        "object": "chat.completion",
        "created": CREATED,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "reasoning_content": "hm",
                    "tool_calls": [{"id": f"call_{ID}_0", "type": "function", "function": function}],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


@pytest.mark.parametrize(
    ("reason", "called", "finish"),
    [("stop", False, "stop"), ("stop", True, "tool_calls"), ("length", True, "length"), (None, False, "stop")],
)
def test_the_finish_reason_is_the_hubs(reason: str | None, called: bool, finish: str) -> None:
    message = {"tool_calls": [{"id": "x", "function": {"name": "f", "arguments": {}}}]} if called else {}
    reply = line("a", True, message=message, done_reason=reason)
    assert chat_backend().answer(reply)["choices"][0]["finish_reason"] == finish
    chunks, _ = told(chat_backend(stream=True), line("a", message=message), line("", True, done_reason=reason))
    assert chunks[-1]["choices"][0]["finish_reason"] == finish


def test_a_count_that_is_left_out_is_zero_unless_nothing_was_counted() -> None:
    assert chat_backend().answer(line("a", True, eval_count=4))["usage"]["prompt_tokens"] == 0
    assert "usage" not in chat_backend().answer(line("a", True))


def test_a_stream_becomes_chunks() -> None:
    calls = [{"id": "x", "function": {"index": 0, "name": "f", "arguments": {}}}, {"function": {"name": "g"}}]
    payload = line("", message={"thinking": "hm"}) + line("a") + line("", message={"tool_calls": calls}) + LAST
    chunks, ending = told(chat_backend(stream=True), payload)
    assert ending == ""
    assert deltas(chunks) == [
        {"role": "assistant", "content": "", "reasoning_content": "hm"},
        {"content": "a"},
        {
            "tool_calls": [
                {"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"index": 1, "id": f"call_{ID}_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ]
        },
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, None, None, "tool_calls"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert {chunk["id"] for chunk in chunks} == {f"chatcmpl-{ID}"}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_calls_of_several_lines_are_counted_on() -> None:
    call = {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    chunks, _ = told(chat_backend(stream=True), line("", message=call) + line("", message=call) + LAST)
    calls = [delta["tool_calls"][0] for delta in deltas(chunks) if "tool_calls" in delta]
    assert [(call["index"], call["id"]) for call in calls] == [(0, f"call_{ID}_0"), (1, f"call_{ID}_1")]


def test_thinking_and_text_of_one_line_are_two_chunks_and_empty_lines_none() -> None:
    chunks, _ = told(chat_backend(stream=True), line("") + line("a", message={"thinking": "hm"}) + LAST)
    assert deltas(chunks) == [{"role": "assistant", "content": "", "reasoning_content": "hm"}, {"content": "a"}, {}]


def test_the_last_line_may_have_text_and_no_end() -> None:
    chunks, ending = told(chat_backend(stream=True), line("a", True, done_reason="stop")[:-1])
    assert (deltas(chunks), ending) == ([{"role": "assistant", "content": "a"} | {"content": "a"}, {}], "")


def test_an_error_in_a_stream_is_told_after_what_came_before_it() -> None:
    error = b'{"error":"an error was encountered while running the model: EOF"}\n'
    side = chat_backend(stream=True)
    with pytest.raises(Broken) as caught:
        side.feed(line("a") + error + line("b"))
    assert deltas(caught.value.before) == [{"role": "assistant", "content": "a"}]
    assert caught.value.error.status == 500
    assert caught.value.error.message == "an error was encountered while running the model: EOF"
    with pytest.raises(Broken) as alone:
        chat_backend(stream=True).feed(error)
    assert not alone.value.before


@pytest.mark.parametrize(
    "payload",
    [
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"message":1,"done":false}\n',
        b'{"message":{"content":1},"done":false}\n',
        b'{"message":{"content":"\xff"},"done":false}\n',
        b'{"message":{"content":""},"done":"no"}\n',
        b'{"message":{"tool_calls":[{}]},"done":false}\n',
        b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},"done":false}\n',
        b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"a":"\xff"}}}]},"done":false}\n',
        b'{"message":{"content":""},"done":true,"eval_count":-1}\n',
        b"[" * 100_000 + b"\n",
        line("a"),
        LAST[:-20],
        LAST + LAST,
        LAST + b"x",
        b"",
    ],
)
def test_a_stream_that_breaks_its_rules_is_malformed(payload: bytes) -> None:
    assert told(chat_backend(stream=True), payload)[1].startswith("Malformed")


def test_a_line_without_an_end_does_not_fill_memory() -> None:
    side = chat_backend(stream=True)
    for _ in range(PARTIAL_LIMIT // 1024):
        side.feed(b"x" * 1024)
    with pytest.raises(Malformed):
        side.feed(b"x")


@pytest.mark.parametrize("body", [b"", b"{}", b"x", line("a"), b'{"error":"x"}', b'{"done":true}'])
def test_an_answer_that_breaks_its_rules_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        chat_backend().answer(body)


def test_logprobs_are_asked_for_and_told() -> None:
    asked = body_of(logprobs=True, top_logprobs=2)
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 2)
    tokens = [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]
    answer = chat_backend().answer(line("a", True, logprobs=tokens))
    assert answer["choices"][0]["logprobs"] == {"content": tokens, "refusal": None}
    chunks, _ = told(chat_backend(stream=True), line("a", logprobs=tokens) + LAST)
    assert chunks[0]["choices"][0]["logprobs"] == {"content": tokens, "refusal": None}
