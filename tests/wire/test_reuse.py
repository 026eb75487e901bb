"""An upstream connection is used again only where it is provably clean, and its loss costs no call."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable

import pytest

from tests.wire import answers, tls
from tests.wire.accepted import Gate
from tests.wire.client import Client, chat_request
from tests.wire.process import Configuration, Gateway, free_port, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Script, Upstream, at_head

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    return configuration(backend(module_upstream, pool={"idle_timeout": "60s"}))


def ok(gateway: Gateway, *headers: tuple[str, str]) -> None:
    response = gateway.ask("POST", CHAT, chat_request(), headers)
    assert (response.status, response.body) == (200, answers.chat_body()), response


def idle(gateway: Gateway, count: int) -> None:
    gateway.wait_gauge(count, "gateway_upstream_connections", state="idle")


def test_calls_one_after_another_share_a_connection(gateway: Gateway, upstream: Upstream) -> None:
    answer = [answers.chat(), answers.error(500), answers.stream(), answers.no_content(), answers.chat()]
    upstream.answer = [*answer]
    for number in range(len(answer)):
        assert gateway.ask("POST", CHAT, chat_request(stream=number == 2)).complete
    assert [request.index for request in upstream.requests] == [0, 1, 2, 3, 4]
    assert gateway.gauge("gateway_upstream_connections", state="idle") == 1


@pytest.mark.parametrize("last", [0, 1])
def test_the_connection_given_back_last_is_taken_first(
    connect: Connect, gateway: Gateway, upstream: Upstream, last: int
) -> None:
    gates = [Gate(), Gate()]
    upstream.answer = [answers.stalled(gates[0]), answers.stalled(gates[1]), answers.chat()]
    clients = [connect(), connect()]
    for count, client in enumerate(clients, 1):
        client.chat()
        upstream.ledger.wait_requests(count)
    for number in (1 - last, last):
        gates[number].open()
        assert clients[number].response().complete
    idle(gateway, 2)
    ok(gateway)
    assert len(upstream.ledger.connections) == 2
    assert upstream.ledger.last.connection is upstream.ledger.connections[last]


UNCLEAN: dict[str, Script] = {
    "says close": answers.chat("Hello", ("connection", "close")),
    "ends by closing": lambda x: answers.raw(answers.head(200, answers.JSON_TYPE) + answers.chat_body(), then="fin")(x),
    "speaks HTTP/1.0": answers.raw(
        answers.head(200, ("content-length", "2")).replace(b"HTTP/1.1", b"HTTP/1.0") + b"{}"
    ),
    "sends more than it said": answers.raw(answers.head(200, ("content-length", "2")) + b"{}{}"),
    "sends more after the last chunk": answers.raw(
        answers.sse_head() + answers.chunk(b"".join(answers.chat_events(1))) + answers.LAST_CHUNK + b"x"
    ),
    "answers twice": lambda x: answers.raw((answers.head(200, ("content-length", "2")) + b"{}") * 2)(x),
    "sends a body with 204": answers.raw(answers.head(204) + b"{}"),
    "cuts its body": answers.raw(answers.head(200, ("content-length", "5")) + b"{}", then="fin"),
}


@pytest.mark.parametrize("name", UNCLEAN)
def test_a_connection_is_given_up_after_an_answer_that(gateway: Gateway, upstream: Upstream, name: str) -> None:
    upstream.answer = UNCLEAN[name]
    gateway.ask("POST", CHAT, chat_request())
    upstream.ledger.wait_left(upstream.ledger.connections[0])
    upstream.answer = answers.chat()
    ok(gateway)
    assert [request.index for request in upstream.requests] == [0, 0]


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])
def test_an_answer_that_comes_before_the_request_is_sent_is_relayed_and_the_connection_given_up(
    stage: Stage, over_tls: bool
) -> None:
    secure = tls.server() if over_tls else None
    upstream = stage.upstream(at_head(answers.error(413, "too much")), tls=secure, receive_buffer=4096)
    trust = {"tls": {"ca_file": tls.CA}} if over_tls else {}
    gateway = stage.gateway(configuration(backend(upstream, **trust)))
    body = chat_request(user="x" * 8_000_000)
    response = gateway.ask("POST", CHAT, body)
    assert (response.status, response.body) == (413, answers.error_body("too much"))
    upstream.ledger.wait_left(upstream.ledger.connections[0])
    upstream.answer = answers.chat()
    ok(gateway)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_was_aborted_gives_its_connection_up(
    connect: Connect, gateway: Gateway, upstream: Upstream, stream: bool
) -> None:
    gate = Gate()
    upstream.answer = [answers.stalled(gate), answers.chat()]
    client = connect()
    client.chat(stream=stream)
    upstream.ledger.wait_requests(1)
    client.abort()
    upstream.ledger.wait_left(upstream.ledger.connections[0])
    ok(gateway)
    assert len(upstream.ledger.connections) == 2


def test_bytes_on_an_idle_connection_drop_it(gateway: Gateway, upstream: Upstream) -> None:
    ok(gateway)
    idle(gateway, 1)
    upstream.wires()[0].sock.send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
    upstream.ledger.wait_left(upstream.ledger.connections[0])
    idle(gateway, 0)
    ok(gateway)


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_an_idle_connection_that_the_upstream_closes_is_closed_at_once(
    gateway: Gateway, upstream: Upstream, how: int
) -> None:
    ok(gateway)
    idle(gateway, 1)
    upstream.wires()[0].sock.shutdown(how)
    idle(gateway, 0)
    ok(gateway)
    assert len(upstream.requests) == 2


def worn(how: str, then: Script | None = None) -> Script:
    """Answer a connection's first request; leave on its second without a word (or after *then*)."""

    def script(x: Exchange) -> None:
        if x.request.index == 0:
            answers.chat()(x)
        elif then is not None:
            then(x)
        else:
            getattr(x, how)()

    return script


