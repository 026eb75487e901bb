"""A client that takes nothing of an answer is ended in time, whatever the answer is; one that takes it slowly is not.

Most of it runs over a unix socket, whose buffers in the kernel are small and of one size: over TCP they take megabytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.wire import answers, tls
from tests.wire.client import build_request, chat_request
from tests.wire.process import Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
#: An answer that comes in one read, and of which the kernel takes a part only.
LARGE = bytes(240_000)
TIMES = {"send_timeout": "400ms", "keepalive_timeout": "60s"}


def over_unix(stage: Stage, upstream: Upstream, path: Path, **server: Any) -> Gateway:
    host = f"unix:{path}/gateway.sock"
    one = backend(upstream, timeouts={"idle": "300ms"})
    return stage.gateway(configuration(one, server={"host": host, **TIMES, **server}))


def is_ended(gateway: Gateway) -> None:
    """No connection is left but the one that asks."""
    gateway.wait_gauge(1, "gateway_client_connections", timeout=4.0)


def flood(x: Exchange) -> None:
    x.send(answers.sse_head() + answers.chunk(answers.event({"content": "x" * 1000}) * 30_000))
    x.await_abort()


def long_body(x: Exchange) -> None:
    x.send(answers.head(200, ("content-type", "audio/mpeg"), ("content-length", str(32 << 20))) + bytes(32 << 20))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("script", [flood, long_body], ids=["stream", "body"])
def test_an_answer_that_is_still_coming(stage: Stage, script: Callable[[Exchange], None], secure: bool) -> None:
    upstream = stage.upstream(script)
    more: dict[str, Any] = {"tls": tls.LISTENER} if secure else {}
    gateway = stage.gateway(configuration(backend(upstream), server={**TIMES, **more}))
    client = stage.connect(gateway, receive_buffer=4096)
    client.chat(stream=script is flood)
    upstream.ledger.wait_blocked()
    upstream.ledger.wait_abort(4.0)
    line = gateway.wait_call(request_id=client.id)
    assert (line["ending"], line["fault"]) == ("cD", "client_stopped_reading")
    is_ended(gateway)
    assert not client.response().complete


def test_answers_that_are_whole(stage: Stage, socket_folder: Path) -> None:
    """They are settled long ago: what is queued for the client is all that is left of them."""
    upstream = stage.upstream(answers.whole(200, LARGE))
    gateway = over_unix(stage, upstream, socket_folder)
    client = stage.connect(gateway)
    client.send(build_request("POST", CHAT, chat_request()) * 4)
    gateway.wait_call(status=200)
    is_ended(gateway)
    assert client.response().status == 200
    assert len(upstream.requests) < 4, "a client that does not read had everything answered"


def test_a_stream_that_is_complete(stage: Stage, socket_folder: Path) -> None:
    events = answers.chunk(answers.event({"content": "x" * 1000}) * 220)
    upstream = stage.upstream(lambda x: x.send(answers.sse_head() + events + answers.LAST_CHUNK))
    gateway = over_unix(stage, upstream, socket_folder)
    client = stage.connect(gateway)
    client.chat(stream=True)
    gateway.wait_call(request_id=client.id)
    is_ended(gateway)
    assert client.response().status == 200


def test_the_last_answer_of_a_connection(stage: Stage, socket_folder: Path) -> None:
    gateway = over_unix(stage, stage.upstream(answers.whole(200, LARGE)), socket_folder)
    client = stage.connect(gateway)
    client.request("POST", CHAT, chat_request(), [("Connection", "close")])
    gateway.wait_call(request_id=client.id)
    is_ended(gateway)
    assert not client.response().complete


def test_errors(stage: Stage, socket_folder: Path) -> None:
    gateway = over_unix(stage, stage.upstream(), socket_folder)
    client = stage.connect(gateway, timeout=0.3)
    try:
        while True:
            client.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
    except (TimeoutError, ConnectionError):
        pass  # it is not read any more
    is_ended(gateway)
    assert client.response().status == 404


def test_events_that_came_before_the_upstream_fell_silent(stage: Stage, socket_folder: Path) -> None:
    """The silent upstream is not to blame for the client that does not read, although it is silent for too long."""

    def script(x: Exchange) -> None:
        x.send(answers.sse_head() + answers.chunk(answers.event({"content": "x" * 1000}) * 500))
        x.await_abort()

    upstream = stage.upstream(script)
    gateway = over_unix(stage, upstream, socket_folder)
    client = stage.connect(gateway)
    client.chat(stream=True)
    upstream.ledger.wait_abort(4.0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "cD"


@pytest.mark.parametrize("close", [False, True], ids=["kept alive", "closing"])
def test_a_client_that_goes_on_reading_slowly_gets_everything(stage: Stage, socket_folder: Path, close: bool) -> None:
    """Its time is for each byte, not for all: this takes three times as long."""
    gateway = over_unix(stage, stage.upstream(answers.whole(200, LARGE)), socket_folder, send_timeout="1s")
    client = stage.connect(gateway)
    headers = [("Connection", "close")] if close else []
    client.send(build_request("POST", CHAT, chat_request()) * 3 + build_request("POST", CHAT, chat_request(), headers))
    for _ in range(4):
        response = client.read_head()
        while client.read_payload() is not None:
            time.sleep(0.3)
        assert response.body == LARGE and response.complete
