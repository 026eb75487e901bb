"""A client that reads slowly slows its upstream down, costs no memory, and misses no byte."""

from __future__ import annotations

import time

import pytest

from tests.wire import answers, tls
from tests.wire.client import Client, chat_request
from tests.wire.process import Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Script, Upstream

CHAT = "/v1/chat/completions"
STREAMS = 20
#: Promised per answer that stalls, bytes.
PER_STREAM = 256 << 10
#: What TLS takes beside that: uvloop's read buffer (256 KiB), OpenSSL's own (a third more, and it never shrinks), the
#: pieces of one read until they are joined, and the session.
TLS_PER_STREAM = 1 << 20
#: Bytes that are nobody's: the allocator takes memory in arenas.
SLACK = 1 << 20


@pytest.fixture
def upstream(stage: Stage) -> Upstream:
    return stage.upstream()


@pytest.fixture
def gateway(stage: Stage, upstream: Upstream) -> Gateway:
    # Without dev mode: its allocator pads every block, and memory is measured here.
    return stage.gateway(configuration(backend(upstream)), dev=False)


def numbered(count: int, size: int = 1000) -> list[bytes]:
    return [answers.event({"content": f"{number} " + "x" * size}) for number in range(count)]


def stream_of(events: list[bytes]) -> Script:
    """All events as fast as they are taken, sixteen at a time."""
    chunks = [answers.chunk(b"".join(events[start : start + 16])) for start in range(0, len(events), 16)]

    def script(x: Exchange) -> None:
        x.send(answers.sse_head())
        for chunk in chunks:
            x.send(chunk)
        x.send(answers.chunk(answers.DONE) + answers.LAST_CHUNK)

    return script


def body_of(data: bytes) -> Script:
    def script(x: Exchange) -> None:
        x.send(answers.head(200, ("content-type", "audio/mpeg"), ("content-length", str(len(data)))) + data)

    return script


def slow_client(stage: Stage, gateway: Gateway, *, stream: bool = True) -> Client:
    client = stage.connect(gateway, receive_buffer=4096)
    client.chat(stream=stream)
    return client


def test_a_stream_that_was_held_up_arrives_whole(stage: Stage, gateway: Gateway, upstream: Upstream) -> None:
    events = numbered(30_000)
    upstream.answer = stream_of(events)
    client = slow_client(stage, gateway)
    upstream.ledger.wait_blocked()
    response = client.response()
    assert response.complete and response.body == b"".join(events) + answers.DONE
    upstream.ledger.wait(lambda: upstream.ledger.last.answered, "the upstream's end")


def test_a_body_that_was_held_up_arrives_whole(stage: Stage, gateway: Gateway, upstream: Upstream) -> None:
    data = answers.numbers(32 << 20)
    upstream.answer = body_of(data)
    client = slow_client(stage, gateway, stream=False)
    upstream.ledger.wait_blocked()
    assert client.response().body == data


def test_a_client_that_reads_in_fits_and_starts_misses_nothing(
    stage: Stage, gateway: Gateway, upstream: Upstream
) -> None:
    events = numbered(3000)
    upstream.answer = stream_of(events)
    client = slow_client(stage, gateway)
    response = client.read_head()
    while client.read_payload() is not None:
        if len(response.chunks) % 50 == 0:
            time.sleep(0.01)
    assert response.complete and response.body == b"".join(events) + answers.DONE


@pytest.mark.parametrize("stream", [True, False], ids=["streams", "bodies"])
@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])
def test_clients_that_do_not_read_cost_no_memory(stage: Stage, over_tls: bool, stream: bool) -> None:
    upstream = stage.upstream(tls=tls.server() if over_tls else None)
    trust = {"tls": {"ca_file": tls.CA}} if over_tls else {}
    gateway = stage.gateway(configuration(backend(upstream, **trust)), dev=False)
    upstream.answer = stream_of(numbered(30_000)) if stream else body_of(bytes(64 << 20))
    for _ in range(10):
        slow_client(stage, gateway, stream=stream)
    upstream.ledger.wait_blocked(10)
    before = gateway.rss()
    for _ in range(STREAMS):
        slow_client(stage, gateway, stream=stream)
    upstream.ledger.wait_blocked(10 + STREAMS)
    grown = gateway.rss() - before
    print(f"{grown / STREAMS / 1024:.0f} KiB for each of {STREAMS}")
    assert grown <= STREAMS * (PER_STREAM + (TLS_PER_STREAM if over_tls else 0)) + SLACK


def test_a_line_without_an_end_costs_no_memory(stage: Stage, gateway: Gateway, upstream: Upstream) -> None:
    """What is held back for its end has a cap; past it the bytes flow."""
    size = 48 << 20

    def script(x: Exchange) -> None:
        x.send(answers.sse_head() + answers.chunk(answers.chat_events(1)[0]))
        for _ in range(size >> 16):
            x.send(answers.chunk(b"x" * (1 << 16)))
        x.send(answers.LAST_CHUNK)

    upstream.answer = script
    before = gateway.rss()
    client = stage.connect(gateway)
    client.chat(stream=True)
    client.read_head()
    received = peak = 0
    while (piece := client.read_payload()) is not None:
        received += len(piece)
        client.forget()
        peak = max(peak, gateway.rss())
    assert received >= size
    assert peak - before <= 8 << 20


def test_one_slow_client_does_not_slow_the_others(stage: Stage, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answer = stream_of(numbered(30_000))
    slow_client(stage, gateway)
    upstream.ledger.wait_blocked()
    upstream.answer = answers.model_server
    assert all(gateway.ask("POST", CHAT, chat_request(stream=True)).complete for _ in range(20))


def test_an_upstream_that_reads_slowly_gets_the_whole_request(stage: Stage) -> None:
    upstream = stage.upstream(receive_buffer=4096)
    gateway = stage.gateway(configuration(backend(upstream)))
    body = chat_request(user="x" * 7_000_000)
    assert gateway.ask("POST", CHAT, body, timeout=20.0).status == 200
    assert len(upstream.ledger.last.body) >= 7_000_000
    gateway.wait_gauge(0, "gateway_body_budget_bytes")
