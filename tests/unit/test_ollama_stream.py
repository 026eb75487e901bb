"""What a relay asks of Ollama's bytes that pass untouched; errors, lists of models and times."""

from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama import ListResponse, ResponseError

from protocols.dialect import ErrorObject
from protocols.ollama import models, stream
from protocols.ollama.dialect import OLLAMA
from protocols.ollama.errors import MESSAGE_LIMIT, error_body, error_line, read_error
from protocols.ollama.moments import rfc3339
from protocols.openai.usage import USAGE_WINDOW, Usage
from tests.unit.configuring import STEADY
from tests.unit.ollama_calls import DATA, names

#: Keys of the same names inside a tool call's arguments.
ARGUMENTS = (
    b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"done":true,"error":"x","eval_count":9}}}]}'
)
LAST = b'{"message":{"content":""},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":4}\n'


def test_a_stream_is_what_its_paths_do_by_default() -> None:
    assert stream.STREAM_DEFAULT is True


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"error":"model runner has stopped"}\n', True),
        (b'{"StatusCode":503,"Status":"503","error":"busy"}', True),
        (b'{"error":{"message":"x"}}', True),
        (b'{"error":null,"done":false}', False),
        (b'{"error":"","done":false}', False),
        (b'{"message":{"content":"\\"error\\":\\"x\\""},"done":false}', False),
        (ARGUMENTS + b',"done":false}', False),
        (b'{"error"', False),
        (b"", False),
        (b'"error"', False),
    ],
)
def test_an_error_is_told_from_an_answer(line: bytes, error: bool) -> None:
    assert stream.carries_error(line) is error


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (LAST, True),
        (b'{"done": true}', True),
        (b'{"response":"a","done":false}\n' + LAST, True),
        (b'{"response":"a","done":false}\n{"error":"x"}\n', True),
        (b'{"response":"a","done":false}\n', False),
        (b'{"response":"\\"done\\":true","done":false}\n', False),
        (ARGUMENTS + b',"done":false}\n', False),
        (ARGUMENTS + b',"done":true}\n', True),
        (b'{"done":tru', False),
        (b"", False),
    ],
)
def test_the_last_line_of_a_stream_is_known(lines: bytes, end: bool) -> None:
    assert stream.says_end(lines) is end


@pytest.mark.parametrize("name", names("stream"))
def test_only_the_last_line_of_a_transcript_ends_it_and_counts(name: str) -> None:
    lines = (DATA / f"{name}.stream").read_bytes().splitlines(keepends=True)
    assert [stream.says_end(line) for line in lines] == [False] * (len(lines) - 1) + [True]
    assert [stream.usage_of_line(line) for line in lines[:-1]] == [None] * (len(lines) - 1)
    assert stream.carries_error(lines[-1]) is (name == "chat-error-stream")
    last = json.loads(lines[-1])
    counted = "eval_count" in last
    expected = Usage(last.get("prompt_eval_count", 0), last["eval_count"]) if counted else None
    assert stream.usage_of_line(lines[-1]) == expected


@pytest.mark.parametrize(
    "counts", [b'"prompt_eval_count":3', b'"eval_count":4', b'"prompt_eval_count":3,"eval_count":4']
)
def test_a_line_that_counts_has_the_key_that_a_relay_looks_for(counts: bytes) -> None:
    line = b'{"done":true,' + counts + b"}"
    assert OLLAMA.usage_key in line
    found = OLLAMA.usage_of_event(line, None)
    assert found is not None
    assert found == stream.usage_of_line(line)


def test_usage_is_found_in_answers_small_and_large() -> None:
    assert stream.usage_of_answer((DATA / "embed-whole.answer.json").read_bytes()) == Usage(8, 0)
    assert stream.usage_of_answer((DATA / "chat-whole.answer.json").read_bytes()) == Usage(26, 8)
    assert stream.usage_of_answer((DATA / "embeddings-whole.answer.json").read_bytes()) is None
    text = b"x" * USAGE_WINDOW
    assert stream.usage_of_answer(b'{"response":"' + text + b'","done":true,"eval_count":4}') == Usage(0, 4)
    large = b'{"message":{"content":"' + text + b'"},"prompt_eval_count": 3, "eval_count": 4}'
    assert stream.usage_of_answer(large) == Usage(3, 4)
    assert stream.usage_of_answer(b'{"response":"' + text + b'"}') is None
    assert stream.usage_of_line(b'{"eval_count":-1}') is None
    assert stream.usage_of_line(ARGUMENTS + b',"done":false}') is None


