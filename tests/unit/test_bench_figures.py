"""The benchmark's arithmetic: percentiles, medians, ratios within a round, cost per unit, the division of work."""

from __future__ import annotations

import itertools
import math
from array import array

import pytest

from bench import figures, run, scenarios, scrape, summary
from bench.plan import Kind, Outcome
from bench.run import Instant, Run
from bench.scenarios import SCENARIOS


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0, 3.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 99.1, 100.0),
        ([1.0, 2.0], 0, 1.0),
        ([1.0, 2.0], 100, 2.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: float, expected: float) -> None:
    assert figures.percentile(values, percent) == expected


def test_nothing_has_no_percentile_and_no_spread() -> None:
    with pytest.raises(ValueError, match="nothing"):
        figures.percentile([], 50)
    with pytest.raises(ValueError, match="nothing"):
        figures.spread([])


def test_a_spread_is_median_least_and_greatest() -> None:
    assert figures.spread([5.0, 1.0, 3.0]) == figures.Spread(3.0, 1.0, 5.0)
    assert figures.spread([4.0, 1.0, 3.0, 2.0]).median == 2.5


def test_ratios_and_differences_stay_within_a_round() -> None:
    gateway, nginx = {0: 30.0, 1: 80.0, 2: 9.0}, {0: 20.0, 1: 40.0, 3: 1.0}
    assert figures.ratios(gateway, nginx) == [1.5, 2.0]
    assert figures.differences(gateway, nginx) == [10.0, 40.0]


def test_a_ratio_to_zero_is_left_out() -> None:
    assert figures.ratios({0: 1.0, 1: 2.0}, {0: 0.0, 1: 1.0}) == [2.0]


@pytest.mark.parametrize(("streams", "period_ms"), [(100, 20), (1000, 50), (7, 20), (1, 20)])
def test_every_stream_has_a_phase_of_its_own_and_all_are_spread_evenly(streams: int, period_ms: int) -> None:
    gap = scenarios.opening_ms(streams, period_ms)
    part = period_ms / streams
    assert gap >= scenarios.LEAST_OPENING_MS
    assert sorted(round(n * gap / part) % streams for n in range(streams)) == list(range(streams))


@pytest.mark.parametrize(("total", "processes"), [(32, 1), (32, 3), (1000, 7), (2, 5)])
def test_shares_are_whole_and_nearly_equal(total: int, processes: int) -> None:
    shares = scenarios.shares(total, processes)
    assert sum(shares) == total
    assert len(shares) == min(total, processes)
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= 1


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("processes", [1, 3])
def test_plans_together_are_the_scenario(name: str, processes: int) -> None:
    scenario = SCENARIOS[name]
    plans = scenarios.plans(scenario, (1234, 1235), 2.0, processes, 5)
    assert sum(plan.connections for plan in plans) == scenario.connections
    assert sum(plan.rate for plan in plans) == pytest.approx(scenario.rate)
    assert all(plan.kind is scenario.kind and plan.ports == (1234, 1235) for plan in plans)


def test_streams_outlive_the_window() -> None:
    (plan,) = scenarios.plans(SCENARIOS["sse1000"], (1234,), 2.0, 1, 5)
    opening_s = plan.connections * plan.opening_ms / 1e3
    assert plan.events * plan.period_ms / 1e3 >= opening_s + scenarios.SETTLE_S + 2.0 + scenarios.OUTLIVE_S


def test_no_two_requests_of_a_benchmark_have_the_same_number() -> None:
    firsts = [
        plan.first for serial in range(1, 4) for plan in scenarios.plans(SCENARIOS["json"], (1234,), 2.0, 3, serial)
    ]
    assert len(set(firsts)) == 9
    assert min(b - a for a, b in itertools.pairwise(firsts)) >= 1 << 32


def outcome(times: list[float], jitters: list[float] | None = None) -> Outcome:
    return Outcome(len(times), len(times), array("d", times).tobytes(), array("d", jitters or []).tobytes())


BEGIN = Instant(at=0, proxy=1_000, generator={1: 500}, upstream=300)
#: One second later: the proxy has used half a core, the upstream 0.2, the load 0.1.
END = Instant(at=1_000_000_000, proxy=500_001_000, generator={1: 300_000_500}, upstream=200_000_300, waited=7_000_000)


def test_cost_is_cpu_time_over_work_done() -> None:
    found = run.figures(SCENARIOS["json"], 1.0, (BEGIN, END), [outcome([1e6] * 9_900), outcome([5e6] * 100)])
    assert (found.work, found.rate) == (10_000, 10_000.0)
    assert found.cpu_us == pytest.approx(50.0)
    assert found.upstream_us == pytest.approx(20.0)
    assert found.load_us == pytest.approx(10.0)
    assert found.proxy_core == pytest.approx(0.5)
    assert found.generator_core == pytest.approx(0.3)
    assert found.waited == pytest.approx(0.007)
    assert (found.p50_us, found.p99_us) == (1000.0, 1000.0)
    assert found.delivered is None
    assert found.jitter_p99_us is None


def test_several_workers_cost_what_all_have_spent_and_are_busy_as_shares_of_their_cores() -> None:
    found = run.figures(SCENARIOS["json"], 1.0, (BEGIN, END), [outcome([1e6] * 10_000)], cores=2)
    assert found.cpu_us == pytest.approx(50.0)
    assert (found.proxy_core, found.waited) == (pytest.approx(0.25), pytest.approx(0.0035))


