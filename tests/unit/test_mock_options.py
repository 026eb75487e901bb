"""The options of a mock address, and what they refuse."""

from __future__ import annotations

import pytest

from gateway.upstream.mock import MockBackend, MockOptions, read_options


def test_a_bare_address_has_the_defaults() -> None:
    assert read_options("mock://local") == MockOptions()


def test_every_option_of_an_address_is_read() -> None:
    url = (
        "mock://local?text=Good+day%21&delay=50ms&tokens_per_second=20&error=503&error_rate=0.1"
        "&seed=4&cut_after=3&embedding_size=16&models=a,%20b"
    )
    assert read_options(url) == MockOptions(
        text="Good day!",
        delay=0.05,
        tokens_per_second=20,
        error=503,
        error_rate=0.1,
        seed=4,
        cut_after=3,
        embedding_size=16,
        models=("a", "b"),
    )


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("1.5", 1.5), ("250ms", 0.25), ("2s", 2), ("1m", 60)])
def test_a_delay_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert read_options(f"mock://x?delay={text}").delay == seconds


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("txt=a", "did you mean 'text'"),
        ("colour=red", "'colour' is no option"),
        ("text=a&text=b", "'text' is given twice"),
        ("delay=soon", "'delay'"),
        ("delay=-1s", "'delay'"),
        ("delay=2h", "'delay'"),
        ("delay=61m", "'delay'"),
        ("delay=", "'delay'"),
        ("tokens_per_second=fast", "'tokens_per_second'"),
        ("tokens_per_second=-1", "'tokens_per_second'"),
        ("tokens_per_second=nan", "'tokens_per_second'"),
        ("tokens_per_second=inf", "'tokens_per_second'"),
        ("error=200", "'error'"),
        ("error=600", "'error'"),
        ("error=503.5", "'error'"),
        ("error_rate=1.1", "'error_rate'"),
        ("seed=x", "'seed'"),
        ("cut_after=-1", "'cut_after'"),
        ("embedding_size=0", "'embedding_size'"),
        ("embedding_size=100000", "'embedding_size'"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(query: str, word: str) -> None:
    with pytest.raises(ValueError) as refused:
        MockBackend("mock", [f"mock://local?{query}"])
    assert word in str(refused.value)


def test_a_backend_lists_the_models_of_its_addresses_once_each() -> None:
    backend = MockBackend("mock", ["mock://a?models=x,y", "mock://b?models=y,z", "mock://c"])
    assert backend.models == ("x", "y", "z")
