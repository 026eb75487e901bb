"""The doors: which paths the gateway answers, with which methods, and what their bodies are.

Owns the table. It refuses to answer any of them (`gateway.proxy` and `gateway.admin` do). Read by `gateway.front`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Body(Enum):
    """What a path's request body is."""

    NONE = "none"
    JSON = "json"
    #: JSON or multipart/form-data with a `model` part.
    FORM = "form"
    #: Anything; passed on untouched.
    ANY = "any"


class Endpoint:
    """One door. `path` is also the metric label, so it is a template, never a client's text."""

    __slots__ = ("body", "media", "methods", "path", "repeatable", "streams_usage")

    def __init__(
        self,
        path: str,
        body: Body = Body.JSON,
        *,
        methods: tuple[bytes, ...] = (b"POST",),
        repeatable: bool = False,
        streams_usage: bool = False,
        media: bool = False,
    ) -> None:
        self.path = path
        self.body = body
        self.methods = methods
        #: A repetition has no effect but cost: the endpoint only generates.
        self.repeatable = repeatable
        #: Its streams take `stream_options.include_usage`.
        self.streams_usage = streams_usage
        #: Its bodies carry images or sound: the larger body limit holds.
        self.media = media

    def __repr__(self) -> str:
        return f"<Endpoint {self.path}>"


INFERENCE: Final = (
    Endpoint("/v1/chat/completions", repeatable=True, streams_usage=True),
    Endpoint("/v1/completions", repeatable=True, streams_usage=True),
    Endpoint("/v1/embeddings", repeatable=True),
    Endpoint("/v1/responses"),
    Endpoint("/v1/moderations", repeatable=True),
    Endpoint("/v1/rerank", repeatable=True),
    Endpoint("/v1/images/generations", repeatable=True, media=True),
    Endpoint("/v1/images/edits", Body.FORM, repeatable=True, media=True),
    Endpoint("/v1/images/variations", Body.FORM, repeatable=True, media=True),
    Endpoint("/v1/audio/speech"),
    Endpoint("/v1/audio/transcriptions", Body.FORM, media=True),
    Endpoint("/v1/audio/translations", Body.FORM, media=True),
)
