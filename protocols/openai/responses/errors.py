"""How a stream of responses says that it broke.

Owns the event. It refuses whole answers' errors (`protocols.openai.errors`).
Sources: openai-python 3.54, `ResponseErrorEvent`, `ResponseError` and `_streaming.py`: the SDK hands an event with the
documented members on like any other, and a reader that does not know it takes the stream's end for the answer's. It
raises only for an `error` object inside. So both are said, as OpenAI's own servers do.
"""

from __future__ import annotations

from typing import Final

import orjson

from protocols.dialect import ErrorObject, JsonObject

_RATE_LIMITED: Final = 429


def named_event(name: str, data: bytes) -> bytes:
    """An event with its name, as all of this API have one; *data* is JSON."""
    return b"event: %b\ndata: %b\n\n" % (name.encode("ascii"), data)


def error_event(error: ErrorObject, number: int = 0) -> bytes:
    """The last event of a stream that broke. *number*: its place among the events, where that is known."""
    told = {"code": error.code, "message": error.message, "param": error.param}
    inner = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    data = orjson.dumps({"type": "error", **told, "sequence_number": number, "error": inner})
    return named_event("error", data)


def response_error(error: ErrorObject) -> JsonObject:
    """The `error` of a response that failed; its code is one of a fixed list, of which two are a gateway's."""
    code = "rate_limit_exceeded" if error.status == _RATE_LIMITED else "server_error"
    return {"code": code, "message": error.message, "param": error.param, "type": error.type}
