"""A client that leaves a translated call stops its upstream at once; one that reads slowly slows it down."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.client import Client
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upsets import (
    HUGE,
    NATIVE,
    PROTOCOLS,
    TRANSLATED,
    WORDS,
    Words,
    anthropic_text,
    check_broken,
    flood,
    line,
    parts,
    request,
    text,
    tgi_chunk,
)
from tests.wire.upstream import Exchange, Script, Upstream

translated = pytest.mark.parametrize(("door", "protocol"), TRANSLATED)
leaving = pytest.mark.parametrize("leave", [Client.close, Client.abort], ids=["close", "rst"])
Connect = Callable[..., Client]
Leave = Callable[[Client], None]
SIZE = 1000


def piece(protocol: str, said: str) -> bytes:
    """More of a stream that was begun."""
    if protocol == "openai":
        return answers.event({"content": said})
    if protocol == "anthropic":
        return anthropic_text(said)
    return line(message={"role": "assistant", "content": said}, done=False) if protocol == "ollama" else tgi_chunk(said)


@pytest.fixture(scope="module")
def servers(module_stage: Stage) -> dict[str, Upstream]:
    return {protocol: module_stage.upstream() for protocol in PROTOCOLS}


@pytest.fixture(scope="module")
def config(servers: dict[str, Upstream]) -> Configuration:
    return configuration(
        *(backend(servers[one], name=one, protocol=one, models=[one], native=NATIVE[one]) for one in PROTOCOLS)
    )


@pytest.fixture(scope="module")
def module_gateway(module_stage: Stage, config: Configuration) -> Gateway:
    # Without dev mode: its allocator pads every block, and memory is measured here.
    return module_stage.gateway(config, dev=False)


def numbered(protocol: str, count: int) -> Script:
    """A stream of *count* numbered pieces as fast as they are taken, sixteen at a time."""
    words = WORDS[protocol]
    pieces = [piece(protocol, f"{number} " + "x" * SIZE) for number in range(count)]
    chunks = [answers.chunk(b"".join(pieces[at : at + 16])) for at in range(0, count, 16)]

    def script(x: Exchange) -> None:
        x.send(answers.head(200, words.type, ("transfer-encoding", "chunked")) + answers.chunk(words.begin))
        for chunk in chunks:
            x.send(chunk)
        x.send(answers.chunk(words.end) + answers.LAST_CHUNK)

    return script


def held(words: Words, sent: threading.Event, *pieces: bytes, whole: bool = False) -> Script:
    """Send *pieces* of an answer, say so, and wait for the peer to leave."""

    def script(x: Exchange) -> None:
        more = ("content-length", "100000") if whole else ("transfer-encoding", "chunked")
        x.send(answers.head(200, answers.JSON_TYPE if whole else words.type, more))
        for one in pieces:
            x.send(one if whole else answers.chunk(one))
        sent.set()
        x.await_abort()

    return script


def check_left(gateway: Gateway, server: Upstream, client: Client, ending: str) -> None:
    server.ledger.wait_abort(1.0)
    told = gateway.wait_call(request_id=client.id)
    assert (told["ending"], told["fault"]) == (ending, "client_closed_request")
    assert told["status"] == (200 if ending == "CD" else 499)


@leaving
@translated
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_while_it_waits_for_the_head(
    connect: Connect,
    gateway: Gateway,
    servers: dict[str, Upstream],
    door: str,
    protocol: str,
    streams: bool,
    leave: Leave,
) -> None:
    servers[protocol].answer = answers.await_abort
    client = connect()
    client.request("POST", door, request(door, protocol, stream=streams))
    servers[protocol].ledger.wait_requests(1)
    leave(client)
    check_left(gateway, servers[protocol], client, "CH")


@leaving
@translated
@pytest.mark.parametrize("streams", [False, True], ids=["collecting", "on probation"])
def test_while_nothing_was_told_yet(
    connect: Connect,
    gateway: Gateway,
    servers: dict[str, Upstream],
    door: str,
    protocol: str,
    streams: bool,
    leave: Leave,
) -> None:
    words, sent = WORDS[protocol], threading.Event()
    pieces = [words.begin[:20]] if streams else [words.whole[:20], words.whole[20:40]]
    servers[protocol].answer = held(words, sent, *pieces, whole=not streams)
    client = connect()
    client.request("POST", door, request(door, protocol, stream=streams))
    assert sent.wait(5)
    gateway.wait_gauge(1, "gateway_in_flight_requests")
    leave(client)
    server = servers[protocol]
    server.ledger.wait_abort(1.0)
    told = gateway.wait_call(request_id=client.id)
    assert told["ending"] in ("CP", "CH") and told["status"] == 499  # the head may have been on its way


@leaving
@translated
def test_in_the_middle_of_a_stream(
    connect: Connect, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, leave: Leave
) -> None:
    words = WORDS[protocol]
    servers[protocol].answer = held(words, threading.Event(), words.begin)
    client = connect()
    client.request("POST", door, request(door, protocol, stream=True))
    response = client.read_head("POST")
    while "Hi" not in text(door, parts(door, response.body)):
        assert client.read_payload() is not None
    leave(client)
    check_left(gateway, servers[protocol], client, "CD")


@leaving
@pytest.mark.parametrize(("door", "protocol"), [pair for pair in TRANSLATED if pair[0] != "/v1/responses"])
def test_while_the_upstream_is_paused(
    connect: Connect, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, leave: Leave
) -> None:
    servers[protocol].answer = numbered(protocol, 20_000)
    client = connect(receive_buffer=4096)
    client.request("POST", door, request(door, protocol, stream=True))
    servers[protocol].ledger.wait_blocked()
    leave(client)
    check_left(gateway, servers[protocol], client, "CD")


@pytest.mark.parametrize(
    ("door", "protocol"), [("/v1/messages", "openai"), ("/api/chat", "anthropic"), ("/v1/chat/completions", "ollama")]
)
def test_a_slow_client_misses_nothing_and_costs_little(
    connect: Connect, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    count = 20_000
    servers[protocol].answer = numbered(protocol, count)
    warm = connect(receive_buffer=4096)
    warm.request("POST", door, request(door, protocol, stream=True))
    servers[protocol].ledger.wait_blocked()
    before = gateway.rss()
    clients = [connect(receive_buffer=4096) for _ in range(5)]
    for client in clients:
        client.request("POST", door, request(door, protocol, stream=True))
    servers[protocol].ledger.wait_blocked(6)
    assert gateway.rss() - before <= 5 * (1 << 20) + (1 << 20), "twenty million bytes of each wait upstream"
    client = clients[0]
    client.sock.settimeout(20)
    response = client.response("POST")
    said = text(door, parts(door, response.body))
    assert response.complete
    assert [int(one) for one in said.removeprefix("Hi").replace("x", "").split()] == list(range(count))


@pytest.mark.parametrize(
    ("door", "protocol"),
    [
        ("/v1/messages", "openai"),
        ("/v1/responses", "openai"),
        ("/v1/chat/completions", "anthropic"),
        ("/api/chat", "openai"),
        ("/api/chat", "anthropic"),
    ],
)
def test_arguments_without_an_end_cost_no_memory(
    connect: Connect, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    """Where they can be told as they come they flow on; where they have to be whole first, they are bounded."""
    words = WORDS[protocol]
    assert words.call is not None
    begin, more = words.call
    servers[protocol].answer = flood(words, begin, more=more * 16, size=HUGE)
    before = gateway.rss()
    client = connect()
    client.request("POST", door, request(door, protocol, stream=True))
    client.read_head("POST")
    peak = 0
    while client.read_payload() is not None:
        client.forget()
        peak = max(peak, gateway.rss())
    told = gateway.wait_call(request_id=client.id)
    assert told["ending"] == "UD"
    assert peak - before <= 16 << 20


@translated
def test_a_long_part_costs_no_memory(
    connect: Connect, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    words = WORDS[protocol]
    servers[protocol].answer = flood(words, words.begin, words.long)
    before = gateway.rss()
    client = connect()
    client.request("POST", door, request(door, protocol, stream=True))
    check_broken(door, client.response("POST"))
    assert gateway.rss() - before <= 8 << 20


@translated
def test_a_whole_answer_without_an_end_is_bounded(
    connect: Connect, gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    servers[protocol].answer = flood(WORDS[protocol]._replace(type=answers.JSON_TYPE), b'{"x":"')
    client = connect(timeout=20.0)
    client.request("POST", door, request(door, protocol, stream=False))
    response = client.response("POST")
    assert response.status == 502 and b"longer than" in response.body
    servers[protocol].ledger.wait_abort(5.0)
