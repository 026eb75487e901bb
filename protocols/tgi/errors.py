"""TGI's errors: answers in place of an answer, and events in a stream.

Owns the tables from its types to statuses that OpenAI's clients know. It refuses to raise (the sides do).
Source: ErrorResponse, InferError and OpenaiErrorEvent (router/src/lib.rs, router/src/infer/mod.rs).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from protocols.dialect import ErrorObject

#: Characters of a message that are shown.
_SHOWN: Final = 2000


class _Error(msgspec.Struct):
    error: str
    error_type: str | None = None


class _Meaning(NamedTuple):
    status: int
    type: str
    code: str | None = None


_REFUSED: Final = _Meaning(400, "invalid_request_error")
_FAILED: Final = _Meaning(502, "server_error", "upstream_error")
_INCOMPLETE: Final = _Meaning(500, "server_error")
#: No Retry-After comes with it.
_OVERLOADED: Final = _Meaning(429, "rate_limit_error", "rate_limit_exceeded")

#: error_type -> what it means. 422 is no status of OpenAI's chat, 424 none that its SDK tries again.
_BY_TYPE: Final = {
    "validation": _REFUSED,
    "template_error": _REFUSED,
    "missing_template_variable": _REFUSED,
    "tool_error": _REFUSED,
    "suffix not supported": _REFUSED,
    "batch size exceeded": _REFUSED,
    "overloaded": _OVERLOADED,
    "generation": _FAILED,
    "incomplete_generation": _INCOMPLETE,
    "incomplete_generation_stream": _INCOMPLETE,
    "stream_serialization_error": _INCOMPLETE,
    "healthcheck": _Meaning(503, "service_unavailable"),
}
#: Where there is a text alone: events of /v1 streams, which say 422 whatever it is. By the words it begins with.
_BY_WORDS: Final = {
    # The model's own words were no call: nothing that the request could mend.
    "Tool error: Failed to parse generated text": _FAILED,
    "Tool error": _REFUSED,
    "Input validation error": _REFUSED,
    "Template error": _REFUSED,
    "Missing template": _REFUSED,
    "Model is overloaded": _OVERLOADED,
    "Request failed during generation": _FAILED,
    "Incomplete generation": _INCOMPLETE,
    "Stream event serialization": _INCOMPLETE,
}
#: Words of the two refusals of an input that is too long (ValidationError::MaxTotalTokens, InputLength).
_TOO_LONG: Final = ("`inputs` tokens + `max_new_tokens` must be", "`inputs` must have less than")
_BY_STATUS: Final = {422: _REFUSED, 424: _FAILED, 429: _OVERLOADED, 503: _Meaning(503, "service_unavailable")}

_decode: Final = msgspec.json.Decoder(_Error).decode


def read_error(status: int, body: bytes) -> ErrorObject:
    """The error of an answer with *status*; *body* may be anything: a proxy's page, or a line of plain text (Axum's
    words on a body that it cannot read)."""
    try:
        error = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _named(_plain(body) or f"The upstream answered with status {status}.", "", status)
    return _named(error.error, error.error_type or "", status)


def event_error(message: str, error_type: str = "") -> ErrorObject:
    """The error that an event of a stream tells; there is no status but the stream's own."""
    return _named(message, error_type, 500)


def _named(message: str, error_type: str, status: int) -> ErrorObject:
    meaning = next((one for words, one in _BY_WORDS.items() if message.startswith(words)), None)
    meaning = meaning or _BY_TYPE.get(error_type) or _BY_STATUS.get(status)
    if meaning is None:
        status = status if 400 <= status <= 599 else 502
        meaning = _Meaning(status, "invalid_request_error" if status < 500 else "server_error")
    too_long = meaning is _REFUSED and any(words in message for words in _TOO_LONG)
    code = "context_length_exceeded" if too_long else meaning.code
    return ErrorObject(meaning.status, message[:_SHOWN], meaning.type, code)


def _plain(body: bytes) -> str:
    """*body* as a line to show; empty where it is a page, JSON of another shape, or not text at all."""
    text = " ".join(body[: 4 * _SHOWN].decode(errors="ignore").split())
    return text if text.isprintable() and text[:1] not in ("", "<", "{", "[") else ""
