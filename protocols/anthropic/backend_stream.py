"""A stream of the Messages API as chunks of the hub.

Owns the order of its events, and what of them waits: a signature, the totals. Text of any kind goes on at once, so
that arguments without end cost nothing here. It refuses to cut bytes into events (`protocols.sse`). An event is told
by the `type` in its data, which the API repeats in its name. Events and deltas that are not known are left out: the API
asks for that. Source: https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from protocols.anthropic.backend_answer import (
    NOT_JSON,
    Block,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    arguments_of,
    block_of,
    call_of,
)
from protocols.anthropic.backend_usage import WireUsage, finish_of, hub_usage
from protocols.anthropic.errors import read_error
from protocols.dialect import Broken, JsonObject
from protocols.pieces import Malformed
from protocols.sse import Event


class _Start(msgspec.Struct, gc=False):
    model: str = ""
    usage: WireUsage | None = None


class _TextDelta(msgspec.Struct, tag_field="type", tag="text_delta", gc=False):
    text: str


class _InputDelta(msgspec.Struct, tag_field="type", tag="input_json_delta", gc=False):
    partial_json: str


class _ThinkingDelta(msgspec.Struct, tag_field="type", tag="thinking_delta", gc=False):
    thinking: str


class _SignatureDelta(msgspec.Struct, tag_field="type", tag="signature_delta", gc=False):
    signature: str


_Delta = _TextDelta | _InputDelta | _ThinkingDelta | _SignatureDelta


class _Ending(msgspec.Struct, gc=False):
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _MessageStart(msgspec.Struct, tag_field="type", tag="message_start", gc=False):
    message: _Start


class _BlockStart(msgspec.Struct, tag_field="type", tag="content_block_start", gc=False):
    index: int
    content_block: msgspec.Raw


class _BlockDelta(msgspec.Struct, tag_field="type", tag="content_block_delta", gc=False):
    index: int
    delta: _Delta


class _BlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop", gc=False):
    index: int


class _MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta", gc=False):
    delta: _Ending
    usage: WireUsage | None = None


class _MessageStop(msgspec.Struct, tag_field="type", tag="message_stop", gc=False):
    pass


class _Ping(msgspec.Struct, tag_field="type", tag="ping", gc=False):
    pass


class _Error(msgspec.Struct, tag_field="type", tag="error", gc=False):
    pass


_Wire = _MessageStart | _BlockStart | _BlockDelta | _BlockStop | _MessageDelta | _MessageStop | _Ping | _Error


class _Kind(msgspec.Struct):
    type: str


class _AnyDelta(msgspec.Struct):
    index: int
    delta: _Kind


_EVENTS: Final = frozenset(
    {
        *("message_start", "message_delta", "message_stop", "ping", "error"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    }
)
_DELTAS: Final = frozenset({"text_delta", "input_json_delta", "thinking_delta", "signature_delta"})

_decode: Final = msgspec.json.Decoder(_Wire).decode
_decode_kind: Final = msgspec.json.Decoder(_Kind).decode
_decode_any_delta: Final = msgspec.json.Decoder(_AnyDelta).decode


class State(Enum):
    """Where a stream stands."""

    WAITING = "nothing came"
    BETWEEN = "no block is open"
    INSIDE = "a block is open"
    STOPPED = "complete"


_WAITING: Final = State.WAITING
_BETWEEN: Final = State.BETWEEN
_INSIDE: Final = State.INSIDE
_STOPPED: Final = State.STOPPED

#: In which states an event may come, and the state after it.
MOVES: Final[dict[type, tuple[State, State]]] = {
    _MessageStart: (_WAITING, _BETWEEN),
    _BlockStart: (_BETWEEN, _INSIDE),
    _BlockStop: (_INSIDE, _BETWEEN),
    _MessageDelta: (_BETWEEN, _BETWEEN),
    _MessageStop: (_BETWEEN, _STOPPED),
}
#: Which deltas belong into which block.
_BELONGS: Final[dict[type, type]] = {
    _TextDelta: TextBlock,
    _InputDelta: ToolUseBlock,
    _ThinkingDelta: ThinkingBlock,
    _SignatureDelta: ThinkingBlock,
}


class MessageStream:
    """One stream, event by event. Made by `MessagesBackend`."""

    __slots__ = ("_block", "_calls", "_finished", "_head", "_index", "_signature", "_state", "_told", "_usage")

    def __init__(self, id: str, created: int) -> None:
        # For the stream.
        self._head: JsonObject = {"id": f"chatcmpl-{id}", "object": "chat.completion.chunk", "created": created}
        self._state = _WAITING
        self._usage = WireUsage()
        #: Calls of tools so far; the hub counts them, not blocks.
        self._calls = 0
        self._finished = False
        #: Of the block that is open, or was the last.
        self._index = -1
        # For the block that is open: None where its kind is not known.
        self._block: Block | None = None
        self._signature = ""
        #: Whether any of its arguments were told.
        self._told = False

    @property
    def complete(self) -> bool:
        return self._state is _STOPPED

    def read(self, event: Event) -> list[JsonObject]:
        """The chunks that *event* becomes; none where the stream was complete before. Raises `Malformed`, `Broken`."""
        if self._state is _STOPPED:
            return []
        try:
            wire = _decode(event.data)
        except NOT_JSON:
            self._judge(event)
            return []
        if type(wire) is _BlockDelta:
            return self._delta(wire)
        if type(wire) is _Ping:
            return []
        if type(wire) is _Error:
            raise Broken(read_error(200, event.data))
        return self._move(wire)

    def _judge(self, event: Event) -> None:
        """What is no event that is known: one of another kind is left out, and the rest raises `Malformed`."""
        try:
            kind = _decode_kind(event.data).type
            delta = _decode_any_delta(event.data) if kind == "content_block_delta" else None
        except NOT_JSON:
            if event.name == b"error":
                raise Broken(read_error(200, event.data)) from None
            raise Malformed("an event of the stream is not the JSON that Anthropic's API sends") from None
        if delta is not None and delta.delta.type not in _DELTAS:
            self._expect_open(delta.index)
        elif kind in _EVENTS:
            raise Malformed("an event of the stream is not what its type says")

    def _move(self, wire: _Wire) -> list[JsonObject]:
        before, after = MOVES[type(wire)]
        if self._state is not before:
            raise Malformed(f"the stream has an event out of order: {type(wire).__struct_config__.tag}")
        if isinstance(wire, _BlockStart):
            chunks = self._open(wire)
        elif isinstance(wire, _BlockStop):
            chunks = self._shut(wire)
        elif isinstance(wire, _MessageStart):
            chunks = self._begin(wire.message)
        elif isinstance(wire, _MessageDelta):
            chunks = self._near_end(wire)
        else:
            chunks = self._end()
        self._state = after
        return chunks

    def _begin(self, message: _Start) -> list[JsonObject]:
        self._head["model"] = message.model
        if message.usage is not None:
            self._usage.update(message.usage)
        return [self._chunk({"role": "assistant", "content": ""})]

    def _open(self, wire: _BlockStart) -> list[JsonObject]:
        if wire.index != self._index + 1:
            raise Malformed("the stream's blocks are out of order")
        self._index = wire.index
        self._block = block = block_of(wire.content_block)
        self._signature = ""
        self._told = False
        if isinstance(block, TextBlock):
            return [self._chunk({"content": block.text})] if block.text else []
        if isinstance(block, ThinkingBlock):
            self._signature = block.signature
            return [self._chunk({"reasoning_content": block.thinking})] if block.thinking else []
        if isinstance(block, RedactedThinkingBlock):
            return [self._chunk({"thinking_blocks": [{"type": "redacted_thinking", "data": block.data}]})]
        if isinstance(block, ToolUseBlock):
            self._calls += 1
            return [self._chunk({"tool_calls": [{"index": self._calls - 1, **call_of(block, "")}]})]
        return []

    def _delta(self, wire: _BlockDelta) -> list[JsonObject]:
        self._expect_open(wire.index)
        delta = wire.delta
        if self._block is None:
            return []
        if type(self._block) is not _BELONGS[type(delta)]:
            raise Malformed("the stream has a delta that does not belong into its block")
        if isinstance(delta, _TextDelta):
            return [self._chunk({"content": delta.text})] if delta.text else []
        if isinstance(delta, _InputDelta):
            return [self._arguments(delta.partial_json)] if delta.partial_json else []
        if isinstance(delta, _ThinkingDelta):
            return [self._chunk({"reasoning_content": delta.thinking})] if delta.thinking else []
        self._signature = delta.signature
        return []

    def _shut(self, wire: _BlockStop) -> list[JsonObject]:
        self._expect_open(wire.index)
        block = self._block
        self._block = None
        if isinstance(block, ToolUseBlock) and not self._told:
            return [self._arguments(arguments_of(block.input))]
        if isinstance(block, ThinkingBlock) and self._signature:
            signed = {"type": "thinking", "thinking": "", "signature": self._signature}
            return [self._chunk({"thinking_blocks": [signed]})]
        return []

    def _near_end(self, wire: _MessageDelta) -> list[JsonObject]:
        if wire.usage is not None:
            self._usage.update(wire.usage)
        if wire.delta.stop_reason is None or self._finished:
            return []
        return [self._finish(wire.delta)]

    def _end(self) -> list[JsonObject]:
        chunks = [] if self._finished else [self._finish(_Ending())]
        usage = hub_usage(self._usage)
        if usage is not None:
            chunks.append({**self._head, "choices": [], "usage": usage})
        return chunks

    def _finish(self, ending: _Ending) -> JsonObject:
        self._finished = True
        chunk = self._chunk({})
        choice = chunk["choices"][0]
        choice["finish_reason"] = finish_of(ending.stop_reason, self._calls > 0)
        if ending.stop_sequence is not None:
            choice["stop_reason"] = ending.stop_sequence
        return chunk

    def _expect_open(self, index: int) -> None:
        if self._state is not _INSIDE or index != self._index:
            raise Malformed("the stream has an event of a block that is not open")

    def _arguments(self, text: str) -> JsonObject:
        self._told = True
        return self._chunk({"tool_calls": [{"index": self._calls - 1, "function": {"arguments": text}}]})

    def _chunk(self, delta: JsonObject) -> JsonObject:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return {**self._head, "choices": [choice]}
