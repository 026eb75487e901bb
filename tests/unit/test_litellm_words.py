"""What is handed to the LiteLLM SDK, and what of its words clients see."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.upstream.litellm import LitellmEndpoint, read_endpoint, read_hops
from gateway.upstream.litellm_words import Unserved, read_chunk, read_failure, read_fields, write_answer
from protocols.openai.body import Fields, decode_fields

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"


def fields(**body: Any) -> Fields:
    return decode_fields(json.dumps(body).encode())


class Said:
    """An object of the SDK."""

    def __init__(self, **told: Any) -> None:
        self._told = told

    def model_dump(self, exclude_none: bool) -> Any:
        assert exclude_none
        return self._told


class RateLimitError(Exception):
    """Named and filled as the SDK's own."""

    status_code: Any = 429
    message = "litellm.RateLimitError: RateLimitError: OpenAIException - slow down"
    response: Any = SimpleNamespace(headers={"retry-after": "7"})


# requests


def test_openai_s_fields_are_handed_over_and_labels_are_not() -> None:
    given = fields(model="m", messages=[], temperature=0.5, user="u", metadata={"a": "b"}, stop=None, top_k=3)
    assert read_fields(CHAT, given) == {"messages": [], "temperature": 0.5, "top_k": 3}


@pytest.mark.parametrize(
    "name",
    ["api_base", "base_url", "api_key", "extra_headers", "mock_response", "fallbacks", "vertex_credentials", "timeout"],
)
def test_what_would_reach_into_the_sdk_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(Unserved) as caught:
        read_fields(CHAT, fields(messages=[], **{name: "x"}))
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("url", "model", "base"),
    [
        ("litellm://gpt-4o-mini", "gpt-4o-mini", ""),
        ("litellm://groq/llama-3", "groq/llama-3", ""),
        ("litellm://ollama_chat/qwen:0.5b", "ollama_chat/qwen:0.5b", ""),
        ("litellm://openai/M?api_base=http%3A%2F%2F127.0.0.1%3A1%2Fv1", "openai/M", "http://127.0.0.1:1/v1"),
    ],
)
def test_an_address_names_a_model_and_perhaps_where_it_is(url: str, model: str, base: str) -> None:
    assert read_endpoint(url) == LitellmEndpoint(model, base)


@pytest.mark.parametrize("query", ["api_key=x", "api_base=ftp://x", "api_base=http://a&api_base=http://b"])
def test_an_address_says_nothing_else(query: str) -> None:
    with pytest.raises(ValueError, match="option"):
        read_endpoint(f"litellm://m?{query}")


@pytest.mark.parametrize(
    ("lines", "hops"),
    [
        ([b"accept: */*\r\n"], 0),
        ([b"accept: */*\r\nX-Headrace-Hops: ", b"3\r\n", b"a: b\r\n"], 3),
        ([b"x-headrace-hops: many\r\n"], 0),
        ([b"a: x-headrace-hops: 3\r\n"], 0),
    ],
)
def test_hops_are_counted_in_a_header(lines: list[bytes], hops: int) -> None:
    assert read_hops(lines) == hops


# answers


def test_a_whole_answer_has_openai_s_nulls_and_no_extras() -> None:
    message = {"role": "assistant", "tool_calls": [], "provider_specific_fields": {"x": 1}}
    answer = Said(id="1", choices=[{"index": 0, "finish_reason": "stop", "message": message}], _hidden_params={})
    choice = json.loads(write_answer(CHAT, answer, {}))["choices"][0]
    assert choice["message"] == {"role": "assistant", "tool_calls": [], "content": None, "refusal": None}
    assert choice["logprobs"] is None


