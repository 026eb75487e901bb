"""SIGUSR2 with another configuration: what no reload can change, and what no version can serve."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.wire import tls
from tests.wire.accepted import Gate
from tests.wire.client import chat_request
from tests.wire.process import free_port, to_toml, wait_until
from tests.wire.stage import Stage, backend, configuration, merge
from tests.wire.test_reload import reload
from tests.wire.test_workers import streams
from tests.wire.upgrading import (
    CHAT,
    REFUSED,
    UPGRADED,
    assert_nothing_was_lost,
    busy,
    callers,
    health,
    lines,
    upgrade,
    wait_workers,
)


def test_a_configuration_that_cannot_be_served_is_refused_with_its_reason(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()), server={"workers": 1})
    gateway = stage.gateway(config)
    workers = gateway.workers
    verdict = upgrade(gateway, merge(config, {"server": {"header_timeout": "soon"}}))
    assert verdict["msg"] == REFUSED and "server.header_timeout" in verdict["reason"], verdict
    verdict = upgrade(gateway, merge(config, {"server": {"workers": 40}}))
    assert verdict["msg"] == REFUSED and "has room for 31 more, and 40 are needed" in verdict["reason"], verdict
    wait_workers(gateway, 1)  # the trials have ended
    assert gateway.workers == workers and health(gateway)["generation"] == 1
    assert upgrade(gateway, config)["generation"] == 2


def test_a_file_that_cannot_be_read_to_its_end_is_refused(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()))
    gateway = stage.gateway(config)
    file = gateway.folder / "gateway.toml"
    file.unlink()
    os.mkfifo(file)
    verdict = upgrade(gateway)
    assert verdict["msg"] == REFUSED, verdict
    assert f"{file}: cannot be read (it did not end within 5 s)" in verdict["reason"]
    file.unlink()
    assert upgrade(gateway, config)["generation"] == 2


def test_changes_wait_for_each_other_and_none_is_lost(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()))
    gateway = stage.gateway(config)
    (gateway.folder / "gateway.toml").write_text(to_toml(merge(config, {"server": {"pre_stop": "1ms"}})))
    for number in (signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP):
        gateway.process.send_signal(number)
    wait_until(lambda: lines(gateway, UPGRADED), "the upgrade", timeout=40.0)
    wait_until(lambda: lines(gateway, "reloaded"), "the reload", timeout=20.0)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2)])
def test_another_number_of_workers_loses_no_call(stage: Stage, before: int, after: int) -> None:
    gate = Gate()
    config = busy(stage, gate, server={"workers": before})
    gateway = stage.gateway(config)
    open_streams = streams(stage, gateway, 8, model="s")
    changed = merge(config, {"server": {"workers": after}})
    assert reload(gateway, changed)["after_upgrade"] == "server.workers"
    with callers(gateway, 4) as seen, callers(gateway, 4, keep=False) as single:
        assert upgrade(gateway, changed)["workers"] == after
    # Every socket is accepted on, also those whose workers are gone.
    for _ in range(30):
        assert gateway.ask("POST", CHAT, chat_request()).status == 200
    gate.open()
    assert all(client.finish().complete for client in open_streams)
    assert_nothing_was_lost(seen)
    assert_nothing_was_lost(single)
    for client in open_streams:
        client.close()
    wait_workers(gateway, after)
    gateway.idle_fds = gateway.fds()


def test_another_port_is_listened_on_and_the_former_one_closed(stage: Stage) -> None:
    gate = Gate()
    config = busy(stage, gate)
    gateway = stage.gateway(config)
    (stream,) = streams(stage, gateway, 1, model="s")
    former, gateway.port = gateway.port, free_port()
    with socket.create_server(("127.0.0.1", gateway.port)):
        verdict = upgrade(gateway, merge(config, {"server": {"port": gateway.port}}))
        said = f"cannot listen on 127.0.0.1 port {gateway.port}: Address already in use"
        assert verdict["msg"] == REFUSED and verdict["reason"] == said, verdict
    verdict = upgrade(gateway)
    assert verdict["msg"] == UPGRADED and verdict["url"] == f"http://127.0.0.1:{gateway.port}", verdict
    assert gateway.ask("POST", CHAT, chat_request()).status == 200

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", former)) != 0

    wait_until(refused, "the former port is closed")
    gate.open()
    assert stream.finish().complete


def test_another_address_of_the_same_port_is_listened_on(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()))
    gateway = stage.gateway(config)
    with callers(gateway, 2) as seen:
        changed = merge(config, {"server": {"host": "0.0.0.0"}})
        assert upgrade(gateway, changed)["url"] == f"http://0.0.0.0:{gateway.port}"
        assert upgrade(gateway, changed)["generation"] == 3
    assert_nothing_was_lost(seen)


def test_a_unix_socket_keeps_its_file_until_the_end(stage: Stage, socket_folder: Path) -> None:
    path = socket_folder / "gateway.sock"
    config = configuration(backend(stage.upstream()), server={"host": f"unix:{path}", "workers": 2})
    gateway = stage.gateway(config)
    inode = path.stat().st_ino
    with callers(gateway) as seen:
        upgrade(gateway, merge(config, {"server": {"socket_mode": "0600"}}))
        upgrade(gateway)
    assert_nothing_was_lost(seen)
    assert path.stat().st_ino == inode and path.stat().st_mode & 0o777 == 0o600
    moved = socket_folder / "moved.sock"
    assert upgrade(gateway, merge(config, {"server": {"host": f"unix:{moved}"}}))["url"] == f"unix:{moved}"
    wait_until(lambda: os.listdir(socket_folder) == [moved.name], "the former file is removed")
    gateway.host = f"unix:{moved}"
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    gateway.stop()
    assert not os.listdir(socket_folder)


def test_a_tls_listener_loses_nothing(stage: Stage) -> None:
    gate = Gate()
    gateway = stage.gateway(busy(stage, gate, server={"workers": 2, "tls": tls.LISTENER}))
    open_streams = streams(stage, gateway, 8, model="s")
    with callers(gateway) as seen:
        assert upgrade(gateway)["url"].startswith("https://")
    gate.open()
    assert all(client.finish().complete for client in open_streams)
    assert_nothing_was_lost(seen)
