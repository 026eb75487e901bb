"""Blocks of thinking in a stream for OpenAI's clients, so that they can be put together and sent back.

Owns their numbers, without which OpenAI's SDK refuses to add up a list of a delta, and the text of each, which a client
must send back together with the signature. It refuses whole answers, whose blocks are whole. Made by `client` for each
stream.
"""

from __future__ import annotations

from protocols.dialect import JsonObject
from protocols.pieces import PARTIAL_LIMIT


class Thoughts:
    """`read` each delta that has reasoning or blocks."""

    __slots__ = ("_blocks", "_size", "_text")

    def __init__(self) -> None:
        self._blocks = 0
        #: What was reasoned since the last block, as far as there is room for it.
        self._text: list[str] = []
        self._size = 0

    def read(self, delta: JsonObject) -> JsonObject:
        """*delta*, its blocks numbered, and those that only sign what was said before with that."""
        said = delta.get("reasoning_content")
        if said and self._size < PARTIAL_LIMIT:
            self._size += len(said)
            self._text.append(said)
        blocks = delta.get("thinking_blocks")
        return {**delta, "thinking_blocks": [self._block(block) for block in blocks]} if blocks else delta

    def _block(self, block: JsonObject) -> JsonObject:
        number = self._blocks
        self._blocks += 1
        if block.get("type") == "thinking" and not block.get("thinking"):
            block = {**block, "thinking": "".join(self._text)}
            self._text.clear()
            self._size = 0
        return {"index": number, **block}
