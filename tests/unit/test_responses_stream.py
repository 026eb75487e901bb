"""Streams of POST /v1/responses, made of a chat's chunks: the order of events, what each says, and the bounds."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.dialect import ErrorObject, JsonObject
from protocols.openai.errors import carries_error
from protocols.openai.responses.client import ResponsesClient
from protocols.openai.responses.errors import error_event
from protocols.pieces import PARTIAL_LIMIT, Malformed
from tests.unit.responding import BROKEN, USAGE_CHUNK, call, chunk, events, open_client, stream_of, text, whole

TEXT_ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def kinds(heard: list[Any]) -> list[str]:
    return [event["type"] for event in heard]


def check(heard: list[Any]) -> Any:
    """The rules of every complete stream; returns its last response."""
    assert [event["sequence_number"] for event in heard] == list(range(len(heard)))
    assert kinds(heard)[:2] == ["response.created", "response.in_progress"]
    assert heard[0]["response"] == heard[1]["response"]
    assert heard[0]["response"]["output"] == []
    assert heard[0]["response"]["status"] == "in_progress"
    last = heard[-1]["response"]
    assert heard[-1]["type"] == f"response.{last['status']}"
    items: dict[int, Any] = {}
    done: dict[int, Any] = {}
    parts: dict[tuple[int, int], str] = {}
    for event in heard[2:-1]:
        place = event["output_index"]
        kind = event["type"]
        if kind == "response.output_item.added":
            assert place == len(items)
            assert event["item"]["status"] == "in_progress"
            items[place] = event["item"]
            continue
        assert place not in done, "nothing follows the end of an item"
        if kind == "response.output_item.done":
            done[place] = event["item"]
            assert event["item"]["id"] == items[place]["id"]
            continue
        assert event["item_id"] == items[place]["id"]
        key = (place, event.get("content_index", -1))
        if kind == "response.content_part.added":
            assert key not in parts
            parts[key] = ""
        elif kind.endswith(".delta"):
            parts[key] = parts.get(key, "") + event["delta"] if key[1] < 0 else parts[key] + event["delta"]
        elif kind == "response.content_part.done":
            assert event["part"] == done_part(heard, place, key[1])
        else:
            said = event.get("text", event.get("refusal", event.get("arguments")))
            assert said == parts.get(key, "")
    assert [done[place] for place in range(len(items))] == last["output"]
    return last


def done_part(heard: list[Any], place: int, at: int) -> Any:
    items = [e["item"] for e in heard if e["type"] == "response.output_item.done" and e["output_index"] == place]
    return items[0]["content"][at]


def test_a_text_comes_in_the_order_of_the_api() -> None:
    heard = stream_of([*text("Hel", "lo é\n"), USAGE_CHUNK])
    assert kinds(heard) == TEXT_ORDER
    last = check(heard)
    assert last["output"][0]["content"][0]["text"] == "Hello é\n"
    assert last["usage"]["total_tokens"] == 16
    assert {event["response"]["id"] for event in heard if "response" in event} == {"resp_ab12"}
    assert last["model"] == "served"


def test_an_empty_stream_has_an_empty_text() -> None:
    assert kinds(stream_of([])) == [*TEXT_ORDER[:4], *TEXT_ORDER[5:]]
    assert check(stream_of([chunk({}, "stop")]))["usage"] is None
    assert check(stream_of([]))["model"] == "asked"


def test_a_stream_ends_with_the_same_response_as_a_whole_answer() -> None:
    calls = [{"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}} for id in ("a", "b")]
    blocks = [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]
    message = {"content": "Wait.", "reasoning_content": "Hm.", "thinking_blocks": blocks, "tool_calls": calls}
    chunks = [
        chunk({"role": "assistant", "reasoning_content": "H"}),
        chunk({"reasoning_content": "m."}),
        chunk({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "c2ln"}]}),
        *(chunk({"content": piece}) for piece in ("Wa", "it.")),
        call(0, "{", id="a", name="look"),
        call(1, "", id="b", name="look"),
        call(0, "}"),
        call(1, "{}"),
        chunk({}, "tool_calls"),
        USAGE_CHUNK,
    ]
    heard = check(stream_of(chunks))
    assert heard == orjson.loads(open_client().answer(whole(message, "tool_calls")))


def test_calls_may_be_told_in_turns() -> None:
    chunks = [
        call(0, "", id="a", name="look"),
        call(3, '{"x', id="b", name="hear"),
        call(0, "{"),
        call(3, '":1}'),
        call(0, "}"),
        chunk({}, "tool_calls"),
    ]
    last = check(stream_of(chunks))
    assert [(item["call_id"], item["name"], item["arguments"]) for item in last["output"]] == [
        ("a", "look", "{}"),
        ("b", "hear", '{"x":1}'),
    ]


def test_calls_without_an_id_or_with_the_same_get_ids_of_their_own() -> None:
    chunks = [call(0, "{}", name="f"), call(1, "{}", id="x", name="f"), call(2, "{}", id="x", name="f")]
    ids = [item["call_id"] for item in check(stream_of(chunks))["output"]]
    assert ids == ["call_ab12_0", "x", "call_ab12_2"]


def test_thoughts_and_text_end_where_something_else_begins_and_may_begin_again() -> None:
    chunks = [
        chunk({"reasoning_content": "One"}),
        chunk({"content": "two"}),
        chunk({"reasoning_content": "three"}),
        call(0, "{}", id="a", name="f"),
        chunk({"content": "four"}),
        chunk({}, "length"),
    ]
    last = check(stream_of(chunks))
    assert [(item["type"], item["status"]) for item in last["output"]] == [
        ("reasoning", "completed"),
        ("message", "completed"),
        ("reasoning", "completed"),
        ("function_call", "completed"),
        ("message", "incomplete"),
    ]
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_refusal_has_events_of_its_own() -> None:
    heard = stream_of([chunk({"refusal": "No"}), chunk({"refusal": "."}), chunk({}, "content_filter")])
    assert kinds(heard)[3:8] == [
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
    ]
    last = check(heard)
    assert last["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    assert last["incomplete_details"] == {"reason": "content_filter"}
    both = check(stream_of([chunk({"content": "Well"}), chunk({"refusal": "No."}), chunk({"content": "!"})]))
    assert [part["type"] for part in both["output"][0]["content"]] == ["output_text", "refusal", "output_text"]


def test_each_part_of_a_text_has_its_own_logprobs() -> None:
    def said(token: str) -> Any:
        return chunk({"content": token}, logprobs={"content": [{"token": token, "logprob": -1.0}]})

    chunks = [said("a"), chunk({"refusal": "No."}), said("b")]
    parts = check(stream_of(chunks, open_client(stream=True, top_logprobs=1)))["output"][0]["content"]
    assert [[one["token"] for one in part.get("logprobs", ())] for part in parts] == [["a"], [], ["b"]]


def test_thoughts_keep_their_signatures_each_with_its_own_words() -> None:
    def signed(signature: str) -> Any:
        return chunk({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": signature}]})

    hidden = {"type": "redacted_thinking", "data": "ZGF0YQ=="}
    chunks = [
        signed("first"),
        chunk({"reasoning_content": "Hm"}),
        chunk({"reasoning_content": " é."}),
        signed("second"),
        chunk({"reasoning_content": "So."}),
        signed("third"),
        chunk({"thinking_blocks": [hidden]}),
        chunk({"content": "Yes."}),
    ]
    thought, said = check(stream_of(chunks))["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm é.So."}]
    assert open_client(input=[thought, said]).hub["messages"][0]["thinking_blocks"] == [
        {"type": "thinking", "thinking": "", "signature": "first"},
        {"type": "thinking", "thinking": "Hm é.", "signature": "second"},
        {"type": "thinking", "thinking": "So.", "signature": "third"},
        hidden,
    ]


def test_other_choices_are_not_told() -> None:
    chunks = text("Hello")
    chunks.insert(2, {"choices": [{"index": 1, "delta": {"content": "Bye"}, "finish_reason": "length"}]})
    assert check(stream_of(chunks))["output"][0]["content"][0]["text"] == "Hello"


# ends that are none


def test_a_stream_that_breaks_says_so_and_never_that_it_is_complete() -> None:
    client = open_client(stream=True)
    heard = events(b"".join(map(client.feed, text("Hel")[:2])) + client.fail(BROKEN))
    assert kinds(heard)[-2:] == ["error", "response.failed"]
    assert [event["sequence_number"] for event in heard] == list(range(len(heard)))
    failed = heard[-1]["response"]
    assert (failed["id"], failed["status"], failed["output"]) == ("resp_ab12", "failed", [])
    assert failed["error"]["code"] == "server_error"
    assert heard[-2]["message"] == heard[-2]["error"]["message"] == BROKEN.message
    assert (heard[-2]["code"], heard[-2]["param"]) == ("upstream_broken", None)


def test_a_stream_that_breaks_before_it_began_is_an_error_alone() -> None:
    assert kinds(events(open_client(stream=True).fail(BROKEN))) == ["error"]


def test_a_limited_rate_keeps_its_code() -> None:
    client = open_client(stream=True)
    client.feed(chunk({"content": "x"}))
    _, failed = events(client.fail(ErrorObject(429, "Slower.", "requests", "rate_limit_exceeded")))
    assert failed["response"]["error"]["code"] == "rate_limit_exceeded"


def test_a_relayed_stream_that_breaks_ends_with_an_error_that_everybody_knows() -> None:
    (event,) = events(error_event(BROKEN))
    assert event["type"] == "error"
    assert {"code", "message", "param", "sequence_number"} <= event.keys()
    assert carries_error(orjson.dumps(event))


# bounds, and what no backend's side would say


def feed_on(client: ResponsesClient, piece: Callable[[int], JsonObject]) -> None:
    for at in range(PARTIAL_LIMIT // 32):
        client.feed(piece(at))


@pytest.mark.parametrize(
    "piece",
    [
        lambda at: chunk({"content": "x" * 1000}),
        lambda at: chunk({"content": "\n" * 500}),
        lambda at: chunk({"reasoning_content": "x" * 1000}),
        lambda at: chunk({"refusal": "x" * 1000}),
        lambda at: call(0, "x" * 1000, id="a", name="f"),
        lambda at: call(at, "{}", id=f"call_{at}", name="f"),
        lambda at: call(at, "", id=f"call_{at}", name="f" * 1000),
        lambda at: chunk({"reasoning_content": "x"}) if at % 2 else chunk({"content": "x"}),
        lambda at: chunk({"refusal": "x"}) if at % 2 else chunk({"content": "x"}),
        lambda at: chunk({"thinking_blocks": [{"type": "redacted_thinking", "data": "x" * 1000}]}),
        lambda at: chunk({"thinking_blocks": [{"type": "redacted_thinking", "data": ""}]}),
    ],
    ids=["text", "escapes", "thoughts", "refusal", "arguments", "calls", "names", "turns", "parts", "blocks", "empty"],
)
def test_an_answer_that_never_ends_is_malformed_in_the_end(piece: Any) -> None:
    client = open_client(stream=True)
    with pytest.raises(Malformed, match="longer than"):
        feed_on(client, piece)
    assert kinds(events(client.fail(BROKEN))) == ["error", "response.failed"]


def test_logprobs_count_too() -> None:
    client = open_client(stream=True, top_logprobs=1)
    entry = {"token": "x" * 100, "logprob": -1.0, "top_logprobs": []}
    with pytest.raises(Malformed, match="longer than"):
        feed_on(client, lambda at: chunk({"content": "x"}, logprobs={"content": [entry] * 10}))


def test_a_text_as_long_as_the_longest_answers_of_models_is_told() -> None:
    client = open_client(stream=True)
    for _ in range(640):
        client.feed(chunk({"content": "x" * 1024}))
    last = events(client.end())[-1]
    assert len(last["response"]["output"][0]["content"][0]["text"]) == 640 << 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"choices": "x"},
        {"choices": ["x"]},
        {"choices": [{"delta": {}}, 1]},
        {"choices": [{"index": 0, "delta": []}]},
        chunk({"content": 1}),
        chunk({"content": "\ud800"}),
        chunk({"reasoning_content": ["x"]}),
        chunk({"thinking_blocks": "x"}),
        chunk({"thinking_blocks": [{"type": "unheard_of"}]}),
        chunk({"tool_calls": [{"index": "0", "function": {"name": "f"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": "f"}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": {"x": 1}}}]}),
        {"choices": [], "usage": {"prompt_tokens": "many"}},
        {"choices": [], "usage": 1},
    ],
    ids=str,
)
def test_a_chunk_of_wrong_types_is_malformed(wrong: Any) -> None:
    with pytest.raises(Malformed):
        open_client(stream=True).feed(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": {"content": ["x"]}}]},
        {"choices": [{"message": {"tool_calls": [{"function": {}}]}}]},
        {"choices": [{"message": {"content": "\ud800"}}]},
        {"choices": [{"message": {"thinking_blocks": [{"type": "thinking"}]}}]},
        {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -1}},
        {"choices": [{"message": {"content": "x"}}], "model": 1},
    ],
    ids=str,
)
def test_a_whole_answer_of_wrong_types_is_malformed(wrong: Any) -> None:
    with pytest.raises(Malformed):
        open_client().answer(wrong)


words = st.text(st.characters(codec="utf-8"), max_size=6)
deltas = st.one_of(
    st.builds(lambda text: chunk({"content": text}), words),
    st.builds(lambda text: chunk({"reasoning_content": text}), words),
    st.builds(lambda text: chunk({"refusal": text}), words),
    st.builds(lambda text: chunk({"content": text, "reasoning_content": text, "refusal": None}), words),
    st.builds(lambda index, text: call(index, text, id=f"call_{index}", name="f"), st.integers(0, 3), words),
    st.builds(
        lambda text: chunk({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": text}]}), words
    ),
    st.builds(lambda reason: chunk({}, reason), st.sampled_from(["stop", "length", "tool_calls", "content_filter"])),
    st.just(USAGE_CHUNK),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(deltas, max_size=12))
def test_whatever_a_chat_tells_comes_in_order_and_whole(chunks: Any) -> None:
    last = check(stream_of(chunks))
    told = {"content": "", "reasoning_content": "", "refusal": ""}
    for one in chunks:
        for choice in one["choices"]:
            for name in told:
                told[name] += choice["delta"].get(name) or ""
    parts = [part for item in last["output"] for part in item.get("content", ())]
    assert "".join(part["text"] for part in parts if part["type"] == "output_text") == told["content"]
    assert "".join(part["text"] for part in parts if part["type"] == "reasoning_text") == told["reasoning_content"]
    assert "".join(part["refusal"] for part in parts if part["type"] == "refusal") == told["refusal"]


def test_a_call_that_is_over_is_freed_without_the_collector() -> None:
    client = open_client(stream=True)
    client.feed(chunk({"content": "x"}))
    gone = weakref.ref(client)
    gc.disable()
    try:
        del client
        assert gone() is None
    finally:
        gc.enable()
