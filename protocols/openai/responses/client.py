"""The client's side of POST /v1/responses, where the backend only chats.

Owns one call: its request as the hub has it, and the response object around whatever the backend says. It refuses
stored state: no response is kept. Made by the gateway for each call; see `protocols.dialect.ClientSide`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from protocols.dialect import Dropped, ErrorObject, JsonObject, Task
from protocols.openai.responses.client_answer import read_answer
from protocols.openai.responses.client_request import read_request
from protocols.openai.responses.client_stream import Events
from protocols.openai.responses.response import ResponseWriter

#: What its clients call fields of the hub. Items are no messages, so their parts are named without places.
NAMES: Final[Mapping[str, str]] = {
    "messages": "input",
    "messages[].content[].type": "input.content.type",
    "messages[].content[].image_url.url": "input.content.image_url",
    "messages[].content[].file.file_id": "input.content.file_id",
    "messages[].content[].file.file_data": "input.content.file_data",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}


class ResponsesClient:
    """One call of a client that speaks OpenAI's responses; a `ClientSide`."""

    names = NAMES
    repeats_text = False

    task = Task.CHAT

    def __init__(self, fields: JsonObject, stream: bool, id: str, created: int, dropped: Dropped) -> None:
        asked = read_request(fields, stream, dropped)
        self.hub = asked.hub
        self._wants_logprobs = asked.wants_logprobs
        self._writer = ResponseWriter(id, created, asked.model, asked.echo)
        self._events = Events(self._writer, asked.wants_logprobs)

    def answer(self, answer: JsonObject) -> bytes:
        """See `ClientSide`. Raises `Malformed`."""
        return self._writer.write(read_answer(answer, self._writer.id, self._wants_logprobs))

    def feed(self, chunk: JsonObject) -> bytes:
        """See `ClientSide`. Raises `Malformed`, also where the answer becomes too long to be repeated."""
        return self._events.feed(chunk)

    def feed_text(self, text: bytes) -> bytes:
        """See `TextFeeder`."""
        return self._events.feed_text(text)

    def end(self) -> bytes:
        """See `ClientSide`. Raises `Malformed`."""
        return self._events.end()

    def fail(self, error: ErrorObject) -> bytes:
        """See `ClientSide`."""
        return self._events.fail(error)
