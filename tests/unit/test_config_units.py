"""Durations and sizes: what is read, what is refused, and the way back."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import units
from gateway.config.schema import Bytes, Seconds
from tests.unit.configuring import STEADY


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0.0),
        (10, 10.0),
        (0.25, 0.25),
        ("10", 10.0),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("100ms", 0.1),
        ("10s", 10.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("0.5h", 1800.0),
        (" 10 s ", 10.0),
        ("10S", 10.0),
        ("8760h", 31536000.0),
    ],
)
def test_a_duration_is_seconds_or_text_with_a_unit(written: object, expected: float) -> None:
    found = units.seconds(written)
    assert found == expected
    assert type(found) is Seconds


@pytest.mark.parametrize(
    "written",
    [
        *(-1, -0.5, "-1s", float("nan"), float("inf"), "nan", "inf", True, False, None, [], {}),
        *("", "s", "10 parsecs", "10d", "1e3", "1_000", "1h30m", "10,5s", "8761h", 31536001, 10**400),
        *("\u0663s", "9" * 400),
    ],
)
def test_what_is_no_duration_is_refused_with_the_units(written: object) -> None:
    with pytest.raises(ValueError, match="ms, s, m, h"):
        units.seconds(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0),
        (512, 512),
        ("512", 512),
        ("512B", 512),
        ("64KiB", 64 << 10),
        ("8MiB", 8 << 20),
        ("1GiB", 1 << 30),
        ("1.5KiB", 1536),
        ("8 mib", 8 << 20),
    ],
)
def test_a_size_is_bytes_or_text_with_a_unit(written: object, expected: int) -> None:
    found = units.size(written)
    assert found == expected
    assert type(found) is Bytes


@pytest.mark.parametrize(
    "written",
    [
        *(-1, 1.5, 1.0, "1.5B", "0.3KiB", "-1B", True, False, None, [], {}, "", "B", "8MB", "8M", "1TiB"),
        *("nan", float("nan"), float("inf"), 1 << 63, "9" * 400, "1e3"),
    ],
)
def test_what_is_no_size_is_refused_with_the_units(written: object) -> None:
    with pytest.raises(ValueError, match="B, KiB, MiB, GiB"):
        units.size(written)


def _read_back(text: str) -> object:
    return tomllib.loads(f"value = {text}")["value"]


@STEADY
@given(st.floats(0, units.LONGEST) | st.integers(0, 10**9).map(lambda ms: min(ms / 1000, units.LONGEST)))
def test_a_written_duration_reads_back_as_the_very_same(value: float) -> None:
    assert units.seconds(_read_back(units.seconds_text(value))) == value


@STEADY
@given(st.integers(0, 1 << 40) | st.integers(0, 1 << 20).map(lambda count: count << 20))
def test_a_written_size_reads_back_as_the_very_same(value: int) -> None:
    assert units.size(_read_back(units.size_text(value))) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, '"0s"'), (0.25, '"250ms"'), (75, '"75s"'), (300, '"5m"'), (7200, '"2h"'), (1 / 3, repr(1 / 3))],
)
def test_a_duration_is_written_in_the_largest_unit_that_divides_it(value: float, text: str) -> None:
    assert units.seconds_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, '"0B"'), (1, '"1B"'), (1 << 16, '"64KiB"'), (1 << 30, '"1GiB"')])
def test_a_size_is_written_in_the_largest_unit_that_divides_it(value: int, text: str) -> None:
    assert units.size_text(value) == text
