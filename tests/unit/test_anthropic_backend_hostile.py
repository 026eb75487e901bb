"""Streams that break the rules of Anthropic's Messages API end as `Malformed` or `Broken`, and hold little."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.anthropic.backend_side import MessagesBackend
from protocols.dialect import Broken
from protocols.pieces import PARTIAL_LIMIT, Malformed
from tests.unit.messages_told import END, block, delta, event, near_end, side, start, stop

TOOL = block(0, "tool_use", id="t", name="f", input={})

WRONG = {
    "a block before the message": [block(0, "text")],
    "an end before the message": [END],
    "totals before the message": [near_end()],
    "a second message": [start(), start()],
    "a delta of a block that never started": [start(), delta(0, "text_delta", text="a")],
    "a delta of a block that has ended": [start(), block(0, "text"), stop(0), delta(0, "text_delta", text="a")],
    "a delta of another block": [start(), block(0, "text"), delta(1, "text_delta", text="a")],
    "an unknown delta of another block": [start(), block(0, "text"), delta(1, "new_delta")],
    "a delta of another kind": [start(), block(0, "text"), delta(0, "input_json_delta", partial_json="{")],
    "arguments in thinking": [start(), block(0, "thinking"), delta(0, "input_json_delta", partial_json="{")],
    "text in a call": [start(), TOOL, delta(0, "text_delta", text="a")],
    "a block inside a block": [start(), block(0, "text"), block(1, "text")],
    "a block that is skipped": [start(), block(1, "text")],
    "a block that comes again": [start(), block(0, "text"), stop(0), block(0, "text")],
    "an end of another block": [start(), block(0, "text"), stop(1)],
    "an end of no block": [start(), stop(0)],
    "totals inside a block": [start(), block(0, "text"), near_end()],
    "an end inside a block": [start(), block(0, "text"), END],
    "no JSON": [start(), b"data: {\n\n"],
    "no JSON at all": [b"data: <html>\n\n"],
    "OpenAI's end": [start(), b"data: [DONE]\n\n"],
    "no object": [b"data: 7\n\n"],
    "no type": [b"data: {}\n\n"],
    "a type of another type": [b'data: {"type":7}\n\n'],
    "no UTF-8": [start(), block(0, "text"), delta(0, "text_delta", text="a").replace(b'"a"', b'"\xff"')],
    "half a surrogate": [start(), block(0, "text"), delta(0, "text_delta", text="a").replace(b'"a"', b'"\\ud800"')],
    "a delta without its text": [start(), block(0, "text"), delta(0, "text_delta")],
    "a text that is none": [start(), block(0, "text"), delta(0, "text_delta", text=7)],
    "a delta that is none": [start(), block(0, "text"), event("content_block_delta", index=0, delta=7)],
    "an index that is none": [start(), event("content_block_start", index="0", content_block={"type": "text"})],
    "a block that is none": [start(), event("content_block_start", index=0, content_block=7)],
    "a call without a name": [start(), block(0, "tool_use", id="t")],
    "an input that is no object": [start(), block(0, "tool_use", id="t", name="f", input=[]), stop(0)],
    "a message that is none": [event("message_start", message=[])],
    "counts below zero": [start(input_tokens=-1)],
    "deep nesting": [start(), b'data: {"type":"x","y":' + b"[" * 100_000 + b"\n\n"],
}


@pytest.mark.parametrize("events", WRONG.values(), ids=WRONG.keys())
def test_what_breaks_the_rules_is_malformed(events: list[bytes]) -> None:
    backend = side()
    for one in events[:-1]:
        backend.feed(one)
    with pytest.raises(Malformed):
        backend.feed(events[-1])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n', 529),
        (b'data: {"type":"error","error":{"type":"rate_limit_error","message":"x"}}\n\n', 429),
        (b'event: error\ndata: {"type":"error"}\n\n', 500),
        (b"event: error\ndata: it broke\n\n", 500),
        (b'event: error\ndata: {"error":{"message":"x"}}\n\n', 500),
    ],
)
@pytest.mark.parametrize("before", [[], [start()], [start(), block(0, "text")]], ids=["first", "begun", "inside"])
def test_an_error_breaks_a_stream_wherever_it_comes(before: list[bytes], data: bytes, status: int) -> None:
    backend = side()
    for one in before:
        backend.feed(one)
    with pytest.raises(Broken) as caught:
        backend.feed(data)
    assert caught.value.error.status == status


def test_what_comes_behind_the_end_is_not_read() -> None:
    backend = side()
    backend.feed(start() + END)
    assert backend.feed(start() + b"data: {\n\n" + event("error", error={})) + backend.end() == []


def test_a_stream_without_anything_is_malformed() -> None:
    with pytest.raises(Malformed):
        side().end()


def test_an_event_without_an_end_is_malformed_at_the_bound() -> None:
    backend = side()
    backend.feed(start())
    for _ in range(PARTIAL_LIMIT // 1024):
        backend.feed(b"x" * 1024)
    with pytest.raises(Malformed):
        backend.feed(b"x")


def held(backend: MessagesBackend, pieces: list[bytes]) -> int:
    """The most bytes that *backend* holds while *pieces* are read, one after the other, a thousand times."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1000):
            for piece in pieces:
                backend.feed(piece)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_arguments_and_signatures_without_end_hold_nothing() -> None:
    backend = side()
    backend.feed(start() + TOOL)
    assert held(backend, [delta(0, "input_json_delta", partial_json="x" * 1000)]) < 64 << 10
    backend.feed(stop(0) + block(1, "thinking"))
    assert held(backend, [delta(1, "signature_delta", signature="x" * 1000)]) < 64 << 10


