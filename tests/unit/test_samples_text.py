"""The samples of chat, text completions and responses, judged by the OpenAI SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from protocols.openai.samples.shapes import Stream, Whole
from tests.unit.sampling import ECHO, HELLO, ask, connect, events


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with connect(strict=True) as client:
        yield client


@pytest.fixture
def lenient() -> Iterator[openai.OpenAI]:
    """For the two answers of OpenAI's own server that the SDK's strict mode refuses (see their tests)."""
    with connect(strict=False) as client:
        yield client


# chat


def test_a_chat_echoes_what_the_user_said_last(client: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": [{"type": "text", "text": "Hello there"}, {"type": "image_url"}]},
    ]
    answer = client.chat.completions.create(model="mock", messages=messages)
    assert answer.choices[0].message.content == ECHO
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2 + 1 + 1 + 2
    assert answer.usage.completion_tokens == len(ECHO.split())
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_chat_has_every_key_that_the_specification_requires_even_where_it_is_null() -> None:
    answer = ask("/v1/chat/completions", {"messages": HELLO})
    assert isinstance(answer, Whole)
    body = json.loads(answer.body)
    assert {"id", "choices", "created", "model", "object", "usage"} <= set(body)
    assert set(body["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}
    assert {"role", "content", "refusal"} <= set(body["choices"][0]["message"])


def test_a_chat_gives_as_many_choices_as_asked_for(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="mock", messages=HELLO, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_chat_that_reaches_its_limit_of_tokens_says_so(client: openai.OpenAI, name: str) -> None:
    limit: Any = {name: 2}
    answer = client.chat.completions.create(model="mock", messages=HELLO, **limit)
    assert answer.choices[0].message.content == "This is "
    assert answer.choices[0].finish_reason == "length"


def test_a_long_request_is_echoed_in_part_and_counted_whole() -> None:
    long = "word " * 100_000
    stream = ask("/v1/chat/completions", {"messages": [{"role": "user", "content": long}], "stream": True})
    assert isinstance(stream, Stream)
    assert len(stream.tokens) < 300
    whole = ask("/v1/chat/completions", {"messages": [{"role": "user", "content": long}]})
    assert isinstance(whole, Whole)
    assert json.loads(whole.body)["usage"]["prompt_tokens"] == 100_000


def test_a_configured_text_takes_the_place_of_the_echo() -> None:
    answer = ask("/v1/chat/completions", {"messages": HELLO}, text="Good\n\n morning ")
    assert isinstance(answer, Whole)
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "Good\n\n morning "


def test_a_streamed_chat_adds_up_to_the_whole_one(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="mock", messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ECHO
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_a_streamed_chat_tells_usage_once_in_an_event_without_choices_and_only_if_asked() -> None:
    plain = events(ask("/v1/chat/completions", {"messages": HELLO, "stream": True}))
    assert all("usage" not in chunk for chunk in plain)
    body = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = events(ask("/v1/chat/completions", body))
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == len(ECHO.split())
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_streamed_chat_of_several_choices_gives_each_its_role_words_and_finish() -> None:
    chunks = events(ask("/v1/chat/completions", {"messages": HELLO, "stream": True, "n": 2}))
    for index in (0, 1):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in mine) == ECHO
        assert mine[-1]["finish_reason"] == "stop"


def test_the_helper_of_the_sdk_assembles_a_streamed_chat(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="mock", messages=HELLO) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == ECHO


# completions


def test_a_completion_has_the_shape_of_the_old_interface(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="mock", prompt="Hi", max_tokens=100)
    assert answer.choices[0].text.endswith('You said: "Hi"')
    assert answer.choices[0].finish_reason == "stop"
    raw = ask("/v1/completions", {"prompt": "Hi"})
    assert isinstance(raw, Whole)
    assert set(json.loads(raw.body)["choices"][0]) == {"index", "text", "logprobs", "finish_reason"}


def test_a_completion_stops_after_sixteen_tokens_unless_told_otherwise(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="mock", prompt="one two three four five six seven")
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "choices", "tokens"),
    [("Hi you", 1, 2), (["a", "b c"], 2, 3), ([5, 6, 7], 1, 3), ([[5], [6, 7]], 2, 3)],
)
def test_a_completion_takes_all_four_shapes_of_a_prompt(
    client: openai.OpenAI, prompt: Any, choices: int, tokens: int
) -> None:
    answer = client.completions.create(model="mock", prompt=prompt, n=2)
    assert [choice.index for choice in answer.choices] == list(range(2 * choices))
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == tokens


def test_a_streamed_completion_adds_up_and_tells_usage_if_asked(lenient: openai.OpenAI) -> None:
    # lenient: the SDK has one type for whole and streamed, which knows no null before the finish.
    with lenient.completions.create(
        model="mock",
        prompt=["Hi", "Ho"],
        max_tokens=50,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        *chunks, last = list(stream)
    for index, word in enumerate(["Hi", "Ho"]):
        mine = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert "".join(choice.text for choice in mine).endswith(f'You said: "{word}"')
        assert mine[-1].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.prompt_tokens == 2


# responses


@pytest.mark.parametrize("given", ["Hello there", [{"role": "user", "content": "Hello there"}]])
def test_a_response_is_complete_and_strictly_valid(client: openai.OpenAI, given: Any) -> None:
    answer = client.responses.create(model="mock", input=given, instructions="Be brief.")
    assert answer.output_text == ECHO
    assert answer.status == "completed"
    assert answer.instructions == "Be brief."
    assert answer.usage is not None
    assert answer.usage.input_tokens == 4


def test_a_response_that_reaches_its_limit_is_incomplete(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="mock", input="Hi", max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_the_events_of_a_response_come_in_order_and_are_numbered(client: openai.OpenAI) -> None:
    with client.responses.create(model="mock", input="Hi", stream=True) as stream:
        got = list(stream)
    kinds = list(dict.fromkeys(event.type for event in got))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in got] == list(range(len(got)))
    assert {event.response.id for event in got if hasattr(event, "response")} == {"resp_a1"}
    assert {event.item_id for event in got if hasattr(event, "item_id")} == {"msg_a1"}


def test_a_response_is_created_with_an_empty_output_to_append_to() -> None:
    answer = ask("/v1/responses", {"input": "Hi", "stream": True})
    assert isinstance(answer, Stream)
    name, data = answer.opening[0].split(b"\n")[:2]
    assert name == b"event: response.created"
    assert json.loads(data[6:])["response"]["output"] == []
    assert b"[DONE]" not in b"".join(answer.closing)


def test_the_helper_of_the_sdk_assembles_a_streamed_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model="mock", input="Hello there") as stream:
        final = stream.get_final_response()
    assert final.output_text == ECHO
    assert final.usage is not None
    assert final.usage.output_tokens == len(ECHO.split())
