"""The scripted Text Generation Inference, driven directly by Hugging Face's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import InferenceClient, close_session
from huggingface_hub.errors import (
    BadRequestError,
    GenerationError,
    HfHubHTTPError,
    OverloadedError,
    ValidationError,
)

from tests.wire.client import build_request
from tests.wire.stage import Stage
from tests.wire.tgi_server import MODEL, TgiServer
from tests.wire.upstream import Upstream

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
ASKED = [{"role": "user", "content": "What is Deep Learning?"}]


@pytest.fixture
def server() -> TgiServer:
    return TgiServer()


@pytest.fixture
def upstream(stage: Stage, server: TgiServer) -> Upstream:
    return stage.upstream(server.serve)


@pytest.fixture
def client(upstream: Upstream) -> Iterator[InferenceClient]:
    with InferenceClient(base_url=upstream.url, token="secret") as client:
        yield client
    close_session()  # the connections are kept by the package


@pytest.fixture
def native(upstream: Upstream) -> Iterator[InferenceClient]:
    """Asks the compatible route at the root, as this client does of a URL."""
    with InferenceClient(model=upstream.url, token="secret") as client:
        yield client
    close_session()


def test_a_text_is_generated_whole(native: InferenceClient) -> None:
    found = native.text_generation("What is", details=True, max_new_tokens=3, decoder_input_details=True)
    assert found.generated_text == " Deep learning is"
    assert (found.details.finish_reason, found.details.generated_tokens) == ("length", 3)
    assert native.text_generation("What is") == " Deep learning is a subset"


def test_prompts_are_counted_where_the_server_was_started_so(native: InferenceClient, server: TgiServer) -> None:
    server.request_logprobs = True
    found = native.text_generation("What is", details=True, decoder_input_details=True)
    assert len(found.details.prefill) == 3


@pytest.mark.parametrize("space", [True, False])
def test_a_text_is_generated_as_a_stream(native: InferenceClient, server: TgiServer, space: bool) -> None:
    server.space = space
    *tokens, last = native.text_generation("What is", details=True, stream=True, stop=["ing is"])
    assert [one.token.text for one in (*tokens, last)] == [" Deep", " learning", " is"]
    assert last.generated_text == " Deep learning is"
    assert (last.details.finish_reason, last.details.input_length) == ("stop_sequence", 3)
    assert "".join(native.text_generation("What is", stream=True)) == " Deep learning is a subset</s>"


def test_a_chat_is_answered_whole(client: InferenceClient) -> None:
    found = client.chat_completion(ASKED, model="tgi", max_tokens=2, temperature=0)
    assert found.choices[0].message.content == " Deep learning"
    assert (found.choices[0].finish_reason, found.model) == ("length", MODEL)
    assert found.usage.total_tokens == 7


def test_a_chat_is_answered_as_a_stream(client: InferenceClient) -> None:
    chunks = list(client.chat_completion(ASKED, stream=True, stream_options={"include_usage": True}))
    *text, told = chunks
    assert "".join(chunk.choices[0].delta.content for chunk in text) == " Deep learning is a subset"
    assert text[-1].choices[0].finish_reason == "stop"
    assert told.choices == [] and told.usage.completion_tokens == 6


def test_a_tool_is_called_whole_and_streamed(client: InferenceClient, server: TgiServer) -> None:
    server.arguments = {"a": 1}
    call = client.chat_completion(ASKED, tools=[TOOL]).choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("0", "f", {"a": 1})
    chunks = list(client.chat_completion(ASKED, tools=[TOOL], stream=True))
    calls = [chunk.choices[0].delta.tool_calls[0] for chunk in chunks]
    assert json.loads("".join(one.function.arguments for one in calls)) == {"a": 1}
    assert [one.function.name for one in calls] == ["f", None, None]
    assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0},
        {"top_p": 1.0},
        {"top_k": 0},
        {"typical_p": 1.0},
        {"repetition_penalty": 0},
        {"frequency_penalty": 2.5},
        {"max_new_tokens": 0},
        {"max_new_tokens": 4096},
        {"stop": ["a"] * 5},
        {"best_of": 2},
        {"best_of": 2, "do_sample": True, "seed": 1},
        {"top_n_tokens": 6, "details": True},
    ],
)
def test_what_it_does_not_take_is_refused(native: InferenceClient, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Input validation error"):
        native.text_generation("What is", **wrong)


def test_in_a_stream_a_refusal_is_an_event(native: InferenceClient) -> None:
    for wrong in ({"best_of": 2, "do_sample": True}, {"decoder_input_details": True}):
        with pytest.raises(ValidationError, match="not supported when streaming"):
            list(native.text_generation("What is", stream=True, details=True, **wrong))


def test_failures_are_told_by_their_types(native: InferenceClient, server: TgiServer) -> None:
    server.breaks_after = 1
    with pytest.raises(GenerationError):
        native.text_generation("What is")
    with pytest.raises(GenerationError):
        list(native.text_generation("What is", stream=True))
    server.overloaded = True
    with pytest.raises(OverloadedError):
        native.text_generation("What is")


def test_an_error_in_a_chat_is_an_event_before_done(stage: Stage, upstream: Upstream, server: TgiServer) -> None:
    server.breaks_after = 1
    connection = stage.connect(upstream)
    body = json.dumps({"messages": ASKED, "stream": True}).encode()
    connection.send(build_request("POST", "/v1/chat/completions", body))
    *_, error, done, _ = connection.response("POST").body.split(b"\n\n")
    told = {"message": "Request failed during generation: Server error: CANCELLED", "http_status_code": 422}
    assert json.loads(error.removeprefix(b"data:")) == {"error": told}
    assert done == b"data: [DONE]"


@pytest.mark.parametrize(
    "wrong",
    [
        {"stop": "a"},
        {"logit_bias": {"5": 1}},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"extra_body": {"max_completion_tokens": 5}, "max_tokens": 5},
        {"messages": [{"role": "assistant", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
    ],
)
def test_a_chat_that_it_cannot_read_is_refused_in_plain_text(client: InferenceClient, wrong: dict[str, Any]) -> None:
    with pytest.raises((HfHubHTTPError, BadRequestError)) as caught:
        client.chat_completion(**({"messages": ASKED} | wrong))
    assert caught.value.response.status_code == 422
    assert "Failed to deserialize" in caught.value.response.text


def test_presence_penalty_is_taken_for_another(client: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError, match="repetition_penalty") as caught:
        client.chat_completion(ASKED, presence_penalty=-2)
    assert caught.value.response.status_code == 422


def test_the_rest_of_its_paths(stage: Stage, upstream: Upstream, server: TgiServer) -> None:
    def ask(method: str, target: str, body: Any = None) -> Any:
        connection = stage.connect(upstream)
        connection.send(build_request(method, target, None if body is None else json.dumps(body).encode()))
        return connection.response(method)

    assert ask("GET", "/health").status == 200
    server.healthy = False
    assert ask("GET", "/health").status == 503
    assert json.loads(ask("GET", "/info").body)["model_id"] == MODEL
    assert json.loads(ask("GET", "/v1/models").body)["data"][0]["id"] == MODEL
    assert b"tgi_queue_size 3" in ask("GET", "/metrics").body
    assert ask("GET", "/nowhere").status == 404
    body = json.loads(ask("POST", "/v1/completions", {"prompt": ["a", "b c"], "max_tokens": 9}).body)
    assert [one["finish_reason"] for one in body["choices"]] == ["stop", "stop"]
    assert body["usage"]["prompt_tokens"] == 5
    streamed = ask("POST", "/v1/completions", {"prompt": "a", "stream": True}).body.split(b"\n\n")
    assert json.loads(streamed[-3].removeprefix(b"data:"))["choices"][0]["finish_reason"] == "eos_token"
    assert ask("POST", "/v1/completions", {"prompt": "a", "suffix": "b"}).status == 422
    assert ask("POST", "/v1/chat/completions", {"messages": ASKED, "stream_options": None}).status == 422
    assert ask("POST", "/generate", {"inputs": "a"}).status == 200
    assert ask("POST", "/generate_stream", {"inputs": ""}).status == 200
