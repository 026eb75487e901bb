"""Fields within a chat's messages, tools and formats that the hub does not know.

Owns the lists of what is known there, of which each other dialect has a word or which change no answer. It refuses the
top level, whose fields the sides know, and values (`asked`). Called by `client` for each translated chat: another
dialect would lose such a field without a word.
Source: OpenAI's OpenAPI document 2.3.0; cache_control and thinking_blocks as clients of LiteLLM and OpenRouter have
them.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.dialect import Dropped, JsonObject

_WHY: Final = "is not known, and cannot be translated"

_FUNCTION: Final = frozenset({"name", "description", "parameters", "strict"})
_TOOL: Final = frozenset({"type", "function", "cache_control"})
_MESSAGE: Final = frozenset(
    {
        *("role", "content", "name", "refusal", "tool_calls", "tool_call_id", "function_call", "audio", "annotations"),
        *("reasoning", "reasoning_content", "thinking_blocks", "cache_control", "id", "index"),
    }
)
_CALL: Final = frozenset({"id", "type", "function", "index"})
#: A part's type -> what it has, and what the object of its own name has.
_PARTS: Final[dict[str, frozenset[str]]] = {
    "text": frozenset(),
    "refusal": frozenset(),
    "image_url": frozenset({"url", "detail"}),
    "input_audio": frozenset({"data", "format"}),
    "file": frozenset({"file_data", "file_id", "filename"}),
}
_FORMAT: Final = frozenset({"type", "json_schema"})
_SCHEMA: Final = frozenset({"name", "description", "schema", "strict"})


def leave_out_unknown(fields: JsonObject, dropped: Dropped) -> None:
    """Note what of *fields*, a chat that was judged (`asked.check_chat`), is unknown. Raises `Unmappable`."""
    for at, message in enumerate(fields.get("messages") or ()):
        param = f"messages[{at}]"
        _look(message, _MESSAGE, param, dropped)
        content = message.get("content")
        for place, part in enumerate(content if isinstance(content, list) else ()):
            _look_at_part(part, f"{param}.content[{place}]", dropped)
        for place, call in enumerate(message.get("tool_calls") or ()):
            _look(call, _CALL, f"{param}.tool_calls[{place}]", dropped)
    for at, tool in enumerate(fields.get("tools") or ()):
        _look(tool, _TOOL, f"tools[{at}]", dropped)
        if isinstance(tool, dict) and tool.get("type") == "function":
            _look(tool.get("function"), _FUNCTION, f"tools[{at}].function", dropped)
    format = fields.get("response_format")
    _look(format, _FORMAT, "response_format", dropped)
    if isinstance(format, dict):
        _look(format.get("json_schema"), _SCHEMA, "response_format.json_schema", dropped)


def _look_at_part(part: Any, param: str, dropped: Dropped) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    inner = _PARTS.get(kind) if isinstance(kind, str) else None
    if inner is not None and isinstance(kind, str):
        # a kind that is not known at all is the other side's to refuse
        _look(part, frozenset({"type", kind, "cache_control"}), param, dropped)
        _look(part.get(kind), inner, f"{param}.{kind}", dropped)


def _look(value: Any, known: frozenset[str], param: str, dropped: Dropped) -> None:
    if isinstance(value, dict) and not value.keys() <= known:
        for name in value:
            if name not in known and value[name] is not None:
                dropped.leave_out(f"{param}.{name}", _WHY)
