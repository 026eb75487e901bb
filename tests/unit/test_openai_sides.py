"""OpenAI's own sides of a translated call: what their clients count on, and how each kind of backend is understood."""

from __future__ import annotations

import base64
import struct
from typing import Any

import orjson
import pytest

from protocols.dialect import Broken, Dropped, ErrorObject, JsonObject, Terms, Unmappable
from protocols.openai.backend import ChatBackend, CompletionBackend, EmbeddingsBackend
from protocols.openai.client import ChatClient, CompletionClient, EmbeddingsClient
from protocols.pieces import Malformed

SAID = [{"role": "user", "content": "Hi"}]
ID = "0123"
CREATED = 1_700_000_000


def chat_client(stream: bool = True, **fields: Any) -> ChatClient:
    return ChatClient({"model": "m", "messages": SAID, **fields}, stream, ID, CREATED, Dropped(lenient=False))


def chat_backend(stream: bool = True, **fields: Any) -> ChatBackend:
    hub = {"model": "m", "messages": SAID, **fields}
    return ChatBackend(hub, stream, ID, CREATED, Terms(), Dropped(lenient=False))


def event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def chunk(delta: JsonObject, finish: str | None = None, **more: Any) -> JsonObject:
    return {"id": "x", "model": "big", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def heard(*events: JsonObject, done: bool = True) -> list[JsonObject]:
    """The hub's chunks in a stream of *events*."""
    side = chat_backend()
    return side.feed(b"".join(map(event, events)) + b"data: [DONE]\n\n" * done) + side.end()


def told(body: bytes) -> list[JsonObject]:
    """The data of each event but [DONE]."""
    return [orjson.loads(one[6:]) for one in body.split(b"\n\n") if one and one != b"data: [DONE]"]


# Requests of clients.


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": "Hi"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": 1}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 1}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": [1]}, "stop[0]"),
    ],
)
def test_a_wrong_field_of_a_chat_request_is_named(fields: JsonObject, param: str) -> None:
    with pytest.raises(Unmappable) as refused:
        chat_client(**fields)
    assert refused.value.param == param
    assert param in refused.value.message


def test_a_request_stays_what_it_was() -> None:
    fields = {"model": "m", "messages": [{"role": "developer", "content": None}], "unheard_of": {"of": [1]}}
    assert ChatClient(fields, True, ID, CREATED, Dropped(lenient=False)).hub is fields


@pytest.mark.parametrize("prompt", ["Hi", ["Hi", "Ho"], [1, 2], [[1], [2]]])
def test_prompts_have_four_shapes(prompt: Any) -> None:
    fields = {"model": "m", "prompt": prompt}
    assert CompletionClient(fields, False, ID, CREATED, Dropped(lenient=False)).hub is fields


@pytest.mark.parametrize("fields", [{}, {"prompt": 1}, {"prompt": [None]}, {"prompt": [["a"]]}])
def test_a_prompt_of_another_shape_is_refused(fields: JsonObject) -> None:
    with pytest.raises(Unmappable) as refused:
        CompletionClient({"model": "m", **fields}, False, ID, CREATED, Dropped(lenient=False))
    assert (refused.value.param or "").startswith("prompt")


# What clients get.


def test_a_whole_answer_gets_the_fields_that_a_backend_left_out() -> None:
    body = chat_client(stream=False).answer({"choices": [{"message": {"content": "Ho"}}]})
    assert orjson.loads(body) == {
        "id": f"chatcmpl-{ID}",
        "object": "chat.completion",
        "created": CREATED,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "logprobs": None,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Ho", "refusal": None},
            }
        ],
    }


def test_usage_comes_last_and_alone_where_it_was_asked_for() -> None:
    side = chat_client(stream_options={"include_usage": True})
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    body = side.feed(chunk({"content": "Ho"})) + side.feed(chunk({}, "stop", usage=usage)) + side.end()
    first, finish, last = told(body)
    assert first["usage"] is None and finish["usage"] is None
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "Ho"}
    assert (last["choices"], last["usage"]) == ([], usage)
    assert first["id"] == finish["id"] == last["id"]
    assert body.endswith(b"\n\ndata: [DONE]\n\n")


