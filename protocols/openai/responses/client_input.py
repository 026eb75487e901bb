"""The input of a responses request, as the messages of a chat.

Owns how items become messages: what an assistant said, thought and called in one turn is one message, as chat has it.
It refuses items that stand for stored state or for tools that run on OpenAI's servers. Called by `client_request`.
Source: openai-python 3.54, `ResponseInputItemParam`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.openai.responses.client_parts import Content, read_content, read_output
from protocols.openai.responses.reasoning import unpack
from protocols.openai.responses.values import read

#: An item's name, state and place in a conversation mean nothing to a model.
_Label = str | None


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[JsonObject]
    type: str | None = None
    id: _Label = None
    status: _Label = None
    phase: _Label = None


class _Call(msgspec.Struct):
    type: str
    call_id: str
    name: str
    arguments: str
    id: _Label = None
    status: _Label = None
    caller: JsonObject | None = None


class _Output(msgspec.Struct):
    type: str
    call_id: str
    output: str | list[JsonObject]
    id: _Label = None
    status: _Label = None
    name: _Label = None
    caller: JsonObject | None = None


class _ReasoningText(msgspec.Struct):
    text: str
    type: str | None = None


class _Reasoning(msgspec.Struct):
    type: str
    id: _Label = None
    status: _Label = None
    summary: list[JsonObject] | None = None
    content: list[_ReasoningText] | None = None
    encrypted_content: str | None = None


def read_input(given: str | list[JsonObject], dropped: Dropped) -> list[JsonObject]:
    """The hub's messages for `input`. Raises `Unmappable`."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    talk = _Talk(dropped)
    for place, item in enumerate(given):
        talk.add(item, f"input[{place}]")
    talk.end()
    if not talk.messages:
        raise Unmappable("'input' has nothing in it that a model could be told", "input")
    return talk.messages


class _Talk:
    """A conversation that grows by items."""

    __slots__ = ("_dropped", "_seen", "_thought", "_turn", "messages")

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        self.messages: list[JsonObject] = []
        #: The assistant's message to which belongs what it says and calls next.
        self._turn: JsonObject | None = None
        #: What it thought before that.
        self._thought: JsonObject = {}
        #: Images and files that tools gave: chat has them in a user's message, behind those of all tools.
        self._seen: list[JsonObject] = []

    def add(self, item: JsonObject, path: str) -> None:
        """Raises `Unmappable`."""
        kind = item.get("type")
        if kind is None:
            kind = "message" if "role" in item else "item_reference" if "id" in item else None
        add = _ITEMS.get(kind) if isinstance(kind, str) else None
        if add is not None:
            add(self, item, path)
        elif kind == "item_reference":
            why = "refers to an item that this gateway has not kept: send the item itself"
            raise Unmappable(f"'{path}' {why}", path)
        elif isinstance(kind, str):
            self._dropped.leave_out(f"{path}.type", f"is {kind[:64]!r}, which a backend that only chats does not know")
        else:
            raise Unmappable(f"'{path}.type' must be the name of an item's type", f"{path}.type")

    def end(self) -> None:
        """No item follows."""
        self._turn = None
        self._thought = {}
        if self._seen:
            self.messages.append({"role": "user", "content": self._seen})
            self._seen = []

    def add_message(self, item: JsonObject, path: str) -> None:
        message = read(item, _Message, path, self._dropped)
        content = read_content(message.content, message.role, f"{path}.content", self._dropped)
        if message.role == "assistant":
            self._say(content)
        else:
            self.end()
            self.messages.append({"role": message.role, "content": content})

    def add_call(self, item: JsonObject, path: str) -> None:
        call = read(item, _Call, path, self._dropped)
        self._look_at_caller(call.caller, path)
        function = {"name": call.name, "arguments": call.arguments}
        calls = self._open_turn().setdefault("tool_calls", [])
        calls.append({"id": call.call_id, "type": "function", "function": function})

    def add_output(self, item: JsonObject, path: str) -> None:
        output = read(item, _Output, path, self._dropped)
        self._look_at_caller(output.caller, path)
        text, seen = read_output(output.output, f"{path}.output", self._dropped)
        self._turn = None
        self._thought = {}
        self.messages.append({"role": "tool", "tool_call_id": output.call_id, "content": text})
        self._seen += seen

    def add_reasoning(self, item: JsonObject, path: str) -> None:
        """Summaries are left out: they are for people, and no model is told them as its own thoughts."""
        reasoning = read(item, _Reasoning, path, self._dropped)
        thought = self._thought
        if reasoning.content:
            text = "".join(part.text for part in reasoning.content)
            thought["reasoning_content"] = thought.get("reasoning_content", "") + text
        if reasoning.encrypted_content:
            blocks = unpack(reasoning.encrypted_content, f"{path}.encrypted_content")
            if blocks:
                thought["thinking_blocks"] = [*thought.get("thinking_blocks", ()), *blocks]

    def _look_at_caller(self, caller: JsonObject | None, path: str) -> None:
        if caller is not None and caller.get("type") != "direct":
            self._dropped.leave_out(f"{path}.caller", "is no model: no backend that only chats runs programs")

    def _say(self, content: Content) -> None:
        turn = self._turn
        if turn is not None and turn["content"] is not None and "tool_calls" not in turn:
            self._turn = None  # two answers in a row stay two
        turn = self._open_turn()
        said = turn["content"]
        # Behind its calls it goes before them: their results must follow at once.
        turn["content"] = content if said is None else _as_parts(said) + _as_parts(content)

    def _open_turn(self) -> JsonObject:
        turn = self._turn
        if turn is None:
            thought = self._thought
            self.end()
            turn = self._turn = {"role": "assistant", "content": None, **thought}
            self.messages.append(turn)
        else:
            for name, value in self._thought.items():
                turn[name] = turn[name] + value if name in turn else value
        self._thought = {}
        return turn


def _as_parts(content: Any) -> list[JsonObject]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


_ITEMS: Final[dict[str | None, Callable[[_Talk, JsonObject, str], None]]] = {
    "message": _Talk.add_message,
    "function_call": _Talk.add_call,
    "function_call_output": _Talk.add_output,
    "reasoning": _Talk.add_reasoning,
}
