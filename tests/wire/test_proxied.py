"""Who a client is where proxies stand in front of the gateway: what trusted ones say, and nobody else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocols.proxy_protocol import LIMIT
from tests.wire import tls
from tests.wire.client import Client, Incomplete, build_request, chat_request
from tests.wire.process import Configuration, Gateway, start_in_vain
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
FAILED = "gateway_client_connections_failed_total"
Connect = Callable[..., Client]
HERE, THERE = "127.0.0.1", "203.0.113.9"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1 = f"PROXY TCP4 {THERE} 127.0.0.1 4711 80\r\n".encode()
V2 = SIGNATURE + b"\x21\x11" + struct.pack(">H4s4sHH", 12, bytes([203, 0, 113, 9]), bytes([127, 0, 0, 1]), 4711, 80)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    server = {"trusted_proxies": [HERE], "proxy_protocol": True, "header_timeout": "600ms"}
    return configuration(backend(module_upstream), server=server)


def with_server(stage: Stage, **server: Any) -> Gateway:
    return stage.gateway(configuration(backend(stage.upstream()), server=server))


def client_of(gateway: Gateway, client: Client, forwarded: list[str] | None = None) -> str:
    """Whom a call on *client* is taken to be from, with these X-Forwarded-For."""
    client.chat(headers=[("X-Forwarded-For", value) for value in forwarded or []])
    assert client.response().status == 200
    line = gateway.wait_call(request_id=client.id)
    client.id += "."
    return str(line["client"])


# --- X-Forwarded-For ---


def test_nobody_is_believed_by_default(stage: Stage) -> None:
    gateway = with_server(stage)
    assert client_of(gateway, stage.connect(gateway), [THERE]) == HERE


def test_a_proxy_that_is_not_listed_is_not_believed(stage: Stage) -> None:
    gateway = with_server(stage, trusted_proxies=["10.0.0.0/8", "::1"])
    assert client_of(gateway, stage.connect(gateway), [THERE]) == HERE


def test_a_proxy_tells_the_client_of_each_request(stage: Stage) -> None:
    """On one connection come requests of many clients; that heads repeat must not make them one."""
    gateway = with_server(stage, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    client = stage.connect(gateway)
    for number in range(12):
        assert client_of(gateway, client, [f"6.6.6.6, 203.0.113.{number}, 10.1.1.1"]) == f"203.0.113.{number}"
    assert client_of(gateway, client) == HERE
    assert client_of(gateway, client, ["203.0.113.1", "203.0.113.2", "10.1.1.1"]) == "203.0.113.2"
    assert client_of(gateway, client, ["nonsense"]) == HERE


def test_pipelined_requests_are_each_from_their_own_client(stage: Stage) -> None:
    gateway = with_server(stage, trusted_proxies=[HERE])
    client = stage.connect(gateway)
    said = {f"pipelined-{number}": f"203.0.113.{number}" for number in range(20)}
    for id, address in said.items():
        client.request("POST", CHAT, chat_request(), [("X-Forwarded-For", address), ("X-Request-Id", id)])
    for _ in said:
        assert client.response().status == 200
    gateway.wait_call(len(said), path=CHAT)
    assert {line["request_id"]: line["client"] for line in gateway.calls(path=CHAT)} == said


def test_what_clients_say_of_themselves_does_not_go_upstream(stage: Stage) -> None:
    upstream = stage.upstream()
    gateway = stage.gateway(configuration(backend(upstream), server={"trusted_proxies": [HERE]}))
    assert client_of(gateway, stage.connect(gateway), [THERE]) == THERE
    assert "x-forwarded-for" not in dict(upstream.requests[-1].headers)


def test_refusals_are_logged_with_the_client_too(stage: Stage) -> None:
    gateway = with_server(stage, trusted_proxies=[HERE])
    gateway.ask("GET", "/nowhere", None, (("X-Forwarded-For", THERE),))
    assert gateway.wait_call(status=404)["client"] == THERE


def test_the_proxy_behind_a_unix_socket_may_be_listed(stage: Stage, socket_folder: Path) -> None:
    host = f"unix:{socket_folder}/gateway.sock"
    gateway = with_server(stage, host=host, trusted_proxies=["unix:"])
    assert client_of(gateway, stage.connect(gateway), [THERE]) == THERE


# --- the PROXY protocol ---


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_the_client_is_whom_the_header_tells(connect: Connect, gateway: Gateway, header: bytes) -> None:
    client = connect(preface=header)
    assert [client_of(gateway, client) for _ in range(2)] == [THERE, THERE]


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", LOCAL], ids=["v1", "v2"])
def test_a_connection_of_the_proxy_s_own_is_the_proxy_s(connect: Connect, gateway: Gateway, header: bytes) -> None:
    assert client_of(gateway, connect(preface=header)) == HERE


@pytest.mark.parametrize("header", [V1, V2, LOCAL], ids=["v1", "v2", "v2 local"])
def test_it_may_come_in_pieces_and_together_with_the_request(connect: Connect, gateway: Gateway, header: bytes) -> None:
    client = connect(preface=b"")
    request = build_request("POST", CHAT, chat_request())
    client.dribble(header)
    client.send(request)
    assert client.response().status == 200
    for at in (1, len(header) - 1, len(header), len(header) + 1, len(header) + len(request)):
        client = connect(preface=b"")
        client.split(header + request, at)
        assert client.response().status == 200


def test_behind_the_header_a_client_s_own_word_is_not_believed(connect: Connect, gateway: Gateway) -> None:
    """The header tells a client that is no trusted proxy: what it forwards anybody may have written."""
    assert client_of(gateway, connect(preface=V1), ["6.6.6.6"]) == THERE
    assert client_of(gateway, connect(preface=LOCAL), ["6.6.6.6"]) == "6.6.6.6"


@pytest.mark.parametrize(
    "data",
    [
        build_request("GET", "/health"),
        V1.replace(b"TCP4", b"TCP5"),
        V2.replace(b"\x21\x11", b"\x11\x11"),
        V2[:14] + struct.pack(">H", LIMIT),
        b"PROXY " + b"x" * 200,
        b"\x16\x03\x01\x02\x00" + b"x" * 100,
    ],
    ids=["none", "bad v1", "bad v2", "too long", "without an end", "tls"],
)
def test_a_connection_that_does_not_begin_with_one_is_closed(connect: Connect, gateway: Gateway, data: bytes) -> None:
    before = gateway.gauge(FAILED, reason="proxy_header")
    client = connect(preface=data)
    assert client.read_end() == b""
    assert gateway.gauge(FAILED, reason="proxy_header") == before + 1


@pytest.mark.parametrize("sent", [b"", V1[:10], V2[:10], V2[:-1]])
def test_a_header_that_does_not_come_is_waited_for_no_longer_than_a_head(
    connect: Connect, gateway: Gateway, sent: bytes
) -> None:
    before = gateway.gauge(FAILED, reason="proxy_header_timeout")
    client = connect(preface=sent)
    assert client.read_end() == b""
    assert gateway.gauge(FAILED, reason="proxy_header_timeout") == before + 1


def test_others_send_none_and_it_would_be_no_request(stage: Stage) -> None:
    gateway = with_server(stage, host="::1", trusted_proxies=[HERE], proxy_protocol=True)
    assert client_of(gateway, stage.connect(gateway)) == "::1"
    client = stage.connect(gateway, preface=V1)
    client.chat()
    assert client.response().status == 400


def test_it_comes_before_tls(stage: Stage) -> None:
    gateway = with_server(stage, trusted_proxies=[HERE], proxy_protocol=True, tls=tls.LISTENER)
    for header in (V1, V2):
        assert client_of(gateway, stage.connect(gateway, preface=header)) == THERE
    with pytest.raises((OSError, Incomplete)):
        stage.connect(gateway, preface=b"")


def test_whose_header_it_would_be_must_be_said(tmp_path: Path) -> None:
    said = start_in_vain({"server": {"proxy_protocol": True}}, tmp_path)
    assert "server.proxy_protocol: is true while server.trusted_proxies is empty" in said
    said = start_in_vain({"server": {"trusted_proxies": ["10.0.0.1/8"]}}, tmp_path)
    assert 'server.trusted_proxies[0]: is "10.0.0.1/8", expected an IP address, a network' in said
