"""Chunks of the hub -> the events of one message: the order of blocks, and where each one ends."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.anthropic.client import MessagesClient
from protocols.anthropic.client_arguments import Arguments
from protocols.anthropic.client_stream import BLOCK_COST
from protocols.dialect import Dropped, ErrorObject, JsonObject
from protocols.pieces import PARTIAL_LIMIT, Malformed
from protocols.sse import EventReader


def client(**fields: Any) -> MessagesClient:
    request = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return MessagesClient(request, True, "abc", 0, Dropped(False))


def chunk(finish: str | None = None, stop: Any = None, **delta: Any) -> JsonObject:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "stop_reason": stop}]}


def tool(index: int | None, arguments: str | None = None, id: str | None = None, name: str | None = None) -> JsonObject:
    return chunk(
        tool_calls=[{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]
    )


def usage(prompt: int, completion: int, **more: Any) -> JsonObject:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}


def events_of(payload: bytes) -> list[JsonObject]:
    reader = EventReader()
    events = reader.feed(payload) + reader.end()
    decoded = [orjson.loads(event.data) for event in events]
    assert [event.name.decode() for event in events] == [event["type"] for event in decoded]
    return decoded


def play(*chunks: JsonObject, **fields: Any) -> list[JsonObject]:
    side = client(**fields)
    return events_of(b"".join([side.feed(one) for one in chunks]) + side.end())


def feed_all(side: MessagesClient, chunks: list[JsonObject]) -> None:
    for one in chunks:
        side.feed(one)


def told(events: list[JsonObject]) -> list[Any]:
    """The blocks, shortly: their kind, then all that was said in them. The sequence of events must be legal."""
    assert events[0]["type"] == "message_start"
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    blocks: list[Any] = []
    is_open = False
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(blocks)
            block = event["content_block"]
            blocks.append([block["type"], *(block[key] for key in ("id", "name", "data") if key in block), ""])
            is_open = True
            continue
        assert is_open
        assert event["index"] == len(blocks) - 1
        if event["type"] == "content_block_stop":
            is_open = False
        elif event["delta"]["type"] == "signature_delta":
            blocks[-1].append(event["delta"]["signature"])
        else:
            (text,) = (value for key, value in event["delta"].items() if key != "type")
            assert text, "an empty delta"
            blocks[-1][-1] += text
    assert not is_open
    assert not [block for block in blocks if block[0] == "text" and not block[-1]], "an empty text block"
    return [tuple(block) for block in blocks]


def stop(events: list[JsonObject]) -> tuple[str, str | None]:
    return events[-2]["delta"]["stop_reason"], events[-2]["delta"]["stop_sequence"]


def test_text() -> None:
    events = play(
        chunk(role="assistant", content=""),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk("stop"),
        usage(9, 2, prompt_tokens_details={"cached_tokens": 4}),
    )
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"] == {
        "id": "msg_abc",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    assert told(events) == [("text", "Hello")]
    assert stop(events) == ("end_turn", None)
    assert events[-2]["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 2,
    }


def test_each_delta_leaves_at_once() -> None:
    side = client()
    assert events_of(side.feed(chunk(role="assistant", content="")))[0]["type"] == "message_start"
    assert len(events_of(side.feed(chunk(content="a")))) == 2
    assert len(events_of(side.feed(chunk(content="b")))) == 1
    assert side.feed(chunk(content="")) == b""
    assert side.feed({"choices": []}) == b""
    assert [event["type"] for event in events_of(side.feed(chunk("stop")))] == ["content_block_stop"]
    assert side.feed(usage(1, 1)) == b""
    assert [event["type"] for event in events_of(side.end())] == ["message_delta", "message_stop"]


def test_the_message_starts_with_what_is_known() -> None:
    first = chunk(content="a") | {"model": "served-as", "usage": {"prompt_tokens": 7, "completion_tokens": 1}}
    message = play(first)[0]["message"]
    assert message["model"] == "served-as"
    assert message["usage"]["input_tokens"] == 7
    assert message["usage"]["output_tokens"] == 1


def test_an_empty_stream_is_a_message_without_content() -> None:
    events = play()
    assert [event["type"] for event in events] == ["message_start", "message_delta", "message_stop"]
    assert stop(events) == ("end_turn", None)
    assert events[-2]["usage"] == {"input_tokens": 0, "output_tokens": 0}


@pytest.mark.parametrize(
    ("finish", "sequence", "expected"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "\n\n", ("stop_sequence", "\n\n")),
        ("stop", 128009, ("end_turn", None)),
        ("length", None, ("max_tokens", None)),
        ("content_filter", None, ("refusal", None)),
        ("tool_calls", None, ("end_turn", None)),
        ("never_heard_of", None, ("end_turn", None)),
        (None, None, ("end_turn", None)),
    ],
)
def test_why_the_model_stopped(finish: str | None, sequence: Any, expected: tuple[str, str | None]) -> None:
    assert stop(play(chunk(content="a"), chunk(finish, sequence))) == expected


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", "tool_use"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        (None, "tool_use"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
    ],
)
def test_a_call_is_to_be_made_unless_the_answer_was_cut(finish: str | None, expected: str) -> None:
    assert stop(play(tool(0, "{}", "c", "f"), chunk(finish))) == (expected, None)


def test_a_refusal_is_text_and_a_reason() -> None:
    events = play(chunk(refusal="I "), chunk(refusal="won't."), chunk("stop"))
    assert told(events) == [("text", "I won't.")]
    assert stop(events) == ("refusal", None)


def test_other_choices_are_not_told() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    events = play(chunk(content="yes"), other, chunk("stop"))
    assert told(events) == [("text", "yes")]
    assert stop(events) == ("end_turn", None)


# Thinking.


def test_thinking_ends_where_anything_else_begins() -> None:
    events = play(chunk(reasoning_content="h"), chunk(reasoning_content="m"), chunk(content="a"), chunk("stop"))
    assert told(events) == [("thinking", "hm"), ("text", "a")]
    assert events[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}


def test_a_signature_ends_its_thought() -> None:
    signed = {"type": "thinking", "thinking": "", "signature": "sig"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    events = play(
        chunk(reasoning_content="hm"),
        chunk(thinking_blocks=[signed, hidden]),
        chunk(reasoning_content="more"),
        chunk(thinking_blocks=[signed]),
        chunk(thinking_blocks=[signed]),
        chunk(thinking_blocks=[{"type": "thinking", "thinking": "whole", "signature": "s2"}]),
        chunk(content="a"),
    )
    assert told(events) == [
        ("thinking", "hm", "sig"),
        ("redacted_thinking", "xyz", ""),
        ("thinking", "more", "sig"),
        ("thinking", "", "sig"),
        ("thinking", "whole", "s2"),
        ("text", "a"),
    ]


@pytest.mark.parametrize("thinking", [{"type": "disabled"}, {"type": "adaptive", "display": "omitted"}])
def test_thinking_that_nobody_wants_to_see_is_not_shown(thinking: JsonObject) -> None:
    signed = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    chunks = [chunk(reasoning_content="hm"), chunk(thinking_blocks=[signed]), chunk(content="a")]
    assert told(play(*chunks, thinking=thinking)) == [("text", "a")]


# Tools.


def test_arguments_pass_as_they_come() -> None:
    side = client()
    side.feed(tool(0, "", "c1", "f"))
    assert events_of(side.feed(tool(0, '{"a')))[0]["delta"] == {"type": "input_json_delta", "partial_json": '{"a'}
    assert len(events_of(side.feed(tool(0, '":1')))) == 1
    assert [event["type"] for event in events_of(side.feed(tool(0, "}")))] == [
        "content_block_delta",
        "content_block_stop",
    ]


def test_no_empty_text_stands_before_a_call() -> None:
    events = play(chunk(role="assistant", content=""), tool(0, '{"a":1}', "c1", "f"), chunk("tool_calls", content=""))
    assert told(events) == [("tool_use", "c1", "f", '{"a":1}')]


def test_calls_one_after_the_other_do_not_wait() -> None:
    side = client()
    side.feed(tool(0, '{"a":1}', "c1", "f"))
    begun = events_of(side.feed(tool(1, "{", "c2", "g")))
    assert [event["type"] for event in begun] == ["content_block_start", "content_block_delta"]
    assert told(
        play(chunk(content="t"), tool(0, '{"a":1}', "c1", "f"), tool(1, '{"b"', "c2", "g"), tool(1, ":2}"))
    ) == [("text", "t"), ("tool_use", "c1", "f", '{"a":1}'), ("tool_use", "c2", "g", '{"b":2}')]


def test_calls_in_turns_wait_for_the_first_one() -> None:
    events = play(
        tool(0, "", "c1", "f"),
        tool(1, "", "c2", "g"),
        tool(2, '{"z":', "c3", "h"),
        tool(0, '{"a"'),
        tool(1, '{"b":2}'),
        chunk(content="amid"),
        chunk(content="st"),
        tool(0, ":1}"),
        tool(2, "3}"),
        chunk("tool_calls"),
    )
    assert told(events) == [
        ("tool_use", "c1", "f", '{"a":1}'),
        ("tool_use", "c2", "g", '{"b":2}'),
        ("tool_use", "c3", "h", '{"z":3}'),
        ("text", "amidst"),
    ]


def test_calls_of_one_index_are_told_apart_by_their_ids() -> None:
    events = play(tool(0, '{"a":1}', "c1", "f"), tool(0, '{"b":1}', "c2", "f"), tool(None, "{}", "c3", "g"))
    assert told(events) == [
        ("tool_use", "c1", "f", '{"a":1}'),
        ("tool_use", "c2", "f", '{"b":1}'),
        ("tool_use", "c3", "g", "{}"),
    ]


def test_a_call_whose_id_is_told_again_is_the_same_call() -> None:
    assert told(play(tool(0, '{"a"', "c1", "f"), tool(0, ":1}", "c1", "f"))) == [("tool_use", "c1", "f", '{"a":1}')]


def test_a_call_without_an_id_is_given_one() -> None:
    assert told(play(tool(0, "{}", None, "f"), tool(1, "{}", "", "g"))) == [
        ("tool_use", "toolu_abc_0", "f", "{}"),
        ("tool_use", "toolu_abc_1", "g", "{}"),
    ]


@pytest.mark.parametrize("arguments", ["", "  ", "null", None])
def test_a_call_without_arguments_has_no_deltas(arguments: str | None) -> None:
    events = play(tool(0, arguments, "c1", "f"), tool(1, "{}", "c2", "g"), chunk("tool_calls"))
    assert told(events) == [("tool_use", "c1", "f", ""), ("tool_use", "c2", "g", "{}")]


def test_the_old_function_call_is_a_tools() -> None:
    events = play(
        chunk(function_call={"name": "f", "arguments": ""}),
        chunk(function_call={"arguments": '{"a":1}'}),
        chunk("function_call"),
    )
    assert told(events) == [("tool_use", "toolu_abc_0", "f", '{"a":1}')]
    assert stop(events) == ("tool_use", None)


def test_half_arguments_are_told_only_where_the_answer_was_cut() -> None:
    assert told(play(tool(0, '{"a":', "c1", "f"), chunk("length"))) == [("tool_use", "c1", "f", '{"a":')]
    for finish in ("tool_calls", "stop"):
        with pytest.raises(Malformed, match="arguments"):
            play(tool(0, '{"a":', "c1", "f"), chunk(finish))
    with pytest.raises(Malformed, match="arguments"):
        play(tool(0, "", "c1", "f"), tool(1, '{"a":', "c2", "f"))


def test_text_that_waits_is_told_when_the_answer_is_cut() -> None:
    events = play(tool(0, '{"a":', "c1", "f"), tool(1, "{", "c2", "g"), chunk("length", content="late"))
    assert told(events) == [("tool_use", "c1", "f", '{"a":'), ("tool_use", "c2", "g", "{"), ("text", "late")]


# What cannot be said.


def test_what_waits_is_bounded() -> None:
    side = client()
    side.feed(tool(0, "{", "c1", "f"))
    side.feed(tool(1, '{"a":"', "c2", "g"))
    piece = "x" * (PARTIAL_LIMIT // 4)
    for _ in range(3):
        assert side.feed(tool(1, piece)) == b""
    with pytest.raises(Malformed, match="wait"):
        side.feed(tool(1, piece))


@pytest.mark.parametrize(
    "small",
    [
        [tool(1, "1")],
        [chunk(content="a"), chunk(reasoning_content="b")],
        [chunk(thinking_blocks=[{"type": "redacted_thinking", "data": "d"}])],
    ],
    ids=["pieces", "blocks", "hidden blocks"],
)
def test_many_small_things_that_wait_are_bounded_by_what_they_cost(small: list[JsonObject]) -> None:
    side = client()
    side.feed(tool(0, "{", "c1", "f"))
    side.feed(tool(1, '{"a":', "c2", "g"))
    with pytest.raises(Malformed, match="wait"):
        feed_all(side, small * (PARTIAL_LIMIT // 64 // len(small)))


def test_arguments_that_never_end_hold_nothing() -> None:
    side = client()
    side.feed(tool(0, '{"a":"', "c1", "f"))
    piece = "x" * (PARTIAL_LIMIT // 2)
    for _ in range(4):
        assert len(side.feed(tool(0, piece))) > len(piece)


def test_calls_without_end_are_refused() -> None:
    side = client()
    with pytest.raises(Malformed, match="tool calls"):
        feed_all(side, [tool(index, "{}", f"c{index}", "f") for index in range(PARTIAL_LIMIT // BLOCK_COST)])
    with pytest.raises(Malformed, match="tool calls"):
        client().feed(tool(0, "{}", "c", "f" * PARTIAL_LIMIT))


def test_a_signature_that_was_told_does_not_count_any_more() -> None:
    signed = {"type": "thinking", "thinking": "", "signature": "s" * (PARTIAL_LIMIT // 3)}
    events = play(*[chunk(thinking_blocks=[signed]) for _ in range(9)])
    assert len(told(events)) == 9


@pytest.mark.parametrize(
    "wrong",
    [
        {"choices": 1},
        {"choices": {"a": 1}},
        {"choices": [1]},
        {"choices": [{"delta": 1}]},
        {"choices": [{"delta": {}, "finish_reason": 1}]},
        {"choices": [], "usage": 1},
        {"choices": [], "usage": {"prompt_tokens": -1}},
        {"choices": [], "usage": {"prompt_tokens": "1"}},
        chunk(content=1),
        chunk(content=[{"type": "text"}]),
        chunk(reasoning_content=1),
        chunk(refusal={"a": 1}),
        chunk(thinking_blocks=1),
        chunk(thinking_blocks=[1]),
        chunk(thinking_blocks=[{"type": "x"}]),
        chunk(thinking_blocks=[{"type": "thinking", "thinking": 1}]),
        chunk(tool_calls=1),
        chunk(tool_calls=[1]),
        chunk(tool_calls=[{"index": 0}]),
        chunk(tool_calls=[{"index": "0", "function": {"name": "f"}}]),
        chunk(tool_calls=[{"index": 0, "id": 1, "function": {"name": "f"}}]),
        chunk(tool_calls=[{"index": 0, "function": {"name": 1}}]),
        chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": {"a": 1}}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        tool(0, "Infinity", "c", "f"),
        tool(0, "[]", "c", "f"),
        tool(0, '"{}"', "c", "f"),
        tool(0, "{}}", "c", "f"),
        tool(0, "{} {}", "c", "f"),
    ],
)
def test_a_chunk_that_is_none_is_malformed(wrong: JsonObject) -> None:
    with pytest.raises(Malformed):
        play(wrong)


@pytest.mark.parametrize("more", ["{}", "x", "null"])
def test_nothing_follows_whole_arguments(more: str) -> None:
    with pytest.raises(Malformed, match="follows"):
        play(tool(0, "{}", "c", "f"), tool(0, more))
    assert told(play(tool(0, "{}", "c", "f"), tool(0, " \n"))) == [("tool_use", "c", "f", "{}")]


def test_a_stream_that_broke_ends_with_an_error() -> None:
    side = client()
    payload = side.feed(chunk(content="a")) + side.fail(ErrorObject(529, "Overloaded"))
    assert events_of(payload)[-1] == {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


# The end of arguments.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | st.text(alphabet='{}[]"\\aé😀\n'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='{}[]"\\b'), inner),
)


@given(st.dictionaries(st.text(alphabet='{}"\\'), JSON), st.data())
def test_arguments_end_where_their_braces_close_however_they_are_cut(value: JsonObject, data: st.DataObject) -> None:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if data.draw(st.booleans()) else None).decode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    arguments = Arguments()
    passed = ""
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        assert not arguments.is_whole or start == len(text)
        passed += arguments.feed(text[start:end])
    assert arguments.is_whole
    assert passed == text


DELTAS = st.one_of(
    st.text(max_size=3).map(lambda text: chunk(content=text)),
    st.text(max_size=3).map(lambda text: chunk(reasoning_content=text)),
    st.sampled_from(
        [
            chunk(thinking_blocks=[{"type": "thinking", "thinking": "", "signature": "s"}]),
            chunk(thinking_blocks=[{"type": "redacted_thinking", "data": "d"}]),
        ]
    ),
    st.tuples(st.integers(0, 3), st.sampled_from(["", "{", '"a":', "1", "}", "{}"])).map(
        lambda pair: tool(pair[0], pair[1], f"c{pair[0]}", "f")
    ),
)


@settings(max_examples=300)
@given(st.lists(DELTAS, max_size=20))
def test_whatever_comes_the_events_are_a_legal_message(chunks: list[JsonObject]) -> None:
    try:
        events = play(*chunks, chunk("length"))
    except Malformed:
        return
    blocks = told(events)
    said = "".join(one["choices"][0]["delta"].get("content", "") for one in chunks)
    assert "".join(block[-1] for block in blocks if block[0] == "text") == said
