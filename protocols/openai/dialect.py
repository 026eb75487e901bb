"""OpenAI's dialect, as the relay of its untouched bytes needs it.

Owns the table of what stands in the modules around it. It refuses the hub's sides (`protocols.openai.hub`).
"""

from __future__ import annotations

from typing import Final

from protocols import sse
from protocols.dialect import Dialect, ErrorObject, Usage
from protocols.openai.ends import says_end
from protocols.openai.errors import carries_error, error_body
from protocols.openai.usage import USAGE_KEY, usage_of_answer, usage_of_chunk


def _error_body(error: ErrorObject) -> bytes:
    return error_body(error.message, error.type, error.code, error.param)


def _error_event(error: ErrorObject) -> bytes:
    return sse.data_event(_error_body(error))


def _is_opening(data: bytes) -> bool:
    """Every event of OpenAI's streams that carries data is a part of the answer."""
    return True


def _usage_of_event(data: bytes, so_far: Usage | None) -> Usage | None:
    return usage_of_chunk(data)[0] or so_far


OPENAI: Final = Dialect(
    name="openai",
    stream_type=b"text/event-stream",
    form=sse,
    error_body=_error_body,
    error_event=_error_event,
    frame_error=sse.data_event,
    carries_error=carries_error,
    is_opening=_is_opening,
    says_end=says_end,
    always_ends=False,
    usage_key=USAGE_KEY,
    usage_of_event=_usage_of_event,
    usage_of_answer=usage_of_answer,
)
