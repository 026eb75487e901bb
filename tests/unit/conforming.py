"""Every side of every dialect, and their transcripts.

Owns the table of adapters: a new one is one line in `BACKENDS` or `CLIENTS`. The rules are in test_conformance_*.py,
what hypothesis draws in `drawn`, what is compared in `meanings`.

A transcript is a file of tests/data/DIALECT: NAME.request.json as a client sends it, NAME.answer.json and NAME.stream
as a backend answers, NAME.STATUS.json an error. NAME begins with the adapter's prefix. An answer and a stream of one
name say the same. A stream that ends with an error has one of `BROKEN` in its name. NAME.hub.json is the hub's request
that is answered, where it is not made from NAME.request.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from protocols.anthropic.backend_side import MessagesBackend
from protocols.anthropic.client import MessagesClient
from protocols.dialect import BackendSide, ClientSide, Dropped, JsonObject, Task, Terms
from protocols.ollama import chat_backend, chat_client, completion_backend, embed_client, embeddings_backend
from protocols.ollama.generate_client import GenerateClient
from protocols.openai.backend import ChatBackend, CompletionBackend, EmbeddingsBackend
from protocols.openai.client import ChatClient, CompletionClient, EmbeddingsClient
from protocols.openai.responses.client import ResponsesClient
from protocols.sse import split_events
from protocols.tgi import chat as tgi_chat
from protocols.tgi import completion as tgi_completion

#: Words in the names of streams that end with an error.
BROKEN = {"broken", "error", "overloaded"}
DATA = Path(__file__).parents[1] / "data"
ID = "0123456789abcdef"
CREATED = 1_700_000_000

#: The least that each task is asked with, in the hub's words.
HUBS: dict[Task, JsonObject] = {
    Task.CHAT: {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    Task.COMPLETION: {"model": "m", "prompt": "Hi"},
    Task.EMBEDDINGS: {"model": "m", "input": "Hi"},
}


@dataclass(frozen=True)
class Has:
    """What of an answer a dialect can say, beyond text, calls, their arguments and the counts of tokens."""

    choices: bool = True
    reasoning: bool = True
    refusal: bool = True
    call_ids: bool = True
    cached: bool = True
    finishes: tuple[str, ...] = ("stop", "length", "content_filter")


@dataclass(frozen=True)
class Wire:
    """How a dialect's streams are written."""

    #: The stream cut at its own borders.
    split: Callable[[bytes], list[bytes]]
    #: An error in the middle of a stream.
    error: bytes
    #: Bytes of a tool call's arguments, and the pieces that go before: sent again and again they never end.
    arguments: tuple[bytes, bytes] | None
    #: What begins a part that does not end.
    begun: bytes
    #: What is only where a stream was complete: one of these.
    done: tuple[bytes, ...]


def _events(*payloads: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in payloads)


def _openai_call(**call: Any) -> JsonObject:
    return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}


PIECE = "x" * 4000


def _named(payload: JsonObject) -> bytes:
    return b"event: " + payload["type"].encode() + b"\n" + _events(payload)


def split_lines(payload: bytes) -> list[bytes]:
    return payload.splitlines(keepends=True)


WIRES = {
    "openai": Wire(
        split_events,
        b'data: {"error":{"message":"Out of order.","type":"server_error","param":null,"code":null}}\n\n',
        (
            _events(_openai_call(id="c", function={"name": "f", "arguments": ""})),
            _events(_openai_call(function={"arguments": PIECE})),
        ),
        b'data: {"choices":[{"index":0,"delta":{"content":"',
        (b"[DONE]",),
    ),
    "anthropic": Wire(
        split_events,
        b"event: error\n" + _events({"type": "error", "error": {"type": "api_error", "message": "Out of order."}}),
        (
            _named(
                {
                    "type": "message_start",
                    "message": {
                        "id": "m",
                        "role": "assistant",
                        "content": [],
                        "usage": {"input_tokens": 1, "output_tokens": 1},
                    },
                }
            )
            + _named(
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                }
            ),
            _named(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": PIECE},
                }
            ),
        ),
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"text":"',
        (b'"message_stop"',),
    ),
    "ollama": Wire(split_lines, b'{"error":"Out of order."}\n', None, b'{"message":{"content":"', (b'"done":true',)),
    "responses": Wire(split_events, b"", None, b"", (b'"response.completed"', b'"response.incomplete"')),
    "tgi chat": Wire(
        split_events,
        b'data: {"error":{"message":"Out of order.","http_status_code":424}}\n\n',
        (
            _events(_openai_call(id="c", function={"name": "f", "arguments": ""})),
            _events(_openai_call(function={"arguments": PIECE})),
        ),
        b'data: {"choices":[{"index":0,"delta":{"content":"',
        (),
    ),
    "tgi": Wire(
        split_events,
        b'data:{"error":"Out of order.","error_type":"generation"}\n\n',
        None,
        b'data:{"token":{"text":"',
        (),
    ),
}


