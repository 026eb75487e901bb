"""How a stream of events says that it is over, where its framing cannot.

Owns that one question, and whether its last event is whole. A stream that ends with its connection looks the same
whether it is whole or cut; every known backend says the end in its events too.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_decode: Final = msgspec.json.Decoder(msgspec.Raw).decode

#: Chat and completions: [DONE], or a finish_reason that is not null. Responses, images and audio: a last named event.
#: Inside generated text every quote would be escaped, so none of these can be text.
_END: Final = re.compile(
    rb"(?:\A|[\r\n])data: ?\[DONE\]"
    rb'|"finish_reason"\s*:\s*"'
    rb'|"type"\s*:\s*"(?:response\.(?:completed|incomplete|failed)|image_(?:generation|edit)\.completed'
    rb'|speech\.audio\.done|transcript\.text\.done)"'
    rb'|"error"\s*:\s*[{"]'
)


#: The last event of chat and completions.
DONE: Final = b"data: [DONE]\n\n"
_DONE: Final = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\]\s*\Z")
#: So far before the end of its bytes begins the search for it.
_DONE_REACH: Final = 64


def says_done(events: bytes) -> bool:
    """Whether the last of *events* is [DONE]."""
    return _DONE.search(events, max(0, len(events) - _DONE_REACH)) is not None


def breaks_off(data: bytes) -> bool:
    """Whether *data*, an event's, is JSON that stops half way."""
    if data[:1] not in (b"{", b"[") or data == b"[DONE]":
        return False
    try:
        _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True
    return False


def says_end(events: bytes) -> bool:
    """Whether one of *events* is the last of its stream."""
    return _END.search(events) is not None
