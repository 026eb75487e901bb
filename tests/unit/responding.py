"""POST /v1/responses as a client of the OpenAI SDK sees it in front of a chat, without sockets.

Owns the stand-in for gateway and backend: what the backend would say is given, in the hub's words. Used by
test_responses_*.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai

from protocols.dialect import Dropped, ErrorObject, JsonObject, Unmappable
from protocols.openai.responses.client import ResponsesClient

BROKEN = ErrorObject(502, "The upstream broke.", "server_error", "upstream_broken")


def open_client(*, stream: bool = False, lenient: bool = False, **fields: Any) -> ResponsesClient:
    """The client's side of a request for model "asked" and, if not told otherwise, input "Hello"."""
    return ResponsesClient({"model": "asked", "input": "Hello", **fields}, stream, "ab12", 7, Dropped(lenient))


def chunk(delta: JsonObject, finish: str | None = None, **choice: Any) -> JsonObject:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, **choice}]
    return {"id": "chatcmpl-1", "model": "served", "created": 7, "choices": choices}


def text(*words: str, finish: str = "stop") -> list[JsonObject]:
    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": word}) for word in words),
        chunk({}, finish),
    ]


def call(index: int, arguments: str, **told: Any) -> JsonObject:
    """A chunk with a piece of a tool call; *told*: its `id` and `name`, where it begins."""
    function = {"arguments": arguments, **{key: told[key] for key in ("name",) if key in told}}
    ids = {"id": told["id"], "type": "function"} if "id" in told else {}
    return chunk({"tool_calls": [{"index": index, **ids, "function": function}]})


USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 5,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
USAGE_CHUNK = {"id": "chatcmpl-1", "model": "served", "choices": [], "usage": USAGE}


def whole(message: JsonObject, finish: str = "stop", **choice: Any) -> JsonObject:
    choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}]
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "served", "choices": choices, "usage": USAGE}


def events(payload: bytes) -> list[Any]:
    """The data of each event, whose name must be its type."""
    assert not payload or payload.endswith(b"\n\n")
    found = []
    for event in payload.split(b"\n\n")[:-1]:
        name, data = event.split(b"\n")
        found.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found


def stream_of(chunks: list[JsonObject], client: ResponsesClient | None = None) -> list[Any]:
    client = client or open_client(stream=True)
    return events(b"".join([*map(client.feed, chunks), client.end()]))


class Server:
    """A backend that says what it is given, behind the client's side. *asked*: the last request, in the hub's words."""

    def __init__(self, said: JsonObject | list[JsonObject], *, breaks: bool = False) -> None:
        self.said = said
        self.breaks = breaks
        self.asked: JsonObject = {}
        #: The last request as the SDK sent it.
        self.sent: JsonObject = {}

    def serve(self, request: httpx2.Request) -> httpx2.Response:
        fields = self.sent = json.loads(request.read())
        try:
            client = ResponsesClient(dict(fields), bool(fields.get("stream")), "ab12", 7, Dropped(False))
        except Unmappable as refusal:
            error = {"message": refusal.message, "type": "invalid_request_error", "param": refusal.param, "code": None}
            return httpx2.Response(400, json={"error": error})
        self.asked = client.hub
        if isinstance(self.said, dict):
            return httpx2.Response(200, json=json.loads(client.answer(self.said)))
        body = b"".join(map(client.feed, self.said)) + (client.fail(BROKEN) if self.breaks else client.end())
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    def connect(self, *, strict: bool = True) -> openai.OpenAI:
        return openai.OpenAI(
            api_key="any",
            base_url="http://gateway.test/v1",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(transport=httpx2.MockTransport(self.serve)),
            _strict_response_validation=strict,
        )
