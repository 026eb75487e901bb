"""OpenAI's error object, written and recognised.

Source: https://platform.openai.com/docs/guides/error-codes and the `Error` schema of OpenAI's OpenAPI document, which
requires all four keys.
"""

from __future__ import annotations

import msgspec
import orjson


class _Envelope(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Envelope)


def error_body(message: str, type: str, code: str | None, param: str | None = None) -> bytes:
    """The body of an error answer; also the data of an error event in a stream."""
    return orjson.dumps({"error": {"message": message, "type": type, "param": param, "code": code}})


def carries_error(data: bytes) -> bool:
    """Whether *data*, the JSON of one event or body, is an error that came in place of an answer."""
    if b'"error"' not in data:
        return False
    try:
        envelope = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if bytes(envelope.type) == b'"error"':  # the responses API's error event
        return True
    return bytes(envelope.error) not in (b"null", b'""', b"{}", b"false")
