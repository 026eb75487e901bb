"""Heads that repeat: on one connection the next head differs from the last in a few values only.

Owns `Pattern`, the fixed parts of a head and the places of its varying values. It refuses to know what the values mean
(`request` and `response` judge them). Made by the reader of one connection's heads, from a head that was parsed whole.

A head that fits the pattern of a sound one, with plain values in the places of values, is as sound: every byte outside
those places was judged before. It costs a third of the parse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: The end of a head's last line, and the empty line after it.
HEAD_END: Final = b"\r\n\r\n"
#: Heads in a row that did not fit: the peer does not repeat itself, and learning its heads is wasted.
MISSES_LIMIT: Final = 8


class Pattern:
    """A head as fixed parts with a value after each, and a last fixed part.

    A value must be printable ASCII without white space around it; with any other byte in it the head goes to the
    parser.
    """

    __slots__ = ("_places", "_rest", "_size")

    def __init__(self, places: Sequence[tuple[bytes, int, int]], rest: bytes) -> None:
        """*places*: for each value the fixed bytes before it, its index in `values`, and its index in `pieces`.

        An index of -1 in `pieces` means that the value does not go there. *rest* is what follows the last value,
        which like all others ends with its line: it ends with the head's empty line.
        """
        self._places = [(fixed, len(fixed), value, piece) for fixed, value, piece in places]
        self._rest = rest
        self._size = len(rest)

    def read(self, data: bytes, values: list[bytes | None], pieces: list[bytes]) -> int:
        """Write the values of the head that *data* begins with into *values* and *pieces*, and return its size.

        0, and both in part rewritten, if it does not fit. The head's end need not be searched for: neither the fixed
        parts, but for their very end, nor the values can hold an empty line.
        """
        at = 0
        for fixed, size, index, piece in self._places:
            if not data.startswith(fixed, at):
                return 0
            at += size
            end = data.find(b"\r\n", at)
            value = data[at:end]
            if not value.isdigit() and not _is_plain(value):
                return 0
            values[index] = value
            if piece >= 0:
                pieces[piece] = value
            at = end
        return at + self._size if data.startswith(self._rest, at) else 0


def _is_plain(value: bytes) -> bool:
    return value.isascii() and value.decode("ascii").isprintable() and value.strip() == value
