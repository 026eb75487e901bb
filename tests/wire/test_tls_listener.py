"""Clients over TLS: the same promises as without, and a handshake that is bounded in time and number."""

from __future__ import annotations

import json
import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.wire import answers, tls
from tests.wire.accepted import Gate
from tests.wire.client import Client, build_request, chat_request
from tests.wire.process import Configuration, Gateway, start_in_vain, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
FAILED = "gateway_client_connections_failed_total"
Connect = Callable[..., Client]

leaving = pytest.mark.parametrize("leave", [Client.close, Client.abort], ids=["close", "rst"])
streaming = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    listener = {**tls.LISTENER, "handshake_timeout": "700ms"}
    limits = {"header_timeout": "700ms", "body_limit": "64KiB", "tls": listener}
    return configuration(backend(module_upstream), server=limits)


def over_tls(stage: Stage, upstream: Upstream, listener: dict[str, Any] | None = None, **server: Any) -> Gateway:
    return stage.gateway(
        configuration(backend(upstream), server={"tls": {**tls.LISTENER, **(listener or {})}, **server})
    )


def plain(gateway: Gateway) -> Client:
    """A connection on which no TLS was spoken yet."""
    return Client(gateway.port, gateway.host)


def hello() -> bytes:
    """A client's first flight."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        tls.client().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


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
    with pytest.raises(ssl.SSLWantReadError):
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


# --- handshakes ---


@pytest.mark.parametrize("sent", [0, 1, 100, None], ids=["nothing", "1 B", "100 B", "all of the first flight"])
def test_a_handshake_that_does_not_end_is_dropped_in_time_and_counted(gateway: Gateway, sent: int | None) -> None:
    before = gateway.gauge(FAILED, reason="handshake_timeout")
    client = plain(gateway)
    client.send(hello()[:sent])
    client.read_end()
    assert client.ended in ("fin", "rst")
    client.close()
    assert gateway.gauge(FAILED, reason="handshake_timeout") == before + 1


def test_a_handshake_that_drips_is_dropped_all_the_same(gateway: Gateway) -> None:
    client = plain(gateway)
    client.sock.settimeout(0.02)
    for byte in hello():
        try:
            client.send(bytes([byte]))
            if client.sock.recv(100) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    else:
        pytest.fail("it was read to its end")
    client.close()


def test_a_client_that_leaves_amid_the_handshake_is_counted(gateway: Gateway) -> None:
    before = gateway.gauge(FAILED, reason="client_left")
    client = plain(gateway)
    client.send(hello()[:50])
    client.close()
    gateway.wait_gauge(before + 1, FAILED, reason="client_left")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_that_speaks_plain_http_is_told_so(gateway: Gateway, method: str) -> None:
    before = gateway.gauge(FAILED, reason="plain_text")
    client = plain(gateway)
    client.request(method, CHAT, chat_request() if method == "POST" else None)
    response = client.response()
    assert response.status == 400 and "https" in response.json()["error"]["message"]
    assert client.read_end() == b"" and client.ended == "fin"
    client.close()
    assert gateway.gauge(FAILED, reason="plain_text") == before + 1


@pytest.mark.parametrize("data", [b"\x00" * 500, b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000])
def test_a_client_that_speaks_anything_else_is_ended(gateway: Gateway, data: bytes) -> None:
    before = gateway.gauge(FAILED, reason="handshake")
    client = plain(gateway)
    try:
        client.send(data)
    except OSError:
        pass
    client.read_end()
    client.close()
    assert gateway.gauge(FAILED, reason="handshake") == before + 1


def test_a_broken_record_ends_its_connection_and_no_other(connect: Connect, gateway: Gateway) -> None:
    good, bad = connect(), connect()
    assert isinstance(bad.sock, ssl.SSLSocket)
    with socket.socket(fileno=bad.sock.detach()) as raw:
        raw.settimeout(5.0)
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        try:
            while raw.recv(1000):
                pass
        except ConnectionResetError:
            pass
    good.chat()
    assert good.response().status == 200


def test_stalled_handshakes_make_room_before_their_time_where_others_wait(stage: Stage) -> None:
    gateway = over_tls(stage, stage.upstream(), {"handshake_timeout": "60s", "max_handshakes": 1})
    stalled = [plain(gateway) for _ in range(2)]
    for client in stalled:
        client.send(hello())
    stalled[0].sock.recv(1)  # the answer to it: its handshake runs, and the other one waits
    client = stage.connect(gateway, timeout=10.0)
    client.chat()
    assert client.response().status == 200
    for client in stalled:
        client.read_end()
        client.close()
    assert gateway.gauge(FAILED, reason="handshake_timeout") == 2


def test_connections_that_shake_hands_count_among_those_that_may_be_open(stage: Stage) -> None:
    gateway = over_tls(stage, stage.upstream(), max_connections=3)
    silent = [plain(gateway) for _ in range(3)]
    with pytest.raises(OSError, match=r"reset|EOF|violation"):
        stage.connect(gateway)
    for client in silent:
        client.close()

    def is_served() -> bool:
        try:
            return gateway.ask("GET", "/health").status == 200
        except OSError:
            return False

    wait_until(is_served, "a place")
    assert gateway.gauge(FAILED, reason="too_many") >= 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nX-Slow: a"], ids=["silent", "slow head"])
def test_500_slow_clients_leave_other_calls_unharmed(stage: Stage, sent: bytes) -> None:
    gateway = over_tls(stage, stage.upstream(), header_timeout="60s")
    slow = [stage.connect(gateway, timeout=30.0) for _ in range(500)]
    for client in slow:
        client.send(sent or b"P")
    client = stage.connect(gateway)
    for _ in range(20):
        client.chat()
        assert client.response().status == 200
        assert gateway.ask("POST", CHAT, chat_request(stream=True)).complete


# --- certificates ---


@pytest.fixture
def mutual(stage: Stage) -> Gateway:
    return over_tls(stage, stage.upstream(), {"client_ca": tls.CA})


def test_a_client_with_a_certificate_of_the_authority_is_served(stage: Stage, mutual: Gateway) -> None:
    client = stage.connect(mutual)
    client.chat()
    assert client.response().status == 200


@pytest.mark.parametrize("name", ["", "nobody"], ids=["none", "another authority's"])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_one_is_refused_and_told_why(
    stage: Stage, mutual: Gateway, name: str, newest: ssl.TLSVersion
) -> None:
    before = mutual.gauge(FAILED, reason="handshake")
    context = tls.client(name)
    context.maximum_version = newest
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        stage.connect(mutual, tls=context).sock.recv(1)  # in TLS 1.3 the client's side is done before it is judged
    assert mutual.gauge(FAILED, reason="handshake") == before + 1


def test_a_certificate_that_cannot_be_used_is_one_line_with_its_key(tmp_path: Path) -> None:
    cert, key = tls.LISTENER["cert"], str(tls.CERTS / "client.key")
    said = start_in_vain({"server": {"tls": {"cert": cert, "key": key}}}, tmp_path)
    assert said == (
        f"headrace: server.tls.key: the file {key} is not the key of {cert}, expected the one that it was made with\n"
    )
    said = start_in_vain({"server": {"tls": {"cert": cert}}}, tmp_path)
    assert said == f"{tmp_path}/vain.toml: server.tls: has only one of cert and key, expected both or none\n"
    said = start_in_vain({"server": {"tls": {**tls.LISTENER, "client_ca": "/none"}}}, tmp_path)
    assert said.endswith('server.tls.client_ca: is "/none", which is no file, expected a PEM file\n')
