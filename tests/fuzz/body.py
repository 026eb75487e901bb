"""JSON bodies: what is taken, Python's own parser takes for the same, and what is written again says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from protocols.openai.body import BodyError, ask_for_usage, decode_fields, join_fields, model_of, wants_stream

WORDS = [
    *(
        b'{"model":"m"',
        b'"model":',
        b'"stream":',
        b'"stream_options":',
        b'"include_usage":',
        b"true",
        b"false",
        b"null",
        b"NaN",
        b"Infinity",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\u0041",
        b"\\ud800",
        b"\\",
        b"1e5",
        b"-0",
        b"01",
        b"1.",
        b" ",
        b"\n",
        b"\0",
        b"\xc3\xa9",
    ),
    *(b"\xff", b"\x1f", b"\xef\xbb\xbf", b"/**/", b"'"),
]
SEEDS = [
    *(
        b'{"model":"m","a":"' + byte + b'"}'
        for byte in (b"\xff", b"\0", b"\n", b"\\x", b"\xc3\xa9", b"\\ud800", b"\x7f")
    ),
    b'{"model":"m","messages":[{"role":"user","content":"h\\u00e9\\n"}],"stream":true,"stream_options":{"include_usage":false}}',
    b' {"model" : "\\ud83d\\ude00" , "n":1e-5,"a":[1, 2.50,{}],"model":"x","stream":null}\n',
    b'{"stream_options":[],"model":1}',
]


def opened() -> AbstractContextManager[Callable[[bytes], None]]:
    return nullcontext(check)


def no_constant(text: str) -> Any:
    raise AssertionError(f"{text} is no JSON")


def number(text: str) -> Any:
    """No float nor int: `1.0` is not `1` here, and no text is a number."""
    return ("number", text)


def loads(text: bytes) -> Any:
    return json.loads(text, parse_constant=no_constant, parse_int=number, parse_float=number)


def check(data: bytes) -> None:
    try:
        fields = decode_fields(data)
    except BodyError:
        return
    expected = loads(data)
    assert isinstance(expected, dict)
    assert {name: loads(bytes(value)) for name, value in fields.items()} == expected
    joined = join_fields(fields)
    assert loads(joined) == expected
    assert {name: bytes(value) for name, value in decode_fields(joined).items()} == {
        name: bytes(value) for name, value in fields.items()
    }
    peek(fields, expected)


def peek(fields: Any, expected: dict[str, Any]) -> None:
    try:
        model = model_of(fields)
        assert model == expected.get("model", "")
    except BodyError:
        assert not is_text(expected["model"])
    try:
        assert wants_stream(fields) is (expected.get("stream") is True)
    except BodyError:
        assert expected["stream"] not in (True, False, None)
    if ask_for_usage(fields):
        assert loads(join_fields(fields))["stream_options"]["include_usage"] is True


def is_text(value: Any) -> bool:
    """A string that can be said in UTF-8."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False
