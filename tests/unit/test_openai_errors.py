"""OpenAI's error object: written with all its keys, and recognised where it comes in place of an answer."""

from __future__ import annotations

import json

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import ErrorObject

from gateway.errors import Kind
from protocols.openai.errors import carries_error, error_body
from tests.unit.configuring import STEADY

ERRORS = {
    "ours": error_body("no", "server_error", "upstream_lost"),
    "an object": b'{"error":{"message":"out of memory","type":"server_error","param":null,"code":500}}',
    "an object, spaced": b' { "error" : { "message" : "no" } } ',
    "a text": b'{"error":"out of memory"}',
    "a number": b'{"error":500}',
    "true": b'{"error":true}',
    "beside other keys": b'{"object":"error","error":{"message":"no"},"choices":[]}',
    "behind a null": b'{"error":null,"error":{"message":"no"}}',
    "an error event of the responses API": (
        b'{"type":"error","code":"server_error","message":"no","param":null,"sequence_number":1}'
    ),
}

ANSWERS = {
    "nothing": b"",
    "an answer": b'{"choices":[{"index":0,"delta":{"content":"hello"}}]}',
    "a null error": b'{"id":"1","error":null}',
    "an empty text": b'{"error":""}',
    "an empty object": b'{"error":{}}',
    "false": b'{"error":false}',
    "a null error inside": b'{"type":"response.created","response":{"error":null}}',
    "an error inside": b'{"choices":[{"error":{"message":"no"}}]}',
    "an error as text": b'{"choices":[{"delta":{"content":"{\\"error\\":{}}"}}]}',
    "an error as a value": b'{"choices":[{"delta":{"content":"error"}}]}',
    "another key": b'{"errors":[{"message":"no"}],"no_error":true}',
    "a list": b'["error"]',
    "text": b'"error"',
    "not JSON": b'{"error":{"message":}}',
    "[DONE]": b"[DONE]",
    "bytes": b'\xff\xfe{"error":1}',
    "nested deeply": b'{"a":' + b"[" * 100_000 + b'"error"' + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("data", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_in_place_of_an_answer_is_recognised(data: bytes) -> None:
    assert carries_error(data)


@pytest.mark.parametrize("data", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_is_not_taken_for_an_error(data: bytes) -> None:
    assert not carries_error(data)


@STEADY
@given(st.text(), st.none() | st.text(max_size=8), st.none() | st.text(max_size=8))
def test_an_error_has_all_four_keys_whatever_is_said(message: str, code: str | None, param: str | None) -> None:
    if any("\ud800" <= char <= "\udfff" for char in message + (code or "") + (param or "")):
        return
    body = error_body(message, "server_error", code, param)
    written = {"message": message, "type": "server_error", "param": param, "code": code}
    assert json.loads(body) == {"error": written}
    ErrorObject.model_validate(json.loads(body)["error"], strict=True)
    assert b"\n" not in body and b"\r" not in body  # it may be the data of an event
    assert carries_error(body)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_every_kind_of_fault_is_an_error_that_the_sdk_understands(kind: Kind) -> None:
    error = json.loads(error_body("no", kind.type, kind.code))["error"]
    read = openai.APIError("no", request=None, body=error)  # type: ignore[arg-type]  # it is kept, never used
    assert (read.code, read.type, read.param) == (kind.code, kind.type, None)
