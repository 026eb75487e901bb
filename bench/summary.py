"""All rounds of one scenario in one view: medians with their spread, and ratios within each round.

Owns which figures are compared with what. Pure. It refuses to print (`report`). Called by `overhead`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from bench.figures import Spread, differences, ratios, spread
from bench.run import Run
from bench.targets import DIRECT, NGINX, asked

#: The figures that a run holds itself.
OWN: Final = (
    "rate",
    "cpu_us",
    "upstream_us",
    "load_us",
    "proxy_core",
    "generator_core",
    "waited",
    "p50_us",
    "p99_us",
    "jitter_p99_us",
    "delivered",
    "rss_mb",
    "loop_lag_p99_ms",
)

_Comparison = tuple[str, str, str, Callable[[dict[int, float], dict[int, float]], list[float]]]

#: Figures against another target in the same round: (name, figure, the other target, how).
COMPARED: Final[tuple[_Comparison, ...]] = (
    ("cpu_x_nginx", "cpu_us", NGINX, ratios),
    ("p99_x_nginx", "p99_us", NGINX, ratios),
    ("jitter_p99_x_nginx", "jitter_p99_us", NGINX, ratios),
    ("added_p50_us", "p50_us", DIRECT, differences),
    ("added_p99_us", "p99_us", DIRECT, differences),
)


class Row(msgspec.Struct):
    """One target over all rounds. A figure that does not exist for it is left out."""

    target: str
    rounds: int
    figures: dict[str, Spread]
    #: Rounds in which the load generator was the bottleneck.
    generator_bound: int
    #: Access lines that the gateway dropped, over all rounds: work that it did not do.
    lines_lost: int


def _by_round(runs: Sequence[Run], target: str, figure: str) -> dict[int, float]:
    values = {run.round: getattr(run, figure) for run in runs if run.target == target}
    return {n: float(value) for n, value in values.items() if value is not None}


def _of_several(target: str) -> Iterator[_Comparison]:
    """What several workers cost beside one with the whole load, and beside as many that know nothing of each other."""
    this = asked(target)
    if this.serving > 1:
        yield "cpu_x_one", "cpu_us", this.what, ratios
    if this.workers > 1:
        yield "cpu_x_apart", "cpu_us", f"{this.serving}x{this.what}", ratios


def summarise(runs: Sequence[Run], order: Sequence[str]) -> list[Row]:
    """One row for each target in *order*, each of which has run."""
    rows = []
    for target in order:
        figures: dict[str, Spread] = {}
        for figure in OWN:
            values = _by_round(runs, target, figure)
            if values:
                figures[figure] = spread(values.values())
        for name, figure, other, compare in (*COMPARED, *_of_several(target)):
            compared = compare(_by_round(runs, target, figure), _by_round(runs, other, figure))
            if compared and target != DIRECT:
                figures[name] = spread(compared)
        own = [run for run in runs if run.target == target]
        rows.append(
            Row(
                target=target,
                rounds=len(own),
                figures=figures,
                generator_bound=sum(run.generator_bound for run in own),
                lines_lost=sum(run.lines_lost for run in own),
            )
        )
    return rows