@pytest.mark.parametrize("how", ["close", "rst"])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/moderations"])
def test_a_generation_lost_on_a_reused_connection_is_sent_once_more_on_a_fresh_one(
    gateway: Gateway, upstream: Upstream, how: str, path: str
) -> None:
    upstream.answer = worn(how)
    ok(gateway)
    before = gateway.gauge("gateway_retries_total")
    assert gateway.ask("POST", path, chat_request()).status == 200
    assert [request.index for request in upstream.requests] == [0, 1, 0]
    assert upstream.requests[1].body == upstream.requests[2].body
    assert gateway.gauge("gateway_retries_total") == before + 1


@pytest.mark.parametrize("how", ["close", "rst"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/audio/speech"])
def test_what_may_have_had_an_effect_is_not_sent_twice(
    gateway: Gateway, upstream: Upstream, how: str, path: str
) -> None:
    upstream.answer = worn(how)
    ok(gateway)
    assert gateway.ask("POST", path, chat_request()).status == 502
    assert [request.index for request in upstream.requests] == [0, 1]


def test_an_idempotency_key_allows_the_repetition(gateway: Gateway, upstream: Upstream) -> None:
    upstream.answer = worn("close")
    ok(gateway)
    response = gateway.ask("POST", "/v1/responses", chat_request(), (("Idempotency-Key", "k-1"),))
    assert response.status == 200
    assert [request.header("idempotency-key") for request in upstream.requests[1:]] == ["k-1", "k-1"]


@pytest.mark.parametrize(("path", "sends", "status"), [(CHAT, [0, 1, 0], 200), ("/v1/responses", [0, 1], 502)])
def test_half_a_head_is_asked_for_again_where_only_text_is_generated(
    gateway: Gateway, upstream: Upstream, path: str, sends: list[int], status: int
) -> None:
    upstream.answer = worn("close", answers.raw(b"HTTP/1.1 200 OK\r\ncontent-", then="close"))
    ok(gateway)
    assert gateway.ask("POST", path, chat_request()).status == status
    assert [request.index for request in upstream.requests] == sends


def test_what_is_lost_on_fresh_connections_too_is_sent_as_often_as_there_are_tries(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.answer = [answers.chat(), answers.raw(b"", then="close")]
    ok(gateway)
    assert gateway.ask("POST", CHAT, chat_request()).status == 502
    assert [request.index for request in upstream.requests] == [0, 1, 0, 0]


def test_no_call_fails_while_the_upstream_closes_idle_connections_at_random(
    connect: Connect, gateway: Gateway, upstream: Upstream
) -> None:
    """A server that ends each connection after two answers, without a word."""

    def script(x: Exchange) -> None:
        answers.chat()(x)
        if x.request.index == 1:
            x.close()

    upstream.answer = script
    client = connect()
    for _ in range(200):
        client.chat()
        assert client.response().status == 200


# --- peers that are out ---


def test_a_dead_peer_among_three_costs_no_call_and_one_try_per_cool_down(stage: Stage) -> None:
    alive = [stage.upstream(), stage.upstream()]
    dead = f"http://127.0.0.1:{free_port()}"
    gateway = stage.gateway(configuration(backend(dead, *alive)))
    client = stage.connect(gateway)
    start = time.monotonic()
    for _ in range(150):
        client.chat()
        assert client.response().status == 200
    elapsed = time.monotonic() - start
    tries = gateway.gauge("gateway_retries_total")
    assert tries <= cool_downs(elapsed)
    assert all(upstream.requests for upstream in alive)


def test_a_peer_that_loses_calls_is_tried_once_per_cool_down_and_costs_no_call(stage: Stage) -> None:
    alive = [stage.upstream(), stage.upstream()]
    lossy = stage.upstream(answers.raw(b"", then="close"))
    gateway = stage.gateway(configuration(backend(lossy, *alive)))
    client = stage.connect(gateway)
    start = time.monotonic()
    statuses = []
    for _ in range(150):
        client.chat()
        statuses.append(client.response().status)
    elapsed = time.monotonic() - start
    assert len(lossy.requests) <= cool_downs(elapsed)
    assert lossy.requests and statuses.count(200) == 150


def cool_downs(elapsed: float) -> int:
    """Tries that a dead peer may see in *elapsed* seconds: at 0, 1, 3, 7, ... (1 s, doubled each time)."""
    return 1 + math.floor(math.log2(1 + elapsed))


def test_a_peer_that_comes_back_is_used_again(stage: Stage) -> None:
    """Alone, it is tried with every call: where all peers are out, all are used."""
    port = free_port()
    gateway = stage.gateway(configuration(backend(f"http://127.0.0.1:{port}")))
    for _ in range(3):
        assert gateway.ask("POST", CHAT, chat_request()).status == 503
    stage.upstream(answers.chat(), port=port)
    ok(gateway)


def test_a_dead_peer_that_comes_back_gets_its_share_again(stage: Stage) -> None:
    port = free_port()
    alive = stage.upstream()
    gateway = stage.gateway(configuration(backend(alive, f"http://127.0.0.1:{port}", balance="round_robin")))
    for _ in range(4):
        ok(gateway)
    back = stage.upstream(port=port)

    def shared() -> bool:
        ok(gateway)
        return len(back.requests) >= 5

    wait_until(shared, "calls for the peer that is back", 10.0)
