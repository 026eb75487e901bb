"""The tools of a request, and which of them the model must or may use -> the hub's.

Source: `types/tool_param.py` and `types/tool_choice_*_param.py` of the vendor's Python SDK 2.12.
"""

from __future__ import annotations

from typing import Final

from protocols.anthropic.client_fields import NO_EQUIVALENT, join, leave_out_others, objects, optional, required, wrong
from protocols.dialect import Dropped, JsonObject

#: `eager_input_streaming` says how soon the arguments come, not which.
_TOOL_FIELDS: Final = frozenset(
    {
        *("type", "name", "description", "input_schema", "strict"),
        *("cache_control", "eager_input_streaming", "defer_loading", "allowed_callers", "input_examples"),
    }
)
_CHOICE_FIELDS: Final = frozenset({"type", "name", "disable_parallel_tool_use"})
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}


def read_tools(fields: JsonObject, dropped: Dropped) -> JsonObject:
    """`tools`, `tool_choice` and `parallel_tool_calls`, as far as the request says them. Raises `Unmappable`."""
    tools = []
    listed = optional(fields, "tools", list) or []
    for at, tool in objects(listed, "tools"):
        if (optional(tool, "type", str, at) or "custom") == "custom":
            tools.append(_read_tool(tool, at, dropped))
        else:  # the vendor's servers run it, or its models know it by heart
            dropped.leave_out(join(at, "type"), f"{tool['type']!r} {NO_EQUIVALENT}"[:200])
    choice = _read_choice(fields, dropped)
    if not tools:
        if not listed and choice.get("tool_choice", "none") not in ("auto", "none"):
            raise wrong("tool_choice", "needs tools to choose from")
        return {}
    return {"tools": tools, **choice}


def _read_tool(tool: JsonObject, at: str, dropped: Dropped) -> JsonObject:
    leave_out_others(tool, _TOOL_FIELDS, dropped, at)
    if optional(tool, "defer_loading", bool, at):
        dropped.leave_out(join(at, "defer_loading"), NO_EQUIVALENT)
    if optional(tool, "input_examples", list, at):
        dropped.leave_out(join(at, "input_examples"), NO_EQUIVALENT)
    if (optional(tool, "allowed_callers", list, at) or ["direct"]) != ["direct"]:
        dropped.leave_out(join(at, "allowed_callers"), NO_EQUIVALENT)
    function: JsonObject = {"name": required(tool, "name", str, at)}
    description = optional(tool, "description", str, at)
    if description:
        function["description"] = description
    function["parameters"] = required(tool, "input_schema", dict, at)
    strict = optional(tool, "strict", bool, at)
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}


def _read_choice(fields: JsonObject, dropped: Dropped) -> JsonObject:
    choice = optional(fields, "tool_choice", dict)
    if choice is None:
        return {}
    leave_out_others(choice, _CHOICE_FIELDS, dropped, "tool_choice")
    kind = required(choice, "type", str, "tool_choice")
    read: JsonObject = {}
    if kind == "tool":
        name = required(choice, "name", str, "tool_choice")
        read["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind in _CHOICES:
        read["tool_choice"] = _CHOICES[kind]
    else:
        raise wrong("tool_choice.type", "must be 'auto', 'any', 'tool' or 'none'")
    if optional(choice, "disable_parallel_tool_use", bool, "tool_choice"):
        read["parallel_tool_calls"] = False
    return read
