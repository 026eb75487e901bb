"""Durations and sizes: a number, or text with a unit, to `Seconds` and `Bytes` and back.

Pure. It refuses ranges (the schema has them). Every reader raises ValueError with what was expected.
"""

from __future__ import annotations

import math
import re
from typing import Final

from gateway.config.schema import Bytes, Ratio, Seconds

# seconds per unit, as a fraction: n / 1000 rounds once, n * 0.001 twice
_SECONDS: Final[dict[str, tuple[int, int]]] = {"h": (3600, 1), "m": (60, 1), "s": (1, 1), "ms": (1, 1000)}
_BYTES: Final[dict[str, int]] = {"gib": 1 << 30, "mib": 1 << 20, "kib": 1 << 10, "b": 1}
_TEXT: Final = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,20})?)\s*([A-Za-z]*)\s*")

#: What the text may look like, for a JSON Schema: regular expressions of ECMA-262.
SECONDS_PATTERN: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*([hH]|[mM]|[sS]|[mM][sS])?\s*$"
SIZE_PATTERN: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgG][iI])?[bB]?\s*$"

#: The longest duration: a year. An event loop's timer takes no infinity.
LONGEST: Final = 8760 * 3600
LARGEST: Final = 1 << 62

DURATION: Final = 'a duration from 0 to a year: seconds, or text with a unit (ms, s, m, h) such as "250ms"'
RATIO: Final = "a number from 0 to 1"
SIZE: Final = 'a size: whole bytes, or text with a unit (B, KiB, MiB, GiB) such as "8MiB"'


def seconds(value: object) -> Seconds:
    """*value* in seconds. Raises ValueError."""
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        times, over = _SECONDS.get(match[2].lower() or "s", (0, 1)) if match else (0, 1)
        found = float(match[1]) * times / over if match and times else -1.0
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value) if abs(value) <= LONGEST else math.inf
    else:
        found = -1.0
    if not 0 <= found <= LONGEST:  # false for nan too
        raise ValueError(f"expected {DURATION}")
    return Seconds(found)


def ratio(value: object) -> Ratio:
    """*value* as a share. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"expected {RATIO}")
    return Ratio(value)


def size(value: object) -> Bytes:
    """*value* in bytes. Raises ValueError."""
    found: float = -1
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        times = _BYTES.get(match[2].lower() or "b", 0) if match else 0
        if match and times:
            found = float(match[1]) * times if "." in match[1] else int(match[1]) * times
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    if not 0 <= found <= LARGEST or found != int(found):
        raise ValueError(f"expected {SIZE}")
    return Bytes(found)


def seconds_text(value: float) -> str:
    """A TOML value that `seconds` reads back as exactly *value*, in the largest unit that divides it."""
    for unit, (times, over) in _SECONDS.items():
        count = value * over / times
        if count == int(count) and count * times / over == value and (count or unit == "s"):
            return f'"{int(count)}{unit}"'
    return repr(float(value))


def size_text(value: int) -> str:
    """A TOML value that `size` reads back, in the largest unit that divides it."""
    for unit, times in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value and value % times == 0:
            return f'"{value // times}{unit}"'
    return f'"{int(value)}B"'
