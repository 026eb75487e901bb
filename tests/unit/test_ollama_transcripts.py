"""Ollama's sides over their transcripts: however bytes are cut, by the official client's types, and in hostile hands.

A transcript goes through both sides too: a server's answer to the hub and back is the answer again, as far as a
gateway knows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ollama import ChatResponse, EmbeddingsResponse, EmbedResponse, GenerateResponse

from protocols.dialect import Broken, Task, Unmappable
from protocols.pieces import Malformed
from tests.unit.configuring import STEADY
from tests.unit.ollama_calls import CREATED_AT, DATA, backend, client, lines, names, request, told

TYPES = {"chat": ChatResponse, "generate": GenerateResponse, "embed": EmbedResponse, "embeddings": EmbeddingsResponse}

#: The path of a backend's side for what a client's side asks for.
PATHS = {Task.CHAT: "chat", Task.COMPLETION: "generate", Task.EMBEDDINGS: "embed"}

streams = pytest.mark.parametrize("name", names("stream"))
answers = pytest.mark.parametrize("name", names("answer.json", "chat", "generate", "embed"))

#: What only a real server knows, or is spelled otherwise by the same right.
UNKNOWN = {"created_at", "context", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}


def path_of(name: str) -> str:
    return name.partition("-")[0]


def payload(name: str) -> bytes:
    return (DATA / f"{name}.stream").read_bytes()


def sides(name: str, stream: bool) -> tuple[Any, Any]:
    """The client's side of a transcript's request and a backend's side for it."""
    door = client(path_of(name), request(name), stream)
    return door, backend(PATHS[door.task], door.hub, stream)


def as_chat(name: str) -> bytes:
    """A transcript's stream as /api/chat tells it, for a chat that was asked for as a prompt."""
    found = []
    for line in lines(payload(name)):
        if path_of(name) == "generate":
            message = {"role": "assistant", "content": line.pop("response"), "thinking": line.pop("thinking", "")}
            line |= {"message": message}
        found.append(json.dumps(line).encode() + b"\n")
    return b"".join(found)


@pytest.mark.parametrize("name", names("request.json"))
def test_every_request_goes_through_both_sides(name: str) -> None:
    door, behind = sides(name, False)
    body = json.loads(behind.ask("other").body)
    assert body["model"] == "other"
    if path_of(name) != "chat":
        return
    given = request(name)
    assert [message["content"] for message in body["messages"]] == [one["content"] for one in given["messages"]]
    assert body.get("tools") == given.get("tools")
    assert body.get("format") == given.get("format")
    kept = {key: value for key, value in given.get("options", {}).items() if key != "num_ctx"}
    assert body.get("options", {}) == kept
    assert door.hub["model"] == given["model"]


@streams
def test_a_stream_means_the_same_cut_at_every_byte(name: str) -> None:
    data = as_chat(name)
    whole, ending = told(sides(name, True)[1], data)
    assert ending == ("" if name != "chat-error-stream" else ending)
    assert ending.startswith("Broken") is (name == "chat-error-stream")
    for cut in range(len(data) + 1):
        assert told(sides(name, True)[1], data[:cut], data[cut:]) == (whole, ending)
    assert told(sides(name, True)[1], *(data[at : at + 1] for at in range(len(data)))) == (whole, ending)


@streams
def test_a_stream_that_is_cut_off_anywhere_is_never_whole(name: str) -> None:
    data = as_chat(name)
    for cut in range(len(data) - 1):
        assert told(sides(name, True)[1], data[:cut])[1].startswith(("Malformed", "Broken"))


def without_unknown(value: dict[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in value.items() if key not in UNKNOWN}


def message_of(values: list[dict[str, Any]]) -> dict[str, Any]:
    """What lines say together: the texts, and the calls without what a server may leave away."""
    messages = [value.get("message") or {"content": value.get("response"), **value} for value in values]
    calls = [call["function"] for message in messages for call in message.get("tool_calls", [])]
    return {
        "content": "".join(message.get("content") or "" for message in messages),
        "thinking": "".join(message.get("thinking") or "" for message in messages),
        "calls": [(call["name"], call["arguments"]) for call in calls],
    }


@streams
def test_a_stream_comes_back_as_it_was(name: str) -> None:
    door, behind = sides(name, True)
    chunks, ending = told(behind, as_chat(name))
    if ending:
        return  # an error: the gateway tells it by `fail`
    found = lines(b"".join(map(door.feed, chunks)) + door.end())
    expected = lines(payload(name))
    assert message_of(found) == message_of(expected)
    assert without_unknown(found[-1]) == without_unknown(expected[-1]) | {
        key: 0 for key in ("prompt_eval_count", "eval_count") if key in found[-1] and key not in expected[-1]
    }
    for line in found:
        TYPES[path_of(name)](**line)
        assert line["created_at"] == CREATED_AT


@answers
def test_an_answer_comes_back_as_it_was(name: str) -> None:
    if name == "embeddings-whole":
        return  # no server is asked by this older path
    door, behind = sides(name, False)
    body = json.loads((DATA / f"{name}.answer.json").read_text())
    if PATHS[door.task] == "chat" and "response" in body:
        body["message"] = {"role": "assistant", "content": body.pop("response")}
    answer = door.answer(behind.answer(json.dumps(body).encode()))
    found = json.loads(answer)
    original = json.loads((DATA / f"{name}.answer.json").read_text())
    assert without_unknown(found) == without_unknown(original)
    TYPES[path_of(name)](**found)


def test_the_official_client_reads_an_older_embedding() -> None:
    door, behind = sides("embeddings-whole", False)
    answer = behind.answer(b'{"embeddings":[[1,2.5]],"prompt_eval_count":1}')
    assert EmbeddingsResponse(**json.loads(door.answer(answer))).embedding == [1.0, 2.5]


# hostile input

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def shapes(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), values, max_size=len(keys))


