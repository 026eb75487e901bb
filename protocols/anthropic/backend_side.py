"""`MessagesBackend`: one attempt at a backend that speaks Anthropic's Messages API.

Owns the request's path, its version line and what waits of a stream between two reads. It refuses keys (the backend's
configuration sends them) and every mapping (the modules below). Made by the gateway for each attempt of a chat call.
Source: https://platform.claude.com/docs/en/api/messages and .../docs/en/api/versioning.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.anthropic.backend_answer import hub_answer
from protocols.anthropic.backend_reasoning import effort_of, reasoning_fields
from protocols.anthropic.backend_request import messages_fields
from protocols.anthropic.backend_stream import MessageStream
from protocols.anthropic.errors import read_error
from protocols.dialect import Ask, Broken, Dropped, ErrorObject, JsonObject, Terms
from protocols.pieces import Malformed
from protocols.sse import EventReader

_encode: Final = msgspec.json.Encoder().encode


class MessagesBackend:
    """The backend's side of a chat call; a `protocols.dialect.BackendSide`."""

    repeats_text = True

    __slots__ = ("_created", "_effort", "_fields", "_id", "_lines", "_reader", "_stream")

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        # Of the request.
        self._fields = messages_fields(hub, stream, terms, dropped)
        self._effort = effort_of(hub.get("reasoning_effort"))
        self._lines = b"anthropic-version: %b\r\n" % terms.api_version.encode()
        # Of the answer.
        self._id = id
        self._created = created
        self._reader = EventReader()
        self._stream = MessageStream(id, created)

    def ask(self, model: str) -> Ask:
        fields = {"model": model, **self._fields}
        thinking, effort = reasoning_fields(self._effort, model, fields["max_tokens"])
        if thinking is not None:
            fields["thinking"] = thinking
        if effort is not None:
            fields["output_config"] = {"effort": effort, **fields.get("output_config", {})}
        return Ask(b"/v1/messages", _encode(fields), self._lines)

    def forget(self) -> None:
        self._fields = {}

    def answer(self, body: bytes) -> JsonObject:
        return hub_answer(body, self._id, self._created)

    def error(self, status: int, body: bytes) -> ErrorObject:
        return read_error(status, body)

    def feed(self, payload: bytes) -> list[JsonObject]:
        read = self._stream.read
        chunks: list[JsonObject] = []
        try:
            for event in self._reader.feed(payload):
                chunks += read(event)
        except (Malformed, Broken) as fault:
            fault.before = chunks
            raise
        return chunks

    @property
    def is_over(self) -> bool:
        """See `BackendSide`."""
        return self._stream.complete

    def end(self) -> list[JsonObject]:
        read = self._stream.read
        chunks = [chunk for event in self._reader.end() for chunk in read(event)]
        if not self._stream.complete:
            raise Malformed("the stream ended before its message did")
        return chunks
