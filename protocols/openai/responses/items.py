"""A response's output items and usage, in the words of POST /v1/responses.

Owns their shapes, and how they follow from a chat's message. It refuses their order in a stream (`client_stream`).
Source: openai-python 3.54, `ResponseOutputItem`, `ResponseUsage`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from protocols.dialect import JsonObject
from protocols.openai.responses.reasoning import pack
from protocols.pieces import Malformed

COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"
IN_PROGRESS: Final = "in_progress"

#: Why a response is incomplete, by the chat's finish reason.
REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Byte = Annotated[int, msgspec.Meta(ge=0, lt=256)]


def text_part(text: Any, logprobs: Any = None, annotations: Any = None) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": annotations or [], "logprobs": logprobs or []}


def refusal_part(text: Any) -> JsonObject:
    return {"type": "refusal", "refusal": text}


def message_item(id: str, content: list[JsonObject], status: str) -> JsonObject:
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def call_item(id: str, call_id: str, name: str, arguments: Any, status: str) -> JsonObject:
    called = {"call_id": call_id, "name": name, "arguments": arguments}
    return {"id": id, "type": "function_call", "status": status, **called}


def reasoning_item(id: str, content: list[JsonObject], blocks: list[JsonObject], status: str) -> JsonObject:
    """*blocks*: the hub's thinking blocks of the same thoughts, if it has any."""
    packed = pack(blocks)
    return {
        "id": id,
        "type": "reasoning",
        "status": status,
        "summary": [],
        "content": content,
        "encrypted_content": packed,
    }


def reasoning_part(text: Any) -> JsonObject:
    return {"type": "reasoning_text", "text": text}


class _Details(msgspec.Struct):
    cached_tokens: Count | None = None
    cache_creation_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


def read_usage(usage: Any) -> JsonObject:
    """A chat's usage. Raises `Malformed`."""
    try:
        found = msgspec.convert(usage, _Usage)
    except (msgspec.ValidationError, RecursionError):
        raise Malformed("the usage is not made of counts") from None
    prompt, completion = found.prompt_tokens or 0, found.completion_tokens or 0
    read = found.prompt_tokens_details or _Details()
    written = found.completion_tokens_details or _Details()
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": read.cached_tokens or 0,
            # The hub's name; OpenAI's own since 2026.
            "cache_write_tokens": read.cache_creation_tokens or read.cache_write_tokens or 0,
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": written.reasoning_tokens or 0},
        "total_tokens": found.total_tokens or prompt + completion,
    }


class _Alternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[Byte] | None = None


class _Logprob(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


def read_logprobs(logprobs: Any) -> list[JsonObject]:
    """A choice's logprobs of its text. Raises `Malformed`."""
    try:
        content = msgspec.convert(logprobs, _Logprobs | None)
    except (msgspec.ValidationError, RecursionError):
        raise Malformed("logprobs are not as OpenAI has them") from None
    if content is None:
        return []
    return [
        {**_logprob(one), "top_logprobs": [_logprob(other) for other in one.top_logprobs or ()]}
        for one in content.content or ()
    ]


def _logprob(one: _Alternative) -> JsonObject:
    held = list(one.token.encode()) if one.bytes is None else one.bytes
    return {"token": one.token, "logprob": one.logprob, "bytes": held}
