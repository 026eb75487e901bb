"""The named events of a message's stream, framed.

Owns their bytes. It refuses to know when one is due (`client_stream`). Made for each delta, so the fixed parts are
bytes already.

Source: Anthropic's API reference, "Streaming messages", and `types/raw_*_event.py` of its Python SDK 2.12.
"""

from __future__ import annotations

from typing import Final

import orjson

from protocols.dialect import JsonObject

_dumps: Final = orjson.dumps

_START: Final = b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n'
_BLOCK_START: Final = (
    b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
)
_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'
TEXT_DELTA: Final = _DELTA + b'{"type":"text_delta","text":%b}}\n\n'
THINKING_DELTA: Final = _DELTA + b'{"type":"thinking_delta","thinking":%b}}\n\n'
SIGNATURE_DELTA: Final = _DELTA + b'{"type":"signature_delta","signature":%b}}\n\n'
INPUT_DELTA: Final = _DELTA + b'{"type":"input_json_delta","partial_json":%b}}\n\n'
_BLOCK_STOP: Final = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_MESSAGE_DELTA: Final = b'event: message_delta\ndata: {"type":"message_delta","delta":%b,"usage":%b}\n\n'
MESSAGE_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def message_start(id: str, model: str, usage: JsonObject) -> bytes:
    message: JsonObject = {
        "id": f"msg_{id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    return _START % _dumps(message)


def block_start(index: int, block: JsonObject) -> bytes:
    return _BLOCK_START % (index, _dumps(block))


def delta(kind: bytes, index: int, text: str) -> bytes:
    """A delta of *kind*, one of the templates above."""
    return kind % (index, _dumps(text))


def block_stop(index: int) -> bytes:
    return _BLOCK_STOP % index


def message_delta(reason: str, sequence: str | None, usage: JsonObject) -> bytes:
    return _MESSAGE_DELTA % (_dumps({"stop_reason": reason, "stop_sequence": sequence}), _dumps(usage))
