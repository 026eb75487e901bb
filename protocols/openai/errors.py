"""OpenAI's error object, written and recognised.

Source: https://platform.openai.com/docs/guides/error-codes and the `Error` schema of OpenAI's OpenAPI document, which
requires all four keys.
"""

from __future__ import annotations

import msgspec
import orjson


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
