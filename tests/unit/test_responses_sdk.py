"""POST /v1/responses in front of a chat, driven by the OpenAI SDK, which refuses a missing field and a wrong word."""

from __future__ import annotations

from typing import Any

import openai
import pydantic
import pytest
from openai.types.responses import ResponseFailedEvent

from tests.unit.responding import BROKEN, USAGE_CHUNK, Server, call, chunk, events, open_client, text, whole

CALLS: list[Any] = [
    call(0, "", id="call_a", name="look"),
    call(1, '{"pl', id="call_b", name="look"),
    call(0, '{"place":"Rome"}'),
    call(1, 'ace":"Oslo"}'),
    chunk({}, "tool_calls"),
    USAGE_CHUNK,
]
LOOK: Any = {
    "type": "function",
    "name": "look",
    "description": "Look there.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    "strict": True,
}


class Place(pydantic.BaseModel):
    name: str
    size: int


class Look(pydantic.BaseModel):
    """Look there."""

    place: str


def test_a_whole_answer_has_its_text_and_its_usage() -> None:
    server = Server(whole({"content": "Hello there."}))
    with server.connect() as client:
        response = client.responses.create(model="asked", input="Hello", instructions="Be brief.", metadata={"a": "b"})
    assert response.output_text == "Hello there."
    assert (response.status, response.incomplete_details, response.error) == ("completed", None, None)
    assert (response.id, response.created_at, response.model) == ("resp_ab12", 7, "served")
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert response.usage.input_tokens_details.cache_write_tokens == 3
    assert response.usage.output_tokens_details.reasoning_tokens == 2
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (11, 5, 16)


def test_a_cut_answer_says_why_it_is_incomplete() -> None:
    for finish, reason in (("length", "max_output_tokens"), ("content_filter", "content_filter")):
        with Server(whole({"content": "Hel"}, finish)).connect() as client:
            response = client.responses.create(model="asked", input="Hello", max_output_tokens=16)
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == reason
        assert response.output[0].type == "message"
        assert response.output[0].status == "incomplete"


def test_thoughts_calls_and_refusals_are_items_of_a_whole_answer() -> None:
    calls = [{"id": "call_a", "type": "function", "function": {"name": "look", "arguments": '{"place":"Rome"}'}}]
    said = {"content": "Wait.", "reasoning_content": "Rome?", "refusal": "Not that.", "tool_calls": calls}
    with Server(whole(said, "tool_calls")).connect() as client:
        response = client.responses.create(model="asked", input="Hello", tools=[LOOK], tool_choice="required")
    thought, message, called = response.output
    assert thought.type == "reasoning"
    assert thought.content is not None
    assert thought.content[0].text == "Rome?"
    assert message.type == "message"
    assert [part.type for part in message.content] == ["output_text", "refusal"]
    assert called.type == "function_call"
    assert (called.call_id, called.name, called.arguments) == ("call_a", "look", '{"place":"Rome"}')
    assert response.tools[0].type == "function"
    assert response.tool_choice == "required"


def test_an_answer_may_be_parsed() -> None:
    server = Server(whole({"content": '{"name":"Rome","size":3}'}))
    with server.connect() as client:
        response = client.responses.parse(model="asked", input="Hello", text_format=Place)
    assert response.output_parsed == Place(name="Rome", size=3)
    assert server.asked["response_format"]["type"] == "json_schema"
    assert server.asked["response_format"]["json_schema"]["name"] == "Place"
    assert server.asked["response_format"]["json_schema"]["strict"] is True


