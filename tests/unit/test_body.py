"""JSON bodies: every value leaves as it came, each key once, and nothing hostile is built."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.openai.body import (
    BodyError,
    ask_for_usage,
    decode_fields,
    join_fields,
    model_of,
    wants_stream,
)
from protocols.openai.wide import KEYS_LIMIT
from tests.unit.configuring import STEADY

LARGE = 64 << 10  # bodies of this size take the decoder that counts keys


def padded(body: bytes, large: bool) -> bytes:
    """*body*, with space behind it that makes it large."""
    return body + b" " * (LARGE if large else 0)


BOTH = pytest.mark.parametrize("large", [False, True], ids=["small", "large"])


def fields_of(**values: bytes) -> dict[str, msgspec.Raw]:
    return decode_fields(b"{" + b",".join(b'"%b":%b' % (key.encode(), value) for key, value in values.items()) + b"}")


#: JSON texts as clients write them: numbers, escapes and space that no re-encoding would keep.
VALUES = (
    *(b"1", b"1.0", b"1.10", b"1e5", b"1E+05", b"-0", b"-0.0", b"123456789012345678901234567890", b"0.1e-400"),
    *(b"true", b"false", b"null", b'""', b'"\\u0041\\/\\ud83d\\ude00"', "\"é\u2028\x7f\"".encode(), b'"a\\\\"'),
    *(b"[]", b"{}", b"[ ]", b"[ 1 ,\n2 ]", b'{"b" : 1, "a":\t2, "b": 3}', b'{"":{"":[{}]}}', b'"}{\\"]["'),
)  # fmt: skip
_SPACE = st.sampled_from([b"", b" ", b"\n\t", b"\r\n  "])


@BOTH
@STEADY
@given(st.dictionaries(st.text(max_size=6), st.tuples(st.sampled_from(VALUES), _SPACE, _SPACE), max_size=8))
def test_every_value_leaves_as_it_came(large: bool, written: dict[str, tuple[bytes, bytes, bytes]]) -> None:
    written = {key: value for key, value in written.items() if _is_text(key)}
    pairs = [
        before + json.dumps(key).encode() + after + b":" + before + value + after
        for key, (value, before, after) in written.items()
    ]
    fields = decode_fields(padded(b"{" + b",".join(pairs) + b"}", large))
    assert {key: bytes(value) for key, value in fields.items()} == {
        key: value for key, (value, _, _) in written.items()
    }
    joined = join_fields(fields)
    assert json.loads(joined) == {key: json.loads(value) for key, (value, _, _) in written.items()}
    assert list(json.loads(joined)) == list(written)
    for value, _, _ in written.values():
        assert value in joined


def _is_text(key: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in key)


@BOTH
def test_of_a_key_that_came_more_than_once_the_last_leaves_and_alone(large: bool) -> None:
    body = b'{"model":"a","x":1,"\\u006dodel":"b","model":"c","x":[2]}'
    fields = decode_fields(padded(body, large))
    assert join_fields(fields) == b'{"model":"c","x":[2]}'
    assert model_of(fields) == "c"


@BOTH
def test_a_key_never_breaks_out_of_its_quotes(large: bool) -> None:
    fields = decode_fields(padded(b'{"a\\"\\u0022:1,\\"model\\":\\"b":2,"\\u0000\\n\\\\":3}', large))
    assert json.loads(join_fields(fields)) == {'a"":1,"model":"b': 2, "\0\n\\": 3}


NOT_OBJECTS = (b"[]", b'"a"', b"1", b"null", b"true", b'[{"model":"a"}]')


@BOTH
@pytest.mark.parametrize("body", NOT_OBJECTS)
def test_what_is_not_an_object_is_refused(body: bytes, large: bool) -> None:
    with pytest.raises(BodyError, match="must be a JSON object"):
        decode_fields(padded(body, large))


BROKEN = (
    *(b"", b" ", b"{", b"}", b"{]", b'{"a"}', b'{"a":}', b'{"a":1', b'{"a":1,}', b'{"a":1 "b":2}', b"{a:1}"),
    *(b"{'a':1}", b'{"a":1}{}', b'{"a":1}x', b'{"a":tru}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":01}', b'{"a":1.}'),
    *(b'{"a":.5}', b'{"a":"\n"}', b'{"a\n":1}', b'{"a":"\\x41"}', b'{"\\x41":1}', b'{"a":"\\u12"}'),
    *(b'{1:2}', b'{null:1}', b"nul", b'{"a":[1,]}', b'{"a":{"b"}}', b'{"a":"b}'),
    *(b'\xef\xbb\xbf{"a":1}', b'{"a":1}\0', b"//\n{}", b'{"a":+1}'),
)  # fmt: skip


@BOTH
@pytest.mark.parametrize("body", BROKEN)
def test_what_is_not_json_is_refused(body: bytes, large: bool) -> None:
    with pytest.raises(ValueError):  # the standard library agrees
        json.loads(body.decode(), parse_constant=_no_constant)
    with pytest.raises(BodyError) as caught:
        decode_fields(padded(body, large))
    assert str(caught.value)
    assert "$" not in str(caught.value)


def _no_constant(name: str) -> None:
    raise ValueError(name)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80"], ids=lambda bad: bad.hex()
)
@pytest.mark.parametrize(
    "where", [b'{"%b":1}', b'{"a":"%b"}', b'{"a":{"b":["%b"]}}', b'{"a":"\xc3\xa9%b"}', b'{"a":1}%b']
)
def test_bytes_that_are_not_utf_8_are_refused_wherever_they_are_and_named(
    where: bytes, bad: bytes, large: bool
) -> None:
    at = where.index(b"%b")
    with pytest.raises(BodyError, match=rf"byte {at}\b"):
        decode_fields(padded(where % bad, large))


DEEP = {
    "arrays": b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "open arrays": b'{"a":' + b"[" * 1_000_000,
    "objects": b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000,
    "without an object": b"[" * 1_000_000,
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP.keys())
def test_a_deep_bomb_is_refused(body: bytes) -> None:
    with pytest.raises(BodyError):
        decode_fields(body)


def test_nesting_as_clients_write_it_passes() -> None:
    value = b"[" * 100 + b"]" * 100
    assert bytes(decode_fields(b'{"a":' + value + b"}")["a"]) == value


def wide(keys: int) -> bytes:
    return b"{" + b",".join(b'"key-of-some-length-%d":%d' % (at, at) for at in range(keys)) + b"}"


@pytest.mark.parametrize("keys", [KEYS_LIMIT + 1, 200_000])
def test_a_wide_bomb_is_refused_with_the_reason(keys: int) -> None:
    body = padded(wide(keys), True)
    with pytest.raises(BodyError, match=f"more than {KEYS_LIMIT} keys"):
        decode_fields(body)


def test_one_key_many_times_is_a_wide_bomb_too() -> None:
    with pytest.raises(BodyError, match="keys"):
        decode_fields(b"{" + b'"a":1,' * 200_000 + b'"a":1}')


def test_every_large_body_has_all_of_its_keys_to_itself() -> None:
    body = padded(wide(KEYS_LIMIT), True)
    for _ in range(3):
        assert len(decode_fields(body)) == KEYS_LIMIT
    with pytest.raises(BodyError):
        decode_fields(padded(wide(KEYS_LIMIT + 1), True))
    assert len(decode_fields(body)) == KEYS_LIMIT


def test_keys_further_inside_are_nobodys_business() -> None:
    inner = wide(5_000)
    assert bytes(decode_fields(b'{"a":' + inner + b"}")["a"]) == inner


@pytest.mark.parametrize(
    ("value", "model"),
    [(b'"a"', "a"), (b'""', ""), (b'"\\u0061\\"\\ud83d\\ude00"', 'a"\U0001f600'), ('"é"'.encode(), "é")],
)
def test_the_model_is_the_text_that_the_json_means(value: bytes, model: str) -> None:
    assert model_of(fields_of(model=value)) == model


def test_no_model_is_no_name() -> None:
    assert model_of({}) == ""


@pytest.mark.parametrize("value", [b"1", b"null", b"true", b"[]", b'["a"]', b'{"a":"b"}'])
def test_a_model_that_is_no_text_is_refused(value: bytes) -> None:
    with pytest.raises(BodyError, match="model"):
        model_of(decode_fields(b'{"model":' + value + b"}"))


@pytest.mark.parametrize("value", [b'"\\ud800"', b'"a\\udc00"'])
def test_half_a_surrogate_pair_is_no_text(value: bytes) -> None:
    with pytest.raises(BodyError):
        model_of(decode_fields(b'{"model":' + value + b"}"))


@pytest.mark.parametrize(("value", "wanted"), [(b"true", True), (b"false", False), (b"null", False), (b" true ", True)])
def test_a_stream_is_wanted_where_it_says_true(value: bytes, wanted: bool) -> None:
    assert wants_stream(fields_of(stream=value)) is wanted
    assert wants_stream({}) is False


@pytest.mark.parametrize("value", [b"1", b"0", b'"true"', b'""', b"[]", b"{}", b"[true]", b"1.0"])
def test_a_stream_that_is_neither_true_nor_false_is_refused(value: bytes) -> None:
    with pytest.raises(BodyError, match="stream"):
        wants_stream(fields_of(stream=value))


ASKED: dict[bytes | None, tuple[bool, Any]] = {
    None: (True, {"include_usage": True}),
    b"null": (True, {"include_usage": True}),
    b"{}": (True, {"include_usage": True}),
    b'{"include_usage":false}': (True, {"include_usage": True}),
    b'{"include_usage":null}': (True, {"include_usage": True}),
    b'{"include_usage":true,"include_usage":false}': (True, {"include_usage": True}),
    b'{"a":1.0,"include_usage":false,"b":[2]}': (True, {"a": 1.0, "include_usage": True, "b": [2]}),
    b'{"include_obfuscation":false}': (True, {"include_obfuscation": False, "include_usage": True}),
    b'{"include_usage":true}': (False, None),
    b'{ "include_usage" : true , "a" : 1 }': (False, None),
    b'{"include_usage":false,"include_usage":true}': (False, None),
    b"[]": (False, None),
    b'"include_usage"': (False, None),
    b"true": (False, None),
    b"1": (False, None),
}


@pytest.mark.parametrize("options", ASKED)
def test_usage_is_asked_for_where_the_client_did_not(options: bytes | None) -> None:
    asked, expected = ASKED[options]
    fields = fields_of(model=b'"a"') if options is None else fields_of(model=b'"a"', stream_options=options)
    before = dict(fields)
    assert ask_for_usage(fields) is asked
    if asked:
        assert json.loads(bytes(fields["stream_options"])) == expected
        assert bytes(fields["model"]) == b'"a"'
        json.loads(join_fields(fields))
    else:
        assert fields == before


def test_the_other_stream_options_keep_their_bytes() -> None:
    fields = fields_of(stream_options=b'{"a": 1.10, "b":"\\u0041"}')
    assert ask_for_usage(fields)
    assert bytes(fields["stream_options"]) == b'{"a":1.10,"b":"\\u0041","include_usage":true}'


def test_what_is_asked_for_in_one_body_is_not_asked_for_in_another() -> None:
    first: dict[str, msgspec.Raw] = {}
    second: dict[str, msgspec.Raw] = {}
    assert ask_for_usage(first)
    assert ask_for_usage(second)
    assert second.keys() == {"stream_options"}


def test_options_of_a_stream_that_are_a_wide_bomb_are_not_built() -> None:
    wide = b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}"
    fields = fields_of(stream_options=wide)
    tracemalloc.start()
    try:
        assert not ask_for_usage(fields)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert bytes(fields["stream_options"]) == wide