@STEADY
@given(st.binary(max_size=64) | st.sampled_from([LAST, ARGUMENTS]).flatmap(lambda line: st.just(line[:30] + line[50:])))
def test_bytes_of_any_kind_are_no_trouble(data: bytes) -> None:
    stream.carries_error(b'"error"' + data)
    stream.says_end(data + b'"done":true')
    assert stream.usage_of_line(data) is None or b"eval_count" in data
    error = read_error(500, data)
    assert error.message
    assert json.loads(error_line(error)) == {"error": error.message}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            404,
            b'{"error":"model \'x\' not found"}',
            ("model 'x' not found", "invalid_request_error", "model_not_found"),
        ),
        (
            400,
            b'{"error":"\\"m\\" does not support tools"}',
            ('"m" does not support tools', "invalid_request_error", None),
        ),
        (
            400,
            b'{"error":"the input length exceeds the context length"}',
            ("the input length exceeds the context length", "invalid_request_error", "context_length_exceeded"),
        ),
        (503, b'{"error":"server busy"}', ("server busy", "service_unavailable", "overloaded")),
        (500, b'{"error":"out of memory"}\n', ("out of memory", "server_error", None)),
        (
            401,
            b'{"error":"unauthorized","signin_url":"x"}',
            ("unauthorized", "invalid_request_error", "invalid_api_key"),
        ),
        (502, b"<html>Bad Gateway</html>", ("<html>Bad Gateway</html>", "server_error", None)),
        (429, b'{"error":{"message":"slow","type":"t","code":"c"}}', ("slow", "t", "c")),
        (400, b'{"error":{"message":"bad","code":400}}', ("bad", "invalid_request_error", None)),
        (500, b"", ("the upstream answered 500 and no reason", "server_error", None)),
        (500, b'{"error":7}', ("the upstream answered 500 and no reason", "server_error", None)),
        (422, b'{"detail":"no"}', ("no", "invalid_request_error", None)),
        (500, b"\xff\xfe", ("\ufffd\ufffd", "server_error", None)),
        (500, b"[" * 100_000, ("[" * MESSAGE_LIMIT, "server_error", None)),
    ],
)
def test_an_upstreams_error_is_read_whatever_it_is(
    status: int, body: bytes, error: tuple[str, str, str | None]
) -> None:
    assert read_error(status, body)[:4] == (status, *error)


def test_a_status_that_is_no_errors_is_a_bad_gateway() -> None:
    assert read_error(200, b'{"error":"x"}') == ErrorObject(502, "x")


def test_an_error_is_one_text_and_one_line() -> None:
    error = ErrorObject(404, "no\nm\u2028del", "invalid_request_error", "model_not_found", "model")
    assert json.loads(error_body(error)) == {"error": "no\nm\u2028del"}
    assert len(error_line(error).decode().splitlines()) == 1
    assert ResponseError(error_body(error).decode(), 404).error == "no\nm\u2028del"


def test_the_official_client_reads_our_list_of_models() -> None:
    found = ListResponse(**json.loads(models.tags_body(["a", "b:7b"], 1_763_822_518))).models
    assert [model.model for model in found] == ["a", "b:7b"]
    assert found[0].modified_at == datetime.datetime(2025, 11, 22, 14, 41, 58, tzinfo=datetime.UTC)
    assert found[0].digest != found[1].digest
    assert found[0].size == 0
    assert json.loads(models.version_body("0.33.0")) == {"version": "0.33.0"}


def test_a_servers_list_of_models_is_read() -> None:
    assert models.parse_models((DATA / "tags.answer.json").read_bytes()) == ("deepseek-r1:latest",)
    assert models.parse_models(models.tags_body(["a", " b", "", "c\n", "d"], 0)) == ("a", "d")
    assert models.parse_models(b'{"models":[{"name":"a"},{"model":"b"},{}]}') == ("a", "b")
    for body in (b"", b"[]", b"{}", b'{"models":[1]}', b'{"models":[{"name":1}]}', b"\xff"):
        with pytest.raises(ValueError, match="not a list of models"):
            models.parse_models(body)


@STEADY
@given(st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)))
def test_a_time_is_written_as_the_calendar_has_it(moment: datetime.datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=datetime.UTC)
    written = rfc3339(int(moment.timestamp()))
    assert datetime.datetime.fromisoformat(written) == moment
    assert len(written) == 20
