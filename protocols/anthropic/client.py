"""One call as a client of Anthropic's Messages API speaks it.

Owns the face `ClientSide` of that dialect, for POST /v1/messages. It refuses to read requests (`client_request`) and to
write answers (`client_answer`, `client_stream`) itself. Made by the gateway for each translated call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from protocols.anthropic.client_answer import write_message
from protocols.anthropic.client_request import read_request, shows_thinking
from protocols.anthropic.client_stream import MessageStream
from protocols.anthropic.errors import error_event
from protocols.dialect import Dropped, ErrorObject, JsonObject, Task

#: What its clients call fields of the hub. Places within messages are others there, so blocks are named without them.
NAMES: Final[Mapping[str, str]] = {
    "messages": "messages",
    "messages[].content[].type": "messages.content.type",
    "messages[].content[].image_url.url": "messages.content.source.url",
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "stop[]": "stop_sequences[]",
    "response_format": "output_config.format",
    "reasoning_effort": "thinking",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "user": "metadata.user_id",
}


class MessagesClient:
    """A `ClientSide`; its methods that read chunks and answers raise `Malformed` where these are no chat's.

    *id* names the message (`msg_...`), and tool calls that got no id. *created* is no part of the dialect.
    """

    names = NAMES
    repeats_text = True

    __slots__ = ("_id", "_shows_thinking", "_stream", "hub", "task")

    def __init__(self, fields: JsonObject, stream: bool, id: str, created: int, dropped: Dropped) -> None:
        self.task = Task.CHAT
        self.hub = read_request(fields, stream, dropped)
        self._id = id
        self._shows_thinking = shows_thinking(fields)
        self._stream = MessageStream(id, self.hub["model"], self._shows_thinking)

    def answer(self, answer: JsonObject) -> bytes:
        """The message as a body."""
        return write_message(answer, self._id, self.hub["model"], self._shows_thinking)

    def feed(self, chunk: JsonObject) -> bytes:
        """The events of one chunk, framed."""
        return self._stream.feed(chunk)

    def end(self) -> bytes:
        """The events that a complete message ends with, framed."""
        return self._stream.end()

    def fail(self, error: ErrorObject) -> bytes:
        """The error event."""
        return error_event(error)
