"""What a model thought, on its way through a client that only keeps it.

Owns the two directions of `encrypted_content`: the hub's thinking blocks, whose signatures a backend wants to see again
with the results of tools, packed so that a reasoning item carries them. They are not encrypted: nothing is in them that
the client is not shown, and the backend that signed them checks them. It refuses what other servers put there.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec
import orjson

from protocols.dialect import JsonObject, Unmappable
from protocols.pieces import Malformed

_MARK: Final = "thinking-blocks:"


class _Thinking(msgspec.Struct, tag="thinking"):
    thinking: str
    signature: str = ""


class _Redacted(msgspec.Struct, tag="redacted_thinking"):
    data: str


_Block = _Thinking | _Redacted


def read_block(block: JsonObject) -> JsonObject:
    """A backend's thinking block, with its known members only. Raises `Malformed`."""
    try:
        known: JsonObject = msgspec.to_builtins(msgspec.convert(block, _Block))
    except (msgspec.ValidationError, RecursionError):
        raise Malformed("a thinking block is not as Anthropic has them") from None
    return known


def pack(blocks: list[JsonObject]) -> str | None:
    """*blocks* as `encrypted_content`; None where there are none."""
    return _MARK + base64.b64encode(orjson.dumps(blocks)).decode("ascii") if blocks else None


def unpack(content: str, param: str) -> list[JsonObject]:
    """The blocks that `pack` packed; none where somebody else's content is, which no chat backend can read.

    Raises `Unmappable` for *param* where ours was changed.
    """
    if not content.startswith(_MARK):
        return []
    try:
        blocks = msgspec.json.decode(base64.b64decode(content.removeprefix(_MARK), validate=True), type=list[_Block])
    except (binascii.Error, ValueError, RecursionError):  # msgspec's errors are ValueErrors
        raise Unmappable(f"'{param}' is not as this gateway gave it", param) from None
    return [msgspec.to_builtins(block) for block in blocks]
