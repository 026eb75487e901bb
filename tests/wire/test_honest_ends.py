"""An upstream that fails never looks like one that succeeded: an error, or an end that no client mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, Response, chat_request
from tests.wire.process import Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]


def streamed(client: Client, **more: Any) -> Response:
    client.chat(stream=True, **more)
    return client.response()


FIRST: dict[str, Sequence[bytes]] = {
    "an error": [b'data: {"error": {"message": "busy", "type": "x", "param": null, "code": "y"}}\n\n'],
    "an error after a comment": [b": hello\n\n", b'data: {"error": {"message": "busy"}}\n\n'],
    "an error by name": [b'event: error\ndata: {"error": {"message": "busy"}}\n\n'],
    "nothing": [],
    "comments only": [b": hello\n\n", b": hello\n\n"],
    "half an event": [b'data: {"cho'],
}


@pytest.mark.parametrize("pieces", ["events", "whole", "bytes"])
@pytest.mark.parametrize("name", FIRST)
def test_a_stream_that_begins_with_a_failure_is_502(
    connect: Connect, upstream: Upstream, name: str, pieces: answers.Pieces
) -> None:
    upstream.answer = answers.stream([*FIRST[name]], pieces=pieces)
    client = connect()
    response = streamed(client)
    assert response.status == 502 and response.header("content-type") == "application/json"
    if "error" in name:
        assert response.json()["error"]["message"] == "busy", "the upstream's own words"
    else:
        assert response.code == "upstream_invalid_response"
    upstream.answer = answers.chat()
    client.chat()
    assert client.response().status == 200


CUTS: dict[str, tuple[Callable[[Exchange], None], ...]] = {
    "fin": (Exchange.fin,),
    "close": (Exchange.close,),
    "rst": (Exchange.rst,),
    "a bad chunk size": (lambda x: x.send(b"zz\r\n"),),
    "a chunk that is too long": (lambda x: x.send(b"2\r\nabc\r\n"),),
    "a size beyond reason": (lambda x: x.send(b"fffffffffffffffff\r\n"),),
    "half an event, then fin": (lambda x: x.send(answers.chunk(b'data: {"half')), Exchange.fin),
    "half a chunk, then fin": (lambda x: x.send(b"ff\r\ndata: {"), Exchange.fin),
    "half a chunk, then rst": (lambda x: x.send(b"ff\r\ndata: {"), lambda x: x.sleep(0.02), Exchange.rst),
}


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("cut", CUTS)
def test_a_stream_that_breaks_ends_with_an_error_event_and_no_success(
    connect: Connect, upstream: Upstream, gateway: Gateway, cut: str, count: int
) -> None:
    gate = Gate()
    events = answers.chat_events(5)[:count]

    def script(x: Exchange) -> None:
        x.send(answers.sse_head())
        for event in events:
            x.send(answers.chunk(event))
        x.stall(gate)
        for step in CUTS[cut]:
            step(x)

    upstream.answer = script
    client = connect()
    client.chat(stream=True)
    client.read_head()
    client.read_events(count)
    gate.open()
    assert_broken(client.finish(), events)
    line = gateway.wait_call(request_id=client.id)
    assert (line["status"], line["ending"]) == (200, "UD")


def assert_broken(response: Response, events: Sequence[bytes]) -> None:
    """*events* arrived, then one error event; nothing says success: no [DONE], no last chunk, but FIN."""
    assert response.events[:-1] == [*events]
    name, _, data = response.events[-1].partition(b": ")
    assert name == b"data" and data.endswith(b"\n\n")
    error = json.loads(data)["error"]
    assert error["message"] and error["code"] and error["type"]
    assert b"127.0.0.1" not in data and b"[DONE]" not in response.body
    assert not response.complete and response.ended == "fin"


def test_a_stream_that_closes_without_done_is_broken_where_only_the_close_ends_it(
    connect: Connect, upstream: Upstream
) -> None:
    events = answers.chat_events(2)[:2]
    upstream.answer = answers.stream(events, "close")
    assert_broken(streamed(connect()), events)


def test_a_stream_that_closes_after_its_finish_gets_the_done_that_it_lacks(
    connect: Connect, upstream: Upstream
) -> None:
    """As `transformers serve` ends its streams; there are clients that wait for [DONE]."""
    events = answers.chat_events(2, done=False)
    upstream.answer = answers.stream(events, "close")
    response = streamed(connect())
    assert response.complete and response.events == [*events, answers.DONE]


def test_a_stream_of_a_known_length_that_is_cut_is_broken(connect: Connect, upstream: Upstream) -> None:
    events = answers.chat_events(2)[:2]

    def script(x: Exchange) -> None:
        x.send(answers.sse_head("length", 5000) + b"".join(events))
        x.sleep(0.02)
        x.fin()

    upstream.answer = script
    assert_broken(streamed(connect()), events)


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_body_that_is_cut_is_incomplete_at_the_client(
    connect: Connect, upstream: Upstream, gateway: Gateway, framing: answers.Framing, how: str
) -> None:
    gate = Gate()
    body = answers.chat_body("x" * 3000)
    line = ("content-length", str(len(body))) if framing == "length" else ("transfer-encoding", "chunked")

    def script(x: Exchange) -> None:
        x.send(answers.head(200, answers.JSON_TYPE, line))
        x.send(answers.chunk(body[:100]) if framing == "chunked" else body[:100])
        x.stall(gate)
        getattr(x, how)()

    upstream.answer = script
    client = connect()
    client.chat()
    client.read_head()
    client.read_payload()
    gate.open()
    response = client.finish()
    assert not response.complete and body.startswith(response.body)
    assert gateway.wait_call(request_id=client.id)["ending"] == "UD"


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_body_that_is_cut_before_its_first_byte_is_502(connect: Connect, upstream: Upstream, how: str) -> None:
    upstream.answer = answers.raw(
        answers.head(200, answers.JSON_TYPE, ("content-length", "10")), then="fin" if how == "fin" else "rst"
    )
    client = connect()
    client.chat()
    assert client.response().status == 502
    client.chat()
    assert client.response().status == 502, "the client's connection goes on"


def test_an_error_event_amid_the_stream_passes_as_it_is(connect: Connect, upstream: Upstream) -> None:
    events = [*answers.chat_events(2)[:2], b'data: {"error": {"message": "no more", "code": "x"}}\n\n']
    upstream.answer = answers.stream(events)
    response = streamed(connect())
    assert response.complete and response.events == events


def test_a_stream_that_is_framed_to_its_end_but_stops_within_an_event_is_broken(
    connect: Connect, gateway: Gateway, upstream: Upstream
) -> None:
    """The framing is whole, what it holds is not: half an event must not look like the end."""

    def script(x: Exchange) -> None:
        x.send(answers.head(200, answers.SSE_TYPE, ("transfer-encoding", "chunked")))
        x.send(answers.chunk(answers.event({"content": "a"})) + answers.chunk(b'data: {"id": "x') + answers.LAST_CHUNK)

    upstream.answer = script
    client = connect()
    client.chat(stream=True)
    response = client.response()
    assert not response.complete and b'"error"' in response.events[-1]
    assert b'"id": "x' not in response.body
    assert gateway.wait_call(request_id=client.id)["ending"] == "UD"


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_behind_an_event_that_is_too_large_to_wait_for_a_stream_is_as_honest_as_before(
    connect: Connect, upstream: Upstream, framing: answers.Framing
) -> None:
    large = answers.event({"content": "x" * 1_000_000})
    small = answers.event({"content": "y"})
    upstream.answer = answers.stream([large, small, answers.DONE], framing)
    whole = streamed(connect())
    assert whole.complete and whole.body == large + small + answers.DONE

    def cut(x: Exchange) -> None:
        x.send(answers.sse_head(framing))
        for event in (large, small):
            x.send(answers.chunk(event) if framing == "chunked" else event)
        x.fin()

    upstream.answer = cut
    assert_broken(streamed(connect()), [large, small])


@pytest.mark.parametrize("done", [True, False])
def test_an_upstream_s_own_error_in_a_stream_is_passed_on_and_no_good_call(
    connect: Connect, upstream: Upstream, gateway: Gateway, done: bool
) -> None:
    error = b'data: {"error":{"message":"out of memory","type":"server_error"}}\n\n'
    events = [*answers.chat_events(2, done=False)[:-1], error, *[answers.DONE] * done]
    upstream.answer = answers.stream(events)
    client = connect()
    response = streamed(client)
    assert response.complete and response.body == b"".join(events)
    line = gateway.wait_call(request_id=client.id)
    assert (line["ending"], line["fault"], line["status"]) == ("UD", "upstream_error", 200)


UNSAID: dict[str, tuple[list[bytes], bool]] = {
    "words only": (answers.chat_events(2, done=False)[:-1], False),
    "words and usage": ([*answers.chat_events(2, done=False)[:-1], answers.usage_event()], False),
    "a finish": (answers.chat_events(2, done=False), True),
    "a finish and usage": ([*answers.chat_events(2, done=False), answers.usage_event()], True),
    "an error": ([*answers.chat_events(2, done=False)[:-1], b'data: {"error":{"message":"out of memory"}}\n\n'], True),
    "its end": (answers.chat_events(2), True),
}


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("pieces", ["events", "whole", "bytes"])
@pytest.mark.parametrize("name", UNSAID)
def test_a_stream_without_the_end_that_its_upstream_s_streams_have_is_broken(
    stage: Stage, name: str, pieces: answers.Pieces, framing: answers.Framing
) -> None:
    """Its framing is whole all the same: a proxy before the upstream may have mended what broke behind it."""
    events, whole = UNSAID[name]
    upstream = stage.upstream(answers.stream(events, framing, pieces))
    client = stage.connect(stage.gateway(configuration(backend(upstream))))
    first = streamed(client)
    assert first.complete, "nobody knows yet how this upstream's streams end"
    upstream.answer = answers.stream()
    assert streamed(client).complete
    upstream.answer = answers.stream(events, framing, pieces)
    response = streamed(client)
    assert response.complete is whole
    if not whole:
        assert response.body.count(b'"error"') == 1 and b"[DONE]" not in response.body


LAST = {"/v1/chat/completions": b"[DONE]", "/v1/messages": b"message_stop", "/api/chat": b'"done":true'}


@pytest.mark.parametrize("then", ["held", "closed"])
@pytest.mark.parametrize("path", LAST)
def test_a_stream_that_said_its_end_is_whole_whatever_its_framing_does(stage: Stage, path: str, then: str) -> None:
    def end(x: Exchange) -> None:
        x.send(answers.sse_head() + b"".join(map(answers.chunk, answers.chat_events(2))))
        if then == "held":
            x.await_abort()
        else:
            x.close()

    gateway = stage.gateway(configuration(backend(stage.upstream(end), timeouts={"idle": "300ms"})))
    client = stage.connect(gateway)
    body = chat_request(stream=True, **({"max_tokens": 9} if path == "/v1/messages" else {}))
    client.request("POST", path, body)
    response = client.response()
    assert response.complete and LAST[path] in response.body and b"error" not in response.body
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["ending"], line["fault"]) == ("--", None)
