"""Streams of POST /v1/responses, made of a chat's chunks.

Owns the order of events: which items a stream opens, feeds and closes. Thoughts and text are closed when something else
begins; calls stay open until the end, since chunks may go back and forth between them. It refuses what an item's events
look like (`open_items`). Made by `client`, once for a stream.

The last event repeats the whole answer, so a stream holds what it said, as JSON, up to PARTIAL_LIMIT bytes; past them
it is `Malformed`. (A million bytes are twice what the longest answers of known models take.)
Source: openai-python 3.54, `lib/streaming/responses`; the order of vLLM 0.32's events.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from protocols.dialect import ErrorObject, JsonObject
from protocols.openai.responses.client_answer import ending, unique
from protocols.openai.responses.errors import error_event, named_event, response_error
from protocols.openai.responses.items import COMPLETED, IN_PROGRESS, INCOMPLETE, REASONS, read_logprobs, read_usage
from protocols.openai.responses.open_items import OpenCall, OpenMessage, OpenReasoning, PartKind
from protocols.openai.responses.reasoning import read_block
from protocols.openai.responses.response import ResponseWriter
from protocols.pieces import PARTIAL_LIMIT, Malformed

#: What an item, or a part of a message, costs in memory beside what it says.
_ITEM_COST: Final = 512

_TEXT: Final = PartKind.TEXT
_REFUSAL: Final = PartKind.REFUSAL
_dumps: Final = orjson.dumps


class Events:
    """One stream."""

    __slots__ = (
        *("_call_ids", "_calls", "_done", "_id", "_message", "_model", "_number", "_reason", "_reasoning", "_respond"),
        *("_service_tier", "_size", "_usage", "_wants_logprobs"),
    )

    def __init__(self, writer: ResponseWriter, wants_logprobs: bool) -> None:
        self._id = writer.id
        self._respond = writer.write
        self._wants_logprobs = wants_logprobs
        # as chunks told it
        self._model: str | None = None
        self._service_tier: str | None = None
        self._reason: str | None = None
        self._usage: JsonObject | None = None
        # events
        self._number = 0
        self._size = 0
        # items: as JSON where they are done, None where they are open
        self._done: list[bytes | None] = []
        self._reasoning: OpenReasoning | None = None
        self._message: OpenMessage | None = None
        self._calls: dict[int, OpenCall] = {}
        self._call_ids: set[str] = set()

    def feed(self, chunk: JsonObject) -> bytes:
        """The events that *chunk* brings. Raises `Malformed`."""
        said = b"" if self._number else self._begin(chunk)
        if chunk.get("usage") is not None:
            self._usage = read_usage(chunk["usage"])
        for choice in _list(chunk.get("choices")):
            if choice.get("index"):
                continue  # nobody asked for more than one
            delta = choice.get("delta")
            if delta is not None:
                said += self._say(_object(delta), choice)
            reason = choice.get("finish_reason")
            if reason is not None:
                self._reason = REASONS.get(reason) if type(reason) is str else None
        return said

    def feed_text(self, text: bytes) -> bytes:
        """The event of a chunk that is nothing but *text*, a JSON string, behind another. Raises `Malformed`."""
        message = self._message
        assert message is not None and message.kind is _TEXT, "a run of text begins with a chunk of text"
        self._count(len(text))
        number = self._number
        self._number = number + 1
        return message.say(text, b"", number)

    def end(self) -> bytes:
        """The events of a stream that is complete. Raises `Malformed`."""
        said = b"" if self._number else self._begin({})
        if not self._done:
            said += self._say_text(_TEXT, "", None)
        said += self._close_reasoning() + self._close_message()
        for call in list(self._calls.values()):
            said += self._close(call)
        output = [orjson.Fragment(item) for item in self._done if item is not None]
        told = ending(self._reason)
        response = self._respond({**told, **self._told(), "output": output, "usage": self._usage})
        return said + self._event(f"response.{told['status']}", b'"response":' + response)

    def fail(self, error: ErrorObject) -> bytes:
        """The events of a stream that broke: the error, at which SDKs raise whatever came before it, and that the
        response failed, for those who only look at responses."""
        number = self._number
        said = error_event(error, number)
        if not number:
            return said
        self._number = number + 1
        told = {"status": "failed", "incomplete_details": None, "error": response_error(error)}
        response = self._respond({**told, **self._told(), "output": [], "usage": self._usage})
        return said + self._event("response.failed", b'"response":' + response)

    # Responses.

    def _begin(self, chunk: JsonObject) -> bytes:
        model, tier = chunk.get("model"), chunk.get("service_tier")
        self._model = model if isinstance(model, str) else None
        self._service_tier = tier if isinstance(tier, str) else None
        told = {"status": IN_PROGRESS, "incomplete_details": None}
        response = b'"response":' + self._respond({**told, **self._told(), "output": [], "usage": None})
        return self._event("response.created", response) + self._event("response.in_progress", response)

    def _told(self) -> JsonObject:
        return {"model": self._model, "service_tier": self._service_tier}

    def _event(self, name: str, members: bytes) -> bytes:
        number = self._number
        self._number = number + 1
        data = b'{"type":"%b","sequence_number":%d,%b}' % (name.encode("ascii"), number, members)
        return named_event(name, data)

    # Deltas.

    def _say(self, delta: JsonObject, choice: JsonObject) -> bytes:
        said = b""
        text = delta.get("content")
        if text and len(delta) == 1:
            return self._say_text(_TEXT, text, choice)
        thought = delta.get("reasoning_content")
        if thought:
            said += self._think(thought)
        for block in _list(delta.get("thinking_blocks")):
            said += self._sign(block)
        if text:
            said += self._say_text(_TEXT, text, choice)
        refusal = delta.get("refusal")
        if refusal:
            said += self._say_text(_REFUSAL, refusal, None)
        for call in _list(delta.get("tool_calls")):
            said += self._call(call)
        return said

    def _say_text(self, kind: PartKind, text: Any, choice: JsonObject | None) -> bytes:
        message = self._message
        said = b""
        if message is None:
            said = self._close_reasoning()
            message = self._message = OpenMessage(*self._place("msg"))
            said += self._add(message.opened())
        if message.kind is not kind:
            self._count(_ITEM_COST)
            for name, members in message.turn_to(kind):
                said += self._event(name, members)
        encoded = self._hold(text)
        logprobs = b""
        if choice is not None and self._wants_logprobs:
            found = read_logprobs(choice.get("logprobs"))
            if found:
                logprobs = _dumps(found)[1:-1]
                self._count(len(logprobs))
        number = self._number
        self._number = number + 1
        return said + message.say(encoded, logprobs, number)

    def _think(self, thought: Any) -> bytes:
        said, reasoning = self._open_reasoning()
        if not reasoning.has_part:
            said += self._event(*reasoning.open_part())
        encoded = self._hold(thought)
        number = self._number
        self._number = number + 1
        return said + reasoning.say(encoded, number)

    def _sign(self, block: JsonObject) -> bytes:
        said, reasoning = self._open_reasoning()
        known = read_block(block)
        self._count(len(_encoded(known)))
        reasoning.sign(known)
        return said

    def _open_reasoning(self) -> tuple[bytes, OpenReasoning]:
        reasoning = self._reasoning
        if reasoning is not None:
            return b"", reasoning
        said = self._close_message()
        reasoning = self._reasoning = OpenReasoning(*self._place("rs"))
        return said + self._add(reasoning.opened()), reasoning

    def _call(self, told: JsonObject) -> bytes:
        index = told.get("index") or 0
        function = _object(told.get("function") or {})
        if type(index) is not int:
            raise Malformed("a tool call's index is no number")
        call = self._calls.get(index)
        said = b""
        if call is None:
            name = function.get("name")
            if type(name) is not str or not name:
                raise Malformed("a tool call begins without a name")
            said = self._close_reasoning() + self._close_message()
            place, id = self._place("fc")
            given = told.get("id")
            call_id = unique(given if type(given) is str else None, self._call_ids, f"call_{self._id}_{place}")
            self._count(len(name) + len(call_id))
            call = self._calls[index] = OpenCall(place, id, call_id, name)
            said += self._add(call.opened())
        arguments = function.get("arguments")
        if not arguments:
            return said
        encoded = self._hold(arguments)
        number = self._number
        self._number = number + 1
        return said + call.say(encoded, number)

    # Items.

    def _place(self, prefix: str) -> tuple[int, str]:
        """The index and the id of the next item."""
        place = len(self._done)
        self._done.append(None)
        self._count(_ITEM_COST)
        return place, f"{prefix}_{self._id}_{place}"

    def _add(self, members: bytes) -> bytes:
        return self._event("response.output_item.added", members)

    def _close_reasoning(self) -> bytes:
        reasoning, self._reasoning = self._reasoning, None
        return b"" if reasoning is None else self._close(reasoning)

    def _close_message(self) -> bytes:
        message, self._message = self._message, None
        return b"" if message is None else self._close(message)

    def _close(self, item: OpenReasoning | OpenMessage | OpenCall) -> bytes:
        is_last = item.place == len(self._done) - 1
        # What closes before the end is whole: only the last item can have been cut short.
        item_json, events = item.close(INCOMPLETE if is_last and self._reason is not None else COMPLETED)
        self._done[item.place] = item_json
        said = b"".join([self._event(name, members) for name, members in events])
        members = b'"output_index":%d,"item":%b' % (item.place, item_json)
        return said + self._event("response.output_item.done", members)

    def _hold(self, text: Any) -> bytes:
        """*text* as JSON, counted. Raises `Malformed` where it is none, or one too many."""
        if type(text) is not str:
            raise Malformed("a text of the stream is no string")
        encoded = _encoded(text)
        self._count(len(encoded))
        return encoded

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > PARTIAL_LIMIT:
            raise Malformed(f"the answer is longer than {PARTIAL_LIMIT} bytes")


def _encoded(value: Any) -> bytes:
    try:
        return _dumps(value)
    except TypeError:
        raise Malformed("the stream has a value in it that is no JSON") from None


def _list(value: Any) -> list[JsonObject]:
    if not value:
        return []
    if type(value) is list:
        for one in value:
            if type(one) is not dict:
                break
        else:
            return value
    raise Malformed("a list of the stream is none of objects")


def _object(value: Any) -> JsonObject:
    if type(value) is not dict:
        raise Malformed("an object of the stream is none")
    return value
