"""The door of the samples: a path to what answers it.

Owns the table of paths. It refuses paths that are not inference. Called by `gateway.upstream.mock`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocols.openai.samples import chat, media, responses, scores
from protocols.openai.samples.shapes import Asked, Stream, Whole

SAMPLES: Final[dict[str, Callable[[Asked], Whole | Stream]]] = {
    "/v1/chat/completions": chat.chat,
    "/v1/completions": chat.completions,
    "/v1/responses": responses.responses,
    "/v1/embeddings": scores.embeddings,
    "/v1/moderations": scores.moderations,
    "/v1/rerank": scores.rerank,
    "/v1/images/generations": media.generations,
    "/v1/images/edits": media.edits,
    "/v1/images/variations": media.variations,
    "/v1/audio/speech": media.speech,
    "/v1/audio/transcriptions": media.transcriptions,
    "/v1/audio/translations": media.translations,
}


def sample(asked: Asked) -> Whole | Stream | None:
    """Return what a server would answer, None for a path that it does not know. Raises `Refused`."""
    answer = SAMPLES.get(asked.path)
    return None if answer is None else answer(asked)
