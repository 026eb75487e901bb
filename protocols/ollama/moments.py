"""Times as Ollama writes them: RFC 3339, from Unix seconds.

Owns that one conversion, in arithmetic: the wire has no clock and asks no library that has one. The calendar is the
proleptic Gregorian one ("days_from_civil", H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
"""

from __future__ import annotations

from typing import Final

_DAY: Final = 86_400
#: Days of 400 years, after which the calendar repeats; days between 0000-03-01 and 1970-01-01.
_ERA: Final = 146_097
_EPOCH: Final = 719_468


def rfc3339(seconds: int) -> str:
    """The UTC time *seconds* after the epoch, from the year 0000 on: "2026-11-22T14:41:58Z"."""
    days, rest = divmod(seconds, _DAY)
    era, of_era = divmod(days + _EPOCH, _ERA)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    # Months from March on, so that the leap day is the last of a year.
    month, day = (5 * of_year + 2) // 153, of_year - (153 * ((5 * of_year + 2) // 153) + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year += 400 * era + (month <= 2)
    hour, rest = divmod(rest, 3600)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{rest // 60:02}:{rest % 60:02}Z"
