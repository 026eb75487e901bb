"""Usage: found wherever a backend puts it, and never in generated text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dialect import Usage
from protocols.openai.usage import USAGE_WINDOW, find_usage, usage_of_answer, usage_of_chunk
from tests.unit.configuring import STEADY

Told = tuple[int, int, int]

#: The usage objects that backends write, and what they say: prompt, completion and cached tokens.
OBJECTS: dict[str, tuple[bytes, Told]] = {
    "chat": (b'{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}', (5, 7, 0)),
    "chat with details": (
        b'{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":3,'
        b'"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":2}}',
        (5, 7, 3),
    ),
    "chat with null details": (b'{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":null}', (5, 7, 0)),
    "chat with null in details": (
        b'{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":null}}',
        (5, 7, 0),
    ),
    "responses": (
        b'{"input_tokens":5,"input_tokens_details":{"cached_tokens":3},"output_tokens":7,"output_tokens_details":'
        b'{"reasoning_tokens":1},"total_tokens":12}',
        (5, 7, 3),
    ),
    "images": (
        b'{"total_tokens":12,"input_tokens":5,"output_tokens":7,"input_tokens_details":{"text_tokens":5}}',
        (5, 7, 0),
    ),
    "transcription": (b'{"type":"tokens","input_tokens":5,"output_tokens":7,"total_tokens":12}', (5, 7, 0)),
    "embeddings": (b'{"prompt_tokens":5,"total_tokens":5}', (5, 0, 0)),
    "spaced": (b'{ "prompt_tokens" : 5 ,\n "completion_tokens" : 7 }', (5, 7, 0)),
    "nothing generated": (b'{"prompt_tokens":5,"completion_tokens":0}', (5, 0, 0)),
    "more than we know": (b'{"prompt_tokens":5,"completion_tokens":7,"x":{"y":[1,2]},"cost":0.1,"z":{}}', (5, 7, 0)),
    "text in it": (b'{"prompt_tokens":5,"completion_tokens":7,"tier":"default"}', (5, 7, 0)),
}
EACH = pytest.mark.parametrize(("written", "told"), OBJECTS.values(), ids=OBJECTS.keys())


def told_by(usage: Usage | None) -> Told | None:
    return (usage.prompt, usage.completion, usage.cached) if usage is not None else None


def answer(usage: bytes, content: str = "hello", after: bytes = b"") -> bytes:
    text = json.dumps({"id": "1", "choices": [{"message": {"content": content}}]})[:-1].encode()
    return text + b',"usage":' + usage + after + b"}"


@EACH
def test_the_usage_of_an_answer_is_found(written: bytes, told: Told) -> None:
    assert told_by(usage_of_answer(answer(written))) == told
    assert told_by(usage_of_answer(b"\n" + answer(written, after=b',"user":null,"metadata":{}') + b"\n")) == told


@EACH
def test_the_usage_of_a_large_answer_is_found_in_its_last_part(written: bytes, told: Told) -> None:
    body = answer(written, "x" * (2 * USAGE_WINDOW), b',"system_fingerprint":"f"')
    assert told_by(usage_of_answer(body)) == told
    assert told_by(find_usage(body[-USAGE_WINDOW:])) == told


@EACH
def test_the_usage_of_a_chunk_is_found(written: bytes, told: Told) -> None:
    alone = b'{"id":"1","choices":[],"usage":' + written + b"}"
    beside = b'{"id":"1","choices":[{"index":0}],"usage":' + written + b"}"
    nested = b'{"type":"response.completed","response":{"id":"1","output":[],"usage":' + written + b',"user":null}}'
    event = b'{"type":"image_generation.completed","b64_json":"AAAA","usage":' + written + b"}"
    found = [usage_of_chunk(data) for data in (alone, beside, nested, event)]
    assert [told_by(usage) for usage, _ in found] == [told] * 4
    assert [only for _, only in found] == [True, False, False, False]


NONE = {
    "no usage": b'{"choices":[]}',
    "null": b'{"choices":[],"usage":null}',
    "text": b'{"choices":[],"usage":"5"}',
    "a number": b'{"choices":[],"usage":5}',
    "a list": b'{"choices":[],"usage":[{"prompt_tokens":5}]}',
    "null before another object": b'{"choices":[],"usage":null,"x":{"prompt_tokens":5}}',
    "counts that are text": b'{"choices":[],"usage":{"prompt_tokens":"5","completion_tokens":7}}',
    "counts that are no whole numbers": b'{"choices":[],"usage":{"prompt_tokens":5.5,"completion_tokens":7}}',
    "counts below zero": b'{"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":7}}',
    "generated below zero": b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":-7}}',
    "more than anybody has": b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":4611686018427387904}}',
    "more than a cell holds": b'{"choices":[],"usage":{"prompt_tokens":99999999999999999999,"completion_tokens":7}}',
    "cached below zero": b'{"choices":[],"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":-1}}}',
    "details that are none": b'{"choices":[],"usage":{"prompt_tokens":5,"prompt_tokens_details":[]}}',
    "not JSON": b'{"choices":[],"usage":{"prompt_tokens":5,}}',
    "cut": b'{"choices":[],"usage":{"prompt_tokens":5',
    "cut in the details": b'{"choices":[],"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":1}',
    "the key alone": b'{"choices":[],"usage"',
    "in generated text": b'{"choices":[{"delta":{"content":"\\"usage\\":{\\"prompt_tokens\\":5}"}}]}',
    "a key that ends alike": b'{"choices":[],"no_usage":{"prompt_tokens":5}}',
    "a list of answers": b'[{"choices":[]}]',
    "empty": b"",
    "bytes": b"\xff\xfe\x00usage",
}


@pytest.mark.parametrize("body", NONE.values(), ids=NONE.keys())
def test_what_is_no_sane_usage_counts_nothing(body: bytes) -> None:
    assert usage_of_answer(body) is None
    assert usage_of_chunk(body)[0] is None
    assert find_usage(body) is None


def test_the_last_usage_counts() -> None:
    body = b'{"a":{"usage":{"prompt_tokens":1}},"usage":{"prompt_tokens":5}}'
    assert told_by(find_usage(body)) == (5, 0, 0)
    assert told_by(usage_of_answer(body)) == (5, 0, 0)


@pytest.mark.parametrize("metadata", [b'{"topic":"usage"}', b'{"usage":"x"}', b'{"usage":null}', b'{"usage":"{1}"}'])
def test_what_a_client_may_have_echoed_behind_it_does_not_hide_the_usage(metadata: bytes) -> None:
    written, told = OBJECTS["responses"]
    rest = b',"user":null,"metadata":' + metadata
    assert told_by(usage_of_answer(answer(written, "x" * USAGE_WINDOW, rest))) == told
    nested = b'{"type":"response.completed","response":{"output":[],"usage":' + written + rest + b"}}"
    assert told_by(usage_of_chunk(nested)[0]) == told


def test_a_window_that_begins_inside_of_a_usage_has_none() -> None:
    body = answer(OBJECTS["chat with details"][0])
    at = body.index(b'"usage"')
    for start in range(at + 1, len(body)):
        assert find_usage(body[start:]) is None


@pytest.mark.parametrize(
    "text",
    ['"usage":{"prompt_tokens":9}', '\\"usage":{}', '\\\\"usage":{"prompt_tokens":9}', "}}}", '{"usage": {', '"'],
)
def test_generated_text_is_never_taken_for_usage(text: str) -> None:
    written, told = OBJECTS["chat"]
    for filler in ("", "x" * 2 * USAGE_WINDOW):
        assert told_by(usage_of_answer(answer(written, filler + text))) == told
        content = json.dumps({"choices": [{"message": {"content": filler + text}}]}).encode()
        assert usage_of_answer(content) is None
        assert usage_of_chunk(content) == (None, False)


_COUNT = st.integers(0, 2**40)
_DETAILS = st.none() | st.fixed_dictionaries({}, optional={"cached_tokens": st.none() | _COUNT, "text_tokens": _COUNT})
_USAGE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"), _COUNT
        ),
        "prompt_tokens_details": _DETAILS,
        "input_tokens_details": _DETAILS,
    },
)


@STEADY
@given(_USAGE)
def test_every_way_to_the_usage_finds_the_same(written: dict[str, object]) -> None:
    text = json.dumps(written).encode()
    found = told_by(find_usage(b'"usage":' + text))
    assert found is not None
    assert told_by(usage_of_answer(b'{"usage":' + text + b"}")) == found
    assert told_by(usage_of_answer(answer(text, "x" * (USAGE_WINDOW + 1)))) == found
    assert told_by(usage_of_chunk(b'{"choices":[],"usage":' + text + b"}")[0]) == found


_KEYS = st.sampled_from(["usage", "x", 'no "usage', "\\\\usage", "prompt_tokens"])
_ANY = st.recursive(
    st.none() | st.integers(0, 9) | _KEYS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@STEADY
@given(st.dictionaries(_KEYS, _ANY, max_size=4))
def test_only_the_answers_own_usage_counts_wherever_the_word_stands(answer: dict[str, object]) -> None:
    written = answer.get("usage")
    count = written.get("prompt_tokens", 0) if isinstance(written, dict) else None
    found = usage_of_answer(json.dumps(answer).encode())
    assert told_by(found) == ((count, 0, 0) if type(count) is int else None)


@STEADY
@given(
    st.lists(st.sampled_from([b'"usage"', b":", b"{", b"}", b'"', b"\\", b"1", b" ", b",", b"[", b'"x"']), max_size=30)
)
def test_no_bytes_make_the_search_raise(pieces: list[bytes]) -> None:
    window = b"".join(pieces)
    for found in (
        find_usage(window),
        usage_of_answer(window),
        usage_of_answer(b"{" + window),
        usage_of_chunk(window)[0],
    ):
        assert found is None or found.prompt >= 0


def test_a_window_of_hostile_braces_is_searched_at_once() -> None:
    opened = b'"usage":{' * 200
    for window in (
        opened + b"{" * 3_000 + b"}" * 2_900,
        opened * 4,
        b'"usage":' + b"{}" * 4_000,
        b'"usage":' + b" " * 8_000,
    ):
        assert find_usage(window[:USAGE_WINDOW]) is None or window.startswith(b'"usage":{}')
