"""A whole answer of the hub -> a message; and the parts of it that streams have too: usage, and why the model stopped.

Owns the reading of the hub's answer: what of it has a wrong type is `Malformed`. It refuses streams
(`client_stream`).
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import orjson

from protocols.dialect import JsonObject
from protocols.pieces import Malformed

#: Why a model stopped, in the hub's words -> Anthropic's.
_STOPS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_decode_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

#: Endings that cut whatever was being said: tool calls may be half ones, and are not to be made.
CUT: Final = frozenset({"length", "content_filter"})


Count = Annotated[int, msgspec.Meta(ge=0)]


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None
    cache_creation_tokens: Count | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class _WireUsage(msgspec.Struct, gc=False):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str | None = None


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[JsonObject] | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    stop_reason: Any = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: _WireUsage | None = None


def write_message(answer: JsonObject, id: str, model: str, shows_thinking: bool) -> bytes:
    """The message that *answer* is; *model* where it names none. Raises `Malformed`."""
    try:
        read = msgspec.convert(answer, _Answer)
    except msgspec.ValidationError as error:
        raise Malformed(f"the answer is no chat completion: {error}") from None
    if not read.choices:
        raise Malformed("the answer has no choices")
    choice = read.choices[0]
    message = choice.message
    content = _thoughts(message) if shows_thinking else []
    content += [{"type": "text", "text": text} for text in (message.content, message.refusal) if text]
    calls = _calls(message, id, choice.finish_reason)
    reason, sequence = stop_of(choice.finish_reason, choice.stop_reason, bool(calls), bool(message.refusal))
    return orjson.dumps(
        {
            "id": f"msg_{id}",
            "type": "message",
            "role": "assistant",
            "model": read.model or model,
            "content": content + calls,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": _write_usage(read.usage) if read.usage is not None else dict(NO_USAGE),
        }
    )


def _thoughts(message: _Message) -> list[JsonObject]:
    """The blocks of thinking as they came, or one without a signature for reasoning that is text."""
    if message.thinking_blocks:
        return [read_thought(block) for block in message.thinking_blocks]
    if message.reasoning_content:
        return [{"type": "thinking", "thinking": message.reasoning_content, "signature": ""}]
    return []


def read_thought(block: object) -> JsonObject:
    """A block of thinking, with no other fields than the dialect's. Raises `Malformed`."""
    if isinstance(block, dict):
        thinking, signature, data = block.get("thinking", ""), block.get("signature") or "", block.get("data")
        if block.get("type") == "redacted_thinking" and isinstance(data, str):
            return {"type": "redacted_thinking", "data": data}
        if block.get("type") == "thinking" and isinstance(thinking, str) and isinstance(signature, str):
            return {"type": "thinking", "thinking": thinking, "signature": signature}
    raise Malformed("a block of thinking has not the shape of one")


def _calls(message: _Message, id: str, finish: str | None) -> list[JsonObject]:
    calls = message.tool_calls or []
    if message.function_call is not None and not calls:
        calls = [_Call(message.function_call)]
    return [
        {
            "type": "tool_use",
            "id": call.id or call_id(id, index),
            "name": call.function.name,
            "input": _read_arguments(call.function.arguments or "", finish),
        }
        for index, call in enumerate(calls)
    ]


def call_id(id: str, index: int) -> str:
    """The id of a tool call that got none."""
    return f"toolu_{id}_{index}"


def _read_arguments(text: str, finish: str | None) -> JsonObject | orjson.Fragment:
    """The object that the arguments are, as it stands; `{}` for none, and for half ones where the answer was cut."""
    if not text.strip() or text == "null":
        return {}
    try:
        _decode_object(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        if finish in CUT:
            return {}
        raise Malformed("the arguments of a tool call are no JSON object") from None
    return orjson.Fragment(text)


def stop_of(finish: str | None, sequence: object, has_calls: bool, is_refusal: bool = False) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence`.

    A tool call that was begun is to be made, whatever the backend says about why it stopped (vLLM says "stop" for a
    tool that was chosen by name, as Ollama does always), but for answers that were cut.
    """
    if has_calls and finish not in CUT:
        return "tool_use", None
    if is_refusal:
        return "refusal", None
    reason = _STOPS.get(finish or "", "end_turn")
    if reason == "tool_use":
        return "end_turn", None  # nothing was called: a client would wait for a call
    if reason == "end_turn" and isinstance(sequence, str) and sequence:
        return "stop_sequence", sequence
    return reason, None


#: What a message says of its tokens where nobody counted them: both numbers are required.
NO_USAGE: Final[JsonObject] = {"input_tokens": 0, "output_tokens": 0}


def read_usage(usage: JsonObject) -> JsonObject:
    """The hub's usage in Anthropic's words. Raises `Malformed`."""
    try:
        return _write_usage(msgspec.convert(usage, _WireUsage))
    except msgspec.ValidationError as error:
        raise Malformed(f"the usage is none: {error}") from None


def _write_usage(wire: _WireUsage) -> JsonObject:
    """`input_tokens` are those that were neither read from a cache nor written to one."""
    details = wire.prompt_tokens_details or _PromptDetails()
    cached, written = details.cached_tokens or 0, details.cache_creation_tokens or 0
    usage: JsonObject = {
        "input_tokens": max(0, (wire.prompt_tokens or 0) - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": wire.completion_tokens or 0,
    }
    thinking = wire.completion_tokens_details.reasoning_tokens if wire.completion_tokens_details is not None else None
    if thinking is not None:
        usage["output_tokens_details"] = {"thinking_tokens": thinking}
    return usage
