"""Answers of Anthropic's Messages API, event by event, and who reads them."""

from __future__ import annotations

from typing import Any

import orjson

from protocols.anthropic.backend_side import MessagesBackend
from protocols.dialect import Dropped, Terms

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def side() -> MessagesBackend:
    return MessagesBackend(HELLO, True, "ab12", 7, Terms(), Dropped(False))


def event(type: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type.encode(), orjson.dumps({"type": type, **fields}))


def start(**usage: int) -> bytes:
    return event(
        "message_start", message={"model": "claude", "usage": usage or {"input_tokens": 3, "output_tokens": 1}}
    )


def block(index: int, type: str, **fields: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": type, **fields})


def delta(index: int, type: str, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": type, **fields})


def stop(index: int) -> bytes:
    return event("content_block_stop", index=index)


def near_end(reason: str | None = "end_turn", sequence: str | None = None, **usage: Any) -> bytes:
    ending = {"stop_reason": reason, "stop_sequence": sequence}
    return event("message_delta", delta=ending, usage=usage or {"output_tokens": 5})


END = event("message_stop")
