"""Handshakes with clients: bounded in time and number, and whatever is none is ended and counted."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.wire import tls
from tests.wire.client import Client, chat_request
from tests.wire.process import Configuration, Gateway, start_in_vain, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
FAILED = "gateway_client_connections_failed_total"
Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    listener = {**tls.LISTENER, "handshake_timeout": "700ms"}
    return configuration(backend(module_upstream), server={"tls": listener})


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
        f"{tmp_path}/vain.toml: server.tls.key: the file {key} is not the key of {cert}, "
        "expected the one that it was made with\n"
    )
    said = start_in_vain({"server": {"tls": {"cert": cert}}}, tmp_path)
    assert said == f"{tmp_path}/vain.toml: server.tls: has only one of cert and key, expected both or none\n"
    said = start_in_vain({"server": {"tls": {**tls.LISTENER, "client_ca": "/none"}}}, tmp_path)
    assert said.endswith('server.tls.client_ca: is "/none", which is no file, expected a PEM file\n')
