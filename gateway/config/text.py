"""How values are written: TOML strings, wildcards, and a value as an error message shows it.

Pure. It refuses to know the schema; a caller that must not show a value does not pass it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# TOML allows everything in a basic string but controls, DEL, the quote and the backslash.
_ESCAPED: Final = re.compile(r'[\x00-\x1f\x7f"\\]')
_SHORT: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
#: Characters of a value that an error message repeats.
SHOWN: Final = 80


def quoted(value: str) -> str:
    """*value* as a TOML basic string."""
    return '"' + _ESCAPED.sub(_escape, value) + '"'


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    return _SHORT.get(char) or f"\\u{ord(char):04x}"


def shown(value: object) -> str:
    """A scalar for an error message: as TOML writes it, and not at any length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value if len(value) <= SHOWN else value[:SHOWN] + "...")
    if isinstance(value, int | float):
        # int() refuses digits without end; bit_length does not
        return str(value) if isinstance(value, float) or value.bit_length() < 256 else "a huge integer"
    return "null" if value is None else "a date or time"


def is_pattern(name: str) -> bool:
    """Whether *name* is a wildcard of `fnmatch`: * ? [a-z]."""
    return "*" in name or "?" in name or "[" in name


def one_of(names: Iterable[str]) -> str:
    """Quoted names in a row: "a", "b"."""
    return ", ".join(map(quoted, names))
