"""Whole messages and streams of Anthropic's Messages API, read as the hub's answers and chunks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from protocols.dialect import Broken
from protocols.pieces import Malformed
from tests.unit.messages_told import END, block, delta, event, near_end, side, start, stop

DATA = Path(__file__).parents[1] / "data" / "anthropic"
STREAMS = sorted(DATA.glob("backend_*.stream"))
Chunks = list[dict[str, Any]]


def answer(**fields: Any) -> dict[str, Any]:
    return side().answer(orjson.dumps({"type": "message", "model": "claude", "content": [], **fields}))


def transcribed(name: str) -> dict[str, Any]:
    return side().answer((DATA / f"backend_{name}.answer.json").read_bytes())


def read(*events: bytes) -> Chunks:
    """The chunks of a stream that is complete."""
    backend = side()
    return [chunk for one in events for chunk in backend.feed(one)] + backend.end()


def deltas(chunks: Chunks) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def chunks_of(payload: bytes, size: int) -> tuple[Chunks, Exception | None]:
    """What *payload*, cut into pieces of *size*, becomes until it ends or fails."""
    backend = side()
    chunks: Chunks = []
    try:
        for at in range(0, len(payload), size):
            chunks += backend.feed(payload[at : at + size])
        chunks += backend.end()
    except (Broken, Malformed) as error:
        return chunks, error
    return chunks, None


def test_a_whole_message_is_an_answer_and_its_caches_are_part_of_the_prompt() -> None:
    assert transcribed("whole") == {
        "id": "chatcmpl-ab12",
        "object": "chat.completion",
        "created": 7,
        "model": "claude-opus-4-6",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello! How can I help?", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 2060,
            "completion_tokens": 6,
            "total_tokens": 2066,
            "prompt_tokens_details": {"cached_tokens": 1800, "cache_creation_tokens": 248},
        },
    }


def test_calls_of_tools_are_calls_and_there_is_no_content_beside_them() -> None:
    choice = transcribed("calls")["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    calls = [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in choice["message"]["tool_calls"]
    ]
    assert [(id, name, json.loads(text)) for id, name, text in calls] == [
        ("toolu_01", "get_weather", {"location": "San Francisco, CA"}),
        ("toolu_02", "now", {}),
    ]


def test_thinking_is_told_as_text_and_as_it_came() -> None:
    whole = transcribed("reasoned")
    message = whole["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hi", "A greeting.")
    kinds = [sorted(one) for one in message["thinking_blocks"]]
    assert kinds == [["signature", "thinking", "type"], ["data", "type"]]
    assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 12}


def test_the_text_at_which_it_stopped_is_told() -> None:
    choice = transcribed("stop")["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")


REASONS = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("pause_turn", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("tool_use", "tool_calls"),
    ("refusal", "content_filter"),
    ("a_new_reason", "stop"),
    (None, "stop"),
]


@pytest.mark.parametrize(("reason", "finish"), REASONS)
def test_each_reason_to_stop_has_its_name(reason: str | None, finish: str) -> None:
    assert answer(stop_reason=reason)["choices"][0]["finish_reason"] == finish
    ended = [chunk["choices"][0]["finish_reason"] for chunk in read(start(), near_end(reason), END) if chunk["choices"]]
    assert ended == [None, finish]


def test_a_reason_that_is_not_known_is_a_call_where_there_was_one() -> None:
    tool = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    assert answer(content=[tool], stop_reason="new")["choices"][0]["finish_reason"] == "tool_calls"
    chunks = read(start(), block(0, "tool_use", id="t", name="f"), stop(0), near_end("new"), END)
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_blocks_and_counts_that_are_not_known_are_left_out() -> None:
    whole = answer(content=[{"type": "server_tool_use", "id": 7}, {"type": "text", "text": "a", "citations": None}])
    assert whole["choices"][0]["message"]["content"] == "a"
    assert "usage" not in whole


def test_arguments_are_told_as_they_stand() -> None:
    number = b"123456789012345678901234567890.10"
    body = b'{"type":"message","content":[{"type":"tool_use","id":"t","name":"f","input":{"n":%b}}]}' % number
    call = side().answer(body)["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["arguments"] == f'{{"n":{number.decode()}}}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b'{"type":"message"}',
        b'{"type":"error","error":{}}',
        b'{"type":"message","content":[7]}',
        b'{"type":"message","content":[{"type":"text","text":7}]}',
        b'{"type":"message","content":[{"type":"tool_use","id":"t","name":"f","input":[]}]}',
        b'{"type":"message","content":[{"type":"tool_use","id":"t","name":"f","input":{"a":"\xff"}}]}',
        b'{"type":"message","content":[],"usage":{"input_tokens":-1}}',
        b'{"type":"message","content":[],"usage":{"input_tokens":99999999999999999999}}',
        b'{"type":"message","content":[{"type":"text","text":"\xff"}]}',
        b'{"type":"message","content":' + b"[" * 100000,
    ],
)
def test_a_body_that_is_no_message_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        side().answer(body)


def test_an_error_is_read_as_anthropic_writes_it() -> None:
    error = side().error(529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    assert (error.status, error.message) == (529, "Overloaded")


def test_a_stream_begins_with_the_role_and_ends_with_its_finish_and_totals() -> None:
    chunks = chunks_of((DATA / "backend_text.stream").read_bytes(), 1 << 20)[0]
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        ("chatcmpl-ab12", 7, "claude-opus-4-6")
    }
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": "! Grüße, 世界 🌍"},
        {},
    ]
    assert chunks[-1]["choices"] == []
    assert (chunks[-1]["usage"]["prompt_tokens"], chunks[-1]["usage"]["completion_tokens"]) == (25, 15)


def test_calls_are_counted_apart_from_blocks_and_one_without_arguments_has_an_empty_object() -> None:
    chunks = chunks_of((DATA / "backend_tools.stream").read_bytes(), 1 << 20)[0]
    calls = [delta["tool_calls"][0] for delta in deltas(chunks) if "tool_calls" in delta]
    function = {"name": "get_weather", "arguments": ""}
    assert calls[0] == {"index": 0, "id": "toolu_01T1x1fJ34qAmk2tNTrN7Up6", "type": "function", "function": function}
    told = ["".join(call["function"]["arguments"] for call in calls if call["index"] == at) for at in (0, 1)]
    assert told == ['{"location": "San Francisco, CA"}', "{}"]
    assert all(call["function"]["arguments"] for call in calls if "id" not in call), "empty pieces are not passed on"
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_an_input_that_came_with_its_block_is_told_at_the_blocks_end() -> None:
    chunks = read(start(), block(0, "tool_use", id="t", name="f", input={"a": 1}), stop(0), near_end("tool_use"), END)
    assert deltas(chunks)[2] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}


def test_a_signature_follows_its_thinking_and_hidden_thinking_comes_whole() -> None:
    chunks = chunks_of((DATA / "backend_thinking.stream").read_bytes(), 1 << 20)[0]
    signature = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds"
    assert deltas(chunks)[1:-1] == [
        {"reasoning_content": "15 degrees"},
        {"reasoning_content": " is cool."},
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": signature}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}]},
        {"content": "Take a coat."},
    ]
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 1054,
        "completion_tokens": 40,
        "total_tokens": 1094,
        "prompt_tokens_details": {"cached_tokens": 1024, "cache_creation_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 22},
    }


def test_the_text_at_which_a_stream_stopped_is_told_with_its_finish() -> None:
    chunks = read(start(), near_end("stop_sequence", "END"), END)
    assert chunks[-2]["choices"][0]["stop_reason"] == "END"


def test_counts_that_came_later_count_and_null_says_nothing() -> None:
    late = near_end(input_tokens=9, cache_read_input_tokens=None, output_tokens=5)
    usage = read(start(input_tokens=3, cache_read_input_tokens=2), late, END)[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (11, 5)


def test_a_stream_without_counts_or_a_reason_ends_all_the_same() -> None:
    chunks = read(event("message_start", message={}), END)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]


def test_pings_and_what_is_not_known_are_passed_over() -> None:
    known = [start(), block(0, "text", text="a"), delta(0, "text_delta", text="b"), stop(0), near_end(), END]
    unknown = [event("ping"), event("a_new_event", index="x"), b": comment\n\n"]
    hidden = [block(1, "a_new_block"), delta(1, "a_new_delta"), delta(1, "text_delta", text="no"), stop(1)]
    mixed = [
        *unknown,
        known[0],
        *unknown,
        known[1],
        event("ping"),
        delta(0, "citations_delta", citation={}),
        *known[2:4],
    ]
    assert read(*mixed, *hidden, *unknown, *known[4:], *unknown) == read(*known)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_each_transcribed_stream_is_the_hubs_chunks(path: Path) -> None:
    assert chunks_of(path.read_bytes(), 1)[0] == json.loads(path.with_suffix(".chunks.json").read_bytes())


@pytest.mark.parametrize(
    "path", sorted(DATA.glob("backend_*.answer.json")), ids=lambda path: path.name.partition(".")[0]
)
def test_each_transcribed_message_is_the_hubs_answer(path: Path) -> None:
    wanted = path.with_name(path.name.replace(".answer.", ".completion."))
    assert side().answer(path.read_bytes()) == json.loads(wanted.read_bytes())


@pytest.mark.parametrize("name", ["text", "tools", "thinking", "refusal"])
def test_a_stream_becomes_the_same_chunks_wherever_it_is_cut(name: str) -> None:
    payload = (DATA / f"backend_{name}.stream").read_bytes()
    wanted = chunks_of(payload, len(payload))
    assert wanted[1] is None
    for at in range(1, len(payload)):
        backend = side()
        assert backend.feed(payload[:at]) + backend.feed(payload[at:]) + backend.end() == wanted[0]
    assert all(chunks_of(payload, size) == wanted for size in (1, 2, 3, 7, 64))


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_stream_that_says_it_failed_is_broken_behind_what_came_before(size: int) -> None:
    chunks, error = chunks_of((DATA / "backend_overloaded.stream").read_bytes(), size)
    assert deltas(chunks) == [{"role": "assistant", "content": ""}, {"content": "Hel"}]
    assert isinstance(error, Broken)
    assert (error.error.status, error.error.message) == (529, "Overloaded")


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_a_stream_that_is_cut_off_is_never_complete(path: Path) -> None:
    payload = path.read_bytes().rstrip(b"\n")
    assert all(chunks_of(payload[:end], 1 << 20)[1] is not None for end in range(len(payload)))


def test_a_last_event_without_its_blank_line_counts() -> None:
    payload = (DATA / "backend_text.stream").read_bytes()
    assert chunks_of(payload.rstrip(b"\n"), 64) == chunks_of(payload, 64)