def test_usage_that_was_not_asked_for_is_kept_back() -> None:
    side = chat_client()
    body = (
        side.feed(chunk({}, "stop", usage={"prompt_tokens": 1})) + side.feed({"choices": [], "usage": {}}) + side.end()
    )
    assert b"usage" not in body
    assert len(told(body)) == 1


def test_a_stream_that_broke_ends_with_an_error_and_not_as_done() -> None:
    side = chat_client()
    body = side.feed(chunk({"content": "Ho"})) + side.fail(ErrorObject(502, "It broke.", code="upstream_lost"))
    assert told(body)[-1] == {
        "error": {"message": "It broke.", "type": "server_error", "param": None, "code": "upstream_lost"}
    }
    assert b"[DONE]" not in body


def test_completions_stream_text() -> None:
    side = CompletionClient({"model": "m", "prompt": "Hi"}, True, ID, CREATED, Dropped(lenient=False))
    body = side.feed({"choices": [{"text": "Ho"}]}) + side.end()
    (only,) = told(body)
    assert (only["object"], only["id"]) == ("text_completion", f"cmpl-{ID}")
    assert only["choices"] == [{"index": 0, "text": "Ho", "logprobs": None, "finish_reason": None}]


@pytest.mark.parametrize("format", ["base64", "float", None])
def test_embeddings_come_as_the_client_asked(format: str | None) -> None:
    fields = {"model": "m", "input": "Hi", "encoding_format": format}
    side = EmbeddingsClient(fields, False, ID, CREATED, Dropped(lenient=False))
    answer = orjson.loads(side.answer({"data": [{"embedding": [0.5, -2.0]}]}))
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    vector = packed if format == "base64" else [0.5, -2.0]
    assert answer["data"] == [{"object": "embedding", "index": 0, "embedding": vector}]
    assert (answer["object"], answer["model"]) == ("list", "m")
    assert answer["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_embeddings_are_no_stream() -> None:
    with pytest.raises(Unmappable, match="stream"):
        EmbeddingsClient({"model": "m", "input": "Hi"}, True, ID, CREATED, Dropped(lenient=False))


# What backends are asked.


def test_a_stream_is_asked_for_with_its_usage() -> None:
    ask = chat_backend(stream_options={"include_obfuscation": False}, top_k=3).ask("big")
    assert ask.path == b"/v1/chat/completions"
    assert orjson.loads(ask.body) == {
        "model": "big",
        "messages": SAID,
        "top_k": 3,
        "stream": True,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
    }


def test_a_whole_answer_is_asked_for_without_options_of_streams() -> None:
    body = orjson.loads(chat_backend(stream=False, stream_options={"include_usage": True}).ask("big").body)
    assert "stream_options" not in body and body["stream"] is False


def test_earlier_reasoning_is_not_told() -> None:
    said = {"role": "assistant", "content": "Ho", "reasoning_content": "Hm", "thinking_blocks": [{}]}
    body = orjson.loads(chat_backend(messages=[said, {"role": "developer", "content": "x"}]).ask("big").body)
    assert body["messages"] == [{"role": "assistant", "content": "Ho"}, {"role": "developer", "content": "x"}]


# How backends are understood.

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([chunk({}, "stop"), {"choices": [], "usage": USAGE}], id="OpenAI"),
        pytest.param([chunk({}, "stop", usage=USAGE)], id="in the last chunk"),
        pytest.param([chunk({}, "stop", x_groq={"id": "req_1", "usage": {**USAGE, "queue_time": 0.1}})], id="Groq"),
        pytest.param([chunk({}, None, usage={"prompt_tokens": 5}), chunk({}, "stop", usage=USAGE)], id="in each chunk"),
        pytest.param([chunk({}, "stop"), {"usage": USAGE}], id="without choices"),
    ],
)
def test_usage_is_found_wherever_it_sits(events: list[JsonObject]) -> None:
    chunks = heard(chunk({"role": "assistant", "content": "Ho"}), *events)
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == USAGE
    assert not any("usage" in one for one in chunks[:-1])


