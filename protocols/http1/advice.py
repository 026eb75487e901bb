"""What the head of an error answer says about asking again.

Owns the reading of Retry-After and its kin. It refuses to decide anything by it (`gateway.routing.retry`).
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

#: Retry-After in seconds or as a date (RFC 9110 section 10.2.3); OpenAI's own fields are more exact.
_FIELD: Final = re.compile(rb"(?:\A|\r\n)(retry-after|retry-after-ms|x-should-retry): ([^\r]*)")
_NUMBER: Final = re.compile(rb"[0-9]{1,30}(?:\.[0-9]{1,9})?")


class Advice(NamedTuple):
    """*wait*: seconds until the next request is welcome, 0 where nothing is said. *is_final*: it never will be."""

    wait: float = 0.0
    is_final: bool = False


def read_advice(lines: list[bytes], now: float) -> Advice:
    """What *lines*, those of a `ResponseHead`, say. *now*: seconds since the epoch, for dates."""
    found = dict(_FIELD.findall(b"".join(lines)))
    millis = found.get(b"retry-after-ms", b"")
    if _NUMBER.fullmatch(millis):
        wait = float(millis) / 1000
    else:
        wait = _seconds(found.get(b"retry-after", b""), now)
    return Advice(wait, found.get(b"x-should-retry", b"").lower() == b"false")


def advice_lines(lines: list[bytes]) -> list[bytes]:
    """Those of *lines* that say it: whoever rewrites an answer passes them on."""
    return [line for line in lines if _FIELD.match(line) is not None]


def _seconds(value: bytes, now: float) -> float:
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
