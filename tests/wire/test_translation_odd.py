"""Odd calls of one dialect in front of another: heartbeats, requests that are too deep or too wide, compressed ones."""

from __future__ import annotations

import json

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upsets import (
    NATIVE,
    PROTOCOLS,
    TRANSLATED,
    WORDS,
    check_refusal,
    is_error,
    parts,
    request,
    stream,
    text,
)
from tests.wire.upstream import Upstream

BEAT = b": keep-alive\n\n"
translated = pytest.mark.parametrize(("door", "protocol"), TRANSLATED)
EVENTS = [pair for pair in TRANSLATED if pair[0] != "/api/chat"]


@pytest.fixture(scope="module")
def servers(module_stage: Stage) -> dict[str, Upstream]:
    return {protocol: module_stage.upstream() for protocol in PROTOCOLS}


@pytest.fixture(scope="module")
def config(servers: dict[str, Upstream]) -> Configuration:
    more = {"heartbeat": "100ms", "retry": {"tries": 1}}
    return configuration(
        *(backend(servers[one], name=one, protocol=one, models=[one], native=NATIVE[one], **more) for one in PROTOCOLS),
        routes=[{"model": "lenient", "targets": ["anthropic"], "lenient": True}],
    )


@pytest.mark.parametrize(("door", "protocol"), EVENTS)
def test_a_stream_that_waits_is_kept_alive_and_then_translated(
    module_stage: Stage, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    gate, words = Gate(), WORDS[protocol]
    servers[protocol].answer = answers.stalled(gate, stream(words, words.begin, words.end))
    client = module_stage.connect(gateway)
    client.request("POST", door, request(door, protocol, stream=True))
    assert client.read_head("POST").status == 200
    assert client.read_events(2)[:2] == [BEAT, BEAT]
    gate.open()
    response = client.finish()
    assert response.complete and text(door, parts(door, response.body)) == "Hi"


@pytest.mark.parametrize(("door", "protocol"), EVENTS)
@pytest.mark.parametrize("status", [400, 503])
def test_what_fails_behind_heartbeats_is_one_error_event(
    module_stage: Stage, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, status: int
) -> None:
    gate = Gate()
    servers[protocol].answer = answers.stalled(gate, answers.whole(status, WORDS[protocol].refusal))
    client = module_stage.connect(gateway)
    client.request("POST", door, request(door, protocol, stream=True))
    assert client.read_head("POST").status == 200
    client.read_events(1)
    gate.open()
    response = client.finish()
    assert not response.complete and response.ended == "fin"
    found = parts(door, response.body)
    assert [is_error(door, part) for part in found].count(True) == 1 and b"It broke." in response.body


def test_a_head_that_is_sent_early_says_what_was_left_out(
    module_stage: Stage, gateway: Gateway, servers: dict[str, Upstream]
) -> None:
    gate, words, door = Gate(), WORDS["anthropic"], "/v1/chat/completions"
    servers["anthropic"].answer = answers.stalled(gate, stream(words, words.begin, words.end))
    client = module_stage.connect(gateway)
    client.request("POST", door, request(door, "lenient", stream=True, seed=7))
    assert client.read_head("POST").header("x-dropped-fields") == "seed"
    assert client.read_events(1) == [BEAT]
    gate.open()
    assert client.finish().complete


@pytest.mark.parametrize("protocol", [protocol for door, protocol in TRANSLATED if door == "/api/chat"])
def test_lines_have_no_heartbeats(
    module_stage: Stage, gateway: Gateway, servers: dict[str, Upstream], protocol: str
) -> None:
    gate, words = Gate(), WORDS[protocol]
    servers[protocol].answer = answers.stalled(gate, stream(words, words.begin, words.end))
    client = module_stage.connect(gateway)
    client.request("POST", "/api/chat", request("/api/chat", protocol, stream=True))
    servers[protocol].ledger.wait_requests(1)
    assert gateway.ask("GET", "/health/live").status == 200  # the sweep went on meanwhile
    gate.open()
    response = client.response("POST")
    assert response.complete and BEAT not in response.body


def tools(door: str, schema: object) -> object:
    if door == "/v1/messages":
        return [{"name": "f", "input_schema": schema}]
    function = {"name": "f", "parameters": schema}
    if door == "/v1/responses":
        return [{"type": "function", "strict": False, **function}]
    return [{"type": "function", "function": function}]


@translated
@pytest.mark.parametrize("depth", [10, 100, 200, 400, 2000, 20_000])
def test_a_deep_request_is_asked_or_refused(
    gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, depth: int
) -> None:
    servers[protocol].answer = answers.whole(200, WORDS[protocol].whole)
    # json.dumps would not go so deep
    inner = b'{"type":"object","properties":{"a":' * depth + b'{"type":"string"}' + b"}}" * depth
    mark = json.dumps(tools(door, "MARK")).encode().replace(b'"MARK"', inner)
    body = request(door, protocol, stream=False)[:-1] + b', "tools": ' + mark + b"}"
    response = gateway.ask("POST", door, body)
    assert response.status in ((200,) if depth == 10 else (200, 400)), response
    if response.status == 400:
        check_refusal(door, response)
        assert not servers[protocol].requests


@translated
def test_a_wide_request_is_refused(gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str) -> None:
    body = request(door, protocol, stream=False)[:-1] + b', "metadata": [' + b"1," * 600_000 + b"1]}"
    response = gateway.ask("POST", door, body)
    assert response.status == 400 and "elements" in check_refusal(door, response)
    assert not servers[protocol].requests