@pytest.mark.parametrize("reason", ["stop", "eos", "eos_token", "stop_sequence", "end_turn"])
def test_a_stop_is_a_stop_whatever_it_is_called(reason: str) -> None:
    assert heard(chunk({"content": "Ho"}, reason))[-1]["choices"][0]["finish_reason"] == "stop"


def test_reasoning_has_one_name() -> None:
    deltas = [
        one["choices"][0]["delta"] for one in heard(chunk({"reasoning": "Hm", "content": None}), chunk({}, "stop"))
    ]
    assert deltas == [{"reasoning_content": "Hm"}, {}]


def test_a_stream_without_done_is_complete_by_its_finish_reason() -> None:
    chunks = heard(chunk({"content": "Ho"}), chunk({}, "stop", usage=USAGE), done=False)
    assert [one["choices"] for one in chunks][-1] == []


def test_done_without_a_finish_reason_is_a_stop() -> None:
    assert heard(chunk({"content": "Ho"}))[-1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]


@pytest.mark.parametrize("events", [[], [chunk({"content": "Ho"})], [{"choices": [], "usage": USAGE}]])
def test_a_stream_that_ends_before_it_says_so_is_malformed(events: list[JsonObject]) -> None:
    with pytest.raises(Malformed):
        heard(*events, done=False)


@pytest.mark.parametrize(
    "data",
    [
        *(b"Ho", b'{"choices":1}', b"{}", b'{"choices":[{"delta":1}]}', b'{"choices":[{"delta":{"content":1}}]}'),
        *(b'{"choices":[{"index":128,"delta":{}}]}', b'{"choices":[],"usage":{"prompt_tokens":-1}}', b"[]", b"null"),
        *(b'{"id":"\xff","choices":[]}', b'{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}'),
        b'{"choices":' + b"[" * 100_000,
    ],
)
def test_what_is_no_chunk_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        chat_backend().feed(b"data: " + data + b"\n\n")


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b'{"error":{"message":"Out.","type":"server_error"}}', 502, "Out."),
        (b'{"error":{"message":"Full.","code":503}}', 503, "Full."),
        (b'{"error":{"message":"No.","http_status_code":422}}', 422, "No."),
        (b'{"error":"Out."}', 502, "Out."),
        (b'{"object":"error","message":"Out.","code":400}', 400, "Out."),
        (b'{"choices":[],"x_groq":{"id":"req_1","error":"Out."}}', 502, "Out."),
        (b'{"choices":[{"delta":{},"finish_reason":"error"}],"error":{"message":"Out.","code":502}}', 502, "Out."),
    ],
)
def test_an_error_within_a_stream_breaks_it(data: bytes, status: int, message: str) -> None:
    with pytest.raises(Broken) as broken:
        chat_backend().feed(b"data: " + data + b"\n\n")
    assert (broken.value.error.status, broken.value.error.message) == (status, message)


def test_an_event_that_is_called_an_error_is_one() -> None:
    with pytest.raises(Broken):
        chat_backend().feed(b"event: error\ndata: {}\n\n")


