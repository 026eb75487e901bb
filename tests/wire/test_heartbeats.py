"""A stream that waits is kept alive by comments, and what goes wrong then is told by an error event."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import KEY, Client, Response, chat_request
from tests.wire.process import Gateway, free_port
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Script

CHAT = "/v1/chat/completions"
BEAT = b": keep-alive\n\n"
STREAM = answers.head(200, answers.SSE_TYPE, ("transfer-encoding", "chunked"))


def staged(stage: Stage, script: Script | list[Script] | str, *others: dict[str, Any], **fields: Any) -> Gateway:
    first = script if isinstance(script, str) else stage.upstream(script)
    fields = {"heartbeat": "100ms", "retry": {"tries": 1}, **fields}
    routes = [{"model": "m", "fallbacks": [other["name"] for other in others]}] if others else []
    return stage.gateway(configuration(backend(first, **fields), *others, routes=routes))


def after_beats(stage: Stage, gateway: Gateway, gate: Gate | None = None) -> Response:
    """A stream's answer, whose upstream goes on at *gate* once two heartbeats were seen."""
    client = stage.connect(gateway)
    client.chat(stream=True)
    head = client.read_head("POST")
    assert (head.status, head.header("content-type")) == (200, "text/event-stream")
    assert head.header("x-upstream") is None and head.header("x-request-id")
    assert client.read_events(2)[:2] == [BEAT, BEAT]
    if gate is not None:
        gate.open()
    return client.finish()


def no_beats(body: bytes) -> bytes:
    return body.replace(BEAT, b"")


def error_of(body: bytes) -> dict[str, Any]:
    """The error event that is all that a stream says beside heartbeats."""
    event = no_beats(body)
    assert event.startswith(b"data: ") and event.count(b"\n\n") == 1, event
    return dict(json.loads(event[6:])["error"])


def test_a_stream_that_waits_is_kept_alive_and_then_relayed(stage: Stage) -> None:
    gate = Gate()
    events = answers.chat_events(2)
    gateway = staged(stage, answers.stalled(gate, answers.stream(events)))
    response = after_beats(stage, gateway, gate)
    assert response.complete and no_beats(response.body) == b"".join(events)
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["status"], line["ending"]) == (200, "--")


def test_a_silence_between_events_is_filled_too(stage: Stage) -> None:
    gate = Gate()
    events = answers.chat_events(3)
    script = answers.stalled_stream(gate, [*events[:2], events[2][:20]], [events[2][20:], *events[3:]])
    gateway = staged(stage, script, heartbeat="1s")
    client = stage.connect(gateway)
    client.chat(stream=True)
    assert client.read_head("POST").header("x-upstream") == "alpha"
    assert client.read_events(4)[:4] == [*events[:2], BEAT, BEAT], "whole events before, and nothing of the next one"
    gate.open()
    assert no_beats(client.finish().body) == b"".join(events)


def test_who_is_answered_in_time_sees_no_heartbeat(stage: Stage) -> None:
    gateway = staged(stage, answers.model_server, heartbeat="10s")
    for stream in (False, True):
        response = gateway.ask("POST", CHAT, chat_request(stream=stream))
        assert response.header("x-upstream") == "alpha" and BEAT not in response.body


def test_a_call_that_asks_for_no_stream_gets_no_heartbeat(stage: Stage) -> None:
    gateway = staged(stage, answers.error(500), timeouts={"total": "400ms"})
    assert gateway.ask("POST", CHAT, chat_request()).status == 500
    stalled = staged(stage, answers.await_abort, timeouts={"total": "400ms"})
    assert stalled.ask("POST", CHAT, chat_request()).status == 504


def test_a_plain_answer_to_who_asked_for_a_stream_leaves_no_heartbeat_behind(stage: Stage) -> None:
    """The next call on the connection waits longer than that: what it gets is its own."""
    gate = Gate()
    gateway = staged(stage, [answers.chat("one"), answers.stalled(gate, answers.chat("two"))])
    client = stage.connect(gateway)
    client.chat(stream=True)
    assert client.response("POST").body == answers.chat_body("one")
    client.chat()
    client.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)
    gate.open()
    client.sock.settimeout(5.0)
    assert client.response("POST").body == answers.chat_body("two")