def test_a_stream_is_read_event_by_event() -> None:
    with Server([*text("Hel", "lo"), USAGE_CHUNK]).connect() as client:
        stream = client.responses.create(model="asked", input="Hello", stream=True)
        heard = list(stream)
    assert "".join(event.delta for event in heard if event.type == "response.output_text.delta") == "Hello"
    assert [event.sequence_number for event in heard] == list(range(len(heard)))
    last = heard[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello"
    assert last.response.usage is not None
    assert last.response.usage.total_tokens == 16


@pytest.mark.parametrize("strict", [True, False])
def test_the_helper_puts_a_stream_together(strict: bool) -> None:
    said = [chunk({"reasoning_content": "Well"}), *text("Hel", "lo"), USAGE_CHUNK]
    with (
        Server(said).connect(strict=strict) as client,
        client.responses.stream(model="asked", input="Hello") as stream,
    ):
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert kinds.count("response.output_text.delta") == 2
    assert response.output_text == "Hello"
    assert [item.type for item in response.output] == ["reasoning", "message"]


def test_the_helper_puts_calls_together_that_came_interleaved() -> None:
    with (
        Server(CALLS).connect() as client,
        client.responses.stream(model="asked", input="Hello", tools=[openai.pydantic_function_tool(Look)]) as stream,
    ):
        snapshots = [event.snapshot for event in stream if event.type == "response.function_call_arguments.delta"]
        response = stream.get_final_response()
    assert snapshots == ['{"pl', '{"place":"Rome"}', '{"place":"Oslo"}']
    assert [(item.call_id, item.arguments) for item in response.output if item.type == "function_call"] == [
        ("call_a", '{"place":"Rome"}'),
        ("call_b", '{"place":"Oslo"}'),
    ]


def test_the_helper_parses_a_stream() -> None:
    with (
        Server([*text('{"name":"Ro', 'me","size":3}'), USAGE_CHUNK]).connect() as client,
        client.responses.stream(model="asked", input="Hello", text_format=Place) as stream,
    ):
        assert stream.get_final_response().output_parsed == Place(name="Rome", size=3)


def test_the_output_of_an_answer_goes_back_with_the_next_question() -> None:
    first = whole({"content": "Wait.", "reasoning_content": "Rome?", "tool_calls": [
        {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}},
    ]}, "tool_calls")  # fmt: skip
    server = Server(first)
    with server.connect() as client:
        response = client.responses.create(model="asked", input="Hello", tools=[LOOK])
        talk: list[Any] = [{"role": "user", "content": "Hello"}, *response.output]
        talk.append({"type": "function_call_output", "call_id": "call_a", "output": "Sunny"})
        client.responses.create(model="asked", input=talk, tools=[LOOK])
    called = {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    assert server.asked["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Wait.", "reasoning_content": "Rome?", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_a", "content": "Sunny"},
    ]


def test_a_stream_that_is_cut_short_is_incomplete() -> None:
    with Server([*text("Hel", finish="length"), USAGE_CHUNK]).connect() as client:
        heard = list(client.responses.create(model="asked", input="Hello", stream=True))
    last = heard[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output_text == "Hel"


@pytest.mark.parametrize("said", [[], [chunk({"content": "Hel"})]], ids=["before the first chunk", "midway"])
def test_a_stream_that_breaks_is_an_exception_that_says_why(said: list[Any]) -> None:
    with Server(said, breaks=True).connect() as client:
        heard: list[Any] = []
        with pytest.raises(openai.APIError, match=r"The upstream broke\.") as raised:
            heard.extend(event for event in client.responses.create(model="asked", input="Hello", stream=True))
        assert raised.value.code == "upstream_broken"
        with (
            pytest.raises(openai.APIError, match=r"The upstream broke\."),
            client.responses.stream(model="asked", input="Hello") as stream,
        ):
            stream.get_final_response()
    assert "".join(event.delta for event in heard if event.type == "response.output_text.delta") == "Hel" * len(said)


def test_whoever_only_looks_at_responses_reads_that_it_failed() -> None:
    client = open_client(stream=True)
    client.feed(chunk({"content": "Hel"}))
    failed = ResponseFailedEvent.model_validate(events(client.fail(BROKEN))[-1], strict=True)
    assert failed.response.status == "failed"
    assert failed.response.error is not None
    assert failed.response.error.message == "The upstream broke."


def test_what_is_refused_names_its_field() -> None:
    with Server(whole({"content": "Hello"})).connect() as client:
        with pytest.raises(openai.BadRequestError, match="keeps no responses") as raised:
            client.responses.create(model="asked", input="Hello", store=True)
        assert raised.value.param == "store"
        with pytest.raises(openai.BadRequestError) as raised:
            client.responses.create(model="asked", input="Hello", tools=[LOOK, {"type": "web_search"}])
        assert raised.value.param == "tools[1].type"


def test_logprobs_come_where_they_are_asked_for() -> None:
    entry = {"token": "é", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "e", "logprob": -1.5}]}
    logprobs = {"content": [entry], "refusal": None}
    server = Server(whole({"content": "é"}, logprobs=logprobs))
    with server.connect() as client:
        response = client.responses.create(model="asked", input="Hello", top_logprobs=1)
        part = response.output[0].content[0]
        assert part.logprobs[0].bytes == [195, 169]
        assert part.logprobs[0].top_logprobs[0].token == "e"
        assert (server.asked["logprobs"], server.asked["top_logprobs"]) == (True, 1)
        server.said = [chunk({"content": "é"}, logprobs=logprobs), chunk({"content": "a"}), chunk({}, "stop")]
        heard = list(
            client.responses.create(
                model="asked", input="Hello", include=["message.output_text.logprobs"], stream=True, top_logprobs=1
            )
        )
        deltas = [event.logprobs for event in heard if event.type == "response.output_text.delta"]
        assert [len(found) for found in deltas] == [1, 0]
        done = next(event for event in heard if event.type == "response.output_text.done")
        assert [found.token for found in done.logprobs] == ["é"]
        unasked = client.responses.create(model="asked", input="Hello", stream=True)
        assert all(not event.logprobs for event in unasked if event.type == "response.output_text.delta")
