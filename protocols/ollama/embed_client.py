"""POST /api/embed, and the older /api/embeddings, for Ollama's clients.

Owns both bodies and answers. It refuses streams: there are none. Made by the gateway for a call on a translated route.
Source: docs/api.md and `api.EmbedRequest`, `api.EmbeddingRequest` of the server v0.33.

`options`, `keep_alive` and `truncate` do not change a vector and are left out. (A server of Ollama cuts an input that
is too long where `truncate` is not false; other backends refuse it.) Vectors come as the backend made them; /api/embed
of a real server normalises them, and so do OpenAI's models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from protocols.dialect import SAME_NAMES, Dropped, ErrorObject, JsonObject, Task, Unmappable
from protocols.ollama import fields, hub, request
from protocols.ollama.errors import error_line
from protocols.ollama.json_text import encode
from protocols.pieces import Malformed

_PROMPT: Final[Mapping[str, str]] = {"input": "prompt"}
_HINTS: Final = request.HINTS - {"shift"} | {"model", "options"}


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


def _vectors(answer: JsonObject) -> list[list[float]]:
    """The vectors of the hub's answer, in the order of their inputs."""
    try:
        items = msgspec.convert(answer.get("data"), list[_Item])
    except (msgspec.ValidationError, RecursionError):
        raise Malformed("an answer has no embeddings") from None
    if any(item.index is not None for item in items):
        items.sort(key=lambda item: item.index or 0)
    return [item.embedding for item in items]


class EmbedClient:
    """A `ClientSide` for /api/embed."""

    names: Mapping[str, str] = SAME_NAMES
    repeats_text = False

    def __init__(self, given: JsonObject, stream: bool, id: str, created: int, dropped: Dropped) -> None:
        self.task = Task.EMBEDDINGS
        self.hub = request.begin(given, False, _HINTS | {"input", "dimensions"}, dropped)
        del self.hub["stream"]
        fields.optional_object(given.get("options"), "options")
        value = given.get("input")
        self.hub["input"] = value if isinstance(value, str) else fields.texts(value, "input")
        if not value:
            raise Unmappable("'input' must not be empty: models are not loaded on demand", "input")
        self.hub["encoding_format"] = "float"
        dimensions = fields.integer(given.get("dimensions") or 0, "dimensions")
        if dimensions > 0:
            self.hub["dimensions"] = dimensions

    def answer(self, answer: JsonObject) -> bytes:
        """A whole answer's body. Raises `Malformed`."""
        body: JsonObject = {"model": self.hub["model"], "embeddings": _vectors(answer)}
        body |= {"total_duration": 0, "load_duration": 0}
        prompt = hub.prompt_tokens(answer)
        return encode(body if prompt is None else body | {"prompt_eval_count": prompt})

    def feed(self, chunk: JsonObject) -> bytes:
        """Embeddings are never streamed: whatever came as one is wrong."""
        raise Malformed("embeddings came as a stream")

    def end(self) -> bytes:
        return b""

    def fail(self, error: ErrorObject) -> bytes:
        return error_line(error)


class EmbeddingsClient(EmbedClient):
    """A `ClientSide` for /api/embeddings: one `prompt`, one `embedding`, no counts."""

    names = _PROMPT

    def __init__(self, given: JsonObject, stream: bool, id: str, created: int, dropped: Dropped) -> None:
        prompt = fields.text(given.get("prompt"), "prompt")
        if not prompt:
            raise Unmappable("'prompt' must not be empty: models are not loaded on demand", "prompt")
        renamed = {name: value for name, value in given.items() if name != "prompt"}
        fields.refuse_rest(renamed, _HINTS, dropped, "is no field that can be translated")
        renamed = {name: value for name, value in renamed.items() if name in _HINTS}
        super().__init__(renamed | {"input": prompt}, stream, id, created, dropped)

    def answer(self, answer: JsonObject) -> bytes:
        vectors = _vectors(answer)
        if len(vectors) != 1:
            raise Malformed("an answer has not one embedding")
        return encode({"embedding": vectors[0]})
