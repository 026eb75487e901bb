"""The list of models in Anthropic's shape."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

import orjson
import pytest
from anthropic.pagination import SyncPage
from anthropic.types import ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from protocols.anthropic.models import (
    Page,
    model_body,
    model_entry,
    models_body,
    parse_models,
    read_page,
    rfc3339,
)
from protocols.dialect import Unmappable

NAMES = ["a", "b", "c", "d", "e"]
ENTRIES = [model_entry(name, 1_700_000_000) for name in NAMES]


@given(st.integers(0, 253_402_300_799))
def test_the_time_is_that_of_the_calendar(seconds: int) -> None:
    assert rfc3339(seconds) == datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)


def test_a_model_is_what_the_sdk_expects() -> None:
    model = ModelInfo.model_validate(orjson.loads(model_body(ENTRIES[0])))
    assert (model.id, model.created_at) == ("a", datetime.fromtimestamp(1_700_000_000, UTC))


@pytest.mark.parametrize(
    ("query", "names", "has_more"),
    [
        ({}, "abcde", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "5"}, "abcde", False),
        ({"limit": "2", "after_id": "b"}, "cd", True),
        ({"limit": "2", "after_id": "c"}, "de", False),
        ({"after_id": "e"}, "", False),
        ({"limit": "2", "before_id": "d"}, "bc", True),
        ({"limit": "2", "before_id": "c"}, "ab", False),
        ({"before_id": "a"}, "", False),
        ({"lifecycle[]": "retired"}, "", False),
        ({"lifecycle[]": "active"}, "abcde", False),
    ],
)
def test_a_page_is_what_was_asked_for(query: dict[str, str], names: str, has_more: bool) -> None:
    body = models_body(ENTRIES, read_page(urlencode(query)))
    page = SyncPage[ModelInfo].model_validate(orjson.loads(body))
    assert [model.id for model in page.data] == list(names)
    assert page.has_more is has_more
    assert (page.first_id, page.last_id) == ((names[0], names[-1]) if names else (None, None))


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("after_id=a&before_id=b", "before_id"),
        ("&".join(["x=1"] * 100), None),
    ],
)
def test_a_wrong_query_is_refused(query: str, param: str | None) -> None:
    with pytest.raises(Unmappable) as caught:
        read_page(query)
    assert caught.value.param == param


def test_a_page_beside_the_list_is_refused() -> None:
    with pytest.raises(Unmappable, match="after_id"):
        models_body(ENTRIES, Page(after="z"))


def test_a_list_is_read_back() -> None:
    assert parse_models(models_body(ENTRIES, Page())) == tuple(NAMES)
    odd = [{"id": name} for name in ("a", "", " b", "c\n")]
    assert parse_models(orjson.dumps({"data": odd, "has_more": False})) == ("a",)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":[1]}', b'{"data":[{"id":1}]}', b"\xff", b"[" * 100_000])
def test_what_is_no_list_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a list of models"):
        parse_models(body)
