"""Fields that /api/chat and /api/generate share, in the hub's words.

Owns `format`, `think`, `logprobs` and what has no effect. It refuses the prompt (`history`, `generate_client`).
Source: `api.ChatRequest`, `api.GenerateRequest` of the server v0.33.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.ollama import fields

#: Ollama's levels of thinking; true is "medium" (`ThinkValue.String`).
_LEVELS: Final = ("low", "medium", "high", "max")

#: Hints about a model's place in memory, and about a prompt that is too long for it: backends have their own rules.
HINTS: Final = frozenset({"keep_alive", "truncate", "shift"})
COMMON: Final = HINTS | {"model", "stream", "format", "options", "think", "logprobs", "top_logprobs"}


def check_hints(given: JsonObject) -> None:
    """Raise for a hint of a wrong type; it is left out of the hub's request otherwise."""
    fields.flag(given.get("truncate"), "truncate")
    fields.flag(given.get("shift"), "shift")
    keep = given.get("keep_alive")
    if isinstance(keep, bool) or not (keep is None or isinstance(keep, str | int | float)):
        raise Unmappable("'keep_alive' must be a number of seconds or a duration", "keep_alive")


def response_format(value: Any) -> JsonObject | None:
    """The hub's response_format for `format`: "json", a schema, or nothing.

    A schema goes without `strict`: with it OpenAI refuses the greater part of those that Ollama takes.
    """
    if value is None or value == "":
        return None
    if value == "json":
        return {"type": "json_object"}
    if not isinstance(value, dict):
        raise Unmappable("'format' must be \"json\" or a JSON schema", "format")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}}


def reasoning_effort(value: Any) -> str | None:
    """The hub's reasoning_effort for `think`."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "medium" if value else "none"
    if not isinstance(value, str) or value not in _LEVELS:
        raise Unmappable(f"'think' must be true, false or one of {', '.join(_LEVELS)}", "think")
    return value


def logprobs(given: JsonObject) -> JsonObject:
    """The hub's chat fields for log probabilities; `top_logprobs` has no effect without `logprobs`, as in Ollama."""
    wanted = fields.flag(given.get("logprobs"), "logprobs")
    most = fields.integer(given.get("top_logprobs") or 0, "top_logprobs")
    if not 0 <= most <= 20:
        raise Unmappable("'top_logprobs' must be between 0 and 20", "top_logprobs")
    if not wanted:
        return {}
    return {"logprobs": True, "top_logprobs": most} if most else {"logprobs": True}


def begin(given: JsonObject, stream: bool, known: frozenset[str], dropped: Dropped) -> JsonObject:
    """The hub's request as far as it is the same for all: its model, how it comes, and no field that is not *known*.

    Usage is always asked for: Ollama's last line tells it.
    """
    model = fields.text(given.get("model"), "model")
    if not model:
        raise Unmappable("'model' must not be empty", "model")
    check_hints(given)
    fields.refuse_rest(given, known, dropped, "is no field that can be translated")
    hub: JsonObject = {"model": model, "stream": stream}
    if stream:
        hub["stream_options"] = {"include_usage": True}
    return hub
