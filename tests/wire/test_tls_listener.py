"""Clients over TLS: the same promises as without."""

from __future__ import annotations

import json
import socket
import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.wire import answers, tls
from tests.wire.accepted import Gate
from tests.wire.client import Client, build_request, chat_request
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
FAILED = "gateway_client_connections_failed_total"
Connect = Callable[..., Client]

leaving = pytest.mark.parametrize("leave", [Client.close, Client.abort], ids=["close", "rst"])
streaming = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    limits = {"body_limit": "64KiB", "tls": tls.LISTENER}
    return configuration(backend(module_upstream), server=limits)


def over_tls(stage: Stage, upstream: Upstream, listener: dict[str, Any] | None = None, **server: Any) -> Gateway:
    return stage.gateway(
        configuration(backend(upstream), server={"tls": {**tls.LISTENER, **(listener or {})}, **server})
    )


def version(client: Client) -> str | None:
    assert isinstance(client.sock, ssl.SSLSocket)
    return client.sock.version()


# --- calls ---


def test_calls_share_a_connection(connect: Connect, gateway: Gateway) -> None:
    client = connect()
    for stream in (False, True, False):
        client.chat(stream=stream)
        response = client.response()
        assert response.status == 200 and response.complete
    assert gateway.wait_call(3, request_id=client.id)["client"] == "127.0.0.1"


