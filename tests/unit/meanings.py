"""What two ways of saying the same must have in common: whole answers, streams, requests.

Owns the comparison that the conformance suite makes; what no way through a dialect may change is in it, and how it is
said is not. It refuses to know any dialect but the hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from protocols.dialect import BackendSide, ClientSide, JsonObject
from tests.unit.conforming import Has


def heard(side: BackendSide, pieces: Iterable[bytes]) -> list[JsonObject]:
    """All chunks of the stream that *pieces* are, its end included."""
    return [chunk for piece in pieces for chunk in side.feed(piece)] + side.end()


def said(side: ClientSide, chunks: Iterable[JsonObject]) -> bytes:
    """The whole stream that *chunks* become."""
    return b"".join(side.feed(chunk) for chunk in chunks) + side.end()


def assembled(chunks: Iterable[JsonObject], ended: bool = True) -> JsonObject:
    """The whole answer that *chunks* tell. Asserts what every reader of the hub's streams relies on."""
    choices: dict[int, JsonObject] = {}
    answer: JsonObject = {}
    for chunk in chunks:
        assert isinstance(chunk["choices"], list)
        if chunk.get("usage") is not None:
            answer["usage"] = chunk["usage"]
        for piece in chunk["choices"]:
            choice = choices.setdefault(piece.get("index", 0), {"message": {}, "text": "", "finish_reason": None})
            assert choice["finish_reason"] is None, "nothing follows a finish reason"
            _add(choice, piece)
    if ended:
        assert all(choice["finish_reason"] is not None for choice in choices.values()), "a choice without an end"
    answer["choices"] = [{**choices[index], "index": index} for index in sorted(choices)]
    return answer


def _add(choice: JsonObject, piece: JsonObject) -> None:
    message = choice["message"]
    delta = piece.get("delta", {})
    for name in ("content", "reasoning_content", "refusal"):
        if delta.get(name):
            message[name] = message.get(name, "") + delta[name]
    message.setdefault("thinking_blocks", []).extend(delta.get("thinking_blocks") or ())
    calls = message.setdefault("tool_calls", [])
    for call in delta.get("tool_calls") or ():
        assert 0 <= call["index"] <= len(calls), "calls open in the order of their indexes"
        if call["index"] == len(calls):
            assert call["id"] and call["function"]["name"], "a call opens with its id and its name"
            calls.append({"id": call["id"], "function": {"name": call["function"]["name"], "arguments": ""}})
        calls[call["index"]]["function"]["arguments"] += call["function"].get("arguments") or ""
    choice["text"] += piece.get("text") or ""
    for name in ("finish_reason", "stop_reason"):
        if piece.get(name) is not None:
            choice[name] = piece[name]


def meaning(answer: JsonObject, has: Has | None = None, usage: bool = True) -> JsonObject:
    """What of *answer* no way through a dialect may change."""
    has = has or Has()
    return {
        "choices": [_meaning_of_choice(choice, has) for choice in answer["choices"]],
        "usage": _meaning_of_usage(answer.get("usage"), has) if usage else None,
    }


def _meaning_of_choice(choice: JsonObject, has: Has) -> JsonObject:
    message = choice.get("message") or {}
    calls = message.get("tool_calls") or ()
    return {
        "text": choice.get("text") or "",
        "content": message.get("content") or "",
        "reasoning": (message.get("reasoning_content") or "") if has.reasoning else "",
        "refusal": (message.get("refusal") or "") if has.refusal else "",
        "calls": [
            (call["id"] if has.call_ids else "", call["function"]["name"], _parsed(call["function"]["arguments"]))
            for call in calls
        ],
        "finish": choice["finish_reason"],
    }


def _parsed(arguments: str) -> Any:
    return json.loads(arguments or "{}")


def _meaning_of_usage(usage: JsonObject | None, has: Has) -> JsonObject | None:
    if usage is None:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "prompt": usage.get("prompt_tokens", 0),
        "completion": usage.get("completion_tokens", 0),
        "cached": cached if has.cached else 0,
    }


def meaning_of_request(hub: JsonObject) -> JsonObject:
    """What of a chat's request no way through a dialect may change."""
    fields = {
        name: value for name, value in hub.items() if value is not None and name not in ("messages", "model", "stream")
    }
    fields.pop("stream_options", None)
    limit = fields.pop("max_tokens", None)
    if limit is not None:
        fields["max_completion_tokens"] = limit
    if "response_format" in fields:
        fields["response_format"] = fields["response_format"]["json_schema"]["schema"]
    if fields.get("tool_choice") == "auto":
        del fields["tool_choice"]  # the default
    for name in ("temperature", "top_p"):
        if fields.get(name) == 1:
            del fields[name]  # the default, of OpenAI's and of Anthropic's API alike
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    fields["tools"] = [_meaning_of_tool(tool["function"]) for tool in fields.get("tools") or ()]
    fields["messages"] = [_meaning_of_message(message) for message in hub["messages"]]
    return fields


def _meaning_of_tool(function: JsonObject) -> tuple[str, str, Any]:
    return function["name"], function.get("description") or "", function.get("parameters")


def _meaning_of_message(message: JsonObject) -> JsonObject:
    content = message.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {
        "role": "system" if message["role"] == "developer" else message["role"],
        "text": "".join(part["text"] for part in parts if part["type"] == "text"),
        "images": [part["image_url"]["url"] for part in parts if part["type"] == "image_url"],
        "calls": [
            (call["id"], call["function"]["name"], _parsed(call["function"]["arguments"]))
            for call in message.get("tool_calls") or ()
        ],
        "answers": message.get("tool_call_id"),
    }
