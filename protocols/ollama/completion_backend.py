"""POST /api/generate of a server of Ollama: the hub's text completion asked there.

Owns one attempt. It refuses what `chat_backend` refuses. Made by the gateway for an attempt on a translated route.
Source: `FromCompleteRequest`, `ToCompletion` of the server v0.33, which is its own /v1/completions.

As there, the prompt is not `raw`: the server puts it into the model's template (a `suffix` into the one for filling
in), so that an instructed model answers it. As there, what a model thinks is not told: a completion has no place for
it. Unlike there, what is not set is the Modelfile's, also the number of tokens (OpenAI would stop after 16).
"""

from __future__ import annotations

from typing import Any, Final

from protocols.dialect import Ask, Dropped, ErrorObject, JsonObject, Terms, Unmappable
from protocols.ollama import fields, options
from protocols.ollama.chat_backend import LABELS, NO_EQUIVALENT
from protocols.ollama.errors import read_error
from protocols.ollama.json_text import encode
from protocols.ollama.replies import Replies, Reply, finish_of, read_answer, usage_of
from protocols.pieces import Malformed

#: Fields that change the answer and have no equivalent, with the value at which they do not.
_ODD: Final[dict[str, Any]] = {"n": 1, "best_of": 1, "echo": False, "logit_bias": {}}
_KNOWN: Final = (
    frozenset({"model", "stream", "prompt", "suffix", "logprobs"}) | options.HUB_FIELDS | LABELS | _ODD.keys()
)


def _prompt(value: Any) -> str:
    """The one prompt. OpenAI's API also takes several, and tokens."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise Unmappable("'prompt' must be one text: Ollama takes no tokens and no second prompt", "prompt")
    if not fields.text(value, "prompt"):
        raise Unmappable("'prompt' must not be empty", "prompt")
    return fields.text(value, "prompt")


class CompletionBackend:
    """A `BackendSide` for /api/generate."""

    repeats_text = False

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        fields.refuse_rest(hub, _KNOWN, dropped, "is no field that can be translated for Ollama")
        fields.refuse_set(hub, _ODD, dropped, NO_EQUIVALENT)
        if hub.get("logprobs") is not None:  # 0 asks for those of the chosen tokens
            dropped.leave_out("logprobs", NO_EQUIVALENT)
        body: JsonObject = {"prompt": _prompt(hub.get("prompt")), "stream": stream}
        suffix = fields.optional_text(hub.get("suffix"), "suffix")
        if suffix:
            body["suffix"] = suffix
        asked = options.from_hub(hub)
        if asked:
            body["options"] = asked
        self._body = fields.written(body)
        self._id = id
        self._model = fields.optional_text(hub.get("model"), "model")
        self._created = created
        self._replies = Replies(self._chunks)

    def ask(self, model: str) -> Ask:
        return Ask(b"/api/generate", b'{"model":' + encode(model) + b"," + self._body[1:])

    def forget(self) -> None:
        self._body = b""

    def error(self, status: int, body: bytes) -> ErrorObject:
        return read_error(status, body)

    def answer(self, body: bytes) -> JsonObject:
        reply = read_answer(body)
        answer = self._envelope([_choice(_response(reply), finish_of(reply))])
        usage = usage_of(reply)
        return answer if usage is None else answer | {"usage": usage}

    def feed(self, payload: bytes) -> list[JsonObject]:
        return self._replies.feed(payload)

    @property
    def is_over(self) -> bool:
        return self._replies.is_over

    def end(self) -> list[JsonObject]:
        return self._replies.end()

    def _envelope(self, choices: list[JsonObject]) -> JsonObject:
        return {
            "id": f"cmpl-{self._id}",
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }

    def _chunks(self, reply: Reply) -> list[JsonObject]:
        response = _response(reply)
        if not reply.done:
            return [self._envelope([_choice(response, None)])] if response else []
        chunks = [self._envelope([_choice(response, finish_of(reply))])]
        usage = usage_of(reply)
        return chunks if usage is None else [*chunks, self._envelope([]) | {"usage": usage}]


def _response(reply: Reply) -> str:
    if reply.response is None:
        raise Malformed("an answer has no response")
    return reply.response


def _choice(text: str, finish: str | None) -> JsonObject:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
