"""A whole message of the Messages API as a chat completion of the hub.

Owns that mapping. It refuses streams (`backend_stream`) and errors (`errors`). Kinds of blocks that are not known are
left out: the API asks for that. Source: https://platform.claude.com/docs/en/api/messages, `Message` of Anthropic's
Python SDK 2.12.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from protocols.anthropic.backend_usage import WireUsage, finish_of, hub_usage
from protocols.dialect import JsonObject
from protocols.pieces import Malformed


class _Message(msgspec.Struct):
    type: Literal["message"]
    content: list[msgspec.Raw]
    model: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: WireUsage | None = None


class _Kind(msgspec.Struct):
    type: str


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    text: str = ""


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str = ""
    signature: str = ""


class RedactedThinkingBlock(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    data: str = ""


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw = msgspec.Raw(b"{}")


Block = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock

_KNOWN: Final = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
#: What decoding raises for bytes that are no JSON, no UTF-8, nested too deeply, or not what was expected.
NOT_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_kind: Final = msgspec.json.Decoder(_Kind).decode
_decode_block: Final = msgspec.json.Decoder(Block).decode
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


def block_of(raw: msgspec.Raw) -> Block | None:
    """One block; None where its kind is not known. Raises `Malformed`."""
    try:
        if _decode_kind(raw).type not in _KNOWN:
            return None
        block: Block = _decode_block(raw)
    except NOT_JSON:
        raise Malformed("a block of the message is not what its type says") from None
    return block


def arguments_of(tool_input: msgspec.Raw) -> str:
    """A tool's input as the text that the hub has for it, unchanged. Raises `Malformed` where it is no object."""
    try:
        _decode_object(tool_input)
        return bytes(tool_input).decode()
    except NOT_JSON:
        raise Malformed("the input of a tool is not the JSON of an object") from None


def hub_answer(body: bytes, id: str, created: int) -> JsonObject:
    """The hub's answer that the message in *body* becomes. Raises `Malformed`."""
    try:
        wire = _decode_message(body)
    except NOT_JSON:
        raise Malformed("the answer is not a message of Anthropic's API") from None
    message = _message(wire.content)
    choice: JsonObject = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_of(wire.stop_reason, "tool_calls" in message),
    }
    if wire.stop_sequence is not None:
        choice["stop_reason"] = wire.stop_sequence
    answer: JsonObject = {
        "id": f"chatcmpl-{id}",
        "object": "chat.completion",
        "created": created,
        "model": wire.model,
        "choices": [choice],
    }
    usage = hub_usage(wire.usage) if wire.usage is not None else None
    if usage is not None:
        answer["usage"] = usage
    return answer


def _message(content: list[msgspec.Raw]) -> JsonObject:
    """Texts joined (null where there are only calls), calls, thinking as text and as it came."""
    texts: list[str] = []
    reasoning: list[str] = []
    thinking: list[JsonObject] = []
    calls: list[JsonObject] = []
    for raw in content:
        block = block_of(raw)
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ToolUseBlock):
            calls.append(call_of(block, arguments_of(block.input)))
        elif isinstance(block, ThinkingBlock):
            reasoning.append(block.thinking)
            thinking.append({"type": "thinking", "thinking": block.thinking, "signature": block.signature})
        elif isinstance(block, RedactedThinkingBlock):
            thinking.append({"type": "redacted_thinking", "data": block.data})
    message: JsonObject = {"role": "assistant", "content": "".join(texts), "refusal": None}
    if calls:
        message["tool_calls"] = calls
        if not texts:
            message["content"] = None
    if any(reasoning):
        message["reasoning_content"] = "".join(reasoning)
    if thinking:
        message["thinking_blocks"] = thinking
    return message


def call_of(block: ToolUseBlock, arguments: str) -> JsonObject:
    """The hub's call of a tool."""
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}