def test_clocks_read_late_do_not_change_the_cost() -> None:
    """Twice the time between the readings at the same load is twice the CPU, not twice the cost."""
    late = Instant(at=2_000_000_000, proxy=1_000_001_000, generator={1: 500}, upstream=300)
    assert run.figures(SCENARIOS["json"], 1.0, (BEGIN, late), [outcome([1.0] * 10_000)]).cpu_us == pytest.approx(50.0)


def test_without_a_proxy_there_is_no_cost() -> None:
    ends = (
        Instant(at=0, proxy=None, generator={1: 0}, upstream=0),
        Instant(at=1_000_000_000, proxy=None, generator={1: 1}, upstream=1),
    )
    found = run.figures(SCENARIOS["json"], 1.0, ends, [outcome([1.0])])
    assert found.cpu_us is None
    assert found.proxy_core is None
    assert found.waited is None


def test_streams_tell_how_much_of_what_was_due_came() -> None:
    found = run.figures(SCENARIOS["sse"], 1.0, (BEGIN, END), [outcome([1e3] * 4_500, [2e3] * 4_500)])
    assert found.delivered == pytest.approx(0.9)
    assert found.jitter_p99_us == 2.0


def test_a_window_without_work_has_no_figures() -> None:
    with pytest.raises(ValueError, match="nothing was done"):
        run.figures(SCENARIOS["json"], 1.0, (BEGIN, END), [outcome([])])


@pytest.mark.parametrize(
    ("kind", "proxy", "generator", "expected"),
    [
        (Kind.CLOSED, 0.99, 0.99, False),
        (Kind.CLOSED, 0.90, 0.80, False),
        (Kind.CLOSED, 0.90, 0.95, True),
        (Kind.CLOSED, 0.50, 0.60, True),
        (Kind.CLOSED, None, 1.00, True),
        (Kind.STREAMS, 0.20, 0.30, False),
        (Kind.STREAMS, 0.20, 0.95, True),
        (Kind.PACED, 0.05, 0.09, False),
    ],
)
def test_the_generator_says_when_it_is_the_bottleneck(
    kind: Kind, proxy: float | None, generator: float, expected: bool
) -> None:
    assert run.generator_bound(kind, proxy, generator) is expected


def a_run(target: str, round_: int, cpu: float | None, p50: float) -> Run:
    return Run(
        target=target,
        round=round_,
        work=1,
        rate=1.0,
        cpu_us=cpu,
        upstream_us=1.0,
        load_us=1.0,
        proxy_core=None,
        generator_core=0.1,
        generator_bound=round_ == 1,
        waited=None,
        p50_us=p50,
        p99_us=2 * p50,
    )


def test_a_summary_compares_within_each_round_and_takes_the_median_afterwards() -> None:
    runs = [
        *(a_run("direct", n, None, p50) for n, p50 in enumerate([100.0, 200.0, 300.0])),
        *(a_run("nginx", n, cpu, 400.0) for n, cpu in enumerate([10.0, 20.0, 40.0])),
        *(a_run("gateway", n, cpu, 500.0) for n, cpu in enumerate([20.0, 30.0, 80.0])),
    ]
    direct, nginx, gateway = summary.summarise(runs, ["direct", "nginx", "gateway"])
    assert gateway.figures["cpu_x_nginx"] == figures.Spread(2.0, 1.5, 2.0)
    assert nginx.figures["cpu_x_nginx"] == figures.Spread(1.0, 1.0, 1.0)
    assert gateway.figures["added_p50_us"] == figures.Spread(300.0, 200.0, 400.0)
    assert "cpu_us" not in direct.figures
    assert "added_p50_us" not in direct.figures
    assert (gateway.rounds, gateway.generator_bound) == (3, 1)


EXPOSITION = """\
# TYPE gateway_loop_lag_seconds histogram
gateway_loop_lag_seconds_bucket{le="0.001"} 90
gateway_loop_lag_seconds_bucket{le="0.002"} 99
gateway_loop_lag_seconds_bucket{le="+Inf"} 100
gateway_loop_lag_seconds_sum 0.5
gateway_loop_lag_seconds_count 100
# TYPE gateway_access_dropped_total counter
gateway_access_dropped_total 3
"""


def test_loop_lag_and_lost_lines_are_read_from_the_exposition() -> None:
    assert scrape.read(EXPOSITION) == scrape.Scrape({0.001: 90.0, 0.002: 99.0, math.inf: 100.0}, 3.0)
    assert scrape.read("") == scrape.Scrape()


@pytest.mark.parametrize(
    ("before", "percent", "expected"),
    [
        ({}, 99, 0.002),
        ({}, 90, 0.001),
        ({}, 99.5, math.inf),
        ({0.001: 90.0, 0.002: 90.0, math.inf: 90.0}, 50, 0.002),
        ({0.001: 90.0, 0.002: 99.0, math.inf: 100.0}, 50, None),
    ],
)
def test_a_histogram_percentile_is_the_bound_of_its_bucket_between_two_scrapes(
    before: dict[float, float], percent: float, expected: float | None
) -> None:
    assert scrape.percentile_bound(before, scrape.read(EXPOSITION).lag, percent) == expected