@dataclass(frozen=True)
class Backend:
    """A `BackendSide`; `client` is the side of its own dialect's clients, where there is one."""

    side: Callable[..., BackendSide]
    task: Task
    dialect: str
    prefix: str
    client: Callable[..., ClientSide] | None = None
    #: What its streams look like, where its dialect has several ways.
    wire: str = ""
    streams: bool = True

    def open(self, hub: JsonObject | None = None, stream: bool = True, lenient: bool = True) -> BackendSide:
        return self.side(hub or HUBS[self.task], stream, ID, CREATED, Terms(), Dropped(lenient))

    @property
    def written(self) -> Wire:
        return WIRES[self.wire or self.dialect]

    @property
    def endless(self) -> tuple[bytes, bytes] | None:
        """The opening of a tool call, and a piece of its arguments, where it hears any."""
        return self.written.arguments if self.task is Task.CHAT else None


@dataclass(frozen=True)
class Client:
    """A `ClientSide`; `backend` is the side that reads what it writes, where there is one."""

    side: Callable[..., ClientSide]
    task: Task
    dialect: str
    prefix: str
    #: The least that it is asked with.
    fields: JsonObject
    backend: Callable[..., BackendSide] | None = None
    has: Has = Has()
    #: Fields of a request that it can say, by their names in the hub.
    says: frozenset[str] = frozenset()
    #: What its backends are asked where the hub's request asks for nothing.
    fills: JsonObject = field(default_factory=dict)
    streams: bool = True

    def open(self, fields: JsonObject | None = None, stream: bool = True, lenient: bool = True) -> ClientSide:
        return self.side(fields or self.fields, stream, ID, CREATED, Dropped(lenient))

    def reader(self, hub: JsonObject | None = None, stream: bool = True) -> BackendSide:
        assert self.backend is not None
        return self.backend(hub or HUBS[self.task], stream, ID, CREATED, Terms(), Dropped(lenient=False))

    @property
    def written(self) -> Wire:
        return WIRES[self.dialect]


BACKENDS = {
    "openai chat": Backend(ChatBackend, Task.CHAT, "openai", "chat", ChatClient),
    "openai completion": Backend(CompletionBackend, Task.COMPLETION, "openai", "completion", CompletionClient),
    "openai embeddings": Backend(
        EmbeddingsBackend, Task.EMBEDDINGS, "openai", "embeddings", EmbeddingsClient, streams=False
    ),
    "anthropic messages": Backend(MessagesBackend, Task.CHAT, "anthropic", "", MessagesClient),
    "ollama chat": Backend(chat_backend.ChatBackend, Task.CHAT, "ollama", "chat", chat_client.ChatClient),
    "ollama generate": Backend(
        completion_backend.CompletionBackend, Task.COMPLETION, "ollama", "generate", GenerateClient
    ),
    "ollama embed": Backend(
        embeddings_backend.EmbeddingsBackend,
        Task.EMBEDDINGS,
        "ollama",
        "embed-",
        embed_client.EmbedClient,
        streams=False,
    ),
    "tgi chat": Backend(tgi_chat.ChatBackend, Task.CHAT, "tgi", "chat", wire="tgi chat"),
    "tgi generate": Backend(tgi_completion.CompletionBackend, Task.COMPLETION, "tgi", "generate"),
}

