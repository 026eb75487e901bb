"""Whole answers of POST /v1/responses, made of a chat's.

Owns which items a chat's message becomes. It refuses streams (`client_stream`). Called by `client`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from protocols.dialect import JsonObject
from protocols.openai.responses.items import (
    COMPLETED,
    INCOMPLETE,
    REASONS,
    Count,
    call_item,
    message_item,
    read_logprobs,
    read_usage,
    reasoning_item,
    reasoning_part,
    refusal_part,
    text_part,
)
from protocols.openai.responses.reasoning import read_block
from protocols.pieces import Malformed


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Citation(msgspec.Struct):
    start_index: Count
    end_index: Count
    title: str
    url: str


class _Annotation(msgspec.Struct):
    url_citation: _Citation | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[JsonObject] | None = None
    annotations: list[_Annotation] | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: Any = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    service_tier: str | None = None
    usage: Any = None


def read_answer(answer: JsonObject, id: str, wants_logprobs: bool) -> JsonObject:
    """The members of the response that come from the chat's *answer*. Raises `Malformed`."""
    try:
        found = msgspec.convert(answer, _Answer)
    except (msgspec.ValidationError, RecursionError):
        raise Malformed("the answer is no chat's") from None
    if not found.choices:
        raise Malformed("the answer has no choice")
    choice = found.choices[0]
    reason = REASONS.get(choice.finish_reason or "")
    output = _items(choice, id, wants_logprobs)
    if reason is not None:
        output[-1]["status"] = INCOMPLETE
    return {
        **ending(reason),
        "model": found.model,
        "service_tier": found.service_tier,
        "output": output,
        "usage": None if found.usage is None else read_usage(found.usage),
    }


def ending(reason: str | None) -> JsonObject:
    """How a response says that it is whole, or why it is not."""
    if reason is None:
        return {"status": COMPLETED, "incomplete_details": None}
    return {"status": INCOMPLETE, "incomplete_details": {"reason": reason}}


def _items(choice: _Choice, id: str, wants_logprobs: bool) -> list[JsonObject]:
    """The items in the order in which a model makes them; never none."""
    message = choice.message
    items: list[JsonObject] = []
    if message.reasoning_content or message.thinking_blocks:
        blocks = [read_block(block) for block in message.thinking_blocks or ()]
        content = [reasoning_part(message.reasoning_content)] if message.reasoning_content else []
        items.append(reasoning_item(f"rs_{id}_0", content, blocks, COMPLETED))
    parts = []
    if message.content or not (items or message.refusal or message.tool_calls):
        logprobs = read_logprobs(choice.logprobs) if wants_logprobs else []
        parts.append(text_part(message.content or "", logprobs, _cited(message.annotations)))
    if message.refusal:
        parts.append(refusal_part(message.refusal))
    if parts:
        items.append(message_item(f"msg_{id}_{len(items)}", parts, COMPLETED))
    seen: set[str] = set()
    for call in message.tool_calls or ():
        place = len(items)
        call_id = unique(call.id, seen, f"call_{id}_{place}")
        function = call.function
        items.append(call_item(f"fc_{id}_{place}", call_id, function.name, function.arguments, COMPLETED))
    return items


def unique(given: str | None, seen: set[str], made: str) -> str:
    """The id of a call: as *given*, unless it is none or another call of the answer has it. Then it is *made* up:
    results find their calls by it, and SDKs refuse two calls with one id."""
    id = given if given and given not in seen else made
    seen.add(id)
    return id


def _cited(annotations: list[_Annotation] | None) -> list[JsonObject]:
    citations = [one.url_citation for one in annotations or () if one.url_citation is not None]
    return [{"type": "url_citation", **msgspec.structs.asdict(citation)} for citation in citations]
