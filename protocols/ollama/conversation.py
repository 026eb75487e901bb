"""The hub's messages and tools to Ollama's.

Owns the parts of content, the images, the arguments of tool calls (an object there) and the names of tool results. It
refuses the rest of the request (`chat_backend`). Source: `FromChatRequest` of the server v0.33, its own /v1.

The texts of one message's parts are joined by a line end, and its images stand beside them: Ollama's messages have one
text. (Its own /v1 makes several messages of them.)
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.ollama import fields, images

_decode: Final = msgspec.json.Decoder().decode

_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def messages(value: Any, dropped: Dropped) -> list[JsonObject]:
    """Ollama's messages for the hub's. An empty list would load a model and answer nothing."""
    given = fields.array(value, "messages")
    if not given:
        raise Unmappable("'messages' must not be empty", "messages")
    conversation = _Conversation(dropped)
    return [conversation.message(message, f"messages[{at}]") for at, message in enumerate(given)]


class _Conversation:
    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        #: The names of the tools that were called, by the ids of the calls; the last one of an id counts.
        self._names: dict[str, str] = {}

    def message(self, value: Any, param: str) -> JsonObject:
        message = fields.json_object(value, param)
        given = fields.text(message.get("role"), f"{param}.role")
        role = _ROLES.get(given)
        if role is None:
            raise Unmappable(f"'{param}.role' must be one of {', '.join(_ROLES)}", f"{param}.role")
        told: JsonObject = {"role": role} | self._content(message.get("content"), f"{param}.content")
        if role == "assistant":
            self._assistant(message, told, param)
        elif role == "tool":
            id = fields.text(message.get("tool_call_id"), f"{param}.tool_call_id")
            told["tool_call_id"] = id
            name = fields.optional_text(message.get("name"), f"{param}.name") or self._names.get(id)
            if name:
                told["tool_name"] = name
        return told

    def _assistant(self, message: JsonObject, told: JsonObject, param: str) -> None:
        if not told["content"]:
            told["content"] = fields.optional_text(message.get("refusal"), f"{param}.refusal")
        thinking = self._thinking(message, param)
        if thinking:
            told["thinking"] = thinking
        for name in ("audio", "function_call"):
            if message.get(name) is not None:
                self._dropped.leave_out(f"{param}.{name}", "has no equivalent in Ollama")
        calls = fields.array(message.get("tool_calls"), f"{param}.tool_calls")
        told_calls = [self._call(call, f"{param}.tool_calls[{at}]") for at, call in enumerate(calls)]
        if any(told_calls):
            told["tool_calls"] = [call for call in told_calls if call]

    def _thinking(self, message: JsonObject, param: str) -> str:
        """The text of reasoning; Anthropic's blocks have it where the plain text is not told. Signatures are theirs."""
        plain = fields.optional_text(message.get("reasoning_content"), f"{param}.reasoning_content")
        if plain:
            return plain
        blocks = fields.array(message.get("thinking_blocks"), f"{param}.thinking_blocks")
        texts = [block.get("thinking") for block in blocks if isinstance(block, dict)]
        return "".join(text for text in texts if isinstance(text, str))

    def _call(self, value: Any, param: str) -> JsonObject | None:
        call = fields.json_object(value, param)
        if call.get("type", "function") != "function":
            self._dropped.leave_out(f"{param}.type", "must be 'function'")
            return None
        function = fields.json_object(call.get("function"), f"{param}.function")
        name = fields.text(function.get("name"), f"{param}.function.name")
        id = fields.optional_text(call.get("id"), f"{param}.id")
        self._names[id] = name
        arguments = _arguments(function.get("arguments"), f"{param}.function.arguments")
        told = {"function": {"name": name, "arguments": arguments}}
        return {"id": id} | told if id else told

    def _content(self, value: Any, param: str) -> JsonObject:
        """`content`, and `images` where there are some."""
        if value is None or isinstance(value, str):
            return {"content": value or ""}
        texts: list[str] = []
        pictures: list[str] = []
        for at, entry in enumerate(fields.array(value, param)):
            self._part(entry, f"{param}[{at}]", texts, pictures)
        told: JsonObject = {"content": "\n".join(texts)}
        return told | {"images": pictures} if pictures else told

    def _part(self, value: Any, param: str, texts: list[str], pictures: list[str]) -> None:
        part = fields.json_object(value, param)
        type = fields.text(part.get("type"), f"{param}.type")
        if type in ("text", "refusal"):
            texts.append(fields.text(part.get(type), f"{param}.{type}"))
        elif type == "image_url":
            image = part.get("image_url")
            if isinstance(image, dict):
                image, param = image.get("url"), f"{param}.image_url.url"
            else:
                param = f"{param}.image_url"
            pictures.append(images.from_url(fields.text(image, param), param))
        elif type == "input_audio":
            # As the server's own /v1 does: a model that hears finds out what the bytes are.
            audio = fields.json_object(part.get("input_audio"), f"{param}.input_audio")
            pictures.append(fields.text(audio.get("data"), f"{param}.input_audio.data"))
        else:
            self._dropped.leave_out(f"{param}.type", "is a kind of content that Ollama does not know")


def _arguments(value: Any, param: str) -> JsonObject:
    """The object that a call's arguments are; nothing stands for an empty one."""
    data = fields.optional_text(value, param)
    try:
        arguments = _decode(data) if data.strip() else {}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise Unmappable(f"'{param}' must be the text of a JSON object", param)
    return arguments


def tools(value: Any, dropped: Dropped) -> list[JsonObject]:
    """Ollama's tools for the hub's. `strict` is not promised by it."""
    told = []
    for at, entry in enumerate(fields.array(value, "tools")):
        param = f"tools[{at}]"
        tool = fields.json_object(entry, param)
        if tool.get("type") != "function":
            dropped.leave_out(f"{param}.type", "must be 'function'")
            continue
        function = fields.json_object(tool.get("function"), f"{param}.function")
        entry = {"name": fields.text(function.get("name"), f"{param}.function.name")}
        description = fields.optional_text(function.get("description"), f"{param}.function.description")
        if description:
            entry["description"] = description
        parameters = fields.optional_object(function.get("parameters"), f"{param}.function.parameters")
        entry["parameters"] = parameters or {"type": "object", "properties": {}}
        told.append({"type": "function", "function": entry})
    return told
