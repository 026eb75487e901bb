"""Gauges in a text exposition: found whatever stands around them, added up, refused where they are no counts."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.prometheus import SAMPLES_LIMIT, Malformed, total
from tests.unit.configuring import STEADY


def read(text: bytes) -> float | None:
    return total(text, (b"vllm:num_requests_running", b"vllm:num_requests_waiting"))


VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a } b"} 3.0
vllm:num_requests_running{engine="1",model_name="a \\" b"} 4.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 10.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 10.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
"""


def test_the_samples_of_all_engines_are_added_up_and_no_other_family_s() -> None:
    assert read(VLLM) == 17


def test_a_text_without_them_tells_nothing() -> None:
    assert read(b"") is None
    assert read(b"# TYPE vllm:num_requests_running gauge\nother 1\nx_vllm:num_requests_running 5\n") is None
    assert read(b"vllm:num_requests_running 0\n") == 0


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"vllm:num_requests_running 5", 5),
        (b"vllm:num_requests_running\t5 1395066363000", 5),
        (b"vllm:num_requests_running{} 5e+01 \r\n", 50),
        (b"vllm:num_requests_running 1.5E2\n", 150),
        (b'vllm:num_requests_running{a="b"} 5.0 -1.5e9\n', 5),
    ],
)
def test_what_the_format_allows_is_read(line: bytes, value: float) -> None:
    assert read(line) == value


@pytest.mark.parametrize(
    "value",
    [b"", b"NaN", b"+Inf", b"-1", b"x", b"5 x", b"5,0", b"1e99", b"9" * 40, b"1_0", b"\xff", b"5\0", b'"5"', b"0x10"],
)
def test_what_is_no_count_is_refused(value: bytes) -> None:
    with pytest.raises(Malformed):
        read(b"ok 1\nvllm:num_requests_running{} " + value + b"\n")


def test_labels_without_an_end_are_refused() -> None:
    with pytest.raises(Malformed):
        read(b'vllm:num_requests_running{a="b" 5\n')


def test_more_samples_than_a_server_has_engines_are_refused() -> None:
    line = b"vllm:num_requests_waiting 1\n"
    assert read(line * SAMPLES_LIMIT) == SAMPLES_LIMIT
    with pytest.raises(Malformed):
        read(line * (SAMPLES_LIMIT + 1))


@pytest.mark.parametrize(
    "text",
    [
        b"vllm:num_requests_running{" * 40_000,
        b"vllm:num_requests_running{" + b"}" * (1 << 20),
        b"vllm:num_requests_running{" + b"} 1" * (1 << 18),
        b"vllm:num_requests_running" + b" " * (1 << 20),
        b"vllm:num_requests_running 1" + b" " * (1 << 20) + b"x",
        b"vllm:num_requests_running 1 " + b"1" * (1 << 20) + b"x",
        b"vllm:num_requests_running" * 40_000,
        b"\n" * (1 << 20),
    ],
)
def test_a_hostile_mebibyte_is_gone_through_once(text: bytes) -> None:
    """A regular expression that tries again and again would take minutes, and this test with it."""
    with suppress(Malformed):
        read(text)


@STEADY
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(noise: bytes) -> None:
    for text in (noise, b"vllm:num_requests_running" + noise, b"vllm:num_requests_running{} 5" + noise):
        try:
            assert (read(text) or 0) >= 0
        except Malformed:
            pass


@STEADY
@given(st.lists(st.integers(0, 10_000), max_size=20), st.text(st.characters(exclude_characters='\n\\"')))
def test_counts_are_added_up_whatever_the_labels_say(counts: list[int], label: str) -> None:
    text = "".join(f'vllm:num_requests_running{{model="{label}"}} {count}\n' for count in counts)
    assert read(text.encode("utf-8", "surrogatepass")) == (sum(counts) if counts else None)
