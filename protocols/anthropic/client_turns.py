"""The turns of a request -> the hub's messages.

Owns what a turn is made of: its text, the model's thinking and tool calls, the tools' results. It refuses to read
pictures and documents (`client_blocks`). Turns of one role that follow each other are one turn, as the vendor's API
reads them; so the results of tools stand together and before what the user says, as OpenAI's API wants them.
"""

from __future__ import annotations

from typing import Final

from protocols.anthropic.client_blocks import read_part, read_text, read_texts, text_part
from protocols.anthropic.client_fields import (
    NO_EQUIVALENT,
    dump,
    join,
    leave_out_others,
    objects,
    optional,
    required,
    wrong,
)
from protocols.dialect import Dropped, JsonObject

_TURN_FIELDS: Final = frozenset({"role", "content"})
_CALL_FIELDS: Final = frozenset({"type", "id", "name", "input", "cache_control", "caller"})
_RESULT_FIELDS: Final = frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"})
_THINKING_FIELDS: Final = frozenset({"type", "thinking", "signature"})
_REDACTED_FIELDS: Final = frozenset({"type", "data"})

#: Before the text of a result that is an error: the hub has no field for it.
ERROR_PREFIX: Final = "Error: "


def read_system(fields: JsonObject, dropped: Dropped) -> list[JsonObject]:
    """The top-level `system`, as no or one message."""
    texts = read_texts(fields, "system", "", dropped)
    return [{"role": "system", "content": "\n".join(texts)}] if texts else []


def read_turns(fields: JsonObject, dropped: Dropped) -> list[JsonObject]:
    """The messages. Raises `Unmappable`."""
    turns = required(fields, "messages", list)
    if not turns:
        raise wrong("messages", "must not be empty")
    messages: list[JsonObject] = []
    turn: _UserTurn | _AssistantTurn | None = None
    for at, fields_of_turn in objects(turns, "messages"):
        leave_out_others(fields_of_turn, _TURN_FIELDS, dropped, at)
        role = required(fields_of_turn, "role", str, at)
        if role == "system":
            texts = read_texts(fields_of_turn, "content", at, dropped)
            messages += [] if turn is None else turn.messages()
            messages += [{"role": "system", "content": "\n".join(texts)}] if texts else []
            turn = None
            continue
        kind = _TURNS.get(role)
        if kind is None:
            raise wrong(join(at, "role"), "must be 'user', 'assistant' or 'system'")
        if type(turn) is not kind:
            messages += [] if turn is None else turn.messages()
            turn = kind(dropped)
        _read_content(fields_of_turn, at, turn)
    return messages if turn is None else messages + turn.messages()


def _read_content(fields: JsonObject, at: str, turn: _UserTurn | _AssistantTurn) -> None:
    content = fields.get("content")
    if type(content) is str:
        turn.add_text(content)
        return
    if type(content) is not list:
        raise wrong(join(at, "content"), "must be a string or an array of blocks")
    for name, block in objects(content, join(at, "content")):
        turn.add(required(block, "type", str, name), block, name)


