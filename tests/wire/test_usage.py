"""The tokens that a call used: asked for, found in passing, and withheld from a client that did not ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.client import Client, Response
from tests.wire.process import Gateway
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]


def streamed(client: Client, **more: Any) -> Response:
    client.chat(stream=True, **more)
    return client.response()


@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"include_obfuscation": False}], ids=str)
@pytest.mark.parametrize("pieces", ["events", "whole", "bytes"])
def test_usage_is_asked_for_and_withheld_from_a_client_that_did_not_ask(
    connect: Connect,
    upstream: Upstream,
    gateway: Gateway,
    options: dict[str, Any] | None,
    pieces: answers.Pieces,
) -> None:
    events = answers.chat_events(2, with_usage=True)
    upstream.answer = answers.stream(events, pieces=pieces)
    response = streamed(connect(), **({"stream_options": options} if options else {}))
    assert upstream.ledger.last.json()["stream_options"] == {**(options or {}), "include_usage": True}
    assert response.complete and response.events == answers.chat_events(2)
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"]) == (7, 5, 3)


@pytest.mark.parametrize("pieces", ["events", "whole", "bytes"])
def test_usage_is_passed_on_to_a_client_that_asked(
    connect: Connect, upstream: Upstream, gateway: Gateway, pieces: answers.Pieces
) -> None:
    events = answers.chat_events(2, with_usage=True)
    upstream.answer = answers.stream(events, pieces=pieces)
    response = streamed(connect(), stream_options={"include_usage": True})
    assert response.complete and response.events == events
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"]) == (7, 5, 3)


def test_usage_beside_content_is_no_extra_event(connect: Connect, upstream: Upstream, gateway: Gateway) -> None:
    """vLLM counts on in every event; "usage": null stands in every event of OpenAI's."""
    events = [
        answers.event({"content": "a"}, usage=None),
        answers.event({"content": '"usage":{"prompt_tokens":99,"completion_tokens":99}'}),
        answers.event({"content": "b"}, finish="stop", usage=answers.usage(4, 2)),
        answers.DONE,
    ]
    upstream.answer = answers.stream(events)
    response = streamed(connect())
    assert response.events == events
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["prompt_tokens"], line["completion_tokens"]) == (4, 2)


def test_usage_of_a_whole_answer_is_counted(connect: Connect, gateway: Gateway) -> None:
    before = gateway.metrics()
    client = connect()
    client.chat()
    client.response()
    line = gateway.wait_call(request_id=client.id)
    assert (line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"]) == (7, 5, 3)
    after = gateway.metrics()
    total = "gateway_tokens_total"
    assert after.value(total, model="m") - before.value(total, model="m") >= 12


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n"], ids=["lf", "crlf"])
def test_usage_behind_an_event_that_is_too_large_to_wait_for_is_found_all_the_same(
    connect: Connect, upstream: Upstream, gateway: Gateway, blank: bytes
) -> None:
    """An image in base64 is an event of megabytes, which passes as it comes."""
    large = answers.event({"content": "x" * 1_000_000})[:-2] + blank
    upstream.answer = answers.stream([large, answers.usage_event(), answers.DONE])
    response = streamed(connect())
    assert response.complete and response.body == large + answers.DONE
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"]) == (7, 5, 3)
