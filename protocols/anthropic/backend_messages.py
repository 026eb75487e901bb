"""The hub's messages as turns of the Messages API, and its system text.

Owns the order that the API wants: instructions first and apart, user and assistant by turns, a user first, results of
tools before a turn's text, thinking before all else of its message. It refuses content (`backend_parts`) and all
fields beside `messages` (`backend_request`).
Source: https://platform.claude.com/docs/en/api/messages and .../docs/en/agents-and-tools/tool-use/handle-tool-calls.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from protocols.anthropic.backend_fields import list_of, object_of, text_of
from protocols.anthropic.backend_parts import blocks_of, text_block, texts_of
from protocols.dialect import Dropped, JsonObject, Unmappable

#: What a user says before an assistant who speaks first: the API wants a user first, and a text that is not empty.
_OPENING: Final = "."
#: Ids of calls are ^[a-zA-Z0-9_-]+$ here; other backends have colons and dots in theirs.
_NOT_IN_IDS: Final = re.compile(r"[^a-zA-Z0-9_-]")

_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Turns:
    """Messages joined to turns. Made by `turns_of`."""

    __slots__ = ("_dropped", "_results", "system", "turns")

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        self.system: list[str] = []
        self.turns: list[JsonObject] = []
        #: Results of tools at the beginning of the last turn.
        self._results = 0

    def add(self, message: JsonObject, param: str) -> None:
        """Add *message*, which its client knows as *param*. Its `name` is a label. Raises `Unmappable`."""
        role = text_of(message.get("role"), f"{param}.role")
        if role in ("system", "developer"):
            self.system += texts_of(message.get("content"), f"{param}.content")
        elif role == "user":
            self._extend("user", blocks_of(message.get("content"), f"{param}.content", self._dropped))
        elif role == "assistant":
            self._extend("assistant", self._assistant(message, param))
        elif role == "tool":
            self._result(message, param)
        else:
            raise Unmappable(f"'{param}.role' is none that Anthropic's API knows", f"{param}.role")

    def _extend(self, role: str, blocks: list[JsonObject]) -> None:
        if not blocks:
            return  # the API refuses empty turns, and they say nothing
        if not self.turns and role == "assistant":
            self.turns.append({"role": "user", "content": [text_block(_OPENING)]})
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
            return
        self._results = 0
        self.turns.append({"role": role, "content": blocks})

    def _result(self, message: JsonObject, param: str) -> None:
        """The result of a tool goes before what else is in its turn, behind the results before it."""
        call = text_of(message.get("tool_call_id"), f"{param}.tool_call_id")
        block: JsonObject = {"type": "tool_result", "tool_use_id": _id_of(call, f"{param}.tool_call_id")}
        content = blocks_of(message.get("content"), f"{param}.content", self._dropped)
        if len(content) == 1 and content[0]["type"] == "text":
            block["content"] = content[0]["text"]
        elif content:
            block["content"] = content
        if not self.turns or self.turns[-1]["role"] != "user":
            self._results = 0
            self.turns.append({"role": "user", "content": []})
        self.turns[-1]["content"].insert(self._results, block)
        self._results += 1

    def _assistant(self, message: JsonObject, param: str) -> list[JsonObject]:
        if message.get("audio") is not None:
            self._dropped.leave_out(f"{param}.audio", "is sound, which Anthropic's API does not take")
        if message.get("function_call") is not None:
            raise Unmappable(f"'{param}.function_call' is not served here: use tool_calls", f"{param}.function_call")
        blocks = _thinking(message, param)
        blocks += map(text_block, texts_of(message.get("content"), f"{param}.content"))
        if message.get("refusal"):
            blocks.append(text_block(text_of(message["refusal"], f"{param}.refusal")))
        for at, call in enumerate(list_of(message.get("tool_calls"), f"{param}.tool_calls")):
            blocks.append(_tool_use(object_of(call, f"{param}.tool_calls[{at}]"), f"{param}.tool_calls[{at}]"))
        return blocks


def turns_of(messages: Any, dropped: Dropped) -> Turns:
    """All of a request's *messages*. Raises `Unmappable`."""
    turns = Turns(dropped)
    for at, message in enumerate(list_of(messages, "messages")):
        turns.add(object_of(message, f"messages[{at}]"), f"messages[{at}]")
    if not turns.turns:
        raise Unmappable("'messages' must have a message of a user that is not empty", "messages")
    return turns


def _thinking(message: JsonObject, param: str) -> list[JsonObject]:
    """The blocks of thinking that the API gave, as it wants them back: with their signatures, or encrypted as they are.

    Thinking without a signature comes from elsewhere; the API would refuse it. A client that puts a stream's deltas
    together has the text of the thinking apart from its signature, in `reasoning_content`.
    """
    param = f"{param}.thinking_blocks"
    blocks: list[JsonObject] = []
    for at, value in enumerate(list_of(message.get("thinking_blocks"), param)):
        block = object_of(value, f"{param}[{at}]")
        if block.get("type") == "redacted_thinking":
            data = text_of(block.get("data"), f"{param}[{at}].data")
            blocks.append({"type": "redacted_thinking", "data": data})
        elif block.get("type") == "thinking":
            thinking = text_of(block.get("thinking"), f"{param}[{at}].thinking")
            signature = block.get("signature")
            if signature:
                signature = text_of(signature, f"{param}[{at}].signature")
                blocks.append({"type": "thinking", "thinking": thinking, "signature": signature})
        else:
            raise Unmappable(f"'{param}[{at}].type' is no kind of thinking", f"{param}[{at}].type")
    signed = [block for block in blocks if "signature" in block]
    reasoning = message.get("reasoning_content")
    if len(signed) == 1 and not signed[0]["thinking"] and isinstance(reasoning, str):
        signed[0]["thinking"] = reasoning
    return blocks


def _tool_use(call: JsonObject, param: str) -> JsonObject:
    if call.get("type", "function") != "function":
        raise Unmappable(f"'{param}.type' is no call that Anthropic's API knows", f"{param}.type")
    function = object_of(call.get("function"), f"{param}.function")
    return {
        "type": "tool_use",
        "id": _id_of(text_of(call.get("id"), f"{param}.id"), f"{param}.id"),
        "name": text_of(function.get("name"), f"{param}.function.name"),
        "input": _arguments(function.get("arguments"), f"{param}.function.arguments"),
    }


def _arguments(value: Any, param: str) -> msgspec.Raw:
    """The arguments of a call, as they stand; none are an empty object."""
    text = text_of("" if value is None else value, param).strip()
    try:
        raw = text.encode() or b"{}"
        _decode_object(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise Unmappable(f"'{param}' must be the JSON of an object", param) from None
    return msgspec.Raw(raw)


def _id_of(text: str, param: str) -> str:
    if not text:
        raise Unmappable(f"'{param}' must not be empty", param)
    return _NOT_IN_IDS.sub("_", text)
