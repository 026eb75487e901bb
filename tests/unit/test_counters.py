"""Cells, families with a limit, and the names that are promised to users."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observe.counters import (
    LATENCY_BOUNDS,
    OVERHEAD_BOUNDS,
    Counter,
    Family,
    Gauge,
    Histogram,
    Measures,
    Registry,
    Type,
)

BOUNDS = (0.1, 1.0, 10.0)


def folded(registry: Registry, name: str) -> int:
    family = next(iter(registry.families))
    child = family.children[(name,)]
    assert isinstance(child, Counter)
    return child.value


def test_a_counter_counts_by_its_value_and_by_inc() -> None:
    counter = Counter()
    counter.value += 1
    counter.inc()
    counter.inc(3)
    assert counter.value == 5


def test_a_gauge_shows_what_was_set_plus_what_it_watches() -> None:
    gauge = Gauge()
    gauge.value += 2
    assert gauge.read() == 2
    live = [5.0, 7.0]
    gauge.watch(lambda: live[0])
    gauge.watch(lambda: live[1])
    assert gauge.read() == 14
    live[0] = 0
    assert gauge.read() == 9


@pytest.mark.parametrize(
    ("value", "hits"),
    [
        (0.0, [1, 0, 0, 0]),
        (0.1, [1, 0, 0, 0]),
        (0.11, [0, 1, 0, 0]),
        (10.0, [0, 0, 1, 0]),
        (11.0, [0, 0, 0, 1]),
    ],
)
def test_a_value_on_a_bound_belongs_to_the_bucket_below_it(value: float, hits: list[int]) -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(value)
    assert histogram.hits == hits and histogram.total == value and histogram.count == 1


@given(st.lists(st.floats(min_value=0, max_value=1000)))
def test_a_histogram_loses_no_value(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(sum(values))
    assert histogram.hits == [sum(bisect_left(BOUNDS, value) == i for value in values) for i in range(4)]


def test_the_same_labels_give_the_same_child() -> None:
    family = Registry().counter("a_total", "A.", ("x", "y"))
    assert family.child("1", "2") is family.child("1", "2")
    assert family.child("1", "2") is not family.child("2", "1")
    assert list(family.children) == [("1", "2"), ("2", "1")]


@pytest.mark.parametrize("labels", [(), ("1",), ("1", "2", "3")])
def test_a_wrong_number_of_labels_is_an_error(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="a_total"):
        Registry().counter("a_total", "A.", ("x", "y")).child(*labels)


def test_past_the_limit_new_labels_are_counted_together_as_other() -> None:
    registry = Registry(limit=3)
    family = registry.counter("a_total", "A.", ("x", "y"))
    kept = [family.child(name, "") for name in "ab"]
    assert folded(registry, "a_total") == 0
    for name in ("c", "d", "c"):
        family.child(name, "").inc()
    assert set(family.children) == {("a", ""), ("b", ""), ("other", "other")}
    assert family.child("other", "other").value == 3
    assert folded(registry, "a_total") == 3
    assert [family.child(name, "") for name in "ab"] == kept
    assert folded(registry, "a_total") == 3


def test_the_limit_holds_for_one_who_says_other_first_too() -> None:
    registry = Registry(limit=3)
    family = registry.counter("a_total", "A.", ("x",))
    for name in ("other", "a", "b", "c", "d"):
        family.child(name).inc()
    assert set(family.children) == {("other",), ("a",), ("b",)}
    assert family.child("other").value == 3 and folded(registry, "a_total") == 2


def test_a_hundred_thousand_names_make_no_more_than_a_thousand_series() -> None:
    registry = Registry()
    family = registry.histogram("a_seconds", "A.", BOUNDS, ("model",))
    for i in range(100_000):
        family.child(f"model-{i}").observe(1)
    assert len(family.children) == 1000
    assert folded(registry, "a_seconds") == 100_000 - 999
    assert sum(child.count for child in family.children.values()) == 100_000


def test_gauges_that_are_folded_show_their_sum() -> None:
    family = Registry(limit=2).gauge("a", "A.", ("x",))
    for name in "abc":
        family.watch((name,), lambda: 1)
    assert {labels: child.read() for labels, child in family.children.items()} == {("a",): 1, ("other",): 2}


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("a", ()),
        ("1_total", ()),
        ("a-b_total", ()),
        ("a_total\n", ()),
        ("ä_total", ()),
        ("a_total", ("x-y",)),
        ("a_total", ("",)),
        ("a_total", ("le",)),
        ("a_total", ("__name__",)),
        ("gateway_metrics_folded_total", ()),
    ],
)
def test_a_name_that_prometheus_would_not_take_is_refused(name: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        Registry().counter(name, "Bad.", labels)


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0), (1.0, float("inf"))])
def test_bounds_that_do_not_rise_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        Registry().histogram("a_seconds", "A.", bounds)


def test_a_family_says_how_full_it_is() -> None:
    family: Family[Counter] = Registry().counter("a_total", "A.", ("x",))
    family.child("1")
    assert repr(family) == "<Family counter a_total 1/1000>"


PROMISED = {
    "gateway_requests_total": (Type.COUNTER, ("method", "path", "status")),
    "gateway_request_latency_seconds": (Type.HISTOGRAM, ("method", "path")),
    "gateway_in_flight_requests": (Type.GAUGE, ()),
    "gateway_upstream_requests_total": (Type.COUNTER, ("upstream", "status")),
    "gateway_upstream_latency_seconds": (Type.HISTOGRAM, ("upstream",)),
    "gateway_time_to_first_token_seconds": (Type.HISTOGRAM, ("upstream",)),
    "gateway_overhead_seconds": (Type.HISTOGRAM, ()),
    "gateway_tokens_total": (Type.COUNTER, ("model", "kind")),
    "gateway_stream_chunks_total": (Type.COUNTER, ("upstream",)),
    "gateway_upstream_connections": (Type.GAUGE, ("upstream", "state")),
    "gateway_endings_total": (Type.COUNTER, ("ending",)),
    "gateway_shed_total": (Type.COUNTER, ("reason",)),
    "gateway_dns_lookups_total": (Type.COUNTER, ("result",)),
    "gateway_unshared_peers": (Type.GAUGE, ()),
    "gateway_fallback_used_total": (Type.COUNTER, ("from_model", "to_model")),
    "gateway_retries_total": (Type.COUNTER, ("upstream", "reason")),
    "gateway_client_connections": (Type.GAUGE, ()),
    "gateway_client_connections_failed_total": (Type.COUNTER, ("reason",)),
    "gateway_body_budget_bytes": (Type.GAUGE, ()),
    "gateway_loop_lag_seconds": (Type.HISTOGRAM, ()),
    "gateway_access_dropped_total": (Type.COUNTER, ()),
    "gateway_accept_pauses_total": (Type.COUNTER, ()),
    "gateway_worker_restarts_total": (Type.COUNTER, ("reason",)),
    "gateway_peer_cooldowns_total": (Type.COUNTER, ("upstream", "endpoint")),
    "gateway_circuit_open_total": (Type.COUNTER, ("upstream",)),
    "gateway_build_info": (Type.GAUGE, ("version",)),
    "gateway_metrics_folded_total": (Type.COUNTER, ("family",)),
}


def test_the_gateways_metrics_have_the_promised_names_types_and_labels() -> None:
    families = Measures("1.2.3").registry.families
    assert {family.name: (family.type, family.labels) for family in families} == PROMISED


def test_the_build_is_told_by_a_label() -> None:
    families = {family.name: family for family in Measures("1.2.3").registry.families}
    assert list(families["gateway_build_info"].children) == [("1.2.3",)]


def test_each_process_counts_for_itself() -> None:
    one, two = Measures("1"), Measures("1")
    one.requests.child("GET", "/health", "200").inc()
    one.in_flight.value += 1
    assert not two.requests.children and two.in_flight.read() == 0


def test_the_bounds_reach_from_a_cached_answer_to_a_long_stream() -> None:
    measures = Measures("1")
    assert (LATENCY_BOUNDS[0], LATENCY_BOUNDS[-1]) == (0.001, 600.0)
    assert (OVERHEAD_BOUNDS[0], OVERHEAD_BOUNDS[-1]) == (0.00005, 1.0)
    assert measures.loop_lag.bounds[0] == 0.0001 and 0.002 in measures.loop_lag.bounds
