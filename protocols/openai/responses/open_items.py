"""Output items of a stream that are still being told: their events, and what they will have said.

Owns the events within one item. It refuses the order of items and the numbers of events (`client_stream`). Texts are
held as JSON, so that they are encoded once for their delta and all repetitions.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import orjson

from protocols.dialect import JsonObject
from protocols.openai.responses.items import (
    IN_PROGRESS,
    call_item,
    message_item,
    reasoning_item,
    reasoning_part,
    refusal_part,
    text_part,
)

#: An event's name, and the members of its data behind `type` and `sequence_number`.
Told = tuple[str, bytes]


class PartKind(Enum):
    """What a message's part is; the value is the word in its events' names."""

    TEXT = "output_text"
    REFUSAL = "refusal"


_TEXT: Final = PartKind.TEXT
_dumps: Final = orjson.dumps


class _Words:
    """A text that grows, with the frame of its delta events around it."""

    __slots__ = ("_after", "_before", "held")

    def __init__(self, event: str, place: str, after: str = "") -> None:
        """*place*: the members that say which text it is. *after*: the members behind the delta."""
        self._before = f'event: {event}\ndata: {{"type":"{event}",{place},"delta":'.encode("ascii")
        self._after = f',{after}"sequence_number":'.encode("ascii")
        self.held = bytearray()

    def say(self, encoded: bytes, number: int) -> bytes:
        self.held += encoded[1:-1]
        return b"%b%b%b%d}\n\n" % (self._before, encoded, self._after, number)

    def say_with(self, encoded: bytes, logprobs: bytes, number: int) -> bytes:
        self.held += encoded[1:-1]
        return b'%b%b,"logprobs":[%b],"sequence_number":%d}\n\n' % (self._before, encoded, logprobs, number)

    @property
    def json(self) -> orjson.Fragment:
        """The whole text."""
        return orjson.Fragment(b'"%b"' % bytes(self.held))


class OpenReasoning:
    """Thoughts."""

    __slots__ = ("_blocks", "_id", "_signed", "_words", "place")

    def __init__(self, place: int, id: str) -> None:
        self.place = place
        self._id = id
        self._words: _Words | None = None
        self._blocks: list[JsonObject] = []
        #: So many bytes of the words belong to blocks that are told.
        self._signed = 0

    def opened(self) -> bytes:
        """The members of the event that the item was added."""
        return _members(output_index=self.place, item=reasoning_item(self._id, [], [], IN_PROGRESS))

    @property
    def has_part(self) -> bool:
        return self._words is not None

    def open_part(self) -> Told:
        self._words = _Words("response.reasoning_text.delta", _place(self._id, self.place, 0))
        return _part_event("added", self._id, self.place, 0, reasoning_part(""))

    def say(self, encoded: bytes, number: int) -> bytes:
        assert self._words is not None
        return self._words.say(encoded, number)

    def sign(self, block: JsonObject) -> None:
        """*block*, as the hub has it: one with empty `thinking` tells the signature of the words since the last."""
        if block.get("type") == "thinking" and not block.get("thinking") and self._words is not None:
            words = orjson.loads(b'"%b"' % bytes(self._words.held[self._signed :]))
            self._signed = len(self._words.held)
            block = {**block, "thinking": words}
        self._blocks.append(block)

    def close(self, status: str) -> tuple[bytes, list[Told]]:
        """The item as JSON, and the events before the one that it is done."""
        events: list[Told] = []
        content = []
        if self._words is not None:
            text = self._words.json
            content.append(reasoning_part(text))
            members = _members(item_id=self._id, output_index=self.place, content_index=0, text=text)
            events.append(("response.reasoning_text.done", members))
            events.append(_part_event("done", self._id, self.place, 0, content[0]))
        return _dumps(reasoning_item(self._id, content, self._blocks, status)), events


class OpenMessage:
    """What the model says: text, or that it refuses; a part for each, if it turns from one to the other."""

    __slots__ = ("_id", "_logprobs", "_parts", "_words", "kind", "place")

    def __init__(self, place: int, id: str) -> None:
        self.place = place
        self._id = id
        #: Parts that are done, as JSON.
        self._parts: list[JsonObject] = []
        # of the part that is open
        self.kind: PartKind | None = None
        self._words = _Words("", "")
        self._logprobs: list[bytes] = []

    def opened(self) -> bytes:
        """The members of the event that the item was added."""
        return _members(output_index=self.place, item=message_item(self._id, [], IN_PROGRESS))

    def turn_to(self, kind: PartKind) -> list[Told]:
        """The events that close the part that is open, if there is one, and open another."""
        events = self._close_part()
        self.kind = kind
        at = len(self._parts)
        after = '"logprobs":[],' if kind is _TEXT else ""
        self._words = _Words(f"response.{kind.value}.delta", _place(self._id, self.place, at), after)
        empty = text_part("") if kind is _TEXT else refusal_part("")
        return [*events, _part_event("added", self._id, self.place, at, empty)]

    def say(self, encoded: bytes, logprobs: bytes, number: int) -> bytes:
        """*logprobs*: of a text, as JSON without the brackets."""
        if not logprobs:
            return self._words.say(encoded, number)
        self._logprobs.append(logprobs)
        return self._words.say_with(encoded, logprobs, number)

    def close(self, status: str) -> tuple[bytes, list[Told]]:
        """The item as JSON, and the events before the one that it is done."""
        events = self._close_part()
        return _dumps(message_item(self._id, self._parts, status)), events

    def _close_part(self) -> list[Told]:
        if self.kind is None:
            return []
        at = len(self._parts)
        text = self._words.json
        said: JsonObject
        if self.kind is _TEXT:
            logprobs = orjson.Fragment(b"[%b]" % b",".join(self._logprobs))
            self._logprobs = []
            said = {"text": text, "logprobs": logprobs}
            part = text_part(text, logprobs)
        else:
            said = {"refusal": text}
            part = refusal_part(text)
        members = _members(item_id=self._id, output_index=self.place, content_index=at, **said)
        self._parts.append(part)
        done = (f"response.{self.kind.value}.done", members)
        return [done, _part_event("done", self._id, self.place, at, part)]


class OpenCall:
    """A function's call."""

    __slots__ = ("_call_id", "_id", "_name", "_words", "place")

    def __init__(self, place: int, id: str, call_id: str, name: str) -> None:
        self.place = place
        self._id = id
        self._call_id = call_id
        self._name = name
        where = f'"item_id":"{id}","output_index":{place}'
        self._words = _Words("response.function_call_arguments.delta", where)

    def opened(self) -> bytes:
        """The members of the event that the item was added."""
        item = call_item(self._id, self._call_id, self._name, "", IN_PROGRESS)
        return _members(output_index=self.place, item=item)

    def say(self, encoded: bytes, number: int) -> bytes:
        return self._words.say(encoded, number)

    def close(self, status: str) -> tuple[bytes, list[Told]]:
        """The item as JSON, and the events before the one that it is done."""
        arguments = self._words.json
        # The documents have the name here, if not the SDK's type.
        members = _members(item_id=self._id, output_index=self.place, name=self._name, arguments=arguments)
        item = call_item(self._id, self._call_id, self._name, arguments, status)
        return _dumps(item), [("response.function_call_arguments.done", members)]


def _place(id: str, place: int, at: int) -> str:
    return f'"item_id":"{id}","output_index":{place},"content_index":{at}'


def _part_event(what: str, id: str, place: int, at: int, part: JsonObject) -> Told:
    name = f"response.content_part.{what}"
    return name, _members(item_id=id, output_index=place, content_index=at, part=part)


def _members(**members: Any) -> bytes:
    return _dumps(members)[1:-1]
