"""Ollama's dialect, as the relay of its untouched bytes needs it.

Owns the table of what stands in the modules around it. It refuses the hub's sides (`*_client`, `*_backend`).
"""

from __future__ import annotations

from typing import Final

from protocols import ndjson
from protocols.dialect import Dialect, Usage
from protocols.ollama.errors import error_body, error_line
from protocols.ollama.stream import carries_error, says_end, usage_of_answer, usage_of_line


def _frame_error(line: bytes) -> bytes:
    return line + b"\n"


def _is_opening(line: bytes) -> bool:
    """Every line of a stream is a part of its answer."""
    return True


def _usage_of_line(line: bytes, so_far: Usage | None) -> Usage | None:
    return usage_of_line(line) or so_far


OLLAMA: Final = Dialect(
    name="ollama",
    stream_type=b"application/x-ndjson",
    form=ndjson,
    error_body=error_body,
    error_event=error_line,
    frame_error=_frame_error,
    carries_error=carries_error,
    is_opening=_is_opening,
    says_end=says_end,
    always_ends=True,
    usage_key=b'eval_count"',  # the end of both: one that is 0 is left out
    usage_of_event=_usage_of_line,
    usage_of_answer=usage_of_answer,
    any_content_type=True,  # its manual's examples are `curl -d`, which calls the body a form
)
