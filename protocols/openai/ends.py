"""How a stream of events says that it is over, where its framing cannot.

Owns that one question. A stream that ends with its connection looks the same whether it is whole or cut; every known
backend says the end in its events too.
"""

from __future__ import annotations

import re
from typing import Final

#: Chat and completions: a finish_reason that is not null, or [DONE]. Responses, images and audio: a last named event.
_END: Final = re.compile(
    rb"^data: ?\[DONE\]"
    rb'|"finish_reason"\s*:\s*"'
    rb'|"type"\s*:\s*"[a-z_.]+\.(?:completed|done|incomplete|failed)"'
    rb'|"error"\s*:\s*[{"]',
    re.MULTILINE,
)


def says_end(events: bytes) -> bool:
    """Whether one of *events* is the last of its stream."""
    return _END.search(events) is not None
