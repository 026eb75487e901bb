"""Upstreams over TLS: the right peer or none, and the same promises as without."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wire import answers, tls
from tests.wire.accepted import Wire
from tests.wire.client import chat_request
from tests.wire.process import Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
TRUST = {"ca_file": tls.CA}


def over_tls(stage: Stage, upstream: Upstream | str, **fields: Any) -> Gateway:
    fields.setdefault("tls", TRUST)
    return stage.gateway(configuration(backend(upstream, **fields)))


def test_calls_share_a_connection(stage: Stage) -> None:
    upstream = stage.upstream(tls=tls.server())
    gateway = over_tls(stage, upstream)
    for stream in (False, True, False):
        assert gateway.ask("POST", CHAT, chat_request(stream=stream)).status == 200
    assert [request.index for request in upstream.requests] == [0, 1, 2]
    assert upstream.ledger.connections[0].alpn == "http/1.1"


def test_a_large_answer_arrives_whole(stage: Stage) -> None:
    body = bytes(range(256)) * 20_000
    gateway = over_tls(stage, stage.upstream(answers.whole(200, body), tls=tls.server()))
    assert gateway.ask("POST", CHAT, chat_request()).body == body


@pytest.mark.parametrize("length", [True, False], ids=["of a told length", "up to the end"])
def test_a_large_answer_that_ends_its_connection_arrives_whole(stage: Stage, length: bool) -> None:
    body = bytes(range(256)) * 20_000

    def script(x: Exchange) -> None:
        lines = [answers.JSON_TYPE, ("connection", "close")]
        if length:
            lines.append(("content-length", str(len(body))))
        x.send(answers.head(200, *lines) + body)
        x.notify()
        x.close()

    gateway = over_tls(stage, stage.upstream(script, tls=tls.server()))
    for _ in range(5):
        response = gateway.ask("POST", CHAT, chat_request())
        assert response.complete and response.body == body


@pytest.mark.parametrize("fields", [{}, {"tls": {}}], ids=["unknown authority", "no authority"])
def test_a_peer_that_nobody_vouches_for_is_not_spoken_to(stage: Stage, fields: dict[str, Any]) -> None:
    upstream = stage.upstream(tls=tls.server("nobody"))
    response = over_tls(stage, upstream, **fields).ask("POST", CHAT, chat_request())
    assert response.status in (502, 503)
    assert upstream.requests == []
    assert b"CERTIFICATE" not in response.body.upper()


def test_a_peer_of_another_name_is_not_spoken_to(stage: Stage) -> None:
    upstream = stage.upstream(tls=tls.server("elsewhere"))
    response = over_tls(stage, upstream).ask("POST", CHAT, chat_request())
    assert response.status in (502, 503)
    assert upstream.requests == []


def test_a_peer_that_speaks_no_tls_is_not_spoken_to_in_the_clear(stage: Stage) -> None:
    upstream = stage.upstream()
    url = upstream.url.replace("http:", "https:")
    response = over_tls(stage, url).ask("POST", CHAT, chat_request())
    assert response.status in (502, 503)
    assert upstream.requests == []
    upstream.ledger.wait(lambda: upstream.ledger.violations, "the hello, which is no HTTP")
    upstream.drop_connections()
    upstream.ledger.violations.clear()


def test_a_handshake_that_stalls_ends_with_the_connect_timeout(stage: Stage) -> None:
    upstream = stage.upstream()
    upstream.on_accept = swallow
    url = upstream.url.replace("http:", "https:")
    response = over_tls(stage, url, timeouts={"connect": "300ms"}).ask("POST", CHAT, chat_request())
    assert response.status in (503, 504)


def swallow(wire: Wire) -> None:
    while True:
        wire.receive()


@pytest.mark.parametrize("how", ["fin", "close", "rst"])
def test_a_stream_that_breaks_is_told(stage: Stage, how: str) -> None:
    events = answers.chat_events(2)[:2]

    def script(x: Exchange) -> None:
        x.send(answers.sse_head() + b"".join(map(answers.chunk, events)))
        x.sleep(0.1)
        getattr(x, how)()

    gateway = over_tls(stage, stage.upstream(script, tls=tls.server()))
    client = stage.connect(gateway)
    client.chat(stream=True)
    response = client.response()
    assert response.events[:-1] == events and b'"error"' in response.events[-1]
    assert not response.complete and response.ended == "fin"


def test_a_client_that_leaves_stops_the_upstream(stage: Stage) -> None:
    upstream = stage.upstream(answers.await_abort, tls=tls.server())
    gateway = over_tls(stage, upstream)
    client = stage.connect(gateway)
    client.chat()
    upstream.ledger.wait_requests(1)
    client.abort()
    upstream.ledger.wait_abort(1.0)