class _UserTurn:
    """What the user says between two turns of the model, and what its tools gave."""

    __slots__ = ("_dropped", "_parts", "_results", "_seen")

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        self._results: list[JsonObject] = []
        #: What tools gave that a tool's message cannot hold: images and files, each below the id of its call.
        self._seen: list[JsonObject] = []
        self._parts: list[JsonObject] = []

    def add_text(self, text: str) -> None:
        if text:
            self._parts.append(text_part(text))

    def add(self, kind: str, block: JsonObject, at: str) -> None:
        if kind == "tool_result":
            self._add_result(block, at)
            return
        parts = read_part(kind, block, at, self._dropped)
        if parts is None:
            _refuse_kind(kind, at, self._dropped)
        else:
            self._parts += parts

    def _add_result(self, block: JsonObject, at: str) -> None:
        leave_out_others(block, _RESULT_FIELDS, self._dropped, at)
        call = required(block, "tool_use_id", str, at)
        parts = self._read_result(block, at)
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        if optional(block, "is_error", bool, at):
            text = ERROR_PREFIX + text
        others = [part for part in parts if part["type"] != "text"]
        if others:
            self._seen += [text_part(f"Result of tool call {call}:"), *others]
        self._results.append({"role": "tool", "tool_call_id": call, "content": text})

    def _read_result(self, block: JsonObject, at: str) -> list[JsonObject]:
        content = block.get("content")
        if content is None or type(content) is str:
            return [text_part(content)] if content else []
        if type(content) is not list:
            raise wrong(join(at, "content"), "must be a string or an array of blocks")
        parts: list[JsonObject] = []
        for name, inner in objects(content, join(at, "content")):
            kind = required(inner, "type", str, name)
            read = read_part(kind, inner, name, self._dropped)
            if read is None:
                _refuse_kind(kind, name, self._dropped)
            else:
                parts += read
        return parts

    def messages(self) -> list[JsonObject]:
        parts = self._seen + self._parts
        if not parts:
            return self._results
        is_plain = len(parts) == 1 and parts[0]["type"] == "text"
        return [*self._results, {"role": "user", "content": parts[0]["text"] if is_plain else parts}]


class _AssistantTurn:
    """What the model said, thought and called."""

    __slots__ = ("_calls", "_dropped", "_texts", "_thoughts")

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        self._texts: list[str] = []
        self._thoughts: list[JsonObject] = []
        self._calls: list[JsonObject] = []

    def add_text(self, text: str) -> None:
        self._texts.append(text)

    def add(self, kind: str, block: JsonObject, at: str) -> None:
        if kind == "text":
            self._texts.append(read_text(block, at, self._dropped))
        elif kind == "tool_use":
            self._add_call(block, at)
        elif kind == "thinking":
            leave_out_others(block, _THINKING_FIELDS, self._dropped, at)
            required(block, "thinking", str, at)
            optional(block, "signature", str, at)
            self._thoughts.append(block)
        elif kind == "redacted_thinking":
            leave_out_others(block, _REDACTED_FIELDS, self._dropped, at)
            required(block, "data", str, at)
            self._thoughts.append(block)
        else:
            _refuse_kind(kind, at, self._dropped)

    def _add_call(self, block: JsonObject, at: str) -> None:
        leave_out_others(block, _CALL_FIELDS, self._dropped, at)
        caller = optional(block, "caller", dict, at)
        if caller is not None and required(caller, "type", str, join(at, "caller")) != "direct":
            self._dropped.leave_out(join(at, "caller"), NO_EQUIVALENT)
        arguments = dump(required(block, "input", dict, at), join(at, "input")).decode()
        function = {"name": required(block, "name", str, at), "arguments": arguments}
        self._calls.append({"id": required(block, "id", str, at), "type": "function", "function": function})

    def messages(self) -> list[JsonObject]:
        text = "".join(self._texts)
        if not (text or self._calls or self._thoughts):
            return []
        message: JsonObject = {"role": "assistant", "content": text if text or not self._calls else None}
        if self._thoughts:
            reasoning = "".join(block.get("thinking", "") for block in self._thoughts)
            if reasoning:
                message["reasoning_content"] = reasoning
            message["thinking_blocks"] = self._thoughts
        if self._calls:
            message["tool_calls"] = self._calls
        return [message]


_TURNS: Final[dict[str, type[_UserTurn | _AssistantTurn]]] = {"user": _UserTurn, "assistant": _AssistantTurn}


def _refuse_kind(kind: str, at: str, dropped: Dropped) -> None:
    """A block of a server's tool, of a container, or of a kind that nobody knows."""
    dropped.leave_out(join(at, "type"), f"{kind!r} {NO_EQUIVALENT}"[:200])
