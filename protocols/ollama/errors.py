"""Ollama's errors: one text under `error`, whole or as the last line of a stream.

Owns what is written and what an upstream's error means in OpenAI's words. It refuses to decide on a status for a
client (`gateway.errors`). Source: docs/api/errors.mdx; `api.StatusError`, `streamResponse` of the server v0.33.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocols.dialect import ErrorObject
from protocols.ollama.json_text import encode, encode_line

#: Characters of an upstream's text that are passed on.
MESSAGE_LIMIT: Final = 4096
#: Bytes of an upstream's error that are looked at.
_READ_LIMIT: Final = 64 << 10

_INVALID: Final = "invalid_request_error"
#: OpenAI's type and code for a status, as its guide to error codes has them.
_GUESSES: Final[dict[int, tuple[str, str | None]]] = {
    401: (_INVALID, "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("permission_error", None),
    404: (_INVALID, "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    503: ("service_unavailable", "overloaded"),
}


def error_body(error: ErrorObject) -> bytes:
    """The body of an answer that is an error."""
    return encode({"error": error.message})


def error_line(error: ErrorObject) -> bytes:
    """The last line of a stream that broke; the official clients raise for it."""
    return encode_line({"error": error.message})


def is_error(value: msgspec.Raw) -> bool:
    """Whether *value*, the `error` of an answer or a line, tells one."""
    return bytes(value) not in (b"null", b'""', b"{}", b"false")


def read_error(status: int, body: bytes) -> ErrorObject:
    """What an upstream says went wrong, in OpenAI's words; *body* may be anything.

    *status* is the answer's, and stays; one that is no error's becomes 502. Type and code are guessed from it, since
    Ollama tells a text alone, except where a proxy before it says more (an error object of OpenAI's).
    """
    value = _decode(body)
    error = value.get("error") if isinstance(value, dict) else None
    if not 400 <= status <= 599:
        status = 502
    type, code = _GUESSES.get(status, (_INVALID if status < 500 else "server_error", None))
    param = None
    if isinstance(error, dict):
        type, code, param = _text(error, "type") or type, _text(error, "code") or code, _text(error, "param")
    message = _message(value, error) or f"the upstream answered {status} and no reason"
    if code is None and status == 400 and "context length" in message:
        code = "context_length_exceeded"  # "the input length exceeds the context length"
    return ErrorObject(status, message[:MESSAGE_LIMIT], type, code, param)


def _decode(body: bytes) -> Any:
    """The JSON of *body*, or else its text."""
    try:
        return msgspec.json.decode(body[:_READ_LIMIT])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body[:_READ_LIMIT].decode(errors="replace")


def _message(value: Any, error: Any) -> str:
    """The text of an error; empty where there is none."""
    if isinstance(value, dict):
        places = (error, _text(error, "message"), _text(value, "message"), _text(value, "detail"))
        value = next((place for place in places if isinstance(place, str) and place.strip()), "")
    return value.strip() if isinstance(value, str) else ""


def _text(object: Any, key: str) -> str | None:
    """The text at *key*, where *object* is one that has it."""
    value = object.get(key) if isinstance(object, dict) else None
    return value if isinstance(value, str) and value else None
