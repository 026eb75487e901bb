"""Heads that repeat: on one connection the next head differs from the last in a few values only.

Owns `Pattern`, the fixed parts of a head and the places of its varying values. It refuses to know what the values mean
(`request` and `response` judge them). Made by the reader of one connection's heads, from a head that was parsed whole.

A head that fits the pattern of a sound one, with plain values in the places of values, is as sound: every byte outside
those places was judged before. It costs a tenth of the parse,
and a quarter where a value's length is not the last one's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final

#: The end of a head's last line, and the empty line after it.
HEAD_END: Final = b"\r\n\r\n"
#: Heads in a row that did not fit: the peer does not repeat itself, and learning its heads is wasted.
MISSES_LIMIT: Final = 8
#: Sets of lengths remembered for one pattern; a Content-Length has one to five digits, ids have one length each.
CUTS_LIMIT: Final = 8

#: Cuts bytes into parts of fixed lengths.
Cut = Callable[[bytes], tuple[Any, ...]]


class Pattern:
    """A head as fixed parts with a value after each, and a last fixed part.

    A value must be printable ASCII without white space around it; with any other byte in it the head goes to the
    parser.
    """

    __slots__ = ("_cut", "_cuts", "_fixed", "_places", "_rest", "_size", "_values")

    def __init__(self, places: Sequence[tuple[bytes, int, int]], rest: bytes) -> None:
        """*places*: for each value the fixed bytes before it, its index in `values`, and its index in `pieces`.

        An index of -1 in `pieces` means that the value does not go there. *rest* is what follows the last value,
        which like all others ends with its line: it ends with the head's empty line.
        """
        self._places = [(fixed, len(fixed), value, piece) for fixed, value, piece in places]
        self._rest = rest
        # The lengths of values repeat too: a head is first cut where the last one was.
        self._fixed = (*(fixed for fixed, _, _ in places), rest)
        #: For each value its index among the parts of a cut, in `values` and in `pieces`.
        self._values = [(2 * at + 1, value, piece) for at, (_, value, piece) in enumerate(places)]
        self._cuts: dict[tuple[int, ...], tuple[Cut, int]] = {}
        self._cut: Cut = Struct("").unpack_from
        self._size = 0

    def read(self, data: bytes, values: list[bytes | None], pieces: list[bytes]) -> int:
        """Write the values of the head that *data* begins with into *values* and *pieces*, and return its size.

        0, and both in part rewritten, if it does not fit. The head's end need not be searched for: neither the fixed
        parts, but for their very end, nor the values can hold an empty line.
        """
        if len(data) >= self._size > 0:
            parts = self._cut(data)
            if parts[::2] == self._fixed:
                for part, index, piece in self._values:
                    values[index] = value = parts[part]
                    if not value.isdigit() and not value.replace(b"-", b"").isalnum() and not _is_plain(value):
                        break  # with a line's end in it, it is not the value but more
                    if piece >= 0:
                        pieces[piece] = value
                else:
                    return self._size
        return self._search(data, values, pieces)

    def _search(self, data: bytes, values: list[bytes | None], pieces: list[bytes]) -> int:
        """The same by searching for each value's end."""
        at = 0
        lengths = []
        for fixed, size, index, piece in self._places:
            if not data.startswith(fixed, at):
                return 0
            at += size
            end = data.find(b"\r\n", at)
            if end < 0:
                return 0
            value = data[at:end]
            if not value.isdigit() and not _is_plain(value):
                return 0
            values[index] = value
            if piece >= 0:
                pieces[piece] = value
            lengths.append(end - at)
            at = end
        if not data.startswith(self._rest, at):
            return 0
        self._cut_at(tuple(lengths))
        return at + len(self._rest)

    def _cut_at(self, lengths: tuple[int, ...]) -> None:
        """Cut the next head where values of these *lengths* are."""
        known = self._cuts.get(lengths)
        if known is None:
            if len(self._cuts) >= CUTS_LIMIT:
                return
            sizes = [size for fixed, value in zip(self._fixed, lengths, strict=False) for size in (len(fixed), value)]
            layout = Struct("".join(f"{size}s" for size in (*sizes, len(self._rest))))
            known = self._cuts[lengths] = (layout.unpack_from, layout.size)
        self._cut, self._size = known


def _is_plain(value: bytes) -> bool:
    return value.isascii() and value.decode("ascii").isprintable() and value.strip() == value
