"""The estimate of input tokens: the documented rule, and nothing that the API would not be asked."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from protocols.anthropic.count import FILE_TOKENS, IMAGE_TOKENS, TOOL_TOKENS, count_body
from protocols.dialect import Dropped, JsonObject, Unmappable


def count(content: Any = "", **fields: Any) -> int:
    request: JsonObject = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
    counted = orjson.loads(count_body(request, Dropped(lenient=False)))
    assert list(counted) == ["input_tokens"]
    return counted["input_tokens"]


HI = count("Hi")


def test_a_short_text_is_a_token_and_its_frame() -> None:
    assert HI == 3 + 3 + 1


@pytest.mark.parametrize(
    ("text", "tokens"), [("a", 1), ("abcd", 1), ("abcde", 2), ("a" * 4000, 1000), ("é" * 4, 2), ("日本語の", 3)]
)
def test_four_bytes_are_a_token(text: str, tokens: int) -> None:
    assert count(text) == 6 + tokens


def test_an_image_costs_the_same_whatever_its_size() -> None:
    for data in ("aGk=", "aGk=" * 10_000):
        source = {"type": "base64", "media_type": "image/png", "data": data}
        assert count([{"type": "text", "text": "Hi"}, {"type": "image", "source": source}]) == HI + IMAGE_TOKENS


def test_a_file_costs_the_same_whatever_its_size() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "aGk=" * 1000}
    assert count([{"type": "text", "text": "Hi"}, {"type": "document", "source": source}]) == HI + FILE_TOKENS


def test_tools_and_the_shape_of_the_answer_count() -> None:
    tool = {"name": "f", "input_schema": {"type": "object"}}
    # {"name":"f","parameters":{"type":"object"}} has 43 bytes
    assert count("Hi", tools=[tool]) == HI + TOOL_TOKENS + 11
    # {"type":"object"} has 17
    assert count("Hi", output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}}) == HI + 5


def test_the_system_text_calls_results_and_thoughts_count() -> None:
    assert count("Hi", system="abcd") == HI + 3 + 1
    blocks = [
        {"type": "thinking", "thinking": "abcd", "signature": "s" * 1000},
        {"type": "tool_use", "id": "1", "name": "abcd", "input": {}},
    ]
    turns = [{"role": "assistant", "content": blocks}]
    results = [{"type": "tool_result", "tool_use_id": "1", "content": "abcd"}]
    assert count(messages=turns) == 3 + 3 + 1 + TOOL_TOKENS + 1 + 1
    assert count(results) == 3 + 3 + 1


def test_the_same_request_has_the_same_count_and_a_longer_one_no_less() -> None:
    counts = [count("x" * length) for length in range(50)]
    assert counts == sorted(counts)
    assert counts == [count("x" * length) for length in range(50)]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"model": None}, "model"),
        ({"max_tokens": "x"}, "max_tokens"),
        ({"what_nobody_knows": 1}, "what_nobody_knows"),
    ],
)
def test_a_wrong_request_is_refused(fields: JsonObject, param: str) -> None:
    with pytest.raises(Unmappable) as caught:
        count("Hi", **fields)
    assert caught.value.param == param
