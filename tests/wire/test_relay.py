"""The answer's way to the client: every byte of the payload, whole events, and at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import KEY, Client, Response, chat_request
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]


def streamed(client: Client, **more: Any) -> Response:
    client.chat(stream=True, **more)
    return client.response()


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
@pytest.mark.parametrize("pieces", ["events", "whole", "bytes", *([n] for n in range(1, 700, 41))], ids=str)
def test_a_stream_is_relayed_byte_by_byte_and_event_by_event(
    connect: Connect, upstream: Upstream, framing: answers.Framing, pieces: answers.Pieces
) -> None:
    events = answers.chat_events(3)
    upstream.answer = answers.stream(events, framing, pieces)
    client = connect()
    response = streamed(client)
    assert response.complete and response.body == b"".join(events)
    assert all(chunk.endswith(b"\n\n") for chunk in response.chunks), "a chunk ends where an event ends"
    assert response.header("content-type") == "text/event-stream; charset=utf-8"
    assert response.header("transfer-encoding") == "chunked"
    upstream.answer = answers.chat()
    client.chat()
    assert client.response().complete, "the connection goes on"


@pytest.mark.parametrize("blank", [b"\r\n\r\n", b"\n\n"])
@pytest.mark.parametrize("pieces", ["events", "whole", "bytes"])
def test_events_may_end_in_crlf(connect: Connect, upstream: Upstream, blank: bytes, pieces: answers.Pieces) -> None:
    events = [event.replace(b"\n\n", blank) for event in answers.chat_events(3)]
    upstream.answer = answers.stream(events, pieces=pieces)
    response = streamed(connect())
    assert response.complete and response.body == b"".join(events)
    assert all(chunk.endswith(blank) for chunk in response.chunks)


def test_comments_names_and_ids_of_events_are_kept(connect: Connect, upstream: Upstream) -> None:
    events = [
        b": connected\n\n",
        b'id: 1\nevent: message\nretry: 10\ndata: {"choices":[{"delta":{}}]}\n\n',
        b'data: {"choices":\ndata: []}\n\n',
        b": ping\n\n",
        answers.DONE,
    ]
    upstream.answer = answers.stream(events)
    assert streamed(connect()).body == b"".join(events)


def test_a_last_event_without_its_blank_line_is_passed_on(connect: Connect, upstream: Upstream) -> None:
    events = [*answers.chat_events(1, done=False), b"data: [DONE]\n"]
    upstream.answer = answers.stream(events)
    response = streamed(connect())
    assert response.complete and response.body == b"".join(events)


def test_each_event_goes_on_before_the_next_one_comes(connect: Connect, upstream: Upstream) -> None:
    gates = [Gate() for _ in range(3)]
    events = answers.chat_events(2)[:3]

    def script(x: Exchange) -> None:
        x.send(answers.sse_head())
        for event, gate in zip(events, gates, strict=True):
            x.send(answers.chunk(event))
            x.stall(gate)
        x.send(answers.chunk(answers.DONE) + answers.LAST_CHUNK)

    upstream.answer = script
    client = connect()
    client.chat(stream=True)
    client.read_head()
    for number, gate in enumerate(gates, 1):
        assert client.read_events(number) == events[:number]
        gate.open()
    assert client.finish().events == [*events, answers.DONE]


@pytest.mark.parametrize("one_chunk", [True, False], ids=["one chunk", "a chunk each"])
def test_what_comes_in_one_read_goes_on_in_one_write(connect: Connect, upstream: Upstream, one_chunk: bool) -> None:
    gate = Gate()
    first, *rest = answers.chat_events(4)
    together = answers.chunk(b"".join(rest)) if one_chunk else b"".join(map(answers.chunk, rest))

    def script(x: Exchange) -> None:
        x.send(answers.sse_head() + answers.chunk(first))
        x.stall(gate)
        x.send(together + answers.LAST_CHUNK)

    upstream.answer = script
    client = connect()
    client.chat(stream=True)
    client.read_head()
    client.read_events(1)
    gate.open()
    assert client.finish().chunks == [first, b"".join(rest)]


def test_a_partial_event_waits_for_its_end(connect: Connect, upstream: Upstream) -> None:
    gate = Gate()
    first, second, *_ = answers.chat_events(1)

    def script(x: Exchange) -> None:
        x.send(answers.sse_head() + answers.chunk(first + second[:30]))
        x.stall(gate)
        x.send(answers.chunk(second[30:]) + answers.chunk(answers.DONE) + answers.LAST_CHUNK)

    upstream.answer = script
    client = connect()
    client.chat(stream=True)
    client.read_head()
    assert client.read_events(1) == [first]
    gate.open()
    assert b"".join(client.finish().chunks[1:]) == second + answers.DONE


def test_an_event_larger_than_what_is_held_back_arrives_whole(connect: Connect, upstream: Upstream) -> None:
    events = [answers.event({"content": "x" * 600_000}), *answers.chat_events(2)]
    upstream.answer = answers.stream(events)
    response = streamed(connect())
    assert response.complete and response.body == b"".join(events)


@pytest.mark.parametrize("size", [0, 1, 100, 5_000_000])
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_a_body_that_is_no_stream_is_relayed_as_it_is(
    connect: Connect, upstream: Upstream, framing: answers.Framing, size: int
) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)

    def script(x: Exchange) -> None:
        lines = {
            "chunked": ("transfer-encoding", "chunked"),
            "close": ("connection", "close"),
            "length": ("content-length", str(size)),
        }
        x.send(answers.head(200, ("content-type", "audio/mpeg"), lines[framing]))
        for start in range(0, size, 70_001):
            piece = body[start : start + 70_001]
            x.send(answers.chunk(piece) if framing == "chunked" else piece)
        x.send(answers.LAST_CHUNK if framing == "chunked" else b"")
        if framing == "close":
            x.fin()

    upstream.answer = script
    client = connect()
    client.request("POST", "/v1/audio/speech", chat_request())
    response = client.response()
    assert response.complete and response.body == body
    assert response.header("content-type") == "audio/mpeg"
    assert response.header("content-length") == (str(size) if framing == "length" else None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_of_http_1_0_is_answered_without_chunks(connect: Connect, upstream: Upstream, stream: bool) -> None:
    body = chat_request(stream=stream)
    upstream.answer = answers.stream() if stream else answers.chat()
    client = connect()
    head = f"POST {CHAT} HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    client.send(head.encode() + body)
    response = client.response()
    assert response.complete and response.header("transfer-encoding") is None
    expected = b"".join(answers.chat_events()) if stream else answers.chat_body()
    assert response.body == expected
    assert response.ended == "fin" or client.read_end() == b""


def test_an_answer_without_content_has_none(connect: Connect, upstream: Upstream) -> None:
    upstream.answer = answers.no_content()
    client = connect()
    client.chat()
    response = client.response()
    assert (response.status, response.body, response.complete) == (204, b"", True)
    assert response.header("transfer-encoding") is None
    client.chat()
    assert client.response().complete


def test_headers_of_the_upstream_pass_save_those_of_its_connection(connect: Connect, upstream: Upstream) -> None:
    upstream.answer = answers.chat(
        "Hello",
        ("openai-processing-ms", "12"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("set-cookie", "session=1"),
        ("connection", "x-hop, keep-alive"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
    )
    client = connect()
    client.chat()
    response = client.response()
    assert response.header("openai-processing-ms") == "12"
    assert [value for name, value in response.headers if name == "x-twice"] == ["1", "2"]
    names = {name for name, _ in response.headers}
    assert not names & {"set-cookie", "x-hop", "keep-alive", "proxy-authenticate"}
    assert response.header("server") != "scripted"
    assert response.header("date")


def test_a_stream_is_marked_so_that_no_proxy_holds_it_back(connect: Connect, upstream: Upstream) -> None:
    response = streamed(connect())
    assert response.header("x-accel-buffering") == "no"
    assert "no-cache" in (response.header("cache-control") or "")


def test_interim_answers_are_never_taken_for_the_final_one(connect: Connect, upstream: Upstream) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 3
    body = answers.chat_body()
    upstream.answer = answers.raw(interim + answers.head(200, ("content-length", str(len(body)))) + body)
    client = connect()
    for _ in range(2):
        client.chat()
        response = client.response()
        assert (response.status, response.body) == (200, body)
    assert len(upstream.ledger.connections) == 1
