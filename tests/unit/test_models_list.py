"""The list of models that a backend tells: which names are taken from it."""

from __future__ import annotations

import orjson
import pytest

from protocols.openai.models import model_entry, models_body, parse_models


def listed(*names: str) -> bytes:
    return models_body(model_entry(name, "b", 0) for name in names)


def test_names_are_read_as_they_were_written() -> None:
    assert parse_models(listed("gpt-4o", "org/Model-7B:latest", "modèle")) == (
        "gpt-4o",
        "org/Model-7B:latest",
        "modèle",
    )


def test_a_list_without_an_object_around_it_is_read_too() -> None:
    assert parse_models(b'[{"id":"a","type":"chat"},{"id":"org/b"}]') == ("a", "org/b")


@pytest.mark.parametrize("name", ["", " ", " m", "m ", "a\0b", "a\nb", "\x7f", "a\x85b", "a\u2028b", "a\u202eb"])
def test_a_name_that_no_configuration_could_give_is_left_out(name: str) -> None:
    assert parse_models(listed("before", name, "after")) == ("before", "after")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"[1]", b"{}", b'{"data":{}}', b'{"data":[{"id":1}]}', b'{"data":[{"id":"\xff"}]}']
)
def test_what_is_no_list_of_models_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a list of models"):
        parse_models(body)


def test_a_list_that_is_nested_without_end_is_refused() -> None:
    deep = orjson.dumps({"data": []})[:-2] + b"[" * 100_000
    with pytest.raises(ValueError, match="not a list of models"):
        parse_models(deep)
