"""Answers of TGI: stop sequences, errors, and bytes that are none of its."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dialect import Broken, Dropped, ErrorObject, Terms
from protocols.pieces import PARTIAL_LIMIT, Malformed
from protocols.tgi.chat import ChatBackend
from protocols.tgi.completion import CompletionBackend
from protocols.tgi.errors import event_error, read_error
from protocols.tgi.stops import StopText


def completion(**fields: Any) -> CompletionBackend:
    side = CompletionBackend({"prompt": "x", **fields}, True, "id", 1, Terms(), Dropped(lenient=False))
    side.ask("m")
    return side


def chat(**fields: Any) -> ChatBackend:
    hub = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    side = ChatBackend(hub, True, "id", 1, Terms(), Dropped(lenient=False))
    side.ask("m")
    return side


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def token(text: str, special: bool = False, **last: Any) -> dict[str, Any]:
    return {"index": 1, "token": {"id": 1, "text": text, "logprob": -1.0, "special": special}, **last}


def last(finish: str, text: str = "whatever") -> dict[str, Any]:
    details = {"finish_reason": finish, "generated_tokens": 2, "input_length": 3, "seed": None}
    return {"generated_text": text, "details": details}


def delta(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    return {"id": "", "object": "chat.completion.chunk", "created": 5, "model": "big", "choices": [choice]}


def hear_all(side: ChatBackend | CompletionBackend, pieces: list[bytes]) -> list[Any]:
    """All chunks of a stream that comes in *pieces*."""
    heard = [chunk for piece in pieces for chunk in side.feed(piece)]
    return heard + side.end()


# stop sequences


def test_text_is_held_back_while_it_may_be_a_stop_sequence() -> None:
    text = StopText(["\n\nUser:", "END"])
    assert [text.feed(piece) for piece in ("a", "b\n", "\nUs", "er", "s E", "N")] == [
        "a",
        "b",
        "",
        "",
        "\n\nUsers ",
        "",
    ]
    assert text.end(stopped=False) == ("EN", None)


@pytest.mark.parametrize(
    ("stops", "pieces", "left", "stop"),
    [
        (["END"], ["one ", "E", "ND"], "one ", "END"),
        (["END"], ["one END\n"], "one ", "END"),
        (["b", "ab"], ["a", "b"], "", "ab"),
        (["END"], ["END", " of it END"], "END of it ", "END"),
        (["END"], ["no such"], "no such", None),
        (["x" * 301], ["x" * 301], "x" * 301, None),
    ],
)
def test_the_sequence_that_it_stopped_at_is_cut(
    stops: list[str], pieces: list[str], left: str, stop: str | None
) -> None:
    text = StopText(stops)
    given = "".join(map(text.feed, pieces))
    rest, found = text.end(stopped=True)
    assert (given + rest, found) == (left, stop)


@given(st.lists(st.text("ab\n", max_size=4)), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4))
def test_no_text_is_lost_or_changed_where_nothing_stopped(pieces: list[str], stops: list[str]) -> None:
    text = StopText(stops)
    assert "".join(map(text.feed, pieces)) + text.end(stopped=False)[0] == "".join(pieces)


@given(st.text("ab", max_size=6), st.text("ab", min_size=1, max_size=4), st.integers(1, 3))
def test_what_was_given_never_reaches_into_the_stop_sequence(before: str, stop: str, size: int) -> None:
    whole = before + stop
    text = StopText([stop])
    given = "".join(text.feed(whole[at : at + size]) for at in range(0, len(whole), size))
    assert given + text.end(stopped=True)[0] == before


def test_both_sides_stop_a_stream_before_the_sequence() -> None:
    side = completion(stop="END")
    chunks = side.feed(event(token("one E")) + event(token("ND", **last("stop_sequence"))))
    assert [chunk["choices"][0]["text"] for chunk in chunks[:2]] == ["one ", ""]
    assert chunks[1]["choices"][0]["stop_reason"] == "END"
    talk = chat(stop="END")
    chunks = talk.feed(event(delta("one E")) + event(delta("ND", "stop_sequence")) + b"data: [DONE]\n\n")
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["one ", None]
    assert (chunks[1]["choices"][0]["finish_reason"], chunks[1]["choices"][0]["stop_reason"]) == ("stop", "END")
    assert talk.end() == []


def test_a_streamed_prompt_is_echoed_by_us() -> None:
    chunks = completion(echo=True).feed(event(token("y")) + event(token("</s>", special=True, **last("eos_token"))))
    assert [chunk["choices"][0]["text"] for chunk in chunks[:2]] == ["xy", ""]


# errors


@pytest.mark.parametrize(
    ("status", "said", "kind", "wanted"),
    [
        (
            422,
            "Input validation error: `top_p` must be > 0.0 and < 1.0",
            "validation",
            (400, "invalid_request_error", None),
        ),
        (
            422,
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
            "validation",
            (400, "invalid_request_error", "context_length_exceeded"),
        ),
        (429, "Model is overloaded", "overloaded", (429, "rate_limit_error", "rate_limit_exceeded")),
        (424, "Request failed during generation: boom", "generation", (502, "server_error", "upstream_error")),
        (422, "Tool error: Failed to parse generated text: x", "tool_error", (502, "server_error", "upstream_error")),
        (422, "Tool error: Tool with name f not found", "tool_error", (400, "invalid_request_error", None)),
        (500, "Incomplete generation", "incomplete_generation", (500, "server_error", None)),
        (503, "unhealthy", "healthcheck", (503, "service_unavailable", None)),
        (418, "of another kind", "teapot", (418, "invalid_request_error", None)),
        (599, "of another kind", "teapot", (599, "server_error", None)),
    ],
)
def test_an_error_has_a_status_that_openai_s_clients_know(
    status: int, said: str, kind: str, wanted: tuple[int, str, str | None]
) -> None:
    body = json.dumps({"error": said, "error_type": kind}).encode()
    assert read_error(status, body) == ErrorObject(wanted[0], said, wanted[1], wanted[2])


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"[", b"\xff\xfe", b'{"error":{"a":1}}', b"\x00\x01", b"[" * 10**5]
)
def test_an_error_that_says_nothing_has_the_status_alone(body: bytes) -> None:
    assert read_error(500, body) == ErrorObject(500, "The upstream answered with status 500.", "server_error")


def test_an_error_in_plain_text_is_shown_and_bounded() -> None:
    text = b"Failed to deserialize the JSON body into the target type: stop: invalid type\n"
    assert read_error(422, text) == ErrorObject(400, text.decode().strip(), "invalid_request_error")
    assert len(read_error(422, b"x" * 10**6).message) == 2000


def test_an_error_in_a_stream_is_known_by_its_words_alone() -> None:
    assert event_error("Model is overloaded").status == 429
    assert event_error("Input validation error: no").status == 400
    assert event_error("Request failed during generation: no").status == 502
    assert event_error("whatever").status == 500


def test_what_came_before_an_error_is_told_with_it() -> None:
    with pytest.raises(Broken) as caught:
        completion().feed(event(token("a")) + event({"error": "no", "error_type": "generation"}))
    assert len(caught.value.before) == 1
    assert caught.value.error.status == 502


# hostile streams


TALK_ENDS = event(delta("", "length")) + b"data: [DONE]\n\n"
ENDS = event(token("", **last("length")))


@pytest.mark.parametrize(
    "raw",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: 7\n\n",
        b"data: \xff\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: [DONE]\n\n",
        event({}),
        event(token("a") | {"token": 7}),
        event(token("a") | {"token": {"text": 7}}),
        event(token("a", generated_text="a")),
        event(token("a", **last("tired"))),
        event(token("a", **(last("length") | {"details": {"finish_reason": "length", "generated_tokens": -1}}))),
        ENDS + event(token("a")),
        ENDS + ENDS,
    ],
)
def test_a_completion_that_breaks_the_rules_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        hear_all(completion(), [raw])


@pytest.mark.parametrize(
    "raw",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: [DONE]\n\n",
        event(delta("a") | {"choices": [7]}),
        event(delta("a") | {"choices": [{}]}),
        event(delta("a") | {"choices": delta("a")["choices"] * 2}),
        event(delta(7)),  # type: ignore[arg-type]  # the wrong type is the test
        event(delta("a", "tired")),
        event(delta("a", 7)),  # type: ignore[arg-type]  # the wrong type is the test
        event(delta(None, tool_calls=[{}])),
        event(delta(None, tool_calls=[{"function": {"arguments": "{"}}])),
        event(delta(None, tool_calls=[{"function": {"name": "f", "arguments": 7}}, {"function": 7}])),
        event({"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 1}}),
        event({"choices": [], "usage": {"prompt_tokens": "1", "completion_tokens": 1}}),
        event(delta("", "length")),
        TALK_ENDS + event(delta("a")),
        event(delta("", "length")) + event(delta("a")),
    ],
)
def test_a_chat_that_breaks_the_rules_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        hear_all(chat(), [raw])


def test_a_line_without_end_is_malformed_and_not_held() -> None:
    for side in (completion(), chat()):
        with pytest.raises(Malformed):
            hear_all(side, [b"data: " + b"x" * (PARTIAL_LIMIT // 50)] * 60)


def test_comments_names_and_a_done_too_many_are_no_matter() -> None:
    side = completion()
    side.feed(b":\n\nevent: x\nid: 1\n\n" + ENDS + b":\r\n\r\ndata: [DONE]\n\n")
    assert side.end() == []


def test_arguments_of_an_older_server_are_an_object() -> None:
    call = {"function": {"name": "f", "arguments": {"a": [1, "é"]}}, "id": 0}
    chunk = chat().feed(event(delta(None, tool_calls=[call])))[0]
    assert json.loads(chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]) == {"a": [1, "é"]}


def test_logprobs_of_a_chat_have_bytes() -> None:
    side = chat(logprobs=True, top_logprobs=1)
    raw = delta("a")
    one = {"token": "a", "logprob": -0.5}
    raw["choices"][0]["logprobs"] = {"content": [one | {"top_logprobs": [one]}]}
    told = side.feed(event(raw))[0]["choices"][0]["logprobs"]
    assert told == {"content": [one | {"bytes": None, "top_logprobs": [one | {"bytes": None}]}]}


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"generated_text":7}', b'{"generated_text":"a"}', b"[" * 10**5]
)
def test_a_whole_answer_that_is_none_is_malformed(body: bytes) -> None:
    for side in (completion(), chat()):
        with pytest.raises(Malformed):
            side.answer(body)


PIECE = st.sampled_from(
    [
        *(event(token("a")), ENDS, event({"error": "no"}), event(delta("a")), TALK_ENDS, b":\n\n", b"data: [DONE]\n\n"),
        *(event(delta("", "stop")), b"data:", b"\n", b"\r", b"\xff", b"{", b'"', event({"choices": []}), b"[" * 2000),
    ]
)


@given(st.lists(PIECE | st.binary(max_size=9), max_size=8), st.booleans(), st.integers(1, 400))
def test_any_bytes_raise_what_is_declared_however_they_are_cut(pieces: list[bytes], talk: bool, size: int) -> None:
    raw = b"".join(pieces)

    def hear(cuts: list[bytes]) -> list[Any]:
        side = chat(stop="aa") if talk else completion(stop="aa")
        heard: list[Any] = []
        try:
            for one in cuts:
                heard += side.feed(one)
            heard += side.end()
        except (Malformed, Broken) as fault:
            heard += [*fault.before, str(fault)]
        return heard

    assert hear([raw[at : at + size] for at in range(0, len(raw), size)]) == hear([raw])
