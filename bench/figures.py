"""The arithmetic of the benchmark: exact percentiles, medians with their spread, ratios within a round.

Pure. It refuses units, names and printing. Used by `window` (percentiles) and `summary` (everything else).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """The middle of some rounds and how far they lie apart."""

    median: float
    low: float
    high: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The least value that *percent* per cent of *ordered* (ascending, not empty) do not exceed."""
    if not ordered:
        raise ValueError("no percentile of nothing")
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def spread(values: Iterable[float]) -> Spread:
    """Median, least and greatest of *values*; ValueError where there are none."""
    known = sorted(values)
    if not known:
        raise ValueError("no spread of nothing")
    return Spread(statistics.median(known), known[0], known[-1])


def ratios(of: Mapping[int, float], to: Mapping[int, float]) -> list[float]:
    """`of / to` for each round that both were measured in. Host speed drifts, so rounds are never mixed."""
    return [of[n] / to[n] for n in sorted(of.keys() & to.keys()) if to[n] > 0]


def differences(of: Mapping[int, float], to: Mapping[int, float]) -> list[float]:
    """`of - to` for each round that both were measured in."""
    return [of[n] - to[n] for n in sorted(of.keys() & to.keys())]