def test_vectors_come_in_base64_where_the_client_asked_for_it() -> None:
    def answer(**asked: Any) -> Any:
        said = Said(data=[{"index": 0, "embedding": [1.0, -2.0]}], usage={"prompt_tokens": 3, "completion_tokens": 0})
        return json.loads(write_answer(EMBEDDINGS, said, fields(**asked)))

    assert answer()["data"][0]["embedding"] == [1.0, -2.0]
    assert answer(encoding_format="base64")["data"][0]["embedding"] == "AACAPwAAAMA="
    assert answer()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_the_usage_stands_apart_from_choices() -> None:
    silent = {"index": 0, "delta": {}}
    counts = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    told, usage = read_chunk(Said(id="1", choices=[silent], usage=counts))
    assert (told["choices"], usage) == ([], counts)
    told, usage = read_chunk(Said(id="1", choices=[{"index": 0, "delta": {"content": "a"}}]))
    assert usage is None
    assert told["choices"] == [{"index": 0, "delta": {"content": "a"}, "finish_reason": None, "logprobs": None}]


def test_a_usage_of_zeros_is_none_and_a_last_piece_of_text_is_empty() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    told, usage = read_chunk(Said(id="1", choices=[{"index": 0, "finish_reason": "stop"}], usage=zeros))
    assert usage is None
    assert told["choices"] == [{"index": 0, "finish_reason": "stop", "logprobs": None, "text": ""}]


# failures


def error_of(failure: Any) -> Any:
    return json.loads(failure.body)["error"]


def test_an_exception_is_openai_s_error_with_its_status_and_wait() -> None:
    failure = read_failure(RateLimitError(), "")
    assert (failure.status, failure.retry_after, failure.unsent) == (429, "7", False)
    assert error_of(failure) == {"message": "slow down", "type": "rate_limit_error", "param": None, "code": None}


def test_a_wait_is_found_behind_an_exception_that_lost_it() -> None:
    error = RateLimitError()
    error.response = SimpleNamespace(headers={})
    error.__cause__ = RateLimitError()
    assert read_failure(error, "").retry_after == "7"


@pytest.mark.parametrize("wait", ["Wed, 21 Oct 2026 07:28:00 GMT", "7\r\nx: y", "-1", ""])
def test_a_wait_that_is_no_number_is_not_passed_on(wait: str) -> None:
    error = RateLimitError()
    error.response = SimpleNamespace(headers={"retry-after": wait})
    assert read_failure(error, "").retry_after == ""


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("no such key my-own-secret-key", "my-own-secret-key"),
        ("no such key sk-proj-abcdef123456", ""),
        ("no such key from-the-environment", ""),
        ("sent Bearer abcdef", ""),
        ("asked http://10.0.0.1:8000/v1?key=1", ""),
    ],
)
def test_keys_and_addresses_are_not_told(text: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "from-the-environment")
    error = RateLimitError()
    error.message = f"litellm.AuthenticationError: OpenAIException - {text}\nTraceback (most recent call last): x"
    said = error_of(read_failure(error, secret))["message"]
    assert said.endswith(" ***") and "\n" not in said and "Traceback" not in said


def test_who_cannot_be_reached_was_sent_nothing() -> None:
    connect = type("ConnectError", (Exception,), {})()
    error = RateLimitError()
    error.status_code = 500
    error.__cause__ = connect
    failure = read_failure(error, "")
    assert (failure.status, failure.unsent) == (502, True)


@pytest.mark.parametrize(
    ("name", "status", "told", "code"),
    [
        ("Timeout", 408, 504, None),
        ("ContextWindowExceededError", 400, 400, "context_length_exceeded"),
        ("ContentPolicyViolationError", 400, 400, "content_policy_violation"),
        ("InternalServerError", 500, 500, None),
        ("Whatever", None, 502, None),
        ("Whatever", 200, 502, None),
    ],
)
def test_its_classes_have_statuses_and_codes(name: str, status: Any, told: int, code: str | None) -> None:
    error = type(name, (Exception,), {"status_code": status})()
    failure = read_failure(error, "")
    assert (failure.status, error_of(failure)["code"]) == (told, code)
