"""POST /api/embed of a server of Ollama: the hub's embeddings asked there.

Owns one attempt. It refuses streams, and inputs that are tokens. Made by the gateway for an attempt on a translated
route. Source: `EmbeddingsMiddleware` and `ToEmbeddingList` of the server v0.33, which is its own /v1/embeddings.

The hub's vectors are numbers, whatever `encoding_format` says: its client writes them as it asked for them.
As there, an input that is too long is cut by the server (`truncate` is its default), where OpenAI would refuse it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from protocols.dialect import Ask, Dropped, ErrorObject, JsonObject, Terms, Unmappable, are_tokens
from protocols.ollama import fields
from protocols.ollama.errors import read_error
from protocols.ollama.json_text import encode
from protocols.pieces import Malformed

_KNOWN: Final = frozenset({"model", "input", "encoding_format", "dimensions", "user", "stream"})


class _Answer(msgspec.Struct):
    embeddings: list[list[float]]
    prompt_eval_count: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0


_decode: Final = msgspec.json.Decoder(_Answer).decode


def _inputs(value: Any) -> list[str]:
    inputs = [value] if isinstance(value, str) else fields.array(value, "input")
    if not inputs or inputs == [""]:
        raise Unmappable("'input' must not be empty", "input")
    if any(isinstance(entry, int | list) for entry in inputs):
        raise Unmappable("'input' must be texts: Ollama takes no tokens", "input")
    return fields.texts(inputs, "input")


class EmbeddingsBackend:
    """A `BackendSide` for /api/embed."""

    repeats_text = False
    is_over = False

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        fields.refuse_rest(hub, _KNOWN, dropped, "is no field that can be translated for Ollama")
        inputs = _inputs(hub.get("input"))
        body: JsonObject = {"input": inputs}
        if hub.get("dimensions") is not None:
            dimensions = fields.integer(hub["dimensions"], "dimensions")
            if dimensions < 1:
                raise Unmappable("'dimensions' must be at least 1", "dimensions")
            body["dimensions"] = dimensions
        self._count = len(inputs)
        self._body = fields.written(body)
        self._model = fields.optional_text(hub.get("model"), "model")

    def ask(self, model: str) -> Ask:
        return Ask(b"/api/embed", b'{"model":' + encode(model) + b"," + self._body[1:])

    def forget(self) -> None:
        self._body = b""

    def error(self, status: int, body: bytes) -> ErrorObject:
        return read_error(status, body)

    def answer(self, body: bytes) -> JsonObject:
        try:
            answer = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Malformed("an answer has no embeddings") from None
        if len(answer.embeddings) != self._count:
            raise Malformed("an answer has not as many embeddings as there were inputs")
        vectors, count = answer.embeddings, answer.prompt_eval_count
        told: JsonObject = {
            "object": "list",
            "data": [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)],
            "model": self._model,
        }
        if are_tokens(count):
            told["usage"] = {"prompt_tokens": count, "total_tokens": count}
        return told

    def feed(self, payload: bytes) -> list[JsonObject]:
        """Embeddings are never streamed: whatever came as one is wrong."""
        raise Malformed("embeddings came as a stream")

    def end(self) -> list[JsonObject]:
        raise Malformed("embeddings came as a stream")
