"""Content-Lengths are read by table: what is no number stays none, and peers cannot fill the table."""

from __future__ import annotations

import pytest

from protocols.http1.numbers import LENGTHS


@pytest.mark.parametrize(("digits", "length"), [(b"0", 0), (b"007", 7), (b"658", 658), (b"9" * 18, 10**18 - 1)])
def test_a_length_is_the_same_the_first_time_and_later(digits: bytes, length: int) -> None:
    assert [LENGTHS[digits], LENGTHS[digits]] == [length, length]


@pytest.mark.parametrize("text", [b"", b"-1", b"+1", b"1 ", b"1_0", b"5,5", b"\xb2", b"9" * 19])
def test_what_is_no_sane_number_is_none_however_often_it_comes(text: bytes) -> None:
    assert [LENGTHS[text], LENGTHS[text]] == [None, None]
    assert text not in LENGTHS


def test_only_short_lengths_are_remembered() -> None:
    assert LENGTHS[b"12345"] == 12345
    assert b"12345" not in LENGTHS
