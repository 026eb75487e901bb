"""Sample answers of /v1/responses.

Owns its request fields and the response object, whole and as the ordered named events that SDKs assemble it
from. It refuses tools, reasoning and stored state. Called through `answer.sample`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import orjson

from protocols.openai.samples.chat import Limit, Message, Probability, Temperature, echo, size
from protocols.openai.samples.shapes import Asked, Stream, Whole, named_event, read, shorten, words


class Item(Message):
    """An input item: a message, or something else that carries no words here and has no role."""

    role: str = ""


class ResponseFields(msgspec.Struct):
    input: str | Annotated[list[Item], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Limit | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    user: str | None = None


def responses(asked: Asked) -> Whole | Stream:
    """Answer /v1/responses. Raises `Refused`."""
    fields = read(asked, ResponseFields)
    texts = [fields.input] if isinstance(fields.input, str) else [item.text for item in fields.input]
    last = texts[0]
    if not isinstance(fields.input, str):
        last = next((item.text for item in reversed(fields.input) if item.role == "user"), "")
    tokens, cut = shorten(words(asked.text or echo(last)), fields.max_output_tokens)
    prompt = sum(map(size, [*texts, fields.instructions or ""]))
    opened = _opened(asked, fields)
    closed = opened | {
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "completed_at": None if cut else asked.created,
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": len(tokens),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + len(tokens),
        },
        "output": [_message(asked, [_part("".join(tokens))], "incomplete" if cut else "completed")],
    }
    if asked.stream:
        return _stream(asked, opened, tokens, closed)
    return Whole(orjson.dumps(closed), tokens=len(tokens))


def _opened(asked: Asked, fields: ResponseFields) -> dict[str, Any]:
    """The response as it stands before the first token; `output` is there, since SDKs append to it."""
    return {
        "id": f"resp_{asked.id}",
        "object": "response",
        "created_at": asked.created,
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "metadata": fields.metadata or {},
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "previous_response_id": fields.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": fields.store is not False,
        "temperature": 1.0 if fields.temperature is None else fields.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0 if fields.top_p is None else fields.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": fields.user,
    }


def _message(asked: Asked, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {
        "id": f"msg_{asked.id}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _stream(asked: Asked, opened: dict[str, Any], tokens: list[str], closed: dict[str, Any]) -> Stream:
    number = iter(range(len(tokens) + 8))
    item = {"output_index": 0}
    place = {"item_id": f"msg_{asked.id}", "output_index": 0, "content_index": 0}

    def numbered(kind: str, rest: dict[str, Any]) -> bytes:
        return named_event({"type": kind, "sequence_number": next(number), **rest})

    text = "".join(tokens)
    opening = [
        numbered("response.created", {"response": opened}),
        numbered("response.in_progress", {"response": opened}),
        numbered("response.output_item.added", {**item, "item": _message(asked, [], "in_progress")}),
        numbered("response.content_part.added", {**place, "part": _part("")}),
    ]
    deltas = [numbered("response.output_text.delta", {**place, "delta": token, "logprobs": []}) for token in tokens]
    closing = [
        numbered("response.output_text.done", {**place, "text": text, "logprobs": []}),
        numbered("response.content_part.done", {**place, "part": _part(text)}),
        numbered("response.output_item.done", {**item, "item": closed["output"][0]}),
        numbered(f"response.{closed['status']}", {"response": closed}),
    ]
    return Stream(opening, deltas, closing)