def test_interleaved_calls_keep_their_places() -> None:
    def piece(index: int, arguments: str, **more: Any) -> JsonObject:
        return {"index": index, "function": {"arguments": arguments}, **more}

    def opening(index: int, id: str) -> JsonObject:
        return {"index": index, "id": id, "type": "function", "function": {"name": id.upper()}}

    chunks = heard(
        chunk({"role": "assistant", "content": None, "tool_calls": [opening(3, "a"), opening(1, "b")]}),
        chunk({"tool_calls": [piece(1, "{"), piece(3, "[", id="a")]}),
        chunk({"tool_calls": [piece(3, "]"), piece(1, "}")]}),
        chunk({}, "stop"),
    )
    calls = [call for one in chunks for call in one["choices"][0]["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]["arguments"]) for call in calls] == [
        *((0, ""), (1, "")),
        *((1, "{"), (0, "[")),
        *((0, "]"), (1, "}")),
    ]
    assert [call["id"] for call in calls[:2]] == ["a", "b"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_calls_without_index_are_told_apart_by_their_ids() -> None:
    first = {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}
    second = {"id": "b", "function": {"name": "f", "arguments": ""}}
    rest = {"function": {"arguments": "{}"}}
    chunks = heard(chunk({"tool_calls": [first]}), chunk({"tool_calls": [second]}), chunk({"tool_calls": [rest]}))
    calls = [call for one in chunks for call in one["choices"][0]["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]["arguments"]) for call in calls] == [(0, '{"x":1}'), (1, ""), (1, "{}")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"message":"No.","type":"t","param":"p","code":"c"}}', ErrorObject(404, "No.", "t", "c", "p")),
        (b'{"error":"Unauthorized"}', ErrorObject(404, "Unauthorized", "invalid_request_error")),
        (b'{"error":{"code":404,"message":"No.","type":"NotFoundError"}}', ErrorObject(404, "No.", "NotFoundError")),
        (b'{"object":"error","message":"No.","code":404}', ErrorObject(404, "No.", "invalid_request_error")),
        (b'{"detail":"Not Found"}', ErrorObject(404, "Not Found", "invalid_request_error")),
        (
            b'{"detail":[{"loc":["body","model"],"msg":"Field required"}]}',
            ErrorObject(404, "body.model: Field required", "invalid_request_error"),
        ),
        *(
            (body, ErrorObject(404, "the upstream answered with 404", "invalid_request_error"))
            for body in (
                *(
                    b"",
                    b"<html>",
                    b"[]",
                    b'{"error":{"message":1,"type":2,"code":[],"param":{}}}',
                    b'{"detail":[1,{}]}',
                ),
                b"[" * 100_000,
            )
        ),
    ],
)
def test_an_error_is_read_whoever_wrote_it(body: bytes, expected: ErrorObject) -> None:
    assert chat_backend().error(404, body) == expected


def test_a_whole_answer_is_brought_into_order() -> None:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1.5,
        "model": "big",
        "prompt_logprobs": None,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "reasoning": "Hm",
                    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": 7,
            }
        ],
        "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": None}},
    }
    assert chat_backend(stream=False).answer(orjson.dumps(body)) == {
        "id": "chatcmpl-1",
        "created": CREATED,
        "model": "big",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "reasoning_content": "Hm",
                    "tool_calls": [
                        {"id": f"call_{ID}_0_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 4}},
    }


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{}]}', b'{"choices":[{"message":1}]}', b'{"error":"Out."}'],
)
def test_what_is_no_answer_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        chat_backend(stream=False).answer(body)


def test_a_completion_is_understood_whole_and_streamed() -> None:
    side = CompletionBackend({"prompt": "Hi"}, True, ID, CREATED, Terms(), Dropped(lenient=False))
    assert side.ask("big").path == b"/v1/completions"
    whole = side.answer(b'{"choices":[{"text":"Ho","finish_reason":"eos"}]}')
    assert whole["choices"] == [{"index": 0, "text": "Ho", "finish_reason": "stop"}]
    chunks = side.feed(b'data:{"choices":[{"text":"Ho","finish_reason":"length"}]}\r\n\r\n') + side.end()
    assert [one["choices"] for one in chunks] == [[{"index": 0, "text": "Ho", "finish_reason": "length"}]]


def test_what_cannot_be_written_is_refused_before_anybody_is_asked() -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = {"a": deep}
    hub = {"messages": [], "metadata": deep}
    with pytest.raises(Unmappable, match="too deeply"):
        ChatBackend(hub, False, ID, CREATED, Terms(), Dropped(lenient=True))
    with pytest.raises(Unmappable, match="too deeply"):
        EmbeddingsBackend({"input": deep}, False, ID, CREATED, Terms(), Dropped(lenient=True))


def embeddings_backend() -> EmbeddingsBackend:
    hub = {"input": "Hi", "encoding_format": "base64"}
    return EmbeddingsBackend(hub, False, ID, CREATED, Terms(), Dropped(lenient=False))


def test_embeddings_are_asked_for_as_numbers() -> None:
    assert orjson.loads(embeddings_backend().ask("big").body) == {"input": "Hi", "model": "big"}


