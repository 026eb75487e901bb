"""The unmodified Anthropic SDK through the gateway to llama.cpp's own server, which is asked to chat as OpenAI's."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.real.asked import HELLO, INPUT_TOOL, LONG_FORM, Person, Weather
from tests.real.llama_server import SLOT_CONTEXT, LlamaServer
from tests.wire.process import Gateway, wait_until

#: Of calls that are bound to a grammar: it ends them.
AMPLE = 4000
BRIEF: Any = {"model": "tiny", "messages": HELLO, "max_tokens": 12}


def read(usage: anthropic.types.Usage) -> int:
    """The tokens of the question, kept ones among them."""
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)


def test_a_message_is_answered_and_counted_as_the_server_counts(claude: anthropic.Anthropic) -> None:
    asked = claude.messages.with_raw_response.count_tokens(model="tiny", messages=HELLO)
    assert asked.headers["x-upstream"] == "llama"  # the server's own count, no estimate
    answer = claude.messages.create(**BRIEF)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "tiny")
    assert [block.type for block in answer.content] == ["text"]
    assert answer.stop_reason in ("max_tokens", "end_turn")
    assert 0 < answer.usage.output_tokens <= 12
    assert read(answer.usage) == asked.parse().input_tokens > 0


def test_a_stream_comes_together_to_a_message(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(**BRIEF, system="Be brief.", stop_sequences=["no such word"]) as stream:
        said = "".join(stream.text_stream)
        answer = stream.get_final_message()
    (block,) = answer.content
    assert block.type == "text" and block.text == said
    assert answer.stop_reason in ("max_tokens", "end_turn")
    assert 0 < answer.usage.output_tokens <= 12
    assert read(answer.usage) > 0


def test_the_events_of_a_stream_are_those_of_the_vendor(claude: anthropic.Anthropic) -> None:
    kinds = [event.type for event in claude.messages.create(**BRIEF, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_tool_is_called_and_its_result_heard(claude: anthropic.Anthropic, stream: bool) -> None:
    ask: Any = {"model": "tiny", "max_tokens": AMPLE, "tools": [INPUT_TOOL]}
    choice: Any = {"type": "any"}
    if stream:
        with claude.messages.stream(**ask, messages=HELLO, tool_choice=choice) as events:
            called: anthropic.types.Message = events.get_final_message()
    else:
        called = claude.messages.create(**ask, messages=HELLO, tool_choice=choice)
    assert called.stop_reason == "tool_use"
    assert {block.type for block in called.content} == {"tool_use"}
    uses: Any = called.content
    for use in uses:
        assert use.name == "weather" and use.id
        Weather.model_validate(use.input)
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "Rain."} for use in uses]
    history: Any = [*HELLO, {"role": "assistant", "content": uses}, {"role": "user", "content": results}]
    heard = claude.messages.create(**{**ask, "max_tokens": 9}, messages=history)
    assert [block.type for block in heard.content] == ["text"]
    assert heard.stop_reason in ("max_tokens", "end_turn")


def test_calls_of_a_stream_have_blocks_of_their_own(claude: anthropic.Anthropic) -> None:
    """Several at once: the model goes on calling until the dice say otherwise."""
    with claude.messages.stream(model="tiny", max_tokens=AMPLE, tools=[INPUT_TOOL], messages=HELLO) as stream:
        started = [event.index for event in stream if event.type == "content_block_start"]
        answer = stream.get_final_message()
    assert answer.stop_reason == "tool_use"
    assert started == list(range(len(answer.content)))
    uses = [block for block in answer.content if block.type == "tool_use"]
    assert len({use.id for use in uses}) == len(uses) > 0
    for use in uses:
        Weather.model_validate(use.input)


def test_a_form_is_filled_in_whole_and_streamed(claude: anthropic.Anthropic) -> None:
    ask: Any = {"model": "tiny", "messages": HELLO, "max_tokens": AMPLE, "output_format": Person}
    assert isinstance(claude.messages.parse(**ask).parsed_output, Person)
    with claude.messages.stream(**ask) as stream:
        assert isinstance(stream.get_final_message().parsed_output, Person)


def test_the_models_of_the_server_are_listed(claude: anthropic.Anthropic) -> None:
    assert [model.id for model in claude.models.list()] == ["tiny"]
    assert claude.models.retrieve("tiny").id == "tiny"
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("huge")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_refusal_of_the_server_is_told_in_the_vendors_words(
    claude: anthropic.Anthropic, gateway: Gateway, stream: bool
) -> None:
    long: Any = [{"role": "user", "content": "x" * (SLOT_CONTEXT + 1)}]
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.messages.create(model="tiny", messages=long, max_tokens=9, stream=stream)
    assert refused.value.type == "invalid_request_error"
    assert "exceeds the available context size" in str(refused.value)
    assert gateway.wait_call(request_id=refused.value.request_id)["status"] == 400


def test_an_unknown_model_and_a_wrong_key_are_refused_by_the_gateway(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        claude.messages.create(**{**BRIEF, "model": "huge"})
    assert (unknown.value.type, bool(unknown.value.request_id)) == ("not_found_error", True)
    with pytest.raises(anthropic.AuthenticationError) as wrong:
        claude.with_options(api_key="wrong").messages.create(**BRIEF)
    assert (wrong.value.type, bool(wrong.value.request_id)) == ("authentication_error", True)


def test_what_the_server_cannot_do_is_refused_by_name(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="inference_geo"):
        claude.messages.create(**BRIEF, inference_geo="eu")


def test_the_server_stops_when_the_client_leaves_a_stream(
    claude: anthropic.Anthropic, server: LlamaServer, gateway: Gateway
) -> None:
    before = len(gateway.calls(ending="CD"))
    form: Any = {"format": {"type": "json_schema", "schema": LONG_FORM}}
    with claude.messages.stream(model="tiny", max_tokens=SLOT_CONTEXT, messages=HELLO, output_config=form) as stream:
        next(iter(stream.text_stream))
        assert server.busy_slots() == 1
    wait_until(lambda: server.busy_slots() == 0, "the server goes on generating")
    assert gateway.wait_call(before + 1, ending="CD")["path"] == "/v1/messages"
