"""A stream in another dialect ends for its client once the backend said its end, whatever the backend's body does then.

What is left of that body belongs to nobody: its connection serves again when it ends soon, and is closed when not.
"""

from __future__ import annotations

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import build_request
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upsets import NATIVE, PROTOCOLS, TRANSLATED, WORDS, Words, parts, request, text
from tests.wire.upstream import Exchange, Script, Upstream

translated = pytest.mark.parametrize(("door", "protocol"), TRANSLATED)
every_protocol = pytest.mark.parametrize(
    ("door", "protocol"), [next(pair for pair in TRANSLATED if pair[1] == one) for one in PROTOCOLS]
)


@pytest.fixture(scope="module")
def servers(module_stage: Stage) -> dict[str, Upstream]:
    return {protocol: module_stage.upstream() for protocol in PROTOCOLS}


@pytest.fixture(scope="module")
def config(servers: dict[str, Upstream]) -> Configuration:
    more = {"timeouts": {"idle": "60s"}, "retry": {"tries": 1}}
    return configuration(
        *(backend(servers[one], name=one, protocol=one, models=[one], native=NATIVE[one], **more) for one in PROTOCOLS)
    )


def begin(words: Words) -> bytes:
    return answers.head(200, words.type, ("transfer-encoding", "chunked")) + answers.chunk(words.begin)


def lingering(words: Words, *, at_once: bool) -> Script:
    """A whole stream whose body never ends. *at_once*: all of it in one write."""

    def script(x: Exchange) -> None:
        if at_once:
            x.send(begin(words) + answers.chunk(words.end))
        else:
            x.send(begin(words))
            x.sleep(0.002)
            x.send(answers.chunk(words.end))
        x.await_abort()

    return script


def ending_late(words: Words, gate: Gate) -> Script:
    """A whole stream whose body ends at *gate*."""

    def script(x: Exchange) -> None:
        x.send(begin(words) + answers.chunk(words.end))
        x.stall(gate)
        x.send(answers.LAST_CHUNK)

    return script


@pytest.mark.parametrize("at_once", [True, False], ids=["in one read", "in pieces"])
@translated
def test_the_client_has_all_of_it_while_the_upstream_keeps_its_body_open(
    module_stage: Stage, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, at_once: bool
) -> None:
    server = servers[protocol]
    server.answer = lingering(WORDS[protocol], at_once=at_once)
    client = module_stage.connect(gateway)
    client.request("POST", door, request(door, protocol, stream=True))
    response = client.response("POST")
    assert response.complete and text(door, parts(door, response.body)) == "Hi"
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["ending"], line["fault"], line["status"], line["tries"]) == ("--", None, 200, 1)


@every_protocol
def test_a_connection_whose_body_does_not_end_is_left_soon_and_counts_nothing(
    module_stage: Stage, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    server, count = servers[protocol], "gateway_upstream_requests_total"
    server.answer = lingering(WORDS[protocol], at_once=False)
    before = gateway.metrics().value(count, upstream=protocol)
    response = gateway.ask("POST", door, request(door, protocol, stream=True))
    assert response.complete
    server.ledger.wait_left(server.requests[-1].connection, 5.0)
    gateway.wait_gauge(0, "gateway_upstream_connections", upstream=protocol, state="busy")
    assert gateway.metrics().value(count, upstream=protocol) == before + 1
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["ending"], line["fault"]) == ("--", None)
    assert len(gateway.calls(request_id=line["request_id"])) == 1


@every_protocol
def test_the_next_call_of_the_client_is_answered_meanwhile_and_on_another_connection(
    module_stage: Stage, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    server, gate = servers[protocol], Gate()
    server.answer = [ending_late(WORDS[protocol], gate), ending_late(WORDS[protocol], gate)]
    client = module_stage.connect(gateway)
    client.send(build_request("POST", door, request(door, protocol, stream=True)) * 2)
    for _ in range(2):
        response = client.response("POST")
        assert response.complete and text(door, parts(door, response.body)) == "Hi"
    first, second = server.requests[-2:]
    assert first.connection is not second.connection
    gate.open()


@every_protocol
def test_a_connection_whose_body_ends_soon_serves_again(
    module_stage: Stage, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    server, gate = servers[protocol], Gate()
    server.answer = ending_late(WORDS[protocol], gate)
    server.drop_connections()
    gateway.wait_gauge(0, "gateway_upstream_connections", upstream=protocol, state="idle")
    client = module_stage.connect(gateway)
    client.request("POST", door, request(door, protocol, stream=True))
    assert client.response("POST").complete
    assert gateway.gauge("gateway_upstream_connections", upstream=protocol, state="idle") == 0
    gate.open()
    gateway.wait_gauge(1, "gateway_upstream_connections", upstream=protocol, state="idle")
    client.request("POST", door, request(door, protocol, stream=True))
    assert client.response("POST").complete
    first, second = server.requests[-2:]
    assert first.connection is second.connection


@every_protocol
def test_an_upstream_that_does_not_stop_talking_is_left(
    module_stage: Stage, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    words, server = WORDS[protocol], servers[protocol]

    def script(x: Exchange) -> None:
        x.send(begin(words) + answers.chunk(words.end))
        for _ in range(1 << 10):
            x.send(answers.chunk(b"\n" * (1 << 16)))
        x.await_abort()

    server.answer = script
    client = module_stage.connect(gateway)
    client.request("POST", door, request(door, protocol, stream=True))
    assert client.response("POST").complete
    server.ledger.wait_left(server.requests[-1].connection, 5.0)
    sent = server.requests[-1].bytes_sent
    assert sent < 32 << 20, "an upstream was read although nobody wanted it"
