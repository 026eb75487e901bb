"""What the relay knows of an Anthropic stream that passes untouched."""

from __future__ import annotations

import orjson
import pytest

from protocols.anthropic.dialect import ANTHROPIC
from protocols.anthropic.errors import error_body, error_event
from protocols.anthropic.stream import carries_error, is_opening, says_end, usage_of_answer, usage_of_event
from protocols.dialect import ErrorObject, Usage

START = (
    b'{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"m",'
    b'"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":3,'
    b'"cache_read_input_tokens":10,"output_tokens":1,"cache_creation":{"ephemeral_5m_input_tokens":3}}}}'
)
DELTA = b'{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}'
#: A model that writes about the protocol itself.
TEXT = orjson.dumps(
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {
            "type": "text_delta",
            "text": '{"type":"error","usage":{"input_tokens":9}}\nevent: message_stop\n{"type":"message_stop"}'
            ' {"type":"message_start"}',
        },
    }
)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (error_body(ErrorObject(529, "Overloaded")), True),
        (b'{"error":{"message":"no type at all"}}', True),
        (b'{"error":"plain"}', True),
        (b'{"error":null}', False),
        (b'{"type":"message","error":{}}', False),
        (b'{"type":"ping"}', False),
        (b'"error"', False),
        (b'{"error"', False),
        (b"[" * 100_000 + b'"error"', False),
        (b'\xff"error"', False),
        (START, False),
        (TEXT, False),
    ],
)
def test_an_error_is_told_from_an_answer(data: bytes, answer: bool) -> None:
    assert carries_error(data) is answer


@pytest.mark.parametrize(
    ("events", "answer"),
    [
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        (b'data: {"type" : "message_stop"}\n\n', True),
        (error_event(ErrorObject(500, "x")), True),
        (b"event:error\r\ndata: it broke\r\n\r\n", True),
        (b"event: message_delta\ndata: " + DELTA + b"\n\n", False),
        (b"event: content_block_delta\ndata: " + TEXT + b"\n\n", False),
        (b"event: errors\ndata: {}\n\n", False),
        (b"", False),
    ],
)
def test_the_end_is_seen_among_events(events: bytes, answer: bool) -> None:
    assert says_end(events) is answer


@pytest.mark.parametrize(
    ("data", "answer"),
    [(START, True), (b'{"type":"ping"}', False), (DELTA, False), (TEXT, False), (b'{"message_start"', False)],
)
def test_an_answer_begins_with_message_start_and_not_with_a_ping(data: bytes, answer: bool) -> None:
    assert is_opening(data) is answer


def test_message_start_tells_the_prompt_and_message_delta_the_rest() -> None:
    begun = usage_of_event(START, None)
    assert begun == Usage(38, 1, 10)
    assert usage_of_event(TEXT, begun) == begun
    assert usage_of_event(DELTA, begun) == Usage(38, 15, 10)


def test_numbers_of_a_message_delta_are_totals() -> None:
    later = (
        b'{"type":"message_delta","delta":{},"usage":{"input_tokens":100,"cache_creation_input_tokens":0,'
        b'"cache_read_input_tokens":40,"output_tokens":7,"server_tool_use":{"web_search_requests":1}}}'
    )
    assert usage_of_event(later, Usage(38, 15, 10)) == Usage(140, 7, 40)
    nulls = b'{"usage":{"input_tokens":null,"cache_read_input_tokens":null,"output_tokens":8}}'
    assert usage_of_event(nulls, Usage(38, 15, 10)) == Usage(38, 8, 10)
    only_input = b'{"usage":{"input_tokens":5,"output_tokens":8}}'
    assert usage_of_event(only_input, Usage(38, 15, 10)) == Usage(15, 8, 10)


@pytest.mark.parametrize(
    "data",
    [b'{"usage":3}', b'{"usage":{"input_tokens":-1}}', b'{"usage":{"input_tokens":"x"}}', b'{"usage"', b'["usage"]'],
)
def test_usage_that_is_none_changes_nothing(data: bytes) -> None:
    assert usage_of_event(data, Usage(1, 2, 3)) == Usage(1, 2, 3)
    assert usage_of_answer(data) is None


def test_a_whole_answer_tells_its_usage() -> None:
    body = (
        b'{"id":"msg_1","content":[{"type":"text","text":"\\"usage\\":{}"}],"usage":{"input_tokens":2,'
        b'"cache_creation_input_tokens":null,"cache_read_input_tokens":4,"output_tokens":5}}'
    )
    assert usage_of_answer(body) == Usage(6, 5, 4)
    assert usage_of_answer(b'{"content":[]}') is None


def test_an_error_is_framed_with_its_name() -> None:
    error = ErrorObject(500, "x")
    assert ANTHROPIC.frame_error(ANTHROPIC.error_body(error)) == ANTHROPIC.error_event(error)
    assert ANTHROPIC.form.names_error(ANTHROPIC.error_event(error))
