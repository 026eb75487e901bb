"""The dialect of responses, as the relay of its untouched bytes needs it: OpenAI's, with named errors.

Owns that difference. It refuses the hub's side (`client`).
"""

from __future__ import annotations

from typing import Final

from protocols.dialect import Dialect
from protocols.openai.dialect import OPENAI
from protocols.openai.responses.errors import error_event, named_event


def _frame_error(data: bytes) -> bytes:
    return named_event("error", data)


RESPONSES: Final[Dialect] = OPENAI._replace(error_event=error_event, frame_error=_frame_error)
