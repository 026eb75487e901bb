"""The doors: which paths the gateway answers, with which methods, in which dialect, and what their bodies are.

Owns the table. It refuses to answer any of them (`gateway.proxy` and `gateway.admin` do). Read by `gateway.front`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from protocols.anthropic.client import MessagesClient
from protocols.anthropic.count import count_body
from protocols.anthropic.dialect import ANTHROPIC
from protocols.dialect import ClientSide, Dialect, Dropped, JsonObject
from protocols.ollama import chat_client as ollama_chat
from protocols.ollama import embed_client as ollama_embed
from protocols.ollama import generate_client as ollama_generate
from protocols.ollama.dialect import OLLAMA
from protocols.ollama.stream import STREAM_DEFAULT
from protocols.openai.client import ChatClient, CompletionClient, EmbeddingsClient
from protocols.openai.dialect import OPENAI
from protocols.openai.responses.client import ResponsesClient
from protocols.openai.responses.dialect import RESPONSES


class Body(Enum):
    """What a path's request body is."""

    NONE = "none"
    JSON = "json"
    #: JSON or multipart/form-data with a `model` part.
    FORM = "form"
    #: Anything; passed on untouched.
    ANY = "any"


#: Makes a side: the decoded body, whether a stream is asked for, the call's id, Unix seconds, and what is left out.
ClientMaker = Callable[[JsonObject, bool, str, int, Dropped], ClientSide]


class Endpoint:
    """One door. `path` is also the metric label, so it is a template, never a client's text."""

    __slots__ = (
        "body",
        "capability",
        "client",
        "count",
        "dialect",
        "media",
        "methods",
        "path",
        "repeatable",
        "streams",
        "streams_usage",
        "usage_of_answer",
    )

    def __init__(
        self,
        path: str,
        body: Body = Body.JSON,
        *,
        methods: tuple[bytes, ...] = (b"POST",),
        repeatable: bool = False,
        streams: bool = False,
        streams_usage: bool = False,
        media: bool = False,
        dialect: Dialect = OPENAI,
        capability: str = "",
        client: ClientMaker | None = None,
        count: Callable[[JsonObject, Dropped], bytes] | None = None,
    ) -> None:
        self.path = path
        self.body = body
        self.methods = methods
        #: A repetition has no effect but cost: the endpoint only generates.
        self.repeatable = repeatable
        #: An answer is a stream where the request does not say.
        self.streams = streams
        #: Its streams take `stream_options.include_usage`.
        self.streams_usage = streams_usage
        #: Its bodies carry images or sound: the larger body limit holds.
        self.media = media
        #: What its clients speak, and are told errors in.
        self.dialect = dialect
        self.usage_of_answer = dialect.usage_of_answer
        #: What a backend must be able to do, as `capabilities` calls it; empty: whatever has this door.
        self.capability = capability
        #: Reads its requests where the backend has no such door; None: they cannot be translated.
        self.client = client
        #: Answers its requests without a backend, where none has this door: the body.
        self.count = count

    def __repr__(self) -> str:
        return f"<Endpoint {self.path}>"


INFERENCE: Final = (
    Endpoint("/v1/chat/completions", repeatable=True, streams_usage=True, capability="chat", client=ChatClient),
    Endpoint("/v1/completions", repeatable=True, streams_usage=True, capability="completion", client=CompletionClient),
    Endpoint("/v1/embeddings", repeatable=True, capability="embeddings", client=EmbeddingsClient),
    Endpoint("/v1/responses", dialect=RESPONSES, capability="chat", client=ResponsesClient),
    Endpoint("/v1/moderations", repeatable=True, capability="moderations"),
    Endpoint("/v1/rerank", repeatable=True, capability="rerank"),
    Endpoint("/v1/images/generations", repeatable=True, media=True, capability="images"),
    Endpoint("/v1/images/edits", Body.FORM, repeatable=True, media=True, capability="images"),
    Endpoint("/v1/images/variations", Body.FORM, repeatable=True, media=True, capability="images"),
    Endpoint("/v1/audio/speech", capability="audio"),
    Endpoint("/v1/audio/transcriptions", Body.FORM, media=True, capability="audio"),
    Endpoint("/v1/audio/translations", Body.FORM, media=True, capability="audio"),
    Endpoint("/v1/messages", repeatable=True, dialect=ANTHROPIC, capability="chat", client=MessagesClient),
    Endpoint("/v1/messages/count_tokens", repeatable=True, dialect=ANTHROPIC, capability="chat", count=count_body),
    Endpoint(
        "/api/chat",
        repeatable=True,
        streams=STREAM_DEFAULT,
        dialect=OLLAMA,
        capability="chat",
        client=ollama_chat.ChatClient,
    ),
    Endpoint(
        "/api/generate",
        repeatable=True,
        streams=STREAM_DEFAULT,
        dialect=OLLAMA,
        capability="chat",
        client=ollama_generate.GenerateClient,
    ),
    Endpoint("/api/embed", repeatable=True, dialect=OLLAMA, capability="embeddings", client=ollama_embed.EmbedClient),
    Endpoint(
        "/api/embeddings",
        repeatable=True,
        dialect=OLLAMA,
        capability="embeddings",
        client=ollama_embed.EmbeddingsClient,
    ),
)
