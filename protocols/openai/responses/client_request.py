"""Requests of POST /v1/responses, as chats.

Owns its fields but for `input` and the tools: which of them a chat has under another name, which mean nothing to the
answer, and which would need what this gateway has not, above all responses that are kept. It refuses to answer.
Called by `client`.
Source: openai-python 3.54, `ResponseCreateParams`; OpenAI's OpenAPI document 2.3.0.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
import orjson

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.openai.responses.client_input import read_input
from protocols.openai.responses.client_tools import Mode, Tools, read_tools
from protocols.openai.responses.values import NO_EQUIVALENT, read

Count = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Alternatives = Annotated[int, msgspec.Meta(ge=0, le=20)]


class _Options(msgspec.Struct):
    include_obfuscation: bool | None = None


class _Text(msgspec.Struct):
    format: JsonObject | None = None
    verbosity: str | None = None


class _Format(msgspec.Struct):
    type: Literal["text", "json_object"]


class _Schema(msgspec.Struct):
    type: str
    name: str
    schema: JsonObject
    strict: bool | None = None
    description: str | None = None


class _Thinking(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class _Cache(msgspec.Struct, omit_defaults=True):
    mode: str | None = None
    ttl: str | None = None


class _Asked(msgspec.Struct, kw_only=True):
    input: str | Annotated[list[JsonObject], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    instructions: str | None = None
    # passed on
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_logprobs: Alternatives | None = None
    tools: list[JsonObject] | None = None
    tool_choice: Mode | JsonObject | None = None
    parallel_tool_calls: bool | None = None
    text: JsonObject | None = None
    reasoning: JsonObject | None = None
    include: list[str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JsonObject | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    # said again
    metadata: dict[str, str] | None = None
    max_tool_calls: Count | None = None
    # left out: padding
    stream_options: JsonObject | None = None
    # refused, but for what means nothing
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | JsonObject | None = None
    prompt: JsonObject | None = None
    context_management: list[Any] | None = None


class Asked(NamedTuple):
    """A request as it was understood.

    *hub*: the chat. *echo*: what each response says again of it, JSON members without the braces around them.
    """

    hub: JsonObject
    echo: bytes
    model: str
    wants_logprobs: bool


def read_request(fields: JsonObject, stream: bool, dropped: Dropped) -> Asked:
    """*fields* as a chat. Raises `Unmappable`."""
    asked = read(fields, _Asked, "", dropped)
    _refuse_state(asked)
    _leave_out(asked, dropped)
    text = read(asked.text or {}, _Text, "text", dropped)
    thinking = read(asked.reasoning or {}, _Thinking, "reasoning", dropped)
    format = _read_format(text.format, dropped)
    tools = read_tools(asked.tools, asked.tool_choice, asked.parallel_tool_calls, dropped)
    hub: JsonObject = {"messages": read_input(asked.input, dropped)}
    if asked.instructions is not None:
        # Every model's template knows 'system'; few know 'developer'.
        hub["messages"].insert(0, {"role": "system", "content": asked.instructions})
    hub |= {name: getattr(asked, name) for name in _ALIKE if getattr(asked, name) is not None}
    hub |= tools.hub
    if stream:
        hub["stream"] = True
        hub["stream_options"] = {"include_usage": True}  # the last event tells it
    if asked.max_output_tokens is not None:
        hub["max_completion_tokens"] = asked.max_output_tokens
    if asked.prompt_cache_options is not None:
        cache = read(asked.prompt_cache_options, _Cache, "prompt_cache_options", dropped)
        hub["prompt_cache_options"] = msgspec.to_builtins(cache)
    _say_text(text, format, hub)
    _say_thinking(thinking, hub, dropped)
    wants_logprobs = bool(asked.top_logprobs) or "message.output_text.logprobs" in (asked.include or ())
    if wants_logprobs:
        hub["logprobs"] = True
        hub["top_logprobs"] = asked.top_logprobs or 0
    echo = _echo(asked, thinking, {"format": format, **_verbosity(text)}, tools)
    return Asked(hub, _write(echo), asked.model or "", wants_logprobs)


def _refuse_state(asked: _Asked) -> None:
    """Refuse what needs responses that are kept, on lenient routes too: left out, the answer would be to another
    question, or the client would come back for what is not there."""
    if asked.store:
        raise Unmappable(
            "'store' is true, and this gateway keeps no responses for this model: say false, "
            "and send all earlier items in 'input' each time",
            "store",
        )
    if asked.previous_response_id is not None:
        raise Unmappable(
            "'previous_response_id' names a response that this gateway has not kept: "
            "send all earlier items in 'input' instead",
            "previous_response_id",
        )
    if asked.conversation is not None:
        raise Unmappable(
            "'conversation' names one that this gateway has not kept: send all earlier items in 'input' instead",
            "conversation",
        )
    if asked.background:
        raise Unmappable(
            "'background' is true, and this gateway keeps no responses to come back for: "
            "say false, and wait for the answer or take it as a stream",
            "background",
        )
    if asked.prompt is not None:
        raise Unmappable(
            "'prompt' names a template that this gateway has not: send its text as 'instructions' and 'input'", "prompt"
        )


def _leave_out(asked: _Asked, dropped: Dropped) -> None:
    if asked.truncation == "auto":
        dropped.leave_out("truncation", "is 'auto', and a backend that only chats shortens no input")
    if asked.context_management:
        dropped.leave_out("context_management", NO_EQUIVALENT)
    if asked.stream_options is not None:
        read(asked.stream_options, _Options, "stream_options", dropped)


#: Fields that a chat has under the same name.
_ALIKE: Final = (
    *("model", "temperature", "top_p", "service_tier"),
    *("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
)


def _read_format(format: JsonObject | None, dropped: Dropped) -> JsonObject:
    """`text.format` as the response says it again."""
    if format is None:
        return {"type": "text"}
    if format.get("type") != "json_schema":
        return {"type": read(format, _Format, "text.format", dropped).type}
    schema = read(format, _Schema, "text.format", dropped)
    found: JsonObject = {"type": "json_schema", "name": schema.name, "schema": schema.schema}
    if schema.strict is not None:
        found["strict"] = schema.strict
    if schema.description is not None:
        found["description"] = schema.description
    return found


def _verbosity(text: _Text) -> JsonObject:
    return {} if text.verbosity is None else {"verbosity": text.verbosity}


def _say_text(text: _Text, format: JsonObject, hub: JsonObject) -> None:
    hub |= _verbosity(text)
    if format["type"] == "json_object":
        hub["response_format"] = format
    elif format["type"] == "json_schema":
        schema = {name: value for name, value in format.items() if name != "type"}
        hub["response_format"] = {"type": "json_schema", "json_schema": schema}


def _say_thinking(thinking: _Thinking, hub: JsonObject, dropped: Dropped) -> None:
    """A summary that is asked for is a wish about how thoughts are shown: what a backend tells of them is shown."""
    if thinking.effort is not None:
        hub["reasoning_effort"] = thinking.effort
    if thinking.context not in (None, "auto"):
        dropped.leave_out("reasoning.context", NO_EQUIVALENT)
    if thinking.mode not in (None, "standard"):
        dropped.leave_out("reasoning.mode", NO_EQUIVALENT)


def _echo(asked: _Asked, thinking: _Thinking, text: JsonObject, tools: Tools) -> JsonObject:
    """What a response says again of its request. A sampling that was not asked for is null: the backend alone knows
    what it does then."""
    return {
        "background": False,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {"effort": thinking.effort, "summary": thinking.summary or thinking.generate_summary},
        "safety_identifier": asked.safety_identifier,
        "store": False,
        "temperature": asked.temperature,
        "text": text,
        "tool_choice": tools.choice,
        "tools": tools.tools,
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": "disabled",
        "user": asked.user,
    }


def _write(echo: JsonObject) -> bytes:
    try:
        return orjson.dumps(echo)[1:-1]
    except TypeError:  # its way to say that the nesting is too deep, or a number too large
        raise Unmappable("the request is nested too deeply, or has a number in it that is too large") from None
