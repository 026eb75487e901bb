"""The properties of tests/fuzz, with what is known to be interesting, what was found before, and what hypothesis draws.

`python -m tests.fuzz NAME` searches further than this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import body, chunked, client, events, form, request_head, response_head, upstream
from tests.fuzz.cutting import CUTS_LIMIT, cut, pieces, uncut
from tests.unit.configuring import STEADY

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
PARSERS = (body, chunked, events, form, request_head, response_head)
#: These play whole calls, and are a hundred times as slow.
GLUE = (client, upstream)
FOUND = [path for path in sorted(CORPUS.rglob("*")) if path.is_file()]

Check = Callable[[bytes], None]


def name_of(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


MODULES = {name_of(module): module for module in (*PARSERS, *GLUE)}


@pytest.mark.parametrize("name", MODULES)
def test_every_seed_holds_wherever_it_is_cut(name: str) -> None:
    module = MODULES[name]
    with module.opened() as check:
        for seed in module.SEEDS:
            check(seed)
            if module in GLUE or module in (body, form):
                continue
            _, message = cut(seed)
            for at in range(0, len(message), 1 + len(message) // 60):
                check(uncut(message, at))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_before_holds(path: Path) -> None:
    with MODULES[path.parent.name].opened() as check:
        check(path.read_bytes())


def drawn(module: ModuleType) -> st.SearchStrategy[bytes]:
    """A seed with a part of it replaced by words of its kind and any bytes; or nothing but those."""
    words = st.lists(st.one_of(st.sampled_from(module.WORDS), st.binary(max_size=3)), max_size=6).map(b"".join)

    def spliced(parts: tuple[bytes, int, int, bytes]) -> bytes:
        seed, start, length, middle = parts
        start %= len(seed) + 1
        return seed[:start] + middle + seed[start + length :]

    place, length = st.integers(0, 1000), st.sampled_from([0, 0, 1, 2, 8, 30])
    return st.one_of(st.tuples(st.sampled_from(module.SEEDS), place, length, words).map(spliced), words)


@pytest.mark.parametrize("name", [name_of(module) for module in PARSERS])
def test_no_bytes_break_a_parser(name: str) -> None:
    searched(MODULES[name], 400)


@pytest.mark.parametrize("name", [name_of(module) for module in GLUE])
def test_no_bytes_break_a_call(name: str) -> None:
    searched(MODULES[name], 150)


def searched(module: ModuleType, examples: int) -> None:
    with module.opened() as check:

        @settings(STEADY, max_examples=examples)
        @given(drawn(module))
        def search(data: bytes) -> None:
            check(data)

        search()


@STEADY
@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=CUTS_LIMIT))
def test_a_cut_message_is_put_together_as_it_was(message: bytes, places: list[int]) -> None:
    places = sorted(place % (len(message) + 1) for place in places)
    assert cut(uncut(message, *places)) == (places, message)
    assert b"".join(pieces(message, places)) == message
    assert all(pieces(message, places))


def test_the_corpus_belongs_to_modules_that_exist() -> None:
    assert FOUND
    assert {path.parent.name for path in FOUND} <= set(MODULES)
