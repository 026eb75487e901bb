"""A hub chat request as a request of the Messages API, all but its model.

Owns every top-level field: what it becomes, what is left out silently, what is refused. It refuses messages
(`backend_messages`) and the rule of efforts (`backend_reasoning`).
Sources: https://platform.claude.com/docs/en/api/messages, .../docs/en/api/versioning (2026-10-21 takes no sampling
parameters), .../docs/en/build-with-claude/structured-outputs, .../docs/en/api/openai-sdk (what Anthropic's own layer
for OpenAI's clients does: instructions are joined, the temperature is capped).
"""

from __future__ import annotations

from typing import Any, Final

from protocols.anthropic.backend_fields import count_of, flag_of, list_of, number_of, object_of, text_of
from protocols.anthropic.backend_messages import turns_of
from protocols.dialect import Dropped, JsonObject, Terms, Unmappable

#: The first version that refuses temperature, top_p and top_k, whatever their value.
_WITHOUT_SAMPLING: Final = "2026-10-21"

#: Fields that the functions below read, and `model` and `stream`, which the call decides.
_READ: Final = frozenset(
    {
        *("model", "stream", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k"),
        *("stop", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort"),
        *("user", "safety_identifier", "metadata"),
    }
)
#: Labels and hints: the answer means the same without them.
_HINTS: Final = frozenset(
    {
        *("stream_options", "store", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
    }
)
#: Fields without an equivalent that say nothing where they have one of these values.
_DEFAULTS: Final[dict[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "verbosity": ("medium",),
    "modalities": (["text"], []),
    "functions": ([],),
    "function_call": ("auto", "none"),
}
_WHY: Final = "has no equivalent in Anthropic's API"


def messages_fields(hub: JsonObject, stream: bool, terms: Terms, dropped: Dropped) -> JsonObject:
    """The Messages request that *hub* becomes. Raises `Unmappable`."""
    for name, value in hub.items():
        if name in _READ or name in _HINTS or value is None:
            continue
        if not any(_same(value, default) for default in _DEFAULTS.get(name, ())):
            dropped.leave_out(name, _WHY)
    turns = turns_of(hub.get("messages"), dropped)
    fields: JsonObject = {"max_tokens": _max_tokens(hub, terms), "messages": turns.turns}
    if turns.system:
        fields["system"] = "\n".join(turns.system)
    if stream:
        fields["stream"] = True
    _add_sampling(fields, hub, terms, dropped)
    _add_stops(fields, hub.get("stop"), dropped)
    _add_tools(fields, hub, dropped)
    _add_format(fields, hub.get("response_format"), dropped)
    user = _user(hub)
    if user:
        fields["metadata"] = {"user_id": user}
    return fields


def _same(value: Any, default: Any) -> bool:
    """Whether *value* is *default*, where true is no 1 and false no 0."""
    return bool(value == default) and isinstance(value, bool) == isinstance(default, bool)


def _max_tokens(hub: JsonObject, terms: Terms) -> int:
    asked = count_of(hub.get("max_completion_tokens"), "max_completion_tokens")
    older = count_of(hub.get("max_tokens"), "max_tokens")
    return asked or older or terms.max_tokens


def _add_sampling(fields: JsonObject, hub: JsonObject, terms: Terms, dropped: Dropped) -> None:
    """Temperature, top_p and top_k. Defaults are never sent: newer models refuse the fields, or two of them at once."""
    sampling: JsonObject = {}
    temperature = number_of(hub.get("temperature"), "temperature")
    if temperature is not None and temperature != 1:
        sampling["temperature"] = temperature
    top_p = number_of(hub.get("top_p"), "top_p")
    if top_p is not None and top_p != 1:
        sampling["top_p"] = top_p
    top_k = number_of(hub.get("top_k"), "top_k")
    if top_k is not None and top_k > 0:  # 0 and -1 are vLLM's words for all tokens
        sampling["top_k"] = top_k
    if terms.api_version >= _WITHOUT_SAMPLING:
        for name in sampling:
            dropped.leave_out(name, f"is not taken by Anthropic's API since its version {_WITHOUT_SAMPLING}")
        return
    if sampling.get("temperature", 0) > 1:
        del sampling["temperature"]  # capped, and 1 is the default
    fields |= sampling


def _add_stops(fields: JsonObject, value: Any, dropped: Dropped) -> None:
    alone = isinstance(value, str)
    stops = []
    for at, entry in enumerate([value] if alone else list_of(value, "stop")):
        param = "stop" if alone else f"stop[{at}]"
        stop = text_of(entry, param)
        if stop.isspace():
            dropped.leave_out(param, "is white space alone, at which Anthropic's API does not stop")
        elif stop:
            stops.append(stop)
    if stops:
        fields["stop_sequences"] = stops


def _add_tools(fields: JsonObject, hub: JsonObject, dropped: Dropped) -> None:
    tools = []
    for at, entry in enumerate(list_of(hub.get("tools"), "tools")):
        tool = object_of(entry, f"tools[{at}]")
        kind = text_of(tool.get("type"), f"tools[{at}].type")
        if kind == "function":
            tools.append(_tool(object_of(tool.get("function"), f"tools[{at}].function"), f"tools[{at}].function"))
        else:
            dropped.leave_out(f"tools[{at}].type", "is a kind of tool that Anthropic's API does not know")
    choice = _tool_choice(hub.get("tool_choice"), dropped)
    parallel = flag_of(hub.get("parallel_tool_calls"), "parallel_tool_calls", default=True)
    if not tools:
        if choice is not None and choice["type"] in ("any", "tool"):
            raise Unmappable("'tool_choice' asks for a tool, and 'tools' has none", "tool_choice")
        return
    fields["tools"] = tools
    if not parallel:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    if choice is not None:
        fields["tool_choice"] = choice


def _tool(function: JsonObject, param: str) -> JsonObject:
    """One tool; the API wants a schema, and an object at its top. `strict` is said only where it is true."""
    tool: JsonObject = {"name": text_of(function.get("name"), f"{param}.name")}
    if function.get("description") is not None:
        tool["description"] = text_of(function["description"], f"{param}.description")
    parameters = function.get("parameters")
    if parameters is None:
        tool["input_schema"] = {"type": "object", "properties": {}}
    else:
        tool["input_schema"] = {"type": "object", **object_of(parameters, f"{param}.parameters")}
    if flag_of(function.get("strict"), f"{param}.strict", default=False):
        tool["strict"] = True
    return tool


def _tool_choice(value: Any, dropped: Dropped) -> JsonObject | None:
    if value is None:
        return None
    if value in ("auto", "none"):
        return {"type": value}
    if value == "required":
        return {"type": "any"}
    if isinstance(value, dict) and value.get("type") == "function":
        function = object_of(value.get("function"), "tool_choice.function")
        return {"type": "tool", "name": text_of(function.get("name"), "tool_choice.function.name")}
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        dropped.leave_out("tool_choice", _WHY)
        return None
    raise Unmappable("'tool_choice' must be auto, none, required, or name a function", "tool_choice")


def _add_format(fields: JsonObject, value: Any, dropped: Dropped) -> None:
    """A schema for the answer; its name and description are labels. It is always kept to, as `strict` asks for."""
    if value is None:
        return
    kind = text_of(object_of(value, "response_format").get("type"), "response_format.type")
    if kind == "json_schema":
        param = "response_format.json_schema"
        schema = object_of(object_of(value.get("json_schema"), param).get("schema"), f"{param}.schema")
        fields["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    elif kind != "text":
        dropped.leave_out("response_format.type", f"{_WHY}, except json_schema")


def _user(hub: JsonObject) -> str | None:
    """Who the call is for, by any of OpenAI's names for it; the rest of `metadata` are labels."""
    for name in ("user", "safety_identifier"):
        if hub.get(name) is not None:
            return text_of(hub[name], name)
    metadata = hub.get("metadata")
    if metadata is None:
        return None
    user = object_of(metadata, "metadata").get("user_id")
    return None if user is None else text_of(user, "metadata.user_id")
