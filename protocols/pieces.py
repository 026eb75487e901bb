"""Pieces of an event or a line, held until it is whole, within a bound.

Owns the bound, and `Malformed`, what a stream is that breaks it or its dialect's rules. It refuses to know where
anything ends (`protocols.sse`, `protocols.ndjson`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

#: Bytes of one event or line of an upstream's stream that are held until it is whole, and of what a dialect's reader
#: collects (arguments of a tool call that are told at once). Past it the stream is `Malformed`.
PARTIAL_LIMIT: Final = 1 << 20


class Malformed(ValueError):
    """An upstream's answer breaks the rules of its own dialect; the text says how, and quotes nothing of it.

    *before*: the hub's chunks that the same bytes brought before that (`protocols.dialect.BackendSide.feed`).
    """

    before: Sequence[dict[str, Any]] = ()


class Pieces:
    """Bytes that wait for the rest of them. Joined only once: many small pieces cost no more than a large one."""

    __slots__ = ("_held", "_limit", "_size")

    def __init__(self, limit: int = PARTIAL_LIMIT) -> None:
        self._limit = limit
        self._held: list[bytes] = []
        self._size = 0

    def hold(self, piece: bytes) -> None:
        """Keep *piece* behind the others. Raises `Malformed` where they are too many bytes."""
        if piece:
            self.bound(self._size + len(piece))
            self._size += len(piece)
            self._held.append(piece)

    def take(self, last: bytes = b"") -> bytes:
        """All that is held and *last* behind it; nothing is held any more."""
        if not self._held:
            return last
        whole = b"".join((*self._held, last))
        self._held.clear()
        self._size = 0
        return whole

    def bound(self, size: int) -> None:
        """Raises `Malformed` where *size* bytes are too many for one event or line."""
        if size > self._limit:
            raise Malformed(f"a part of the stream is longer than {self._limit} bytes")
