"""The unmodified OpenAI SDK through the gateway to llama.cpp's own server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.real.asked import HELLO
from tests.real.llama_server import SLOT_CONTEXT, SLOTS, LlamaServer
from tests.real.tiny_model import WIDTH
from tests.wire.process import Gateway, wait_until

#: llama.cpp's own switch: generate exactly `max_tokens`, whatever the random model says.
EXACTLY: Any = {"ignore_eos": True}


def test_the_models_of_the_server_are_found_and_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=12, extra_body=EXACTLY)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


def test_a_streamed_chat_ends_with_its_usage_where_it_was_asked_for(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=EXACTLY,
    ) as stream:
        *chunks, last = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 12


def test_a_streamed_chat_tells_no_usage_to_who_did_not_ask(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=12, stream=True, extra_body=EXACTLY
    ) as stream:
        chunks = list(stream)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_a_completion_is_answered_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt="Hello", max_tokens=9, extra_body=EXACTLY)
    assert whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 9
    with client.completions.create(
        model="tiny", prompt="Hello", max_tokens=9, stream=True, extra_body=EXACTLY
    ) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_are_answered_in_both_encodings(client: openai.OpenAI, encoding: Any) -> None:
    answer = client.embeddings.create(model="tiny", input=["the dog", "the cat"], encoding_format=encoding)
    assert [row.index for row in answer.data] == [0, 1]
    if encoding == "float":
        assert [len(row.embedding) for row in answer.data] == [WIDTH, WIDTH]


def test_embeddings_are_decoded_where_the_sdk_chooses_the_encoding(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="tiny", input="the dog")
    assert len(answer.data[0].embedding) == WIDTH
    assert isinstance(answer.data[0].embedding[0], float)


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_of_the_server_is_passed_on(client: openai.OpenAI, stream: bool) -> None:
    long: Any = [{"role": "user", "content": "x" * (SLOT_CONTEXT + 1)}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=long, stream=stream)
    assert refused.value.type == "exceed_context_size_error"
    body: Any = refused.value.body
    assert body["n_ctx"] == SLOT_CONTEXT


def test_an_unknown_model_and_a_wrong_key_are_refused_by_the_gateway(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="huge", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as wrong:
        client.with_options(api_key="wrong").chat.completions.create(model="tiny", messages=HELLO)
    assert wrong.value.code == "invalid_api_key"


def test_the_server_stops_generating_when_the_client_leaves_a_stream(
    client: openai.OpenAI, server: LlamaServer, gateway: Gateway
) -> None:
    asked = SLOT_CONTEXT - 1000
    before = server.metric("tokens_predicted_total")
    with client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=asked, stream=True, extra_body=EXACTLY
    ) as stream:
        for _ in range(3):
            next(stream)
        assert server.busy_slots() == 1
    wait_until(lambda: server.busy_slots() == 0, "the server goes on generating")
    assert server.metric("tokens_predicted_total") - before < asked
    line = gateway.wait_call(ending="CD")
    assert line["model"] == "tiny"


def _whole(client: openai.OpenAI, _: int) -> tuple[int, bool]:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=8, extra_body=EXACTLY)
    assert answer.usage is not None
    return answer.usage.completion_tokens, answer.choices[0].finish_reason == "length"


def _streamed(client: openai.OpenAI, _: int) -> tuple[int, bool]:
    with client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=EXACTLY,
    ) as stream:
        *chunks, last = list(stream)
    assert last.usage is not None
    return last.usage.completion_tokens, chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("call", [_whole, _streamed], ids=["whole", "streamed"])
def test_of_three_hundred_calls_four_at_a_time_none_is_lost(client: openai.OpenAI, call: Any) -> None:
    with ThreadPoolExecutor(SLOTS) as threads:
        got = list(threads.map(lambda number: call(client, number), range(300)))
    assert got == [(8, True)] * 300
