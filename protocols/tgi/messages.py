"""A chat's messages and tools as TGI's /v1/chat/completions reads them.

Owns what of OpenAI's shapes its deserializer refuses or misreads. It refuses the other fields of a request (`chat`).
Source: Message, MessageBody, MessageChunk, Tool, FunctionDefinition, ToolChoice, GrammarType (router/src/lib.rs).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.tgi.fields import encode

_NO_PARAMETERS: Final = {"type": "object", "properties": {}}
_CHOICES: Final = ("none", "auto", "required")
_decode: Final = msgspec.json.Decoder().decode


def read_messages(hub: JsonObject, dropped: Dropped) -> list[JsonObject]:
    """The messages; whatever TGI would not look at in them stays as it is. Raises `Unmappable`."""
    messages = hub.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Unmappable("'messages' must be a list that is not empty", "messages")
    return [_message(message, f"messages[{at}]", dropped) for at, message in enumerate(messages)]


def _message(message: Any, param: str, dropped: Dropped) -> JsonObject:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Unmappable(f"'{param}' must be an object with a role", param)
    role = message["role"]
    told = {"role": "system" if role == "developer" else role}
    name = message.get("name")
    if isinstance(name, str):
        told["name"] = name
    calls = message.get("tool_calls")
    content = _content(message.get("content"), f"{param}.content", dropped)
    if calls:
        calls = _calls(calls, f"{param}.tool_calls")
        if not content:
            return told | {"tool_calls": calls}
        # TGI reads the one or the other, and makes a text of calls (TextMessage::from): so this makes it of both.
        calls_text = encode(calls).decode()
        content = [*content, _text(calls_text)] if isinstance(content, list) else f"{content}\n{calls_text}"
    return told | {"content": content}


def _content(content: Any, param: str, dropped: Dropped) -> str | list[JsonObject]:
    if content is None:
        return ""  # null is no content to it
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Unmappable(f"'{param}' must be a string or a list of parts", param)
    parts = []
    for at, part in enumerate(content):
        one = _part(part, f"{param}[{at}]", dropped)
        if one is not None:
            parts.append(one)
    return parts


def _part(part: Any, param: str, dropped: Dropped) -> JsonObject | None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "refusal"):
        text = part.get(kind)
        if not isinstance(text, str):
            raise Unmappable(f"'{param}.{kind}' must be a string", f"{param}.{kind}")
        return _text(text)
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(url, str):
            raise Unmappable(f"'{param}.image_url.url' must be a string", f"{param}.image_url.url")
        return {"type": "image_url", "image_url": {"url": url}}
    if not isinstance(kind, str):
        raise Unmappable(f"'{param}.type' must be a string", f"{param}.type")
    dropped.leave_out(f"{param}.type", "is neither text nor image_url, all that Text Generation Inference takes")
    return None


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _calls(calls: Any, param: str) -> list[JsonObject]:
    """Tool calls, their arguments as an object where they are one: TGI makes a text of them, and quotes a text."""
    if not isinstance(calls, list):
        raise Unmappable(f"'{param}' must be a list", param)
    told = []
    for at, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unmappable(f"'{param}[{at}].function.name' must be a string", f"{param}[{at}].function.name")
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            said = f"{param}[{at}].function.arguments"
            raise Unmappable(f"'{said}' must be a string", said)
        told.append(
            {
                "id": str(call.get("id") or at),
                "type": "function",
                "function": {"name": function["name"], "arguments": _object(arguments)},
            }
        )
    return told


def _object(arguments: str) -> Any:
    try:
        value = _decode(arguments or "{}")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def read_tools(hub: JsonObject) -> list[JsonObject] | None:
    """The tools, each with parameters, which TGI wants; None where there are none."""
    tools = hub.get("tools")
    if tools is None or tools == []:
        return None
    if not isinstance(tools, list):
        raise Unmappable("'tools' must be a list", "tools")
    told = []
    for at, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unmappable(f"'tools[{at}].function.name' must be a string", f"tools[{at}].function.name")
        one = {"name": function["name"], "parameters": function.get("parameters") or _NO_PARAMETERS}
        description = function.get("description")
        if isinstance(description, str):
            one["description"] = description
        told.append({"type": "function", "function": one})
    return told


def read_choice(hub: JsonObject, dropped: Dropped) -> Any:
    """`tool_choice`; None where there is none."""
    choice = hub.get("tool_choice")
    if choice is None or choice in _CHOICES:
        return choice
    if not isinstance(choice, dict):
        raise Unmappable("'tool_choice' must be none, auto, required or a function", "tool_choice")
    function = choice.get("function")
    if choice.get("type") != "function":
        dropped.leave_out("tool_choice.type", "has no equivalent in Text Generation Inference")
        return None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unmappable("'tool_choice.function.name' must be a string", "tool_choice.function.name")
    return {"type": "function", "function": {"name": function["name"]}}


def read_format(hub: JsonObject, dropped: Dropped) -> JsonObject | None:
    """`response_format` as a grammar, whose schema stands in `value`; None for plain text."""
    form = hub.get("response_format")
    if form is None:
        return None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return None
    if kind == "json_schema":
        schema = form.get("json_schema")
        if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
            param = "response_format.json_schema.schema"
            raise Unmappable(f"'{param}' must be an object", param)
        name = schema.get("name")
        named = {"name": name} if isinstance(name, str) else {}
        return {"type": "json_schema", "value": {**named, "schema": schema["schema"]}}
    if kind != "json_object":
        raise Unmappable("'response_format.type' must be text, json_object or json_schema", "response_format.type")
    dropped.leave_out("response_format.type", "needs a schema in Text Generation Inference (json_schema)")
    return None
