"""TGI's transcripts: what is asked, and what an answer becomes however its bytes come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protocols.dialect import BackendSide, Broken, Dropped, HeadReader, Terms
from protocols.pieces import Malformed
from protocols.tgi.chat import ChatBackend
from protocols.tgi.completion import CompletionBackend

DATA = Path(__file__).parents[1] / "data" / "tgi"
NAMES = sorted(path.name.removesuffix(".hub.json") for path in DATA.glob("*.hub.json"))
STREAMS = [name for name in NAMES if (DATA / f"{name}.stream").exists()]
ANSWERS = [name for name in NAMES if (DATA / f"{name}.answer.json").exists()]
ASKED = [name for name in NAMES if (DATA / f"{name}.request.json").exists()]


def make(name: str) -> BackendSide:
    hub = json.loads((DATA / f"{name}.hub.json").read_bytes())
    side = ChatBackend if "messages" in hub else CompletionBackend
    return side(hub, bool(hub.get("stream")), "0123abcd", 1700000000, Terms(), Dropped(lenient=False))


def hear(side: BackendSide, pieces: list[bytes]) -> tuple[list[Any], str]:
    """The chunks of a stream that comes in *pieces*, and the error that it ends with."""
    side.ask("tgi")
    chunks = []
    try:
        for piece in pieces:
            chunks += side.feed(piece)
        chunks += side.end()
    except Broken as error:
        return [*chunks, *error.before], str(error.error)
    return chunks, ""


def text_of(chunks: list[Any]) -> str:
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    return "".join(one["text"] if "text" in one else one["delta"].get("content") or "" for one in choices)


def test_there_are_transcripts_of_every_kind() -> None:
    assert len(STREAMS) >= 5 and len(ANSWERS) >= 4 and len(ASKED) >= 8
    assert {path.name.partition(".")[0] for path in DATA.iterdir()} - {"SOURCES"} == set(NAMES)


@pytest.mark.parametrize("name", ASKED)
def test_the_request_is_what_the_server_takes(name: str) -> None:
    wanted = json.loads((DATA / f"{name}.request.json").read_bytes())
    model = wanted.get("parameters", {}).get("adapter_id", "tgi")
    ask = make(name).ask(model)
    assert json.loads(ask.body) == wanted
    native = "/generate_stream" if name in STREAMS else "/generate"
    assert ask.path.decode() == (native if "inputs" in wanted else "/v1/chat/completions")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_split_at_every_byte_says_the_same(name: str) -> None:
    raw = (DATA / f"{name}.stream").read_bytes()
    whole = hear(make(name), [raw])
    assert whole[0] or whole[1]
    for at in range(1, len(raw)):
        assert hear(make(name), [raw[:at], raw[at:]]) == whole
    assert hear(make(name), [raw[at : at + 1] for at in range(len(raw))]) == whole


@pytest.mark.parametrize("name", [name for name in STREAMS if name not in ("generate_overloaded", "chat_broken")])
def test_a_stream_that_is_cut_anywhere_never_looks_complete(name: str) -> None:
    raw = (DATA / f"{name}.stream").read_bytes()
    whole = hear(make(name), [raw])[0]
    for at in range(0, len(raw.rstrip(b"\n")), 1 if len(raw) < 2000 else 7):
        side = make(name)
        side.ask("tgi")
        heard = side.feed(raw[:at])
        assert heard == whole[: len(heard)]
        with pytest.raises(Malformed):
            side.end()


@pytest.mark.parametrize("name", STREAMS)
def test_every_chunk_has_the_ids_that_clients_look_for(name: str) -> None:
    for chunk in hear(make(name), [(DATA / f"{name}.stream").read_bytes()])[0]:
        kind = (
            ("chatcmpl-0123abcd", "chat.completion.chunk") if "chat" in name else ("cmpl-0123abcd", "text_completion")
        )
        assert (chunk["id"], chunk["object"], chunk["created"]) == (*kind, 1700000000)
        assert chunk["model"]


@pytest.mark.parametrize(
    ("name", "text", "finish", "usage"),
    [
        (
            "chat_stream",
            "**Deep Learning: An Overview**\n=====================================\n\n",
            "length",
            (40, 10),
        ),
        ("chat_eos", "OK!", "stop", (39, 3)),
        ("generate_stream", " Deep learning été 🎣", "stop", (5, 6)),
        ("generate_logprobs", " Deep", "stop", (5, 2)),
    ],
)
def test_a_stream_says_its_text_why_it_ended_and_what_it_cost(
    name: str, text: str, finish: str, usage: tuple[int, int]
) -> None:
    chunks, error = hear(make(name), [(DATA / f"{name}.stream").read_bytes()])
    assert not error
    assert text_of(chunks) == text
    assert [one["choices"][0]["finish_reason"] for one in chunks[:-1]] == [None] * (len(chunks) - 2) + [finish]
    assert chunks[-1]["choices"] == []
    told = chunks[-1]["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (*usage, sum(usage))


def test_a_role_is_said_once() -> None:
    chunks, _ = hear(make("chat_stream"), [(DATA / "chat_stream.stream").read_bytes()])
    roles = [chunk["choices"][0]["delta"].get("role") for chunk in chunks if chunk["choices"]]
    assert roles == ["assistant"] + [None] * (len(roles) - 1)


def test_a_streamed_call_has_its_id_and_name_once_and_a_finish_reason() -> None:
    chunks, error = hear(make("chat_tool_stream"), [(DATA / "chat_tool_stream.stream").read_bytes()])
    assert not error
    *pieces, last = [chunk["choices"][0] for chunk in chunks]
    calls = [piece["delta"]["tool_calls"][0] for piece in pieces]
    assert calls[0] == {
        "index": 0,
        "id": "call_0123abcd_0",
        "type": "function",
        "function": {"name": "get_current_weather", "arguments": "{"},
    }
    assert all(set(call) == {"index", "function"} and set(call["function"]) == {"arguments"} for call in calls[1:])
    joined = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(joined) == {"location": "Brooklyn, NY", "format": "fahrenheit"}
    assert (last["delta"], last["finish_reason"]) == ({}, "tool_calls")


def test_logprobs_stand_with_their_tokens_and_the_stop_sequence_is_told_not_said() -> None:
    chunks, _ = hear(make("generate_logprobs"), [(DATA / "generate_logprobs.stream").read_bytes()])
    first, last = chunks[0]["choices"][0], chunks[1]["choices"][0]
    assert first["logprobs"] == {
        "tokens": [" Deep"],
        "token_logprobs": [-0.1],
        "top_logprobs": [{" Deep": -0.1, " Wide": -2.5}],
        "text_offset": [0],
    }
    assert last["logprobs"]["text_offset"] == [5]
    assert (last["text"], last["stop_reason"]) == ("", "\n\n")


@pytest.mark.parametrize(
    ("name", "status", "chunks"), [("generate_overloaded", "status=429", 0), ("chat_broken", "status=502", 1)]
)
def test_an_error_in_a_stream_breaks_it(name: str, status: str, chunks: int) -> None:
    heard, error = hear(make(name), [(DATA / f"{name}.stream").read_bytes()])
    assert status in error
    assert len(heard) == chunks


def answer_of(name: str) -> Any:
    side = make(name)
    side.ask("tgi")
    return side.answer((DATA / f"{name}.answer.json").read_bytes())


def test_a_whole_completion_has_a_usage_where_the_prompt_was_counted() -> None:
    answer = answer_of("generate_prefill")
    choice = answer["choices"][0]
    assert choice == {"index": 0, "text": choice["text"], "logprobs": None, "finish_reason": "length"}
    assert answer["usage"] == {"prompt_tokens": 11, "completion_tokens": 10, "total_tokens": 21}
    assert "usage" not in answer_of("generate_stop")


@pytest.mark.parametrize(
    ("lines", "usage"),
    [
        ([b"x-prompt-tokens: 7\r\nx-time: 3\r\n", b"x-generated-tokens: ", b"9", b"\r\n"], (7, 9)),
        ([b"x-generated-tokens: 9\r\n"], None),
        ([b"x-prompt-tokens: -7\r\nx-generated-tokens: 9\r\n"], None),
        ([b"x-prompt-tokens: 7.5\r\nx-generated-tokens: 9\r\n"], None),
        ([b"x-prompt-tokens: 7\r\nx-generated-tokens: 1099511627777\r\n"], None),
        ([b"via: x-prompt-tokens: 7\r\nx-generated-tokens: 9\r\n"], None),
    ],
)
def test_a_head_tells_the_usage_of_a_whole_completion(lines: list[bytes], usage: tuple[int, int] | None) -> None:
    side = make("generate_stop")
    assert isinstance(side, HeadReader)
    told = side.usage_of_head(lines)
    assert (None if told is None else (told["prompt_tokens"], told["completion_tokens"])) == usage
    assert told is None or told["total_tokens"] == 16


def test_a_whole_completion_echoes_and_lacks_its_stop_sequence() -> None:
    choice = answer_of("generate_stop")["choices"][0]
    assert choice["text"] == "Test request failed: Error in "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "test")


def test_a_whole_call_is_one() -> None:
    choice = answer_of("chat_tool")["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {
                "id": "call_0123abcd_0",
                "type": "function",
                "function": {
                    "name": "get_current_weather",
                    "arguments": '{"location":"Brooklyn, NY","format":"fahrenheit"}',
                },
            }
        ],
    }


def test_a_whole_chat_is_openai_s() -> None:
    answer = answer_of("chat_tool_reply")
    assert answer["usage"] == {"prompt_tokens": 109, "completion_tokens": 83, "total_tokens": 192}
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["logprobs"], choice["message"]["refusal"]) == ("stop", None, None)
    assert choice["message"]["content"].startswith("I can't access real-time data")
