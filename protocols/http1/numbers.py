"""The number that a Content-Length says.

Owns the table of those that came before. It refuses signs, lists and fractions (RFC 9110 section 8.6). Read by
`request` and `response`.

A look into the table costs a quarter of int() with the checks that it needs.
"""

from __future__ import annotations

from typing import Final

#: A Content-Length of more digits is beyond any limit, and beyond what other parsers agree on.
LENGTH_DIGITS_LIMIT: Final = 18
#: Those of so many digits are remembered: the others' side chooses them, so the table is bounded.
_KNOWN_DIGITS: Final = 4


class _Lengths(dict[bytes, int | None]):
    """From the field's value to its number; None where it is not one sane number."""

    __slots__ = ()

    def __missing__(self, digits: bytes) -> int | None:
        if not digits.isdigit() or len(digits) > LENGTH_DIGITS_LIMIT:
            return None
        length = int(digits)
        if len(digits) <= _KNOWN_DIGITS:
            self[digits] = length
        return length


LENGTHS: Final = _Lengths()
