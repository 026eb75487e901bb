"""Odd answers to translated calls: what must not be said to a client as it came, and what must not be forgotten."""

from __future__ import annotations

import json

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.process import Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Script

MESSAGES = "/v1/messages"


def question(*, stream: bool = False) -> bytes:
    return json.dumps(
        {"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    ).encode()


def in_front_of(stage: Stage, script: Script | list[Script], **fields: object) -> Gateway:
    return stage.gateway(configuration(backend(stage.upstream(script), **fields)))


@pytest.mark.parametrize("status", [300, 302, 304, 307])
def test_a_status_that_is_no_error_and_no_answer_becomes_one_whole_error(stage: Stage, status: int) -> None:
    """The body of a 304 would be taken for the next answer (RFC 9110 section 15.4.5)."""
    moved = answers.raw(answers.head(status, ("location", "/elsewhere"), ("content-length", "0")), then="close")
    gateway = in_front_of(stage, [moved, answers.model_server])
    client = stage.connect(gateway)
    client.request("POST", MESSAGES, question())
    response = client.response("POST")
    assert (response.status, response.json()["error"]["type"]) == (502, "api_error")
    client.request("POST", MESSAGES, question())
    assert client.response("POST").json()["type"] == "message"


@pytest.mark.parametrize("stream", [False, True])
def test_a_translated_refusal_says_when_to_come_again(stage: Stage, stream: bool) -> None:
    headers = [("retry-after", "7"), ("retry-after-ms", "6500"), ("x-should-retry", "false"), ("x-other", "1")]
    gateway = in_front_of(stage, answers.error(429, "slow down", *headers), retry={"tries": 1})
    response = gateway.ask("POST", MESSAGES, question(stream=stream))
    assert (response.status, response.json()["error"]["message"]) == (429, "slow down")
    assert [response.header(name) for name, _ in headers] == ["7", "6500", "false", None]


@pytest.mark.parametrize("door", ["/v1/chat/completions", MESSAGES])
def test_a_refusal_behind_a_heartbeat_is_about_the_request_and_opens_no_circuit(stage: Stage, door: str) -> None:
    gate = Gate()
    refusal = answers.error(400, "the prompt is too long")
    gateway = in_front_of(
        stage,
        [answers.stalled(gate, refusal), answers.model_server],
        heartbeat="100ms",
        breaker={"max_failures": 1, "reset": "60s"},
    )
    client = stage.connect(gateway)
    client.request("POST", door, question(stream=True))
    assert client.read_head("POST").status == 200
    gate.open()
    assert b"the prompt is too long" in client.finish().body
    assert gateway.ask("POST", door, question()).status == 200


def line_of(text: str) -> bytes:
    return json.dumps({"message": {"role": "assistant", "content": text}, "done": False}).encode() + b"\n"


@pytest.mark.parametrize(
    ("protocol", "type", "first", "last"),
    [
        ("openai", answers.SSE_TYPE, answers.event({"content": "first"}), answers.event({"content": "last"})),
        ("ollama", ("content-type", "application/x-ndjson"), line_of("first"), line_of("last")),
    ],
)
def test_what_came_in_one_read_with_an_error_is_told_before_it_and_at_once(
    stage: Stage, protocol: str, type: tuple[str, str], first: bytes, last: bytes
) -> None:
    gate = Gate()
    error = b'{"error":{"message":"out of memory","type":"server_error"}}\n'
    error = b"data: " + error + b"\n" if protocol == "openai" else error

    def script(x: Exchange) -> None:
        x.send(answers.head(200, type, ("transfer-encoding", "chunked")) + answers.chunk(first))
        x.stall(gate)
        x.send(answers.chunk(last + error))
        x.await_abort()

    gateway = in_front_of(stage, script, protocol=protocol)
    client = stage.connect(gateway)
    client.request("POST", MESSAGES, question(stream=True))
    assert client.read_head("POST").status == 200
    assert b"first" in b"".join(client.read_events(3))
    gate.open()
    body = client.finish().body
    assert 0 < body.index(b'"last"') < body.index(b"out of memory")


@pytest.mark.parametrize("prefill", [False, True])
def test_a_whole_completion_of_tgi_is_counted_by_its_head_where_its_body_is_not(stage: Stage, prefill: bool) -> None:
    details = {"finish_reason": "length", "generated_tokens": 5, "prefill": [{}] * 3 * prefill, "tokens": []}
    body = json.dumps({"generated_text": "Hello", "details": details}).encode()
    answer = answers.whole(200, body, ("X-Prompt-Tokens", "4"), ("x-generated-tokens", "5"))
    gateway = in_front_of(stage, answer, protocol="tgi", models=["m"])
    prompt = 3 if prefill else 4
    response = gateway.ask("POST", "/v1/completions", b'{"model":"m","prompt":"Hi"}')
    usage = {"prompt_tokens": prompt, "completion_tokens": 5, "total_tokens": prompt + 5}
    assert (response.status, response.json().get("usage")) == (200, usage)
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["prompt_tokens"], line["completion_tokens"]) == (prompt, 5)
    assert gateway.metrics().value("gateway_tokens_total", model="m", kind="prompt") == prompt