def test_embeddings_are_numbers_in_order_however_they_come() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    body = {
        "data": [{"index": 1, "embedding": [1, 2]}, {"index": 0, "embedding": packed}],
        "usage": {"prompt_tokens": 3},
    }
    answer = embeddings_backend().answer(orjson.dumps(body))
    assert [one["embedding"] for one in answer["data"]] == [[0.5, -2.0], [1.0, 2.0]]
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_a_number_that_is_too_large_for_base64_is_malformed() -> None:
    client = EmbeddingsClient({"input": "Hi", "encoding_format": "base64"}, False, ID, CREATED, Dropped(lenient=False))
    with pytest.raises(Malformed, match="too large"):
        client.answer({"data": [{"embedding": [1e300]}]})


@pytest.mark.parametrize("embedding", ["?", "AAA=", "AACAfw==", "é", None, ["a"]])
def test_what_is_no_vector_is_malformed(embedding: Any) -> None:
    with pytest.raises(Malformed):
        embeddings_backend().answer(orjson.dumps({"data": [{"embedding": embedding}]}))


def test_blocks_of_thinking_are_numbered_and_have_the_text_that_they_sign() -> None:
    """OpenAI's SDK adds up lists of deltas by `index`, and a signature without its text cannot be sent back."""
    client = ChatClient({"model": "m", "messages": [], "stream": True}, True, "ab", 1, Dropped(False))
    deltas = [
        {"reasoning_content": "one "},
        {"reasoning_content": "thought"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "S1"}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "R"}]},
        {"content": "text"},
        {"reasoning_content": "another"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "S2"}]},
    ]
    said = b"".join(client.feed({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas)
    chunks = [orjson.loads(line[6:]) for line in said.split(b"\n") if line.startswith(b"data: ")]
    blocks = [block for chunk in chunks for block in chunk["choices"][0]["delta"].get("thinking_blocks", ())]
    assert blocks == [
        {"index": 0, "type": "thinking", "thinking": "one thought", "signature": "S1"},
        {"index": 1, "type": "redacted_thinking", "data": "R"},
        {"index": 2, "type": "thinking", "thinking": "another", "signature": "S2"},
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": "hi", "foo": 1}]}, "messages[0].foo"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "bar": 1}]}]},
            "messages[0].content[0].bar",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f", "zap": 1}}]}, "tools[0].function.zap"),
        ({"tools": [{"type": "function", "zip": 1, "function": {"name": "f"}}]}, "tools[0].zip"),
        ({"response_format": {"type": "text", "zap": 1}}, "response_format.zap"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "zip": 1}}},
            "response_format.json_schema.zip",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "zip": 1}}]}]},
            "messages[0].content[0].image_url.zip",
        ),
    ],
)
def test_an_unknown_field_within_a_chat_is_refused_by_its_place_or_noted(fields: dict[str, Any], param: str) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    with pytest.raises(Unmappable) as refused:
        ChatClient(chat, False, "ab", 1, Dropped(False))
    assert refused.value.param == param
    dropped = Dropped(True)
    ChatClient(chat, False, "ab", 1, dropped)
    assert dropped.fields == [param]


def test_what_is_null_or_known_within_a_chat_is_not_noted() -> None:
    message = {"role": "assistant", "content": "hi", "refusal": None, "zip": None, "name": "n", "audio": None}
    ChatClient({"model": "m", "messages": [message]}, False, "ab", 1, Dropped(False))


@pytest.mark.parametrize(
    ("model", "former", "word"),
    [
        ("m", True, "max_tokens"),
        ("gpt-4o", True, "max_tokens"),
        ("m", False, "max_completion_tokens"),
        ("gpt-5-mini", True, "max_completion_tokens"),
        ("openai/o3", True, "max_completion_tokens"),
        ("olmo", True, "max_tokens"),
    ],
)
def test_a_chat_is_bounded_by_the_word_that_its_server_knows(model: str, former: bool, word: str) -> None:
    hub = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 7}
    body = orjson.loads(ChatBackend(hub, False, "ab", 1, Terms(says_max_tokens=former), Dropped(False)).ask("x").body)
    assert {name: value for name, value in body.items() if name.startswith("max_")} == {word: 7}
