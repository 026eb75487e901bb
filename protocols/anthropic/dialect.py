"""Anthropic's dialect, as the relay of its untouched bytes needs it.

Owns the table of what stands in the modules around it. It refuses the hub's sides (`client`, `backend`).
"""

from __future__ import annotations

from typing import Final

from protocols import sse
from protocols.anthropic.errors import error_body, error_event, frame_error
from protocols.anthropic.stream import (
    USAGE_KEY,
    carries_error,
    is_opening,
    says_end,
    usage_of_answer,
    usage_of_event,
)
from protocols.dialect import Dialect

ANTHROPIC: Final = Dialect(
    name="anthropic",
    stream_type=b"text/event-stream",
    form=sse,
    error_body=error_body,
    error_event=error_event,
    frame_error=frame_error,
    carries_error=carries_error,
    is_opening=is_opening,
    says_end=says_end,
    always_ends=True,
    usage_key=USAGE_KEY,
    usage_of_event=usage_of_event,
    usage_of_answer=usage_of_answer,
    id_field=b"request-id",
)
