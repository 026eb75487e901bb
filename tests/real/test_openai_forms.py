"""The OpenAI SDK through the gateway to llama.cpp: what is bound to a grammar, tools and JSON schemas."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.real.asked import HELLO, LONG_FORM, TOOL, Person, Weather
from tests.real.llama_server import LlamaServer
from tests.wire.process import Gateway, wait_until

#: Of calls that are bound to a grammar: it ends them.
AMPLE = 4000


def schema_of(form: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "form", "strict": True, "schema": form}}


def test_a_json_schema_binds_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=AMPLE, response_format=schema_of(Person.model_json_schema())
    )
    assert answer.choices[0].finish_reason == "stop"
    Person.model_validate_json(answer.choices[0].message.content or "")


def test_a_form_is_filled_in_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.parse(model="tiny", messages=HELLO, max_tokens=AMPLE, response_format=Person)
    assert isinstance(whole.choices[0].message.parsed, Person)
    with client.chat.completions.stream(
        model="tiny", messages=HELLO, max_tokens=AMPLE, response_format=Person
    ) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_completion()
    assert isinstance(streamed.choices[0].message.parsed, Person)
    assert kinds[-1] == "content.done"


def test_a_tool_is_called_and_its_result_heard(client: openai.OpenAI) -> None:
    ask: Any = {"model": "tiny", "tools": [TOOL], "max_tokens": AMPLE}
    called = client.chat.completions.create(**ask, messages=HELLO, tool_choice="required")
    assert called.choices[0].finish_reason == "tool_calls"
    calls = called.choices[0].message.tool_calls
    assert calls
    for call in calls:
        assert call.type == "function" and call.function.name == "weather" and call.id
        Weather.model_validate_json(call.function.arguments)
    history: Any = [
        *HELLO,
        called.choices[0].message.model_dump(exclude_none=True),
        *({"role": "tool", "tool_call_id": call.id, "content": "Rain."} for call in calls),
    ]
    heard = client.chat.completions.create(**{**ask, "max_tokens": 9}, messages=history)
    assert heard.choices[0].message.tool_calls is None
    assert heard.choices[0].finish_reason in ("stop", "length")


def test_streamed_calls_come_together_to_whole_ones(client: openai.OpenAI) -> None:
    """Several at once: the model goes on calling until the dice say otherwise."""
    with client.chat.completions.stream(
        model="tiny", messages=HELLO, max_tokens=AMPLE, tools=[openai.pydantic_function_tool(Weather)]
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        completion = stream.get_final_completion()
    assert completion.choices[0].finish_reason == "tool_calls"
    calls = completion.choices[0].message.tool_calls or []
    assert [event.index for event in done] == list(range(len(calls)))
    assert len({call.id for call in calls}) == len(calls) > 0
    assert all(isinstance(call.function.parsed_arguments, Weather) for call in calls)


# The same over the responses API, of which the backend has none that the SDK could read: it is asked to chat.


def test_a_response_says_what_a_chat_says(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="tiny", input="Hello", max_output_tokens=16, instructions="Be brief.")
    assert (answer.status, answer.store) in [("incomplete", False), ("completed", False)]
    assert answer.output_text
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_a_response_is_streamed_in_the_order_that_the_sdk_wants(client: openai.OpenAI) -> None:
    with client.responses.stream(model="tiny", input="Hello", max_output_tokens=16) as stream:
        events: Any = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == said
    assert events[-1].response.usage.output_tokens <= 16


def test_a_form_is_filled_in_by_a_response_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.responses.parse(model="tiny", input="Hello", max_output_tokens=AMPLE, text_format=Person)
    assert isinstance(whole.output_parsed, Person)
    with client.responses.stream(model="tiny", input="Hello", max_output_tokens=AMPLE, text_format=Person) as stream:
        list(stream)
        assert isinstance(stream.get_final_response().output_parsed, Person)


def test_a_response_calls_a_tool_and_hears_its_result(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "strict": True, **TOOL["function"]}
    asked: Any = [{"role": "user", "content": "Hello"}]
    with client.responses.stream(
        model="tiny",
        input=asked,
        max_output_tokens=AMPLE,
        tools=[tool],
        tool_choice="required",
    ) as stream:
        told = [event for event in stream if event.type == "response.function_call_arguments.done"]
        called = stream.get_final_response()
    assert {item.type for item in called.output} == {"function_call"}
    calls: Any = called.output
    assert [event.arguments for event in told] == [call.arguments for call in calls]
    for call in calls:
        assert call.name == "weather"
        Weather.model_validate_json(call.arguments)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "Rain."} for call in calls]
    heard = client.responses.create(
        model="tiny", input=[*asked, *called.output, *results], max_output_tokens=9, tools=[tool]
    )
    assert [item.type for item in heard.output] == ["message"]


@pytest.mark.parametrize(
    ("more", "name"),
    [({"store": True}, "store"), ({"previous_response_id": "resp_1"}, "previous_response_id")],
)
def test_responses_are_not_kept_and_say_so(client: openai.OpenAI, more: Any, name: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="tiny", input="Hello", **more)
    assert refused.value.param == name
    assert name in str(refused.value)


def test_the_server_stops_when_the_client_leaves_a_streamed_response(
    client: openai.OpenAI, server: LlamaServer, gateway: Gateway
) -> None:
    before = len(gateway.calls(ending="CD"))
    form: Any = {"format": {"type": "json_schema", "name": "form", "schema": LONG_FORM, "strict": True}}
    with client.responses.create(model="tiny", input="Hello", stream=True, text=form) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
        assert server.busy_slots() == 1
    wait_until(lambda: server.busy_slots() == 0, "the server goes on generating")
    assert gateway.wait_call(before + 1, ending="CD")["path"] == "/v1/responses"


def test_the_form_that_ends_in_time_is_no_error(client: openai.OpenAI) -> None:
    """Cut off by its limit, an answer that was to be JSON is not, and the SDK is told why."""
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=20, stream=True, response_format=schema_of(LONG_FORM)
    )
    chunks = list(answer)
    assert chunks[-1].choices[0].finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
