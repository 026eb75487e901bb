"""Checks of the keys of `server` that say who is in front of it: TLS, trusted proxies, clients that do not read."""

from __future__ import annotations

import ssl

from tests.wire import answers, tls
from tests.wire.client import Client, chat_request
from tests.wire.keys_stage import Check, KeyStage
from tests.wire.process import Gateway
from tests.wire.upstream import Exchange

CHAT = "/v1/chat/completions"
FAILED = "gateway_client_connections_failed_total"
THERE = "203.0.113.9"


def send_timeout(stage: KeyStage) -> None:
    def flood(x: Exchange) -> None:
        x.send(answers.sse_head() + answers.chunk(answers.event({"content": "x" * 1000}) * 30_000))

    gateway = stage.start(stage.upstream(flood), server={"send_timeout": "300ms"})
    client = stage.connect(gateway, receive_buffer=4096)
    client.chat(stream=True)
    assert gateway.wait_call(request_id=client.id, timeout=4.0)["fault"] == "client_stopped_reading"


def trusted_proxies(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"trusted_proxies": ["127.0.0.0/8"]})
    gateway.ask("POST", CHAT, chat_request(), (("X-Forwarded-For", THERE),))
    assert gateway.wait_call(path=CHAT)["client"] == THERE


def proxy_protocol(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"trusted_proxies": ["127.0.0.1"], "proxy_protocol": True})
    client = stage.connect(gateway, preface=f"PROXY TCP4 {THERE} 127.0.0.1 4711 80\r\n".encode())
    client.chat()
    assert client.response().status == 200
    assert gateway.wait_call(request_id=client.id)["client"] == THERE


def secured(stage: KeyStage, **fields: object) -> Gateway:
    return stage.start(stage.upstream(), server={"tls": {**tls.LISTENER, **fields}})


def is_served(stage: KeyStage) -> None:
    client = stage.connect(secured(stage))
    client.chat()
    assert client.response().status == 200


def client_ca(stage: KeyStage) -> None:
    gateway = secured(stage, client_ca=tls.CA)
    try:
        client = stage.connect(gateway, tls=tls.client(""))
        client.request("GET", "/health")
        status = client.response().status
    except ssl.SSLError:
        status = 0
    assert status == 0


def begin_handshake(gateway: Gateway, timeout: float) -> Client:
    """A client that said its first words, and got the answer to them."""
    client = Client(gateway.port, gateway.host, timeout=timeout)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        tls.client().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        client.send(outgoing.read())
    client.sock.recv(1)
    return client


def handshake_timeout(stage: KeyStage) -> None:
    client = begin_handshake(secured(stage, handshake_timeout="300ms"), 3.0)
    try:
        client.read_end()
    finally:
        client.close()


def max_handshakes(stage: KeyStage) -> None:
    """A handshake that stalls makes room early only where others wait for its place."""
    gateway = secured(stage, max_handshakes=1, handshake_timeout="60s")
    client = begin_handshake(gateway, 5.0)
    try:
        assert gateway.ask("GET", "/health").status == 200
        assert gateway.gauge(FAILED, reason="handshake_timeout") == 1
    finally:
        client.close()


CHECKS: dict[str, Check] = {
    **{f"server.{check.__name__}": check for check in (send_timeout, trusted_proxies, proxy_protocol)},
    **{f"server.tls.{check.__name__}": check for check in (client_ca, handshake_timeout, max_handshakes)},
    "server.tls.cert": is_served,
    "server.tls.key": is_served,
}
