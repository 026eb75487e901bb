"""What fails goes on elsewhere: at another peer, or under a fallback, up to the first byte that the client sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.client import Client, chat_request
from tests.wire.process import Gateway, free_port
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Script, Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]

STREAM = answers.head(200, answers.SSE_TYPE, ("transfer-encoding", "chunked"))
ERROR_EVENT = answers.chunk(b'data: {"error":{"message":"out of memory","type":"server_error"}}\n\n')

#: What an upstream does in place of an answer.
FAILURES: dict[str, Script | None] = {
    "refused": None,
    "reset": answers.raw(b"", then="rst"),
    "closed": answers.raw(b"", then="close"),
    "429": answers.error(429),
    "500": answers.error(500),
    "503": answers.error(503),
    "503, later": answers.error(503, "busy", ("retry-after", "30")),
    "401": answers.error(401),
    "no answer": answers.await_abort,
    "junk": answers.raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
}
#: The same where a stream was asked for.
STREAM_FAILURES: dict[str, Script] = {
    "an empty stream": answers.raw(STREAM + answers.LAST_CHUNK),
    "a stream of comments": answers.raw(STREAM + answers.chunk(b": hello\n\n") + answers.LAST_CHUNK),
    "an error first": answers.raw(STREAM + ERROR_EVENT + answers.LAST_CHUNK),
    "an error as a body": answers.raw(
        STREAM + answers.chunk(b'data: {"object":"error","message":"no","code":400}\n\n') + answers.LAST_CHUNK
    ),
    "an error by its name": answers.raw(
        STREAM + answers.chunk(b'event: error\ndata: {"message":"no"}\n\n') + answers.LAST_CHUNK
    ),
    "a response that failed": answers.raw(
        STREAM + answers.chunk(b'data: {"type":"response.failed","response":{}}\n\n') + answers.LAST_CHUNK
    ),
    "[DONE] first": answers.raw(STREAM + answers.chunk(answers.DONE) + answers.LAST_CHUNK),
    "a first event of junk": answers.raw(STREAM + answers.chunk(b"data: <html>\n\n")),
    "a first event that is half JSON": answers.raw(STREAM + answers.chunk(b'data: {"choices":[\n\n')),
    "cut in the first event": answers.raw(STREAM + answers.chunk(b'data: {"choices"'), then="close"),
    "stalled before the first event": lambda x: (x.send(STREAM), x.await_abort(20))[0],
    "stalled within the first event": lambda x: (x.send(STREAM + answers.chunk(b'data: {"ch')), x.await_abort(20))[0],
}
CASES = [(name, stream) for name in FAILURES for stream in (False, True)] + [(name, True) for name in STREAM_FAILURES]
cases = pytest.mark.parametrize(("name", "stream"), CASES, ids=[f"{name}-{stream}" for name, stream in CASES])


#: What a sound upstream says, whole and streamed.
SAID = ("Hello", "word0 word1 word2 ")


def script_of(name: str) -> Script | None:
    return FAILURES.get(name) or STREAM_FAILURES.get(name)


def text_of(body: bytes) -> str:
    """What an answer or a stream of events says, in one piece."""
    if body.startswith(b"{"):
        return str(json.loads(body)["choices"][0]["message"]["content"])
    events = [event.removeprefix("data: ") for event in body.decode().split("\n\n") if event]
    assert events[-1] == "[DONE]"
    deltas = [choice["delta"] for event in events[:-1] for choice in json.loads(event)["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)


def staged(
    stage: Stage, name: str, *, fallbacks: list[str], **fields: Any
) -> tuple[Gateway, Upstream | None, Upstream]:
    """A gateway whose model `m` fails as *name* says, beside a backend that serves the model `spare`."""
    script = script_of(name)
    failing = stage.upstream(script) if script is not None else None
    sound = stage.upstream()
    first = failing if failing is not None else f"http://127.0.0.1:{free_port()}"
    timeouts = {"first_byte": "300ms", "total": "0s"}
    config = configuration(
        backend(first, timeouts=timeouts, **fields),
        backend(sound, name="beta", models=["spare", {"alias": "real"}]),
        routes=[{"model": "m", "fallbacks": fallbacks}],
    )
    return stage.gateway(config), failing, sound


@cases
def test_what_fails_before_the_first_byte_falls_back(stage: Stage, name: str, stream: bool) -> None:
    if name == "no answer" and not stream:
        pytest.skip("a plain call may take as long as it needs: nothing bounds it but `total`")
    gateway, failing, sound = staged(stage, name, fallbacks=["spare"], retry={"tries": 1})
    response = gateway.ask("POST", CHAT, chat_request(stream=stream))
    assert (response.status, response.complete) == (200, True), response
    assert response.header("x-fallback-model") == "spare" and response.header("x-upstream") == "beta"
    assert text_of(response.body) == SAID[stream]
    assert sound.ledger.last.json()["model"] == "spare" and len(sound.requests) == 1
    assert failing is None or len(failing.requests) == 1
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["model"], line["fallback"], line["upstream"], line["status"], line["ending"], line["tries"]) == (
        *("m", "spare", "beta", 200, "--", 2),
    )
    assert gateway.metrics().value("gateway_fallback_used_total", from_model="m", to_model="spare") == 1


@cases
def test_what_fails_before_the_first_byte_is_tried_at_another_peer(stage: Stage, name: str, stream: bool) -> None:
    """But for what nobody may expect to be better there, and for what takes long, unless the operator says so."""
    script = script_of(name)
    failing = stage.upstream(script) if script is not None else None
    sound = stage.upstream()
    first = failing if failing is not None else f"http://127.0.0.1:{free_port()}"
    gateway = stage.gateway(
        configuration(backend(first, sound, balance="round_robin", timeouts={"first_byte": "300ms"}))
    )
    slow, other = name == "no answer" or name.startswith("stalled"), name in ("500", "401", "junk")
    if slow and not stream:
        pytest.skip("a plain call may take as long as it needs: nothing bounds it but `total`")
    response = gateway.ask("POST", CHAT, chat_request(stream=stream))
    if slow or other:
        assert response.status == {"500": 500}.get(name, 504 if slow else 502)
        assert not sound.requests
    else:
        assert (response.status, text_of(response.body)) == (200, SAID[stream]), response
        assert response.header("x-fallback-model") is None
        assert len(sound.requests) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_after_a_relayed_event_nothing_is_repeated(stage: Stage, stream: bool) -> None:
    first = answers.chunk(answers.event({"content": "He"})) if stream else b"{"
    head = STREAM if stream else answers.head(200, answers.JSON_TYPE, ("content-length", "100"))

    def cut(x: Any) -> None:
        x.send(head + first)
        x.sleep(0.2)
        x.close()

    failing, sound = stage.upstream(cut), stage.upstream()
    config = configuration(
        backend(failing), backend(sound, name="beta", models=["spare"]), routes=[{"model": "m", "fallbacks": ["spare"]}]
    )
    gateway = stage.gateway(config)
    response = gateway.ask("POST", CHAT, chat_request(stream=stream))
    assert response.status == 200 and not response.complete
    assert len(failing.requests) == 1 and not sound.requests
    if stream:
        assert b"[DONE]" not in response.body and b'"error"' in response.body
    assert gateway.wait_call(request_id=response.header("x-request-id"))["ending"] == "UD"


def test_fallbacks_are_tried_in_their_order_and_the_last_word_is_the_last_one_s(stage: Stage) -> None:
    down = [stage.upstream(answers.error(status, f"from {status}")) for status in (503, 500, 502)]
    config = configuration(
        backend(down[0], retry={"tries": 1}),
        backend(down[1], name="beta", models=["b"]),
        backend(down[2], name="gamma", models=["c"], retry={"tries": 1}),
        routes=[{"model": "m", "fallbacks": ["b", "gamma"]}],
    )
    gateway = stage.gateway(config)
    response = gateway.ask("POST", CHAT, chat_request())
    assert (response.status, response.body) == (502, answers.error_body("from 502"))
    assert response.header("x-fallback-model") == "gamma" and response.header("x-should-retry") == "false"
    assert [len(upstream.requests) for upstream in down] == [1, 1, 1]
    assert [upstream.ledger.last.json()["model"] for upstream in down] == ["m", "b", "c"]


def test_what_an_upstream_says_of_fallbacks_and_retries_is_its_own(stage: Stage) -> None:
    lines = (("x-fallback-model", "theirs"), ("x-should-retry", "true"))
    down, spare = stage.upstream(answers.error(503, "no", *lines)), stage.upstream(answers.chat("Hello", *lines))
    config = configuration(backend(down), backend(spare, name="beta", models=["spare"]))
    gateway = stage.gateway(config)
    refused = gateway.ask("POST", CHAT, chat_request())
    assert [value for name, value in refused.headers if name == "x-should-retry"] == ["false"]
    assert refused.status == 503 and refused.header("x-fallback-model") is None
    assert gateway.ask("POST", CHAT, chat_request(model="spare")).header("x-fallback-model") is None


def test_what_the_client_did_wrong_does_not_fall_back(stage: Stage) -> None:
    gateway, failing, sound = staged(stage, "closed", fallbacks=["spare"])
    assert failing is not None
    for status in (400, 403, 404, 409, 422):
        failing.answer = answers.error(status, "no")
        response = gateway.ask("POST", CHAT, chat_request())
        assert (response.status, response.header("x-should-retry")) == (status, None)
    assert not sound.requests


def test_what_may_have_had_an_effect_falls_back_only_if_it_was_never_sent(stage: Stage) -> None:
    gateway, _, sound = staged(stage, "closed", fallbacks=["spare"])
    assert gateway.ask("POST", "/v1/responses", chat_request()).status == 502
    assert not sound.requests
    gateway, _, sound = staged(stage, "refused", fallbacks=["spare"])
    assert gateway.ask("POST", "/v1/responses", chat_request()).status == 200
    assert len(sound.requests) == 1


def test_a_client_that_leaves_while_its_call_pauses_ends_it(stage: Stage, connect: Connect) -> None:
    upstream = stage.upstream(answers.error(503, "soon", ("retry-after", "1")))
    gateway = stage.gateway(configuration(backend(upstream)))
    client = stage.connect(gateway)
    client.chat()
    upstream.ledger.wait_requests(1)
    gateway.wait_gauge(0, "gateway_upstream_connections", state="busy")
    client.abort()
    line = gateway.wait_call(request_id=client.id)
    assert (line["ending"][0], line["tries"]) == ("C", 1)
    gateway.wait_gauge(0, "gateway_in_flight_requests")


def test_a_pause_is_as_long_as_the_upstream_asked(stage: Stage) -> None:
    """And as the same peer is the only one, it is asked again."""
    upstream = stage.upstream([answers.error(429, "soon", ("retry-after-ms", "300")), answers.chat("now")])
    gateway = stage.gateway(configuration(backend(upstream)))
    response = gateway.ask("POST", CHAT, chat_request())
    assert (response.status, response.body) == (200, answers.chat_body("now"))
    first, second = upstream.requests
    assert first.answered is not None and second.arrived - first.answered >= 0.299
    assert response.header("x-should-retry") is None
