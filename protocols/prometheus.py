"""Prometheus' text exposition: the few gauges that are asked for, of all that a server tells.

Pure. It refuses every other line, and what a gauge means. Format 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats/) and OpenMetrics 1.0, which writes gauges alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

#: Samples of all gauges asked for: a server has one for each engine.
SAMPLES_LIMIT: Final = 1024
#: A count above it is nobody's.
LARGEST: Final = 1e9
#: Behind the name: labels, whose values may hold anything but a line end (there it is written \n); the value; a time.
_COUNT: Final = rb"(\d{1,32}(?:\.\d{1,32})?(?:[eE][+-]?\d{1,2})?)"
_SAMPLE: Final = re.compile(rb"(?:\{[^\n]*\})?[ \t]+%b(?:[ \t]+[\d.eE+-]+)?[ \t]*\r?$" % _COUNT, re.MULTILINE)
#: What may stand next to the name; else it is part of another one, or of a comment.
_BEFORE: Final = (b"", b"\n")
_BEHIND: Final = (b"{", b" ", b"\t")


class Malformed(ValueError):
    """What stands there is no count."""


def total(text: bytes, names: Iterable[bytes]) -> float | None:
    """The sum of all samples of the gauges of these *names* in *text*; None where there is none.

    Raises `Malformed`.
    """
    counts = [count for name in names for count in _counts(text, name)]
    if len(counts) > SAMPLES_LIMIT or sum(counts) > LARGEST:
        raise Malformed("the metrics tell of more than there can be")
    return sum(counts) if counts else None


def _counts(text: bytes, name: bytes) -> Iterator[float]:
    end = 0
    while (at := text.find(name, end)) >= 0:
        end = at + len(name)
        if text[max(0, at - 1) : at] in _BEFORE and text[end : end + 1] in _BEHIND:
            found = _SAMPLE.match(text, end)
            if found is None:
                raise Malformed("the metrics cannot be read")
            yield float(found[1])