def test_blocks_without_end_hold_nothing() -> None:
    backend = side()
    backend.feed(start())
    blocks = [block(at, "tool_use", id="t", name="f", input={"a": "x" * 1000}) + stop(at) for at in range(300)]
    tracemalloc.start()
    try:
        for one in blocks:
            backend.feed(one)
        assert tracemalloc.get_traced_memory()[1] < 64 << 10
    finally:
        tracemalloc.stop()


ODD = st.sampled_from(
    [None, True, 7, -1, 10**30, 1.5, "a", "\u00fc\ud83c\udf0d", [], [7], [[]], {}, {"a": 7}, {"type": "x"}]
)
FIELDS = ("text", "partial_json", "signature", "thinking", "data", "input", "id", "name")
KINDS = ("text", "tool_use", "thinking", "redacted_thinking", "text_delta", "input_json_delta", "signature_delta", "x")
TYPED = st.fixed_dictionaries({"type": st.sampled_from(KINDS)}, optional=dict.fromkeys(FIELDS, ODD))
TYPES = ("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta")
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from([*TYPES, "message_stop", "ping", "error", "x"]) | ODD},
    optional={
        "index": st.integers(0, 2) | ODD,
        **dict.fromkeys(("content_block", "delta", "message", "usage", "error"), TYPED | ODD),
    },
).map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n")
SOUND = [start(), block(0, "text"), delta(0, "text_delta", text="a"), stop(0), TOOL, near_end(), END, event("ping")]
MESSAGES = st.fixed_dictionaries(
    {"type": st.just("message"), "content": st.lists(TYPED, max_size=3) | ODD},
    optional=dict.fromkeys(("model", "stop_reason", "stop_sequence", "usage"), ODD),
).map(lambda value: json.dumps(value).encode())


@given(st.lists(st.sampled_from(SOUND) | EVENTS | st.binary(max_size=20), max_size=12), st.integers(1, 200))
def test_whatever_comes_is_chunks_or_malformed_or_broken(events: list[bytes], size: int) -> None:
    backend = side()
    payload = b"".join(events)
    try:
        chunks = [chunk for at in range(0, len(payload), size) for chunk in backend.feed(payload[at : at + size])]
        chunks += backend.end()
    except (Malformed, Broken):
        return
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert [bool(finish) for finish in finishes] == [False] * (len(finishes) - 1) + [True]


@given(st.lists(EVENTS, max_size=4), st.permutations(SOUND[1:5]))
def test_strange_events_within_a_sound_stream_are_chunks_or_malformed_or_broken(
    strange: list[bytes], middle: list[bytes]
) -> None:
    backend = side()
    try:
        for one in [start(), *middle[:2], *strange, *middle[2:], near_end(), END]:
            backend.feed(one)
        backend.end()
    except (Malformed, Broken):
        return


@given(st.binary(max_size=40) | MESSAGES)
def test_whatever_body_comes_is_an_answer_or_malformed(body: bytes) -> None:
    try:
        answer = side().answer(body)
    except Malformed:
        return
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["finish_reason"]
