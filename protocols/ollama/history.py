"""Ollama's messages to the hub's.

Owns the roles, the ids of tool calls (the hub wants one in each call and in each result; Ollama's official Python SDK
sends none), and where images go. It refuses everything beside `messages`. Source: `api.Message` of the server v0.33.

A field of a message of another role (`thinking` of a user's) has no effect there, nor has it here. One that no message
of Ollama's has is left out by its place. `name` of a tool's message is `tool_name`, as the SDK's examples wrote
it before there was one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from typing import Any, Final

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.ollama import fields, images

_ROLES: Final = ("system", "user", "assistant", "tool")
_FIELDS: Final = frozenset({"role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"})
_TOOL_FIELDS: Final = _FIELDS | {"name"}
#: `type` as clients of OpenAI's API know it; the server does not read it.
_CALL: Final = frozenset({"id", "type", "index", "function"})
_FUNCTION: Final = frozenset({"index", "name", "arguments"})

_UNKNOWN: Final = "is no field that can be translated"


def to_hub(value: Any, dropped: Dropped) -> list[JsonObject]:
    """The hub's messages for `messages`.

    An empty list asks a server to load a model, or to drop it from memory. There is nobody here who could answer that
    for a backend, so it is refused.
    """
    messages = fields.array(value, "messages")
    if not messages:
        raise Unmappable("'messages' must not be empty: models are not loaded or unloaded on demand", "messages")
    history = _History(dropped)
    return [history.message(message, f"messages[{at}]") for at, message in enumerate(messages)]


class _History:
    """The messages so far: which calls have no result yet."""

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        #: The names of the calls without a result by their ids, in their order; the ids by the names, some of them
        #: answered meanwhile. A client may send thousands of either, so nothing is searched.
        self._open: OrderedDict[str, str] = OrderedDict()
        self._named: defaultdict[str, deque[str]] = defaultdict(deque)
        self._calls = 0

    def message(self, value: Any, param: str) -> JsonObject:
        message = fields.json_object(value, param)
        role = fields.text(message.get("role"), f"{param}.role").lower()
        if role not in _ROLES:
            raise Unmappable(f"'{param}.role' must be one of {', '.join(_ROLES)}", f"{param}.role")
        known = _TOOL_FIELDS if role == "tool" else _FIELDS
        if not message.keys() <= known:
            fields.refuse_rest(message, known, self._dropped, _UNKNOWN, f"{param}.")
        content = fields.optional_text(message.get("content"), f"{param}.content")
        if role == "user":
            return {"role": role, "content": with_images(content, message.get("images"), f"{param}.images")}
        if fields.array(message.get("images"), f"{param}.images"):
            self._dropped.leave_out(f"{param}.images", f"cannot be translated in a message of the role {role}")
        if role == "assistant":
            return self._assistant(message, content, param)
        if role == "tool":
            return {"role": role, "tool_call_id": self._answered(message, param), "content": content}
        return {"role": role, "content": content}

    def _assistant(self, message: JsonObject, content: str, param: str) -> JsonObject:
        hub: JsonObject = {"role": "assistant", "content": content}
        thinking = fields.optional_text(message.get("thinking"), f"{param}.thinking")
        if thinking:
            hub["reasoning_content"] = thinking
        calls = fields.array(message.get("tool_calls"), f"{param}.tool_calls")
        if calls:
            hub["content"] = content or None
            hub["tool_calls"] = [self._call(call, f"{param}.tool_calls[{at}]") for at, call in enumerate(calls)]
        return hub

    def _call(self, value: Any, param: str) -> JsonObject:
        call = fields.json_object(value, param)
        fields.refuse_rest(call, _CALL, self._dropped, _UNKNOWN, f"{param}.")
        if fields.optional_text(call.get("type"), f"{param}.type") not in ("", "function"):
            raise Unmappable(f"'{param}.type' must be 'function'", f"{param}.type")
        function = fields.json_object(call.get("function"), f"{param}.function")
        fields.refuse_rest(function, _FUNCTION, self._dropped, _UNKNOWN, f"{param}.function.")
        name = fields.text(function.get("name"), f"{param}.function.name")
        arguments = fields.optional_object(function.get("arguments"), f"{param}.function.arguments")
        # The same at each turn of a conversation, so that caches of prompts see the same prompt.
        id = fields.optional_text(call.get("id"), f"{param}.id") or f"call_{self._calls}"
        self._calls += 1
        self._open[id] = name
        self._named[name].append(id)
        return {
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": fields.written(arguments).decode()},
        }

    def _answered(self, message: JsonObject, param: str) -> str:
        """The id of the call that a tool's message answers: by id, else by name, else the first that is open."""
        id = fields.optional_text(message.get("tool_call_id"), f"{param}.tool_call_id")
        field = "tool_name" if message.get("tool_name") is not None else "name"
        name = fields.optional_text(message.get(field), f"{param}.{field}")
        if id:
            self._open.pop(id, None)
            return id
        found = self._first_named(name) if name else self._first()
        if found is not None:
            return found
        place = f"{param}.{field}" if name else param
        raise Unmappable(f"'{place}' answers no tool call of the messages before it", place)

    def _first(self) -> str | None:
        return self._open.popitem(last=False)[0] if self._open else None

    def _first_named(self, name: str) -> str | None:
        waiting = self._named.get(name)
        while waiting:
            id = waiting.popleft()
            if self._open.pop(id, None) is not None:
                return id
        return None


def with_images(content: str, value: Any, param: str) -> str | list[JsonObject]:
    """The hub's content: parts where there are images (the text first), the text alone where there are none."""
    parts: list[JsonObject] = images.to_parts(value, param)
    if not parts:
        return content
    return [{"type": "text", "text": content}, *parts] if content else parts
