"""OpenAI's error object, written and recognised.

Source: https://platform.openai.com/docs/guides/error-codes and the `Error` schema of OpenAI's OpenAPI document, which
requires all four keys. Compatible servers say it in other ways: a text alone (vLLM's 401), a number as the code (vLLM,
llama.cpp), an object without an envelope (older vLLM), FastAPI's `detail`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from protocols.dialect import ErrorObject


class _Envelope(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw(b"null")
    object: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Envelope)


def error_body(message: str, type: str, code: str | None, param: str | None = None) -> bytes:
    """The body of an error answer; also the data of an error event in a stream."""
    return orjson.dumps({"error": {"message": message, "type": type, "param": param, "code": code}})


def carries_error(data: bytes) -> bool:
    """Whether *data*, the JSON of one event or body, is an error that came in place of an answer."""
    if b'"error"' not in data and b'"response.failed"' not in data:
        return False
    try:
        envelope = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    # The responses API's events, and what vLLM and its kin send as a body.
    if bytes(envelope.type) in (b'"error"', b'"response.failed"') or bytes(envelope.object) == b'"error"':
        return True
    return bytes(envelope.error) not in (b"null", b'""', b"{}", b"false")


#: What OpenAI calls an error of this status, where a backend does not say.
_TYPES: Final = {
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable",
}
#: Characters of a backend's own words that are passed on.
_MESSAGE_LIMIT: Final = 2000


def read_error(status: int, body: bytes) -> ErrorObject:
    """The error that *body* tells, whoever wrote it; of bytes that tell none only the status is said."""
    try:
        said = orjson.loads(body)
    except ValueError:
        said = None
    inner = said.get("error") if isinstance(said, dict) else None
    if isinstance(inner, dict):
        return _read_object(status, inner)
    if isinstance(inner, str) and inner:
        return _read_object(status, {"message": inner})
    if isinstance(said, dict):
        return _read_object(status, {"message": _detail(said.get("detail")), **said})
    return _read_object(status, {})


def _read_object(status: int, inner: dict[str, Any]) -> ErrorObject:
    message, kind, code, param = (inner.get(name) for name in ("message", "type", "code", "param"))
    default = _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return ErrorObject(
        status,
        message[:_MESSAGE_LIMIT] if isinstance(message, str) and message else f"the upstream answered with {status}",
        kind if isinstance(kind, str) and kind else default,
        code if isinstance(code, str) and code else None,
        param if isinstance(param, str) and param else None,
    )


def _detail(detail: Any) -> str | None:
    """FastAPI's: a text, or a list of what is wrong where (https://fastapi.tiangolo.com/tutorial/handling-errors/)."""
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return None
    texts = []
    for wrong in detail:
        if isinstance(wrong, dict) and isinstance(wrong.get("msg"), str):
            place = wrong.get("loc")
            where = ".".join(map(str, place)) if isinstance(place, list) else ""
            texts.append(f"{where}: {wrong['msg']}" if where else wrong["msg"])
    return "; ".join(texts) or None


def read_stream_error(data: bytes) -> ErrorObject:
    """The error that one event of a stream tells; its status is the backend's number for it, else 502."""
    try:
        said = orjson.loads(data)
    except ValueError:
        return ErrorObject(502, "the upstream's stream failed")
    inner = said.get("error") if isinstance(said, dict) else None
    told = inner if isinstance(inner, dict) else said if isinstance(said, dict) else {}
    for name in ("code", "status_code", "http_status_code"):  # vLLM and llama.cpp, litellm, TGI
        status = told.get(name)
        if isinstance(status, int) and 400 <= status < 600:
            return read_error(status, data)
    error = read_error(502, data)
    return (
        error
        if told.get("message") or isinstance(inner, str)
        else error._replace(message="the upstream's stream failed")
    )
