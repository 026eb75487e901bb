"""Anthropic's error object: what clients get, and what is made of anything that a backend sends."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.anthropic.errors import MESSAGE_LIMIT, error_body, error_event, read_error, type_of
from protocols.dialect import ErrorObject


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (409, "conflict_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_the_status_decides_the_type(status: int, type: str) -> None:
    assert type_of(ErrorObject(status, "x")) == type


@pytest.mark.parametrize(
    ("error", "type"),
    [
        (ErrorObject(200, "x", "server_error"), "api_error"),
        (ErrorObject(200, "x", "service_unavailable", "load_shed"), "overloaded_error"),
        (ErrorObject(200, "x", "requests", "rate_limit_exceeded"), "rate_limit_error"),
        (ErrorObject(200, "x", "invalid_request_error", "invalid_api_key"), "authentication_error"),
    ],
)
def test_without_a_status_of_its_own_the_code_or_the_type_decides(error: ErrorObject, type: str) -> None:
    assert type_of(error) == type


def test_the_body_has_the_vendors_shape() -> None:
    assert orjson.loads(
        error_body(ErrorObject(404, "no 'x'", "invalid_request_error", "model_not_found", "model"))
    ) == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "no 'x'"},
    }


def test_an_event_is_the_body_named_error() -> None:
    error = ErrorObject(529, "Overloaded")
    assert error_event(error) == b"event: error\ndata: " + error_body(error) + b"\n\n"


def of(type: str, message: str = "m", **more: object) -> bytes:
    return orjson.dumps({"type": "error", "error": {"type": type, "message": message, **more}, "request_id": "req_1"})


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, of("invalid_request_error"), ErrorObject(400, "m", "invalid_request_error")),
        (401, of("authentication_error"), ErrorObject(401, "m", "invalid_request_error", "invalid_api_key")),
        (404, of("not_found_error"), ErrorObject(404, "m", "invalid_request_error", "not_found")),
        (
            404,
            of("not_found_error", "model: claude-x"),
            ErrorObject(404, "model: claude-x", "invalid_request_error", "model_not_found"),
        ),
        (
            400,
            of("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            ErrorObject(
                400, "prompt is too long: 9 tokens > 8 maximum", "invalid_request_error", "context_length_exceeded"
            ),
        ),
        (429, of("rate_limit_error"), ErrorObject(429, "m", "requests", "rate_limit_exceeded")),
        (
            400,
            of("invalid_request_error", details={"error_code": "request_body_timeout"}),
            ErrorObject(400, "m", "invalid_request_error", "request_body_timeout"),
        ),
        (529, of("overloaded_error"), ErrorObject(529, "m", "service_unavailable", "overloaded")),
        (200, of("overloaded_error"), ErrorObject(529, "m", "service_unavailable", "overloaded")),
        (200, of("unheard_of"), ErrorObject(500, "m", "server_error")),
        (503, of("unheard_of"), ErrorObject(503, "m", "service_unavailable", "overloaded")),
        (502, b"", ErrorObject(502, "The backend answered 502.", "server_error")),
        (502, b"<html>bad gateway</html>", ErrorObject(502, "The backend answered 502.", "server_error")),
        (500, b"boom\r\n\x00here", ErrorObject(500, "boom here", "server_error")),
        (500, b'{"error":"boom"}', ErrorObject(500, "boom", "server_error")),
        (500, b'{"detail":"boom"}', ErrorObject(500, "boom", "server_error")),
        (500, b'{"message":"boom"}', ErrorObject(500, "boom", "server_error")),
        (500, b'"boom"', ErrorObject(500, "boom", "server_error")),
        (500, b"[" * 100_000, ErrorObject(500, "[" * MESSAGE_LIMIT, "server_error")),
    ],
)
def test_an_error_is_read_whatever_it_is(status: int, body: bytes, error: ErrorObject) -> None:
    assert read_error(status, body) == error


def test_a_long_code_is_cut() -> None:
    code = read_error(500, of("api_error", details={"error_code": "x" * 100_000})).code
    assert code is not None
    assert len(code) == MESSAGE_LIMIT


def test_a_long_message_is_cut() -> None:
    assert len(read_error(500, of("api_error", "x" * 100_000)).message) == MESSAGE_LIMIT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "error", "message", "details"]), inner),
)


@given(st.integers(100, 599), json_values.map(orjson.dumps) | st.binary())
def test_no_body_breaks_the_reader(status: int, body: bytes) -> None:
    error = read_error(status, body)
    assert error.status >= 400
    assert error.message
    assert len(error.message) <= MESSAGE_LIMIT


@pytest.mark.parametrize("type", ["authentication_error", "not_found_error", "rate_limit_error", "timeout_error"])
def test_a_type_survives_the_way_through_the_hub(type: str) -> None:
    assert type_of(read_error(200, of(type))) == type
