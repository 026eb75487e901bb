"""The tools of a responses request, and which of them a model may or must use.

Owns functions. It refuses the tools that run on OpenAI's servers, each by its place. Called by `client_request`.
Source: openai-python 3.54, `FunctionToolParam`, `ToolChoiceAllowedParam`, `ToolChoiceFunctionParam`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.openai.responses.values import read

Mode = Literal["none", "auto", "required"]


class Tools(NamedTuple):
    """*hub*: the fields of a chat request. *tools* and *choice*: as the response says again what was asked."""

    hub: JsonObject
    tools: list[JsonObject]
    choice: str | JsonObject


class _Function(msgspec.Struct):
    type: str
    name: str
    parameters: JsonObject | None = None
    strict: bool | None = None
    description: str | None = None
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    is_async: bool | None = msgspec.field(default=None, name="async")


class _Named(msgspec.Struct):
    type: str
    name: str


class _Allowed(msgspec.Struct):
    type: str
    mode: Literal["auto", "required"]
    tools: list[JsonObject]


def read_tools(
    given: list[JsonObject] | None, choice: Mode | JsonObject | None, parallel: bool | None, dropped: Dropped
) -> Tools:
    """The functions among `tools`, `tool_choice` and `parallel_tool_calls`. Raises `Unmappable`."""
    functions = []
    for place, tool in enumerate(given or ()):
        path = f"tools[{place}]"
        kind = tool.get("type")
        if kind == "function":
            functions.append(_function(tool, path, dropped))
        elif isinstance(kind, str):
            dropped.leave_out(f"{path}.type", f"is {kind[:64]!r}: a backend that only chats has no tools but functions")
        else:
            raise Unmappable(f"'{path}.type' must be the name of a tool's type", f"{path}.type")
    chosen = _choose(choice, functions, dropped)
    hub: JsonObject = {}
    if chosen.tools:
        hub["tools"] = [_as_chat(function) for function in chosen.tools]
        if chosen.choice != "auto" or choice == "auto":
            hub["tool_choice"] = chosen.choice
        if parallel is not None:
            hub["parallel_tool_calls"] = parallel
    elif chosen.choice not in ("auto", "none"):
        raise Unmappable("'tool_choice' asks for a tool, and there is none in 'tools'", "tool_choice")
    return Tools(hub, functions, chosen.echo)


def _function(tool: JsonObject, path: str, dropped: Dropped) -> JsonObject:
    """The tool as the response says it again: with every field that its type requires."""
    function = read(tool, _Function, path, dropped)
    if function.defer_loading:
        dropped.leave_out(f"{path}.defer_loading", "needs a search for tools, which a backend that only chats has not")
    if function.is_async:
        dropped.leave_out(f"{path}.async", "is not known to a backend that only chats")
    if function.allowed_callers is not None and "direct" not in function.allowed_callers:
        dropped.leave_out(f"{path}.allowed_callers", "must have 'direct' in it: the model alone calls functions here")
    said: JsonObject = {"type": "function", "name": function.name, "parameters": function.parameters}
    said["strict"] = function.strict
    if function.description is not None:
        said["description"] = function.description
    return said


def _as_chat(tool: JsonObject) -> JsonObject:
    function = {name: value for name, value in tool.items() if name != "type" and value is not None}
    return {"type": "function", "function": function}


class _Choice(NamedTuple):
    choice: str | JsonObject
    tools: list[JsonObject]
    echo: str | JsonObject


def _choose(choice: Mode | JsonObject | None, functions: list[JsonObject], dropped: Dropped) -> _Choice:
    """What of *functions* the model is told of, and what it is told to do with them."""
    if choice is None or isinstance(choice, str):
        mode = choice or "auto"
        return _Choice(mode, functions, mode)
    kind = choice.get("type")
    if kind == "function":
        name = read(choice, _Named, "tool_choice", dropped).name
        if not _has(functions, name):
            raise Unmappable(f"'tool_choice.name' is {name[:64]!r}, which is not in 'tools'", "tool_choice.name")
        named = {"type": "function", "name": name}
        return _Choice({"type": "function", "function": {"name": name}}, functions, named)
    if kind == "allowed_tools":
        return _allow(choice, functions, dropped)
    if not isinstance(kind, str):
        raise Unmappable("'tool_choice.type' must be the name of a type", "tool_choice.type")
    dropped.leave_out("tool_choice.type", f"is {kind[:64]!r}: a backend that only chats has no tools but functions")
    return _Choice("auto", functions, "auto")


def _allow(choice: JsonObject, functions: list[JsonObject], dropped: Dropped) -> _Choice:
    """Whoever is told of the allowed tools only needs no word for the choice; few backends know that one."""
    allowed = read(choice, _Allowed, "tool_choice", dropped)
    names = set()
    for place, tool in enumerate(allowed.tools):
        path = f"tool_choice.tools[{place}]"
        named = read(tool, _Named, path, dropped)
        if named.type != "function" or not _has(functions, named.name):
            raise Unmappable(f"'{path}' is no function of 'tools'", path)
        names.add(named.name)
    told = [function for function in functions if function["name"] in names]
    said = {"type": "allowed_tools", "mode": allowed.mode, "tools": allowed.tools}
    return _Choice(allowed.mode, told, said)


def _has(functions: list[JsonObject], name: str) -> bool:
    return any(function["name"] == name for function in functions)