functions = shapes("name", "arguments") | st.fixed_dictionaries({"name": st.just("f"), "arguments": values})
calls = st.lists(st.fixed_dictionaries({}, optional={"id": values, "index": values, "function": functions | values}))
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", "x"]) | values},
    optional={
        "content": values | st.lists(shapes("type", "text", "image_url") | values, max_size=2),
        "tool_calls": calls | values,
        "images": st.lists(values, max_size=2) | values,
        "thinking": values,
        "reasoning_content": values,
        "thinking_blocks": st.lists(values, max_size=2),
        "tool_name": values,
        "tool_call_id": values,
        "name": values,
    },
)
COMMON = ("prompt", "suffix", "raw", "system", "template", "context", "images", "think", "format", "keep_alive")
MORE = ("logprobs", "top_logprobs", "dimensions", "encoding_format", "tool_choice", "response_format", "stop", "input")
requests = st.builds(
    lambda given, more: {"model": "m"} | given | more,
    shapes(*COMMON, *MORE, "model", "tools", "max_tokens", "temperature", "reasoning_effort"),
    st.fixed_dictionaries(
        {},
        optional={
            "messages": st.lists(messages | values, max_size=3),
            "options": shapes("seed", "stop", "num_predict", "temperature", "typical_p", "what"),
            "tools": st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": functions}) | values),
            "prompt": st.just("x"),
            "input": st.just("x"),
        },
    ),
)


def named(error: Unmappable) -> bool:
    return error.param is None or error.param in error.message


@STEADY
@given(requests, st.booleans(), st.booleans())
def test_a_request_of_any_shape_is_translated_or_unmappable(given: Any, stream: bool, lenient: bool) -> None:
    wrong = []
    for path in ("chat", "generate", "embed", "embeddings"):
        try:
            json.dumps(client(path, given, stream, lenient).hub)
        except Unmappable as error:
            wrong.append(error)
    for path in ("chat", "generate", "embed"):
        try:
            json.loads(backend(path, given, stream, lenient).ask("n").body)
        except Unmappable as error:
            wrong.append(error)
    assert all(map(named, wrong))


def quietly(step: Callable[[], object]) -> None:
    try:
        step()
    except (Malformed, Broken):
        pass


choices = shapes("message", "delta", "text", "finish_reason", "logprobs") | st.fixed_dictionaries(
    {"delta": messages, "message": messages}
)
hub_answers = st.fixed_dictionaries(
    {"choices": st.lists(choices, max_size=2) | values},
    optional={"usage": shapes("prompt_tokens", "completion_tokens") | values, "data": st.lists(values) | values},
)


@STEADY
@given(st.lists(hub_answers, max_size=3))
def test_what_the_hub_says_of_any_shape_is_told_or_malformed(found: list[Any]) -> None:
    for path, given_ in (
        ("chat", {"messages": [{"role": "user", "content": "x"}]}),
        ("generate", {"prompt": "x"}),
        ("generate", {"prompt": "x", "raw": True}),
        ("embed", {"input": "x"}),
        ("embeddings", {"prompt": "x"}),
    ):
        side = client(path, {"model": "m"} | given_, stream=True)
        for answer in found:
            quietly(partial(side.feed, answer))
            quietly(partial(side.answer, answer))
        quietly(side.end)


reply_lines = st.fixed_dictionaries(
    {},
    optional={
        "message": messages | values,
        "response": values,
        "done": values,
        "done_reason": values,
        "eval_count": values,
        "error": values,
        "logprobs": values,
        "embeddings": st.lists(st.lists(values, max_size=2), max_size=2) | values,
    },
)


@STEADY
@given(st.lists(reply_lines.map(lambda line: json.dumps(line).encode()) | st.binary(max_size=40), max_size=4))
@example([b'{"message":{"content":"a"},"done":false}', b"[" * 5000])
def test_what_a_server_says_of_any_shape_is_told_malformed_or_broken(found: list[bytes]) -> None:
    for path, hub in (
        ("chat", {"messages": [{"role": "user", "content": "x"}]}),
        ("generate", {"prompt": "x"}),
        ("embed", {"input": "x"}),
    ):
        side = backend(path, {"model": "m"} | hub, stream=True)
        data = b"\n".join(found)
        quietly(partial(side.answer, data))
        half = len(data) // 2
        one = told(backend(path, {"model": "m"} | hub, stream=True), data)
        two = told(backend(path, {"model": "m"} | hub, stream=True), data[:half], data[half:])
        assert one == two
        assert side.error(500, data).status == 500
