"""A request of the Messages API -> the hub's chat request.

Owns the top level: what of it is said in the hub, what is a label or a hint and left out in silence, what is refused.
It refuses to read turns and tools itself (`client_turns`, `client_tools`).

Source: `types/message_create_params.py` of the vendor's Python SDK 2.12 (API version 2026-10-21; `temperature`,
`top_p` and `top_k` are of 2023-06-01).
"""

from __future__ import annotations

from typing import Final

from protocols.anthropic.client_fields import (
    NO_EQUIVALENT,
    leave_out_others,
    number,
    optional,
    required,
    strings,
    wrong,
)
from protocols.anthropic.client_tools import read_tools
from protocols.anthropic.client_turns import read_system, read_turns
from protocols.dialect import Dropped, JsonObject

#: The last line has no effect on what the answer says: where and how fast it is made, what is kept of it.
_FIELDS: Final = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "stop_sequences", "stream", "tools", "tool_choice"),
        *("thinking", "output_config", "metadata", "temperature", "top_p", "top_k"),
        *("cache_control", "service_tier", "speed", "diagnostics"),
    }
)

#: Thinking's types; OpenAI's models decide by themselves when and how much, as with the last two.
_THINKING: Final = frozenset({"enabled", "disabled", "adaptive", "between_tools"})
_DISPLAYS: Final = frozenset({"summarized", "omitted"})
_THINKING_FIELDS: Final = frozenset({"type", "budget_tokens", "display"})

#: Efforts -> OpenAI's, which knows the same words.
_EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})
#: Budgets of thinking below which an effort is meant; the smallest budget is 1024 tokens.
_BUDGETS: Final = ((4096, "low"), (16_384, "medium"))

_CONFIG_FIELDS: Final = frozenset({"effort", "format"})
_FORMAT_FIELDS: Final = frozenset({"type", "schema"})


def read_request(fields: JsonObject, stream: bool, dropped: Dropped, *, is_count: bool = False) -> JsonObject:
    """The request in the hub's words; one to count tokens (*is_count*) asks for no number of them."""
    leave_out_others(fields, _FIELDS, dropped)
    hub: JsonObject = {"model": required(fields, "model", str)}
    hub["messages"] = read_system(fields, dropped) + read_turns(fields, dropped)
    limit = optional(fields, "max_tokens", int) if is_count else required(fields, "max_tokens", int)
    if limit is not None:
        hub["max_completion_tokens"] = _positive(limit)
    if stream:
        hub["stream"] = True
        hub["stream_options"] = {"include_usage": True}
    stops = strings(optional(fields, "stop_sequences", list) or [], "stop_sequences")
    if stops:
        hub["stop"] = stops
    for key in ("temperature", "top_p"):
        value = number(fields, key)
        if value is not None:
            hub[key] = value
    top_k = optional(fields, "top_k", int)
    if top_k is not None:
        hub["top_k"] = top_k
    hub |= read_tools(fields, dropped)
    hub |= _read_output(fields, dropped)
    user = optional(optional(fields, "metadata", dict) or {}, "user_id", str, "metadata")
    if user:
        hub["user"] = user
    return hub


def _positive(limit: int) -> int:
    if limit > 0:
        return limit
    if limit:
        raise wrong("max_tokens", "must not be negative")
    raise wrong("max_tokens", "of 0 (to warm a cache) " + NO_EQUIVALENT)


def _read_output(fields: JsonObject, dropped: Dropped) -> JsonObject:
    """`reasoning_effort` and `response_format`. An effort that is named says more than a budget of thinking."""
    read: JsonObject = {}
    effort = _read_thinking(fields, dropped)
    config = optional(fields, "output_config", dict) or {}
    leave_out_others(config, _CONFIG_FIELDS, dropped, "output_config")
    named = optional(config, "effort", str, "output_config")
    if named is not None:
        if named not in _EFFORTS:
            raise wrong("output_config.effort", "must be 'low', 'medium', 'high', 'xhigh' or 'max'")
        effort = effort if effort == "none" else named
    if effort is not None:
        read["reasoning_effort"] = effort
    shape = optional(config, "format", dict, "output_config")
    if shape is not None:
        at = "output_config.format"
        leave_out_others(shape, _FORMAT_FIELDS, dropped, at)
        if required(shape, "type", str, at) != "json_schema":
            raise wrong(at + ".type", "must be 'json_schema'")
        schema = {"name": "answer", "schema": required(shape, "schema", dict, at), "strict": True}
        read["response_format"] = {"type": "json_schema", "json_schema": schema}
    return read


def _read_thinking(fields: JsonObject, dropped: Dropped) -> str | None:
    thinking = optional(fields, "thinking", dict)
    if thinking is None:
        return None
    leave_out_others(thinking, _THINKING_FIELDS, dropped, "thinking")
    kind = required(thinking, "type", str, "thinking")
    if kind not in _THINKING:
        raise wrong("thinking.type", "must be 'enabled', 'disabled', 'adaptive' or 'between_tools'")
    if (optional(thinking, "display", str, "thinking") or "summarized") not in _DISPLAYS:
        raise wrong("thinking.display", "must be 'summarized' or 'omitted'")
    if kind == "disabled":
        return "none"
    if kind != "enabled":
        return None
    budget = required(thinking, "budget_tokens", int, "thinking")
    if budget < 1024:
        raise wrong("thinking.budget_tokens", "must be 1024 or more")
    return next((effort for below, effort in _BUDGETS if budget < below), "high")


def shows_thinking(fields: JsonObject) -> bool:
    """Whether the client wants to see what the model thinks, of a request that was read."""
    thinking = fields.get("thinking") or {}
    return thinking.get("type") != "disabled" and thinking.get("display") != "omitted"
