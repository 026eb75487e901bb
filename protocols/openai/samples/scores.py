"""Sample answers of /v1/embeddings, /v1/moderations and /v1/rerank: numbers that follow from the words.

Owns their request fields and shapes. It refuses meaning: vectors come from a hash, so equal inputs are
equal and others point anywhere; nothing is ever flagged; a document ranks by the query's words found in it.
Called through `answer.sample`.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson

from protocols.openai.samples.chat import one_by_one, size
from protocols.openai.samples.shapes import Asked, Refused, Whole, read

#: Numbers of all vectors of one answer: a tenth of a second of work, which holds up everybody else.
NUMBERS_LIMIT: Final = 1 << 18

#: Categories of omni-moderation, and which of them also look at images.
_CATEGORIES: Final[dict[str, bool]] = {
    "harassment": False,
    "harassment/threatening": False,
    "hate": False,
    "hate/threatening": False,
    "illicit": False,
    "illicit/violent": False,
    "self-harm": True,
    "self-harm/instructions": True,
    "self-harm/intent": True,
    "sexual": True,
    "sexual/minors": False,
    "violence": True,
    "violence/graphic": True,
}


class EmbeddingFields(msgspec.Struct):
    input: str | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None


class ModeratedPart(msgspec.Struct):
    type: Literal["text", "image_url"]


class ModerationFields(msgspec.Struct):
    input: str | Annotated[list[str | ModeratedPart], msgspec.Meta(min_length=1, max_length=2048)]


class Document(msgspec.Struct):
    text: str


class RerankFields(msgspec.Struct):
    query: str
    documents: Annotated[list[str | Document], msgspec.Meta(min_length=1, max_length=10_000)]
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    return_documents: bool | None = None


def embeddings(asked: Asked) -> Whole:
    """Answer /v1/embeddings. Raises `Refused`."""
    fields = read(asked, EmbeddingFields)
    inputs = one_by_one(fields.input, "input")
    if not all(inputs):
        raise Refused("'input' has an empty text.", "input")
    length = fields.dimensions or asked.embedding_size
    if length * len(inputs) > NUMBERS_LIMIT:
        raise Refused(f"The mock backend gives at most {NUMBERS_LIMIT} numbers.", "input")
    vectors = [unit_vector(repr(text).encode(), length) for text in inputs]
    encode = _base64_floats if fields.encoding_format == "base64" else list
    rows = [
        {"object": "embedding", "index": index, "embedding": encode(vector)} for index, vector in enumerate(vectors)
    ]
    total = sum(map(size, inputs))
    usage = {"prompt_tokens": total, "total_tokens": total}
    return Whole(orjson.dumps({"object": "list", "data": rows, "model": asked.model, "usage": usage}))


def unit_vector(seed: bytes, length: int) -> list[float]:
    """A vector of norm 1 that *seed* determines, each number exact in 32 bits."""
    noise = hashlib.shake_128(seed).digest(4 * length)
    raw = [number / 2**31 - 1 for number in struct.unpack(f"<{length}I", noise)]
    norm = math.sqrt(sum(number * number for number in raw)) or 1.0
    packed = struct.pack(f"<{length}f", *(number / norm for number in raw))
    return list(struct.unpack(f"<{length}f", packed))


def _base64_floats(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def moderations(asked: Asked) -> Whole:
    """Answer /v1/moderations: nothing is flagged. Raises `Refused`."""
    fields = read(asked, ModerationFields)
    given = [fields.input] if isinstance(fields.input, str) else fields.input
    parts = [item for item in given if isinstance(item, ModeratedPart)]
    if parts and len(parts) != len(given):
        raise Refused("'input' mixes text and typed parts.", "input")
    kinds = sorted({"image" if part.type == "image_url" else "text" for part in parts}) or ["text"]
    # Typed parts are judged together, texts one by one.
    results = [_unflagged(kinds)] * (1 if parts else len(given))
    return Whole(orjson.dumps({"id": f"modr-{asked.id}", "model": asked.model, "results": results}))


def _unflagged(kinds: list[str]) -> dict[str, Any]:
    return {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {
            name: [kind for kind in kinds if kind == "text" or sees] for name, sees in _CATEGORIES.items()
        },
    }


def rerank(asked: Asked) -> Whole:
    """Answer /v1/rerank in the shape that Cohere, Jina and vLLM share. Raises `Refused`."""
    fields = read(asked, RerankFields)
    texts = [item if isinstance(item, str) else item.text for item in fields.documents]
    wanted = set(fields.query.lower().split())
    results: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        found = wanted & set(text.lower().split())
        score = len(found) / len(wanted) if wanted else 0.0
        results.append({"index": index, "relevance_score": score})
        if fields.return_documents:
            results[-1]["document"] = {"text": text}
    results.sort(key=lambda result: -result["relevance_score"])
    total = sum(map(size, [fields.query, *texts]))
    usage = {"prompt_tokens": total, "total_tokens": total}
    body = {
        "id": f"rerank-{asked.id}",
        "model": asked.model,
        "results": results[: fields.top_n],
        "usage": usage,
    }
    return Whole(orjson.dumps(body))
