"""Checks of the keys of `server`, `logging` and `metrics`: what one would see from outside were the key ignored."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.wire import answers
from tests.wire.client import Client, build_request, chat_request
from tests.wire.keys_stage import Check, KeyStage
from tests.wire.process import Gateway, free_port, wait_until
from tests.wire.upstream import Exchange

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"


def reachable(host: str, port: int) -> bool:
    try:
        Client(port, host, timeout=1.0).close()
    except OSError:
        return False
    return True


def served(client: Client) -> bool:
    """Whether a request on *client* is answered with 200 soon."""
    client.timeout = 1.0
    client.sock.settimeout(1.0)
    try:
        client.request("GET", MODELS)
        return client.response().status == 200
    except (AssertionError, OSError):
        return False


def host(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"host": "127.0.0.2"})
    assert reachable("127.0.0.2", gateway.port) and not reachable("127.0.0.1", gateway.port)


def port(stage: KeyStage) -> None:
    wanted = free_port()
    stage.start(stage.upstream(), server={"port": wanted})
    assert reachable("127.0.0.1", wanted)


def workers(stage: KeyStage) -> None:
    assert len(stage.start(stage.upstream(), server={"workers": 3}).workers) == 3


def socket_mode(stage: KeyStage) -> None:
    with TemporaryDirectory(prefix="socket-", dir="/tmp") as folder:
        path = Path(folder) / "socket"
        gateway = stage.start(stage.upstream(), server={"host": f"unix:{path}", "socket_mode": "0600"})
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        gateway.stop()


def backlog(stage: KeyStage) -> None:
    """A gateway that stands still accepts nothing: the kernel completes as many connects as the backlog holds."""
    gateway = stage.start(stage.upstream(), server={"backlog": 4})
    sockets = [socket.socket() for _ in range(16)]
    os.kill(gateway.pid, signal.SIGSTOP)
    try:
        for one in sockets:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", gateway.port))
        time.sleep(0.1)
        done = sum(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1 for one in sockets)
    finally:
        os.kill(gateway.pid, signal.SIGCONT)
        for one in sockets:
            one.close()
    assert 1 <= done <= 6


def max_connections(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"max_connections": 3})
    clients = [stage.connect(gateway) for _ in range(3)]
    assert all(served(client) for client in clients)

    def another() -> bool:
        client = stage.connect(gateway)
        try:
            return served(client)
        finally:
            client.close()

    assert not another()
    clients[0].close()
    wait_until(another, "a place for another connection")


def head_limit(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"head_limit": "1KiB"})
    assert gateway.ask("GET", MODELS, None, (("X-Long", "a" * 2000),)).status == 431
    assert gateway.ask("GET", MODELS).status == 200


def body_limit(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"body_limit": "1KiB"})
    assert gateway.ask("POST", CHAT, chat_request(user="x" * 2000)).status == 413
    assert gateway.ask("POST", "/v1/images/generations", chat_request(user="x" * 2000)).status == 200


def media_body_limit(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"media_body_limit": "1KiB"})
    assert gateway.ask("POST", "/v1/images/generations", chat_request(user="x" * 2000)).status == 413
    assert gateway.ask("POST", CHAT, chat_request(user="x" * 2000)).status == 200


def body_budget(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"body_budget": "64KiB"})
    assert gateway.ask("POST", CHAT, chat_request(user="x" * 100_000)).status == 503
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def timed_out(stage: KeyStage, gateway: Gateway, sent: int) -> None:
    """A request of which *sent* bytes came is given up soon."""
    client = stage.connect(gateway, timeout=2.0)
    client.send(build_request("POST", CHAT, chat_request())[:sent])
    assert client.response().status == 408


def header_timeout(stage: KeyStage) -> None:
    timed_out(stage, stage.start(stage.upstream(), server={"header_timeout": "200ms"}), 40)


def body_timeout(stage: KeyStage) -> None:
    timed_out(stage, stage.start(stage.upstream(), server={"body_timeout": "200ms"}), -5)


def keepalive_timeout(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"keepalive_timeout": "200ms"})
    client = stage.connect(gateway, timeout=2.0)
    client.chat()
    assert client.response().status == 200
    assert client.read_end() == b"" and client.ended == "fin"


def keepalive_requests(stage: KeyStage) -> None:
    client = stage.connect(stage.start(stage.upstream(), server={"keepalive_requests": 2}))
    said = []
    for _ in range(2):
        client.chat()
        said.append(client.response().header("connection"))
    assert said == [None, "close"]
    assert client.read_end() == b""


def watch(stage: KeyStage) -> None:
    """A changed file is read without a signal."""
    gateway = stage.start(stage.upstream(), server={"watch": "100ms"})
    file = gateway.folder / "gateway.toml"
    file.write_text(file.read_text().replace('"m"', '"other"'))
    told = lambda: gateway.ask("POST", CHAT, chat_request(model="other")).status == 200  # noqa: E731
    wait_until(told, "the changed file is served", 5.0)


def pre_stop(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), server={"pre_stop": "0s"})
    gateway.stop(2.0)


def drain_timeout(stage: KeyStage) -> None:
    upstream = stage.upstream(answers.await_abort)
    gateway = stage.start(upstream, server={"drain_timeout": "300ms"})
    stage.connect(gateway).chat()
    upstream.ledger.wait_requests(1)
    gateway.stop(3.0)


def half_close(stage: KeyStage) -> None:
    upstream = stage.upstream()
    gateway = stage.start(upstream, server={"half_close": "serve"})

    def late(x: Exchange) -> None:
        x.sleep(0.3)
        answers.chat()(x)

    upstream.answer = late
    client = stage.connect(gateway)
    client.chat()
    client.half_close()
    assert client.response().status == 200


# --- logging ---


def level(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), logging={"level": "error"})
    assert gateway.ask("GET", MODELS).status == 200
    gateway.stop()
    assert gateway.calls() == []


def format(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), logging={"format": "pretty"})
    id = gateway.ask("POST", CHAT, chat_request()).header("x-request-id")
    gateway.stop()
    assert id and id in gateway.stdout and '{"' not in gateway.stdout


def output(stage: KeyStage) -> None:
    path = stage.folder / "access.log"
    gateway = stage.start(stage.upstream(), logging={"output": [str(path)]})
    id = gateway.ask("POST", CHAT, chat_request()).header("x-request-id")
    gateway.stop()
    assert path.exists() and id and id in path.read_text() and id not in gateway.stdout


def buffer(stage: KeyStage) -> None:
    """Nobody reads the log: lines beyond the buffer are dropped and counted, and no call waits for them."""
    path = stage.folder / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        gateway = stage.start(stage.upstream(), logging={"output": [str(path)], "buffer": "1KiB"})
        client = stage.connect(gateway)
        for _ in range(60):
            client.chat()
            assert client.response().status == 200
        assert gateway.gauge("gateway_access_dropped_total") > 0
    finally:
        os.close(reader)


# --- metrics ---


def metrics_enabled(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), metrics={"enabled": False})
    assert gateway.ask("GET", "/metrics").status == 404


def metrics_path(stage: KeyStage) -> None:
    gateway = stage.start(stage.upstream(), metrics={"path": "/numbers"})
    assert "gateway_requests_total" in gateway.ask("GET", "/numbers").body.decode()
    assert gateway.ask("GET", "/metrics").status == 404


CHECKS: dict[str, Check] = {
    **{f"server.{check.__name__}": check for check in (host, port, workers, socket_mode, backlog, max_connections)},
    **{f"server.{check.__name__}": check for check in (head_limit, body_limit, media_body_limit, body_budget)},
    **{f"server.{check.__name__}": check for check in (header_timeout, body_timeout, half_close)},
    **{f"server.{check.__name__}": check for check in (keepalive_timeout, keepalive_requests)},
    **{f"server.{check.__name__}": check for check in (watch, pre_stop, drain_timeout)},
    **{f"logging.{check.__name__}": check for check in (level, format, output, buffer)},
    "metrics.enabled": metrics_enabled,
    "metrics.path": metrics_path,
}
