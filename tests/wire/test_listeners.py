"""Where clients connect: a unix socket, whose file is the gateway's from start to end, and IPv6."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.wire import answers
from tests.wire.client import Client, build_request, chat_request
from tests.wire.process import Gateway, start_in_vain
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"


@pytest.fixture
def path(socket_folder: Path) -> Path:
    """In a folder with nothing else."""
    return socket_folder / "gateway.sock"


def on(stage: Stage, upstream: Upstream, host: object, **server: Any) -> Gateway:
    return stage.gateway(configuration(backend(upstream), server={"host": str(host), **server}))


def on_file(stage: Stage, upstream: Upstream, path: Path, **server: Any) -> Gateway:
    return on(stage, upstream, f"unix:{path}", **server)


# --- unix sockets ---


def test_a_unix_socket_is_served_as_an_address_is(stage: Stage, path: Path) -> None:
    gateway = on_file(stage, stage.upstream(), path)
    client = stage.connect(gateway)
    for stream in (False, True, False):
        client.chat(stream=stream)
        assert client.response().complete
    line = gateway.wait_call(3, request_id=client.id)
    assert line["client"] == "unix:"
    assert any(line["msg"] == "listening" and line["url"] == f"unix:{path}" for line in gateway.log_lines())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("leave", [Client.close, Client.half_close])
def test_a_client_of_a_unix_socket_that_leaves_is_noticed(stage: Stage, path: Path, stream: bool, leave: Any) -> None:
    upstream = stage.upstream(answers.await_abort)
    gateway = on_file(stage, upstream, path)
    client = stage.connect(gateway)
    client.chat(stream=stream)
    upstream.ledger.wait_requests(1)
    leave(client)
    upstream.ledger.wait_abort(1.0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "CH"


def test_a_client_of_a_unix_socket_that_is_not_read_is_noticed_when_it_leaves(stage: Stage, path: Path) -> None:
    upstream = stage.upstream(answers.await_abort)
    gateway = on_file(stage, upstream, path)
    client = stage.connect(gateway)
    client.chat(stream=True)
    upstream.ledger.wait_requests(1)
    client.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 3000)
    client.close()
    upstream.ledger.wait_abort(1.0)
    assert gateway.wait_call(request_id=client.id)["ending"] == "CH"


def test_an_early_answer_over_a_unix_socket_is_received(stage: Stage, path: Path) -> None:
    client = stage.connect(on_file(stage, stage.upstream(), path, body_limit="1KiB"))
    client.send(build_request("POST", CHAT, chat_request(user="x" * 800_000)))
    response = client.response()
    assert response.status == 413 and response.complete
    assert client.read_end() == b"" and client.ended == "fin"


def test_its_file_has_the_mode_asked_for_and_is_removed_at_the_end(stage: Stage, path: Path) -> None:
    gateway = on_file(stage, stage.upstream(), path)
    assert stat.S_ISSOCK(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) == 0o660
    assert os.listdir(path.parent) == [path.name]
    gateway.stop()
    assert not path.exists()


def test_the_file_of_a_gateway_that_was_killed_is_replaced(stage: Stage, path: Path) -> None:
    upstream = stage.upstream()
    on_file(stage, upstream, path).kill()
    assert path.exists()
    assert on_file(stage, upstream, path).ask("POST", CHAT, chat_request()).status == 200


def test_a_socket_that_somebody_listens_on_is_left_alone(stage: Stage, tmp_path: Path, path: Path) -> None:
    upstream = stage.upstream()
    gateway = on_file(stage, upstream, path)
    said = start_in_vain({"server": {"host": f"unix:{path}"}}, tmp_path)
    assert said == f"headrace: cannot listen on {path}: another process listens there\n"
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, path: Path) -> None:
    path.write_text("precious")
    said = start_in_vain({"server": {"host": f"unix:{path}"}}, tmp_path)
    assert said == f"headrace: cannot listen on {path}: there is a file that is no socket\n"
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_said_in_one_line(tmp_path: Path, path: Path) -> None:
    said = start_in_vain({"server": {"host": f"unix:{path}/deeper"}}, tmp_path)
    assert said == f"headrace: cannot listen on {path}/deeper: No such file or directory\n"


def test_a_file_that_took_the_place_of_its_own_is_not_removed(stage: Stage, path: Path) -> None:
    gateway = on_file(stage, stage.upstream(), path)
    stage.settle()
    path.unlink()
    path.write_text("a successor's")
    gateway.process.terminate()
    gateway.wait_exit(0)
    assert path.read_text() == "a successor's"


# --- IPv6 ---


def test_ipv6_is_served_with_and_without_brackets(stage: Stage) -> None:
    for host in ("::1", "[::1]"):
        gateway = on(stage, stage.upstream(), host)
        client = stage.connect(gateway)
        client.chat()
        assert client.response().status == 200
        assert gateway.wait_call(request_id=client.id)["client"] == "::1"
        assert any(line.get("url") == f"http://[::1]:{gateway.port}" for line in gateway.log_lines())


def test_every_address_of_both_kinds_is_served_at_once(stage: Stage) -> None:
    gateway = on(stage, stage.upstream(), "[::]")
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
        client = Client(gateway.port, host)
        client.chat()
        assert client.response().status == 200
        assert gateway.wait_call(request_id=client.id)["client"] == shown
        client.close()


def test_an_address_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        said = start_in_vain({"server": {"host": "::1", "port": port}}, tmp_path)
        assert said == f"headrace: cannot listen on ::1 port {port}: Address already in use\n"
