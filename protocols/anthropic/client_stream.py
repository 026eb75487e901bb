"""Chunks of the hub -> the events of one message.

Owns the order of the blocks. In a message they stand strictly one behind the other; the hub's chunks may speak of
several tool calls in turns, and of text among them. So one block is open at a time, and what belongs to others waits
until the open one is known to be over: a text or a thought when anything else comes, a tool call when its arguments
are whole. What waits is bounded. It refuses to write events (`client_events`) and to know requests.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

from protocols.anthropic import client_events as events
from protocols.anthropic.client_answer import CUT, NO_USAGE, call_id, read_thought, read_usage, stop_of
from protocols.anthropic.client_arguments import Arguments
from protocols.dialect import JsonObject
from protocols.pieces import PARTIAL_LIMIT, Malformed

#: What a block and a piece of text cost beside their characters, in bytes: many small ones are no way around a bound.
BLOCK_COST: Final = 512
PIECE_COST: Final = 64


class Kind(Enum):
    """What a block is made of."""

    TEXT = "text"
    THINKING = "thinking"
    REDACTED = "redacted_thinking"
    TOOL = "tool_use"


_TEXT: Final = Kind.TEXT
_THINKING: Final = Kind.THINKING
_REDACTED: Final = Kind.REDACTED
_TOOL: Final = Kind.TOOL

_DELTAS: Final = {
    Kind.TEXT: events.TEXT_DELTA,
    Kind.THINKING: events.THINKING_DELTA,
    Kind.TOOL: events.INPUT_DELTA,
}


class _Block:
    """One block: open, or waiting with the *pieces* that came for it."""

    __slots__ = ("arguments", "id", "is_over", "kind", "name", "pieces", "signature")

    def __init__(self, kind: Kind, id: str = "", name: str = "") -> None:
        self.kind = kind
        self.id = id
        self.name = name
        self.arguments = Arguments() if kind is _TOOL else None
        self.pieces: list[str] = []
        self.signature = ""
        #: No more will come for it.
        self.is_over = False

    def start(self) -> JsonObject:
        """What its first event shows."""
        if self.kind is _TOOL:
            return {"type": "tool_use", "id": self.id, "name": self.name, "input": {}}
        if self.kind is _TEXT:
            return {"type": "text", "text": ""}
        if self.kind is _THINKING:
            return {"type": "thinking", "thinking": "", "signature": ""}
        return {"type": "redacted_thinking", "data": self.pieces.pop()}


class MessageStream:
    """The events of one message. Made by `MessagesClient` for a request that asks for a stream.

    `feed` and `end` raise `Malformed` where the chunks cannot be said as a message.
    """

    __slots__ = (
        *(
            "_calls",
            "_calls_made",
            "_calls_size",
            "_finish",
            "_held",
            "_index",
            "_is_refusal",
            "_is_started",
            "_model",
            "_open",
        ),
        *("_out", "_sequence", "_shows_thinking", "_id", "_usage", "_waiting"),
    )

    def __init__(self, id: str, model: str, shows_thinking: bool) -> None:
        # for the whole stream
        self._id = id
        self._model = model
        self._shows_thinking = shows_thinking
        self._out: list[bytes] = []
        # the blocks
        self._index = -1
        self._open: _Block | None = None
        self._waiting: deque[_Block] = deque()
        self._held = 0
        #: The hub's index of a call -> its block.
        self._calls: dict[int, _Block] = {}
        self._calls_made = 0
        #: Bytes that calls leave behind for as long as the stream lasts.
        self._calls_size = 0
        # how it ends
        self._is_started = False
        self._finish: str | None = None
        self._sequence: object = None
        self._is_refusal = False
        self._usage: JsonObject | None = None

    def feed(self, chunk: JsonObject) -> bytes:
        """The events of one chunk, framed; often none."""
        usage = chunk.get("usage")
        if usage is not None:
            if not isinstance(usage, dict):
                raise Malformed("the usage of a chunk is no object")
            self._usage = read_usage(usage)
        if not self._is_started:
            self._start(chunk.get("model"))
        choices = chunk.get("choices")
        if choices:
            self._read_choice(choices)
        return self._taken()

    def end(self) -> bytes:
        """The rest of the message, framed."""
        if not self._is_started:
            self._start(None)
        self._close_all()
        reason, sequence = stop_of(self._finish, self._sequence, self._calls_made > 0, self._is_refusal)
        self._out.append(events.message_delta(reason, sequence, self._usage or NO_USAGE))
        self._out.append(events.MESSAGE_STOP)
        return self._taken()

    def _taken(self) -> bytes:
        out = self._out
        if not out:
            return b""
        taken = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return taken

    def _start(self, model: object) -> None:
        self._is_started = True
        if isinstance(model, str) and model:
            self._model = model
        self._out.append(events.message_start(self._id, self._model, self._usage or NO_USAGE))

    # What a chunk says.

    def _read_choice(self, choices: object) -> None:
        choice = choices[0] if isinstance(choices, list) else None
        if not isinstance(choice, dict):
            raise Malformed("the choices of a chunk are no objects")
        if choice.get("index"):
            return  # one choice was asked for
        delta = choice.get("delta")
        if delta:
            if not isinstance(delta, dict):
                raise Malformed("the delta of a chunk is no object")
            self._read_delta(delta)
        finish = choice.get("finish_reason")
        if finish is not None:
            if not isinstance(finish, str):
                raise Malformed("the finish_reason of a chunk is no string")
            self._sequence = choice.get("stop_reason")
            if self._finish is None:
                self._finish = finish
                self._close_all()

    def _read_delta(self, delta: JsonObject) -> None:
        if self._shows_thinking:
            reasoning = delta.get("reasoning_content")
            if reasoning:
                self._add(_THINKING, reasoning)
            blocks = delta.get("thinking_blocks")
            if blocks:
                self._add_thoughts(blocks)
        content = delta.get("content")
        if content:
            self._add(_TEXT, content)
        refusal = delta.get("refusal")
        if refusal:
            self._is_refusal = True
            self._add(_TEXT, refusal)
        calls = delta.get("tool_calls")
        if calls:
            if not isinstance(calls, list):
                raise Malformed("the tool_calls of a chunk are no array")
            for call in calls:
                self._add_call(call)
        function = delta.get("function_call")
        if function:
            self._add_call({"index": 0, "function": function})

    def _add(self, kind: Kind, text: object) -> None:
        """More of a text or a thought: of the open block, of the last that waits, or of a new one."""
        if not isinstance(text, str):
            raise Malformed("a delta that should be text is none")
        block = self._open
        if block is not None and block.kind is kind and not self._waiting and not block.is_over:
            self._out.append(events.delta(_DELTAS[kind], self._index, text))
            return
        self._give(self._last_of(kind), text)

    def _last_of(self, kind: Kind) -> _Block:
        """The last block, if more of *kind* can come for it, or a new one."""
        last = self._waiting[-1] if self._waiting else self._open
        if last is None or last.kind is not kind or last.is_over:
            last = _Block(kind)
            self._append(last)
        return last

    def _add_thoughts(self, blocks: object) -> None:
        if not isinstance(blocks, list):
            raise Malformed("the thinking_blocks of a chunk are no array")
        for block in blocks:
            thought = read_thought(block)
            if thought["type"] == "redacted_thinking":
                self._add_redacted(thought["data"])
                continue
            if thought["thinking"]:
                self._add(_THINKING, thought["thinking"])
            if thought["signature"]:
                self._hold(PIECE_COST + len(thought["signature"]))
                last = self._last_of(_THINKING)
                last.signature = thought["signature"]
                last.is_over = True

    def _add_redacted(self, data: str) -> None:
        self._hold(PIECE_COST + len(data))
        block = _Block(_REDACTED)
        block.pieces.append(data)
        block.is_over = True
        self._append(block)

    def _add_call(self, call: object) -> None:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(function, dict):
            raise Malformed("a tool call of a chunk is no function's")
        index, id, name = call.get("index") or 0, call.get("id") or "", function.get("name") or ""
        arguments = function.get("arguments") or ""
        if not (type(index) is int and isinstance(id, str) and isinstance(name, str) and isinstance(arguments, str)):
            raise Malformed("a tool call of a chunk has fields of wrong types")
        block = self._calls.get(index)
        # Some servers give every call the index 0, each whole and with an id of its own.
        if block is None or (name and id and id != block.id):
            if not name:
                raise Malformed("a tool call begins without a name")
            block = self._new_call(index, id, name)
        if arguments:
            assert block.arguments is not None
            arguments = block.arguments.feed(arguments)
            if arguments:
                self._give(block, arguments)
            block.is_over = block.arguments.is_whole
            if block.is_over and block is self._open:
                self._close()
                self._advance()

    def _new_call(self, index: int, id: str, name: str) -> _Block:
        self._calls_size += BLOCK_COST + len(id) + len(name)
        if self._calls_size > PARTIAL_LIMIT:
            raise Malformed("the answer has too many tool calls, or too long names of them")
        block = self._calls[index] = _Block(_TOOL, id or call_id(self._id, self._calls_made), name)
        self._calls_made += 1
        self._append(block)
        return block

    # The order of the blocks.

    def _append(self, block: _Block) -> None:
        self._hold(BLOCK_COST)
        self._waiting.append(block)
        self._advance()

    def _give(self, block: _Block, text: str) -> None:
        """More text for *block*: out where it is open, else it waits."""
        if block is self._open:
            self._out.append(events.delta(_DELTAS[block.kind], self._index, text))
            return
        self._hold(PIECE_COST + len(text))
        block.pieces.append(text)

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > PARTIAL_LIMIT:
            raise Malformed(f"more than {PARTIAL_LIMIT} bytes wait for a block that does not end")

    def _advance(self) -> None:
        """Open the blocks that wait, as far as those before them are over."""
        while self._waiting and (self._open is None or self._open.is_over or self._open.kind is not _TOOL):
            self._close()
            block = self._open = self._waiting.popleft()
            self._index += 1
            self._out.append(events.block_start(self._index, block.start()))
            if block.pieces:
                self._out.append(events.delta(_DELTAS[block.kind], self._index, "".join(block.pieces)))
                block.pieces.clear()
        if not self._waiting:
            self._held = 0

    def _close(self) -> None:
        block = self._open
        if block is None:
            return
        if block.signature:
            self._out.append(events.delta(events.SIGNATURE_DELTA, self._index, block.signature))
        self._out.append(events.block_stop(self._index))
        block.is_over = True
        self._open = None

    def _close_all(self) -> None:
        """Nothing more comes: half arguments are an error, but where the whole answer was cut."""
        if self._finish not in CUT:
            for block in (self._open, *self._waiting):
                if block is not None and block.arguments is not None and block.arguments.is_begun and not block.is_over:
                    raise Malformed("the arguments of a tool call are no JSON object")
        while self._waiting:
            if self._open is not None:
                self._open.is_over = True
            self._advance()
        self._close()
