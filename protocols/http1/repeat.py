"""Heads that repeat: on one connection the next head differs from the last in a few values only.

Owns `Pattern`, the fixed parts of a head and the places of its varying values. It refuses to know what the values mean
(`request` and `response` judge them). Made by the reader of one connection's heads, from a head that was parsed whole.

A head that fits the pattern of a sound one, with sound values in the places of values, is as sound: every byte outside
those places was judged before. It costs a tenth of the parse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Heads in a row that did not fit: the peer does not repeat itself, and learning its heads is wasted.
MISSES_LIMIT: Final = 8

#: What a value may be made of for the pattern to be trusted; any other byte sends the head to the parser.
_PLAIN: Final = bytes(range(0x20, 0x7F))


class Pattern:
    """A head as alternating fixed parts and values. The last fixed part ends the head."""

    __slots__ = ("_fixed", "_rest", "names")

    def __init__(self, lines: list[bytes], varies: Callable[[bytes], bool], end: bytes) -> None:
        """*lines* make the head; *varies* tells by its name whether a line's value is expected to change.

        *end* follows the last line.
        """
        #: The names of the varying lines, in order, as spelled.
        self.names: list[bytes] = []
        self._fixed: list[tuple[bytes, int]] = []
        fixed = lines[0]
        for line in lines[1:]:
            name, colon, _ = line.partition(b":")
            if colon and varies(name):
                # One space after the colon, as everybody writes it; whoever does not is parsed.
                fixed += b"\r\n" + name + b": "
                self._fixed.append((fixed, len(fixed)))
                self.names.append(name)
                fixed = b""
            else:
                fixed += b"\r\n" + line
        self._rest = fixed + end

    def values(self, block: bytes) -> list[bytes] | None:
        """The values of *block*'s varying lines; None where it does not fit."""
        at = 0
        values = []
        for fixed, size in self._fixed:
            if not block.startswith(fixed, at):
                return None
            at += size
            end = block.find(b"\r\n", at)
            value = block[at:end] if end > 0 else block[at:]
            if value.translate(None, _PLAIN):
                return None
            values.append(value)
            at += len(value)
        return values if block[at:] == self._rest else None