def test_what_is_spoken_is_http_1_1_over_tls_1_2_or_1_3(connect: Connect) -> None:
    client = connect()
    assert isinstance(client.sock, ssl.SSLSocket)
    assert (version(client), client.sock.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
    older = tls.client()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    client = connect(tls=older)
    client.chat()
    assert (version(client), client.response().status) == ("TLSv1.2", 200)


def test_tls_1_1_is_refused(gateway: Gateway, connect: Connect) -> None:
    context = tls.client()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        connect(tls=context)


def test_requests_split_anywhere_and_pipelined_are_answered_in_order(connect: Connect) -> None:
    client = connect()
    request = build_request("POST", CHAT, chat_request())
    client.dribble(request[:40])
    client.send(request[40:] + request + request)
    assert [client.response().status for _ in range(3)] == [200, 200, 200]


def test_bodies_of_many_records_arrive_whole_both_ways(stage: Stage) -> None:
    body = bytes(range(256)) * 20_000
    upstream = stage.upstream(answers.whole(200, body))
    gateway = over_tls(stage, upstream)
    sent = chat_request(user="x" * 3_000_000)
    assert gateway.ask("POST", CHAT, sent, timeout=20.0).body == body
    assert json.loads(upstream.ledger.last.body) == json.loads(sent)


def test_a_stream_to_a_client_that_reads_slowly_arrives_whole(stage: Stage) -> None:
    events = [answers.event({"content": f"{number} " + "x" * 1000}) for number in range(10_000)]

    def script(x: Exchange) -> None:
        x.send(answers.sse_head())
        for at in range(0, len(events), 16):
            x.send(answers.chunk(b"".join(events[at : at + 16])))
        x.send(answers.chunk(answers.DONE) + answers.LAST_CHUNK)

    upstream = stage.upstream(script)
    client = stage.connect(over_tls(stage, upstream), receive_buffer=4096)
    client.chat(stream=True)
    upstream.ledger.wait_blocked()
    response = client.response()
    assert response.complete and response.body == b"".join(events) + answers.DONE


# --- a client that leaves ---


@leaving
@streaming
def test_a_client_that_leaves_while_it_waits_is_noticed(
    connect: Connect, upstream: Upstream, gateway: Gateway, leave: Callable[[Client], None], stream: bool
) -> None:
    upstream.answer = answers.await_abort
    client = connect()
    client.chat(stream=stream)
    upstream.ledger.wait_requests(1)
    leave(client)
    upstream.ledger.wait_abort(1.0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "CH"


@leaving
def test_a_client_that_leaves_amid_a_stream_is_noticed(
    connect: Connect, upstream: Upstream, gateway: Gateway, leave: Callable[[Client], None]
) -> None:
    upstream.answer = answers.stalled_stream(Gate(), answers.chat_events(2))
    client = connect()
    client.chat(stream=True)
    client.read_head()
    client.read_events(2)
    leave(client)
    upstream.ledger.wait_abort(1.0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "CD"


@leaving
def test_a_client_that_is_not_read_is_noticed_when_it_leaves(
    connect: Connect, upstream: Upstream, gateway: Gateway, leave: Callable[[Client], None]
) -> None:
    upstream.answer = answers.await_abort
    client = connect()
    client.chat(stream=True)
    upstream.ledger.wait_requests(1)
    client.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 3000)
    leave(client)
    upstream.ledger.wait_abort(1.0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "CH"


def say_fin(client: Client) -> None:
    """FIN, and no close_notify. (SSLSocket's own shutdown forgets that it spoke TLS.)"""
    socket.socket.shutdown(client.sock, socket.SHUT_WR)


def say_notify(client: Client) -> None:
    """close_notify, and no FIN: the client will send no more, but reads."""
    assert isinstance(client.sock, ssl.SSLSocket)
    client.sock.setblocking(False)
    with suppress(OSError):  # the gateway's own has hardly come yet
        client.sock.unwrap()
    client.sock.settimeout(client.timeout)


@pytest.mark.parametrize("end", [say_notify, say_fin], ids=["close_notify", "fin"])
def test_a_client_that_will_send_no_more_has_left(
    connect: Connect, upstream: Upstream, gateway: Gateway, end: Callable[[Client], None]
) -> None:
    upstream.answer = answers.await_abort
    client = connect()
    client.chat()
    upstream.ledger.wait_requests(1)
    end(client)
    upstream.ledger.wait_abort(1.0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "CH"


@pytest.mark.parametrize("end", [say_notify, say_fin], ids=["close_notify", "fin"])
def test_a_client_that_will_send_no_more_is_served_where_that_is_asked_for(
    stage: Stage, end: Callable[[Client], None]
) -> None:
    gate = Gate()
    upstream = stage.upstream(answers.stalled(gate))
    client = stage.connect(over_tls(stage, upstream, half_close="serve"))
    client.chat()
    upstream.ledger.wait_requests(1)
    end(client)
    gate.open()
    response = client.response()
    assert response.status == 200 and response.complete
    assert client.read_end() == b"" and client.ended == "fin"


# --- the end of a connection ---


def test_the_last_answer_ends_with_close_notify(connect: Connect) -> None:
    """Without it a client could not tell the end from a cut: OpenSSL raises then."""
    client = connect()
    client.request("GET", "/health", headers=[("Connection", "close")])
    assert client.response().complete
    assert client.read_end() == b"" and client.ended == "fin"


def test_an_early_answer_is_received_by_a_client_that_sends_on(connect: Connect) -> None:
    client = connect()
    client.send(build_request("POST", CHAT, chat_request(user="x" * 700_000)))
    response = client.response()
    assert (response.status, response.code, response.complete) == (413, "body_too_large", True)
    assert client.read_end() == b"" and client.ended == "fin"


def test_an_upstream_that_breaks_never_looks_like_an_end(connect: Connect, upstream: Upstream) -> None:
    def script(x: Exchange) -> None:
        x.send(answers.head(200, answers.JSON_TYPE, ("content-length", "100")) + b"{")
        x.close()

    upstream.answer = script
    client = connect()
    client.chat()
    assert not client.response().complete


def test_running_calls_end_and_idle_connections_close_in_a_drain(stage: Stage) -> None:
    gate = Gate()
    upstream = stage.upstream(answers.stalled(gate))
    gateway = over_tls(stage, upstream)
    idle, busy = stage.connect(gateway), stage.connect(gateway)
    busy.chat()
    upstream.ledger.wait_requests(1)
    gateway.process.terminate()
    assert idle.read_end() == b"" and idle.ended == "fin"
    gate.open()
    response = busy.response()
    assert response.status == 200 and response.header("connection") == "close"
    assert busy.read_end() == b""
    gateway.wait_exit(0)