#: Fields of a request that most dialects can say.
SAMPLING = frozenset(
    {
        *("max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop"),
        *("frequency_penalty", "presence_penalty"),
    }
)
ASKED = {"stream_options": {"include_usage": True}}
OLLAMA = Has(choices=False, refusal=False, cached=False, finishes=("stop", "length"))
CLIENTS = {
    "openai chat": Client(
        ChatClient,
        Task.CHAT,
        "openai",
        "chat",
        {**HUBS[Task.CHAT], **ASKED},
        ChatBackend,
        says=SAMPLING | {"tools", "tool_choice", "response_format"},
    ),
    "openai completion": Client(
        CompletionClient, Task.COMPLETION, "openai", "completion", {**HUBS[Task.COMPLETION], **ASKED}, CompletionBackend
    ),
    "openai embeddings": Client(
        EmbeddingsClient,
        Task.EMBEDDINGS,
        "openai",
        "embeddings",
        HUBS[Task.EMBEDDINGS],
        EmbeddingsBackend,
        streams=False,
    ),
    "anthropic messages": Client(
        MessagesClient,
        Task.CHAT,
        "anthropic",
        "",
        {**HUBS[Task.CHAT], "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        MessagesBackend,
        Has(choices=False, refusal=False),
        frozenset({"max_completion_tokens", "temperature", "top_p", "top_k", "stop", "tools", "tool_choice"}),
        {"max_completion_tokens": Terms().max_tokens},
    ),
    "ollama chat": Client(
        chat_client.ChatClient,
        Task.CHAT,
        "ollama",
        "chat",
        HUBS[Task.CHAT],
        chat_backend.ChatBackend,
        OLLAMA,
        SAMPLING | {"tools", "response_format"},
    ),
    "ollama generate": Client(GenerateClient, Task.CHAT, "ollama", "generate", {"model": "m", "prompt": "Hi"}),
    "ollama raw generate": Client(
        GenerateClient,
        Task.COMPLETION,
        "ollama",
        "generate-raw",
        {"model": "m", "prompt": "Hi", "raw": True},
        completion_backend.CompletionBackend,
        OLLAMA,
    ),
    "ollama embed": Client(
        embed_client.EmbedClient,
        Task.EMBEDDINGS,
        "ollama",
        "embed-",
        {"model": "m", "input": "Hi"},
        embeddings_backend.EmbeddingsBackend,
        streams=False,
    ),
    "ollama embeddings": Client(
        embed_client.EmbeddingsClient,
        Task.EMBEDDINGS,
        "ollama",
        "embeddings",
        {"model": "m", "prompt": "Hi"},
        streams=False,
    ),
    "responses": Client(ResponsesClient, Task.CHAT, "responses", "responses", {"model": "m", "input": "Hi"}),
}

every_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
every_streaming_backend = pytest.mark.parametrize(
    "backend",
    [one for one in BACKENDS.values() if one.streams],
    ids=[name for name, one in BACKENDS.items() if one.streams],
)
every_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
every_streaming_client = pytest.mark.parametrize(
    "client",
    [one for one in CLIENTS.values() if one.streams],
    ids=[name for name, one in CLIENTS.items() if one.streams],
)


@dataclass(frozen=True)
class Transcript:
    """One file of a dialect's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name.partition(".")[0]

    @property
    def bytes(self) -> bytes:
        return self.path.read_bytes()

    @property
    def json(self) -> Any:
        return json.loads(self.bytes)

    @property
    def broken(self) -> bool:
        return not BROKEN.isdisjoint(re.split("[-_]", self.name))

    def sibling(self, kind: str) -> Transcript | None:
        path = self.path.with_name(f"{self.name}.{kind}")
        return Transcript(path) if path.exists() else None


def transcripts(adapter: Backend | Client, kind: str) -> list[Transcript]:
    """What *adapter* has of *kind*: "request.json", "answer.json", "stream"."""
    return [Transcript(path) for path in sorted((DATA / adapter.dialect).glob(f"{adapter.prefix}*.{kind}"))]


def each(
    kind: str, adapters: dict[str, Any], want: Callable[[Transcript], bool] = lambda _: True
) -> pytest.MarkDecorator:
    """Parametrize a test by `adapter` and `transcript`: every one of *kind* that *want* takes."""
    pairs = [
        pytest.param(adapter, one, id=f"{name}-{one.name}")
        for name, adapter in adapters.items()
        for one in transcripts(adapter, kind)
        if want(one)
    ]
    return pytest.mark.parametrize(("adapter", "transcript"), pairs)


def hub_of(backend: Backend, transcript: Transcript) -> JsonObject:
    """The hub's request that *transcript* answers: told with it, or made from its dialect's request."""
    told = transcript.sibling("hub.json")
    if told is not None:
        hub: JsonObject = told.json
        return hub
    request = transcript.sibling("request.json")
    if request is None or backend.client is None:
        return HUBS[backend.task]
    side = backend.client(request.json, False, ID, CREATED, Dropped(lenient=True))
    return side.hub if side.task is backend.task else HUBS[backend.task]
