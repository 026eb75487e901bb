"""Counts of tokens that no answer can have are no usage, whichever backend tells them; the answer itself is sound."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from protocols.anthropic import stream as anthropic
from protocols.anthropic.backend_side import MessagesBackend
from protocols.dialect import TOKENS_LIMIT, BackendSide, Dropped, JsonObject, Terms, Usage
from protocols.ollama import chat_backend, embeddings_backend
from protocols.ollama import stream as ollama
from protocols.openai import backend as openai
from protocols.openai.usage import USAGE_WINDOW
from protocols.openai.usage import usage_of_answer as openai_answer
from protocols.tgi import chat as tgi
from protocols.tgi.completion import CompletionBackend


def write(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def anthropic_event(count: Any) -> Usage | None:
    return anthropic.usage_of_event(write({"type": "message_delta", "usage": {"output_tokens": count}}), None)


def ollama_line(count: Any, padding: str = "") -> bytes:
    return write({"message": {"content": padding}, "done": True, "prompt_eval_count": 1, "eval_count": count})


#: How a count is told where bytes pass untouched.
RELAYED: dict[str, Callable[[Any], Usage | None]] = {
    "openai": lambda count: openai_answer(write({"usage": {"prompt_tokens": 1, "completion_tokens": count}})),
    "anthropic": lambda count: anthropic.usage_of_answer(write({"usage": {"input_tokens": 1, "output_tokens": count}})),
    "anthropic, streamed": anthropic_event,
    "ollama": lambda count: ollama.usage_of_line(ollama_line(count)),
    "ollama, large": lambda count: ollama.usage_of_answer(ollama_line(count, "x" * USAGE_WINDOW)),
}
CHAT: JsonObject = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}


def made(side: Callable[..., BackendSide], hub: JsonObject) -> BackendSide:
    return side(hub, False, "1", 1, Terms(), Dropped(lenient=False))


def chat_answer(count: int) -> JsonObject:
    return {"choices": [CHOICE], "usage": {"prompt_tokens": 1, "completion_tokens": count}}


def message(count: int) -> JsonObject:
    told = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi"}], "model": "m"}
    return {**told, "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": count}}


def generated(count: int) -> JsonObject:
    details = {"finish_reason": "length", "generated_tokens": count, "prefill": [{}], "tokens": []}
    return {"generated_text": "Hi", "details": details}


#: And in the answers of translated calls.
TRANSLATED: dict[str, tuple[Callable[..., BackendSide], JsonObject, Callable[[int], JsonObject]]] = {
    "openai": (openai.ChatBackend, CHAT, chat_answer),
    "anthropic": (MessagesBackend, CHAT, message),
    "ollama": (chat_backend.ChatBackend, CHAT, lambda count: json.loads(ollama_line(count))),
    "ollama embeddings": (
        embeddings_backend.EmbeddingsBackend,
        {"model": "m", "input": "Hi"},
        lambda count: {"embeddings": [[0.5]], "prompt_eval_count": count},
    ),
    "tgi": (tgi.ChatBackend, CHAT, chat_answer),
    "tgi completion": (CompletionBackend, {"model": "m", "prompt": "Hi"}, generated),
}


@pytest.mark.parametrize("read", RELAYED.values(), ids=RELAYED.keys())
@pytest.mark.parametrize("count", [TOKENS_LIMIT + 1, 1 << 53, 1 << 64, -1, True, 1.5, 1e3, "5"], ids=repr)
def test_what_is_no_count_is_no_usage(read: Callable[[Any], Usage | None], count: Any) -> None:
    assert read(count) is None


@pytest.mark.parametrize("read", RELAYED.values(), ids=RELAYED.keys())
def test_the_largest_count_is_one(read: Callable[[Any], Usage | None]) -> None:
    usage = read(TOKENS_LIMIT)
    assert usage is not None and usage.completion == TOKENS_LIMIT


def test_parts_of_a_prompt_that_are_too_much_together_are_no_usage() -> None:
    usage = {"input_tokens": TOKENS_LIMIT, "cache_read_input_tokens": 1, "output_tokens": 1}
    assert anthropic.usage_of_answer(write({"usage": usage})) is None


@pytest.mark.parametrize("count", [TOKENS_LIMIT + 1, -1, "5"], ids=repr)
def test_a_line_of_ollama_that_is_done_is_the_last_whatever_it_counts(count: Any) -> None:
    assert ollama.says_end(ollama_line(count) + b"\n")


@pytest.mark.parametrize(("side", "hub", "answer"), TRANSLATED.values(), ids=TRANSLATED.keys())
def test_a_translated_answer_leaves_it_out(
    side: Callable[..., BackendSide], hub: JsonObject, answer: Callable[[int], JsonObject]
) -> None:
    assert "usage" in made(side, hub).answer(write(answer(TOKENS_LIMIT)))
    told = made(side, hub).answer(write(answer(TOKENS_LIMIT + 1)))
    assert "usage" not in told and (told.get("choices") or told["data"])
