"""The hub's answers and chunks, read by type: what a side for Ollama's clients needs of them.

Owns these readers and the collecting of a stream's tool calls. It refuses to write (`chat_client`, `generate_client`).
What is of a wrong type came from an upstream as it is, and is `Malformed`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocols.dialect import JsonObject
from protocols.pieces import PARTIAL_LIMIT, Malformed

_decode: Final = msgspec.json.Decoder().decode

#: What Ollama says for the hub's finish reasons; it knows no others, and tool calls stand for themselves.
_REASONS: Final = {"tool_calls": "stop", "function_call": "stop"}

#: What one tool call costs beside its text, so that a stream of empty ones ends too.
_CALL_COST: Final = 256


def text(object: JsonObject, key: str) -> str:
    """The string at *key*; empty where it is null or absent."""
    value = object.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"'{key}' of an answer is no string")
    return value


def content(message: JsonObject) -> str:
    """What a message or a delta says; a refusal is said too, as there is no other place for it."""
    return text(message, "content") or text(message, "refusal")


def first_choice(answer: JsonObject) -> JsonObject | None:
    """The only choice of an answer or a chunk; None where there is none. More than one is never asked for."""
    choices = answer.get("choices")
    if not choices:
        return None
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise Malformed("'choices' of an answer is no array of objects")
    return choices[0]


def inner(choice: JsonObject, key: str) -> JsonObject:
    """The object at *key*, empty where it is null or absent."""
    value = choice.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"'{key}' of an answer is no object")
    return value


def logprobs(choice: JsonObject) -> list[Any] | None:
    """The log probabilities of a chat's choice, whose tokens both APIs write alike; None where there are none."""
    if choice.get("logprobs") is None:
        return None
    tokens = inner(choice, "logprobs").get("content")
    if tokens is not None and not isinstance(tokens, list):
        raise Malformed("'logprobs' of an answer has no array of tokens")
    return tokens or None


class Ending:
    """Why an answer ended and what was counted, told at its end."""

    def __init__(self) -> None:
        self.finish = ""
        self._usage: JsonObject | None = None

    def note(self, answer: JsonObject) -> JsonObject | None:
        """Take the usage and the finish reason of an answer or a chunk; its only choice, where it has one."""
        if answer.get("usage") is not None:
            self._usage = inner(answer, "usage")
        choice = first_choice(answer)
        if choice is not None and choice.get("finish_reason") is not None:
            self.finish = text(choice, "finish_reason")
        return choice

    def members(self) -> JsonObject:
        """The last members of Ollama's answer.

        Nobody measured the four durations (nanoseconds), so they are 0; counts stay away where they are unknown.
        """
        members: JsonObject = {"done": True, "done_reason": _REASONS.get(self.finish, self.finish) or "stop"}
        members |= {"total_duration": 0, "load_duration": 0}
        if self._usage is not None:
            members["prompt_eval_count"] = _count(self._usage, "prompt_tokens")
        members["prompt_eval_duration"] = 0
        if self._usage is not None:
            members["eval_count"] = _count(self._usage, "completion_tokens")
        members["eval_duration"] = 0
        return members


def prompt_tokens(answer: JsonObject) -> int | None:
    """The prompt's tokens in an answer's usage; None where it has none."""
    return _count(inner(answer, "usage"), "prompt_tokens") if answer.get("usage") is not None else None


def _count(usage: JsonObject, key: str) -> int:
    value = usage.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Malformed(f"'{key}' of an answer is no count")
    return value


class _Call:
    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = bytearray()


class ToolCalls:
    """Tool calls, collected from the hub's pieces and told whole, as Ollama does; *id* is the call's, for missing ids.

    No more than `PARTIAL_LIMIT` bytes are held: past them the answer is `Malformed`.
    """

    def __init__(self, id: str) -> None:
        self._id = id
        self._calls: dict[int, _Call] = {}
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, pieces: Any) -> None:
        """Take `tool_calls` of a message or of a delta; where none says its index, it is its place."""
        if not isinstance(pieces, list):
            raise Malformed("'tool_calls' of an answer is no array")
        for place, piece in enumerate(pieces):
            if not isinstance(piece, dict):
                raise Malformed("a tool call of an answer is no object")
            index = piece.get("index", place)
            if isinstance(index, bool) or not isinstance(index, int):
                raise Malformed("'index' of a tool call is no integer")
            call = self._calls.get(index)
            if call is None:
                self._grow(_CALL_COST)
                call = self._calls[index] = _Call()
            function = inner(piece, "function")
            arguments = text(function, "arguments").encode()
            call.id = call.id or text(piece, "id")
            call.name = call.name or text(function, "name")
            self._grow(len(arguments))
            call.arguments += arguments

    def _grow(self, more: int) -> None:
        self._size += more
        if self._size > PARTIAL_LIMIT:
            raise Malformed(f"the tool calls of an answer are longer than {PARTIAL_LIMIT} bytes")

    def take(self) -> list[JsonObject]:
        """All calls in Ollama's words, in the order of their indexes. Arguments are an object there, or no call."""
        told = []
        for place, (_, call) in enumerate(sorted(self._calls.items())):
            if not call.name:
                raise Malformed("a tool call of an answer has no name")
            function = {"index": place, "name": call.name, "arguments": _arguments(bytes(call.arguments))}
            told.append({"id": call.id or f"call_{self._id}_{place}", "function": function})
        self._calls.clear()
        return told


def _arguments(data: bytes) -> JsonObject:
    """The object that *data* is; nothing stands for an empty one."""
    try:
        value = _decode(data) if data.strip() else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Malformed("the arguments of a tool call are no JSON object")
    return value