BREAKS: dict[str, tuple[Script, str]] = {
    "an error of its own": (answers.error(400, "too many words"), "too many words"),
    "an error in chunks": (
        answers.raw(
            answers.head(400, answers.JSON_TYPE, ("transfer-encoding", "chunked"))
            + answers.chunk(b'{\n  "error": {"message": "too many words"}\n}')
            + answers.LAST_CHUNK
        ),
        "too many words",
    ),
    "no stream": (answers.chat(), "answered 200 in place of a stream"),
    "nothing": (answers.no_content(), "answered 204 in place of a stream"),
    "an error first": (
        answers.raw(STREAM + answers.chunk(b'data: {"error":{"message":"no"}}\n\n') + answers.LAST_CHUNK),
        "no",
    ),
    "a cut": (answers.raw(STREAM, then="close"), "broke off"),
    "a reset": (answers.raw(b"", then="rst"), "unanswered"),
    "refused credentials": (answers.error(401, "secret"), "refused the gateway's credentials"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_goes_wrong_after_a_heartbeat_is_told_by_an_error_event(stage: Stage, name: str) -> None:
    script, said = BREAKS[name]
    gate = Gate()
    gateway = staged(stage, answers.stalled(gate, script))
    response = after_beats(stage, gateway, gate)
    assert not response.complete and b"[DONE]" not in response.body
    assert said in error_of(response.body)["message"]
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert line["status"] == 200 and line["ending"][0] == "U"
    gateway.wait_gauge(0, "gateway_in_flight_requests")


@pytest.mark.parametrize("name", [*BREAKS, "a stall"])
def test_a_fallback_is_kept_after_a_heartbeat(stage: Stage, name: str) -> None:
    if name in ("an error of its own", "an error in chunks"):
        pytest.skip("that is an answer, and no failure of the upstream's")
    gate = Gate()
    script = BREAKS[name][0] if name in BREAKS else answers.await_abort
    events = answers.chat_events(2)
    spare = backend(stage.upstream(answers.stream(events)), name="beta", models=["spare"])
    gateway = staged(stage, answers.stalled(gate, script), spare, timeouts={"first_byte": "500ms"})
    response = after_beats(stage, gateway, gate)
    assert response.complete and no_beats(response.body) == b"".join(events)
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["ending"], line["fallback"]) == ("--", "beta")


def test_a_stall_is_told_by_an_error_event(stage: Stage) -> None:
    gateway = staged(stage, answers.await_abort, timeouts={"first_byte": "400ms"})
    response = after_beats(stage, gateway)
    assert error_of(response.body)["code"] == "upstream_timeout" and not response.complete
    assert gateway.wait_call(request_id=response.header("x-request-id"))["ending"] == "uH"


def test_a_client_that_leaves_between_heartbeats_ends_the_upstream_s_work(
    stage: Stage, connect: Callable[..., Client]
) -> None:
    upstream = stage.upstream(answers.await_abort)
    gateway = stage.gateway(configuration(backend(upstream, heartbeat="100ms")))
    client = stage.connect(gateway)
    client.chat(stream=True)
    client.read_head("POST")
    client.abort()
    upstream.ledger.wait_abort()
    line = gateway.wait_call(request_id=client.id)
    assert (line["status"], line["ending"]) == (200, "CH")


def test_a_drain_tells_a_stream_that_has_only_heartbeats(stage: Stage) -> None:
    upstream = stage.upstream(answers.await_abort)
    config = configuration(backend(upstream, heartbeat="100ms"), server={"drain_timeout": "300ms"})
    gateway = stage.gateway(config)
    client = stage.connect(gateway)
    client.chat(stream=True)
    client.read_head("POST")
    gateway.process.send_signal(signal.SIGTERM)
    response = client.finish()
    assert error_of(response.body)["code"] == "draining" and not response.complete
    gateway.wait_exit(0)


def test_an_old_client_gets_heartbeats_without_chunks(stage: Stage) -> None:
    gate = Gate()
    events = answers.chat_events(1)
    gateway = staged(stage, answers.stalled(gate, answers.stream(events)))
    body = b'{"model":"m","messages":[],"stream":true}'
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (KEY.encode(), len(body), body)
        )
        seen = b""
        while seen.count(BEAT) < 2:
            seen += sock.recv(4096)
        gate.open()
        while data := sock.recv(4096):
            seen += data
    head, _, payload = seen.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and b"transfer-encoding" not in head and b"connection: close" in head
    assert no_beats(payload) == b"".join(events)


def test_a_refused_peer_after_a_heartbeat_is_told(stage: Stage) -> None:
    """A first peer that stalls until it is given up, and nobody behind it."""
    spare = backend(f"http://127.0.0.1:{free_port()}", name="beta", models=["spare"], retry={"tries": 1})
    gateway = staged(stage, answers.await_abort, spare, timeouts={"first_byte": "400ms"})
    response = after_beats(stage, gateway)
    assert error_of(response.body)["code"] == "no_healthy_upstream" and not response.complete
