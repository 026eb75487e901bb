"""Anthropic's errors: written for clients, read from backends.

Owns the shape of the error object and which of its types stands for which status, both ways. It refuses to judge whose
fault an error is, and request ids: they travel in the answer's head (`request-id`), where the vendor's SDK looks.

Source: Anthropic's API reference, "Errors", and `types/shared/error_type.py` of its Python SDK 2.12.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from protocols.dialect import ErrorObject

#: Characters of a message that a backend sent which go on to a client.
MESSAGE_LIMIT: Final = 1024

#: Status -> type, as the vendor documents them. Another status has the type of its class.
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

#: OpenAI's codes and types (and those of servers like it) -> status, for errors that come without a status of their
#: own: an event within an answer of 200.
_STATUSES_OF_CODES: Final = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "BadRequestError": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "insufficient_quota": 429,
    "permission_error": 403,
    "model_not_found": 404,
    "NotFoundError": 404,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "service_unavailable": 503,
    "overloaded": 503,
    "timeout": 504,
}


class _Meaning(msgspec.Struct, frozen=True):
    """What one of Anthropic's types means: a status, OpenAI's type and code."""

    status: int
    type: str
    code: str | None


_MEANINGS: Final = {
    "invalid_request_error": _Meaning(400, "invalid_request_error", None),
    "authentication_error": _Meaning(401, "invalid_request_error", "invalid_api_key"),
    "billing_error": _Meaning(402, "insufficient_quota", "insufficient_quota"),
    "permission_error": _Meaning(403, "permission_error", None),
    "not_found_error": _Meaning(404, "invalid_request_error", "not_found"),
    "conflict_error": _Meaning(409, "invalid_request_error", "conflict"),
    "request_too_large": _Meaning(413, "invalid_request_error", "request_too_large"),
    "rate_limit_error": _Meaning(429, "requests", "rate_limit_exceeded"),
    "api_error": _Meaning(500, "server_error", None),
    "timeout_error": _Meaning(504, "server_error", "timeout"),
    "overloaded_error": _Meaning(529, "service_unavailable", "overloaded"),
}


def type_of(error: ErrorObject) -> str:
    """Anthropic's type for *error*: its status decides; where that is none of an error, its code or type does."""
    status = error.status
    if status < 400:
        status = _STATUSES_OF_CODES.get(error.code or "") or _STATUSES_OF_CODES.get(error.type, 500)
    known = _TYPES.get(status)
    if known is not None:
        return known
    return "api_error" if status >= 500 else "invalid_request_error"


def error_body(error: ErrorObject) -> bytes:
    """The body of an error answer; also the data of an error event."""
    return orjson.dumps({"type": "error", "error": {"type": type_of(error), "message": error.message}})


def error_event(error: ErrorObject) -> bytes:
    """The event that a stream which broke ends with, framed."""
    return frame_error(error_body(error))


def frame_error(data: bytes) -> bytes:
    """An error event, given its data."""
    return b"event: error\ndata: " + data + b"\n\n"


def read_error(status: int, body: bytes) -> ErrorObject:
    """The error that an upstream sent with *status*: JSON of any known shape, text, HTML, nothing.

    A *status* below 400 is that of the answer in which the error came as an event: its type tells the status then.
    """
    error, message = _parts(body)
    kind = error.get("type")
    meaning = _MEANINGS.get(kind) if isinstance(kind, str) else None
    if meaning is None:
        meaning = _MEANINGS[type_of(ErrorObject(status, "")) if status >= 400 else "api_error"]
    if status < 400:
        status = meaning.status
    code = _code(error, meaning.code, message)
    return ErrorObject(status, message or f"The backend answered {status}.", meaning.type, code)


def _code(error: dict[str, Any], code: str | None, message: str) -> str | None:
    """OpenAI's code: the vendor's own where it gives one, or what its message is known to mean."""
    details = error.get("details")
    told = details.get("error_code") if isinstance(details, dict) else None
    if isinstance(told, str) and told:
        return told[:MESSAGE_LIMIT]
    if message.startswith("prompt is too long"):
        return "context_length_exceeded"
    if code == "not_found" and message.startswith("model:"):
        return "model_not_found"
    return code


def _parts(body: bytes) -> tuple[dict[str, Any], str]:
    """The error object in *body*, empty where there is none, and its message."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}, _text(body)
    if isinstance(value, dict):
        error = value.get("error")
        if isinstance(error, dict):
            return error, _bounded(error.get("message"))
        return {}, _bounded(error) or _bounded(value.get("message")) or _bounded(value.get("detail"))
    return {}, _bounded(value)


def _text(body: bytes) -> str:
    """The first of a body that is no JSON; nothing of a page, which is markup for a browser."""
    start = body[: 4 * MESSAGE_LIMIT].lstrip()
    return "" if start.startswith(b"<") else _bounded(start.decode(errors="replace"))


def _bounded(message: object) -> str:
    """*message* where it is text, on one line, without controls."""
    if not isinstance(message, str):
        return ""
    start = "".join(c if c.isprintable() else " " for c in message[: 2 * MESSAGE_LIMIT])
    return " ".join(start.split())[:MESSAGE_LIMIT]
