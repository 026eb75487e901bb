"""The text that is scraped: prometheus_client's parsers read back what was counted."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.observe.counters import Measures, Registry
from gateway.observe.exposition import collectors, render
from gateway.observe.processes import HostProcesses

Parse = Callable[[str], Iterable[Any]]
FORMATS = [
    pytest.param(False, parse_text, id="text"),
    pytest.param(True, parse_openmetrics, id="openmetrics"),
]
TEXT = st.text(max_size=30) | st.text(alphabet='\\"\n\r{},= #n\u2028\x00', max_size=12)

SYSTEM = collectors(HostProcesses(lambda: [os.getpid()]))


def samples(registry: Registry, openmetrics: bool, parse: Parse) -> dict[tuple[str, frozenset[Any]], float]:
    """Every sample of *registry* as its parser reads it: name and labels to value."""
    found: dict[tuple[str, frozenset[Any]], float] = {}
    for family in parse(render(registry, SYSTEM, openmetrics).decode()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
@given(values=st.tuples(TEXT, TEXT))
@example(values=('a"b\\c\nd', "\\n"))
@example(values=("\\", '"'))
@example(values=('x",y="z', "} 7\n# EOF\nevil 1"))
def test_any_label_comes_back_as_it_was(openmetrics: bool, parse: Parse, values: tuple[str, str]) -> None:
    registry = Registry()
    registry.counter("a_total", "A.", ("x", "y")).child(*values).inc(3)
    registry.histogram("b_seconds", "B.", (1.0,), ("x", "y")).child(*values).observe(2)
    read = samples(registry, openmetrics, parse)
    labels = {"x": values[0], "y": values[1]}
    assert read["a_total", frozenset(labels.items())] == 3
    assert read["b_seconds_bucket", frozenset({**labels, "le": "1.0"}.items())] == 0
    assert read["b_seconds_bucket", frozenset({**labels, "le": "+Inf"}.items())] == 1
    assert read["b_seconds_sum", frozenset(labels.items())] == 2
    assert read["b_seconds_count", frozenset(labels.items())] == 1


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
@given(help=TEXT)
def test_any_help_stays_on_its_line(openmetrics: bool, parse: Parse, help: str) -> None:
    registry = Registry()
    registry.gauge("a", help)
    registry.counter("b_total", "B.").child().inc()
    families = {family.name: family for family in parse(render(registry, SYSTEM, openmetrics).decode())}
    assert families["a"].type == "gauge" and families["b"].type == "counter"
    # prometheus_client's parsers drop white space at either end.
    assert families["a"].documentation.strip() == help.strip()


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=100)))
def test_buckets_are_cumulative_and_end_with_all(openmetrics: bool, parse: Parse, values: list[float]) -> None:
    registry = Registry()
    histogram = registry.histogram("a_seconds", "A.", (0.00005, 1.0, 10.0)).child()
    for value in values:
        histogram.observe(value)
    read = samples(registry, openmetrics, parse)
    for text, bound in (("5e-05", 0.00005), ("1.0", 1.0), ("10.0", 10.0), ("+Inf", math.inf)):
        below = sum(value <= bound for value in values)
        assert read["a_seconds_bucket", frozenset({("le", text)})] == below
    assert read["a_seconds_count", frozenset()] == len(values)
    assert read["a_seconds_sum", frozenset()] == histogram.total


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
@pytest.mark.parametrize("value", [0.0, 1.5, -3.0, 1e300, 1e-9, math.inf, -math.inf])
def test_any_level_comes_back_as_it_was(openmetrics: bool, parse: Parse, value: float) -> None:
    registry = Registry()
    registry.gauge("a", "A.").child().watch(lambda: value)
    assert samples(registry, openmetrics, parse)["a", frozenset()] == value


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
def test_what_is_no_number_is_said_so(openmetrics: bool, parse: Parse) -> None:
    registry = Registry()
    registry.gauge("a", "A.").child().watch(lambda: math.nan)
    assert math.isnan(samples(registry, openmetrics, parse)["a", frozenset()])


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
def test_a_counter_stays_exact_past_what_a_float_holds(openmetrics: bool, parse: Parse) -> None:
    registry = Registry()
    registry.counter("a_total", "A.").child().inc(2**60 + 1)
    assert f"a_total {2**60 + 1}\n".encode() in render(registry, SYSTEM, openmetrics)


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
def test_a_text_without_utf8_does_not_cost_the_scrape(openmetrics: bool, parse: Parse) -> None:
    registry = Registry()
    family = registry.counter("a_total", "A.", ("x",))
    family.child("\ud800").inc(1)
    family.child("\udfff").inc(2)
    read = samples(registry, openmetrics, parse)
    assert read["a_total", frozenset({("x", "\\ud800")})] == 1
    assert read["a_total", frozenset({("x", "\\udfff")})] == 2


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
def test_a_level_is_read_at_each_scrape(openmetrics: bool, parse: Parse) -> None:
    registry = Registry()
    live = [1.0]
    registry.gauge("a", "A.", ("x",)).watch(("1",), lambda: live[0])
    key = "a", frozenset({("x", "1")})
    assert samples(registry, openmetrics, parse)[key] == 1
    live[0] = 2
    assert samples(registry, openmetrics, parse)[key] == 2


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
def test_all_that_the_gateway_counts_can_be_scraped(openmetrics: bool, parse: Parse) -> None:
    measures = Measures("1.2.3")
    for family in measures.registry.families:
        family.child(*[f"{label}-1" for label in family.labels])
    families = {family.name: family for family in parse(render(measures.registry, SYSTEM, openmetrics).decode())}
    for family in measures.registry.families:
        assert families[family.name.removesuffix("_total")].type == family.type.value


@pytest.mark.parametrize(("openmetrics", "parse"), FORMATS)
def test_the_process_itself_is_shown_too(openmetrics: bool, parse: Parse) -> None:
    read = {name: value for (name, _), value in samples(Registry(), openmetrics, parse).items()}
    assert read["process_open_fds"] >= 3
    assert read["process_resident_memory_bytes"] > os.sysconf("SC_PAGE_SIZE")
    assert read["process_cpu_seconds_total"] > 0
    assert read["python_info"] == 1
    assert not any(name.startswith("python_gc") for name in read)


def test_a_family_without_children_is_announced() -> None:
    registry = Registry()
    registry.counter("a_total", "What a is.", ("x",))
    assert b"# HELP a_total What a is.\n# TYPE a_total counter\n" in render(registry, SYSTEM)


def test_openmetrics_ends_with_its_mark_and_the_older_format_has_none() -> None:
    assert render(Registry(), SYSTEM, openmetrics=True).endswith(b"\n# EOF\n")
    assert b"EOF" not in render(Registry(), SYSTEM)


def test_openmetrics_escapes_quotes_in_help_and_the_older_format_does_not() -> None:
    registry = Registry()
    registry.gauge("a", 'The "a".')
    assert b'# HELP a The \\"a\\".\n' in render(registry, SYSTEM, openmetrics=True)
    assert b'# HELP a The "a".\n' in render(registry, SYSTEM)
