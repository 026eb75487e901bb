"""Files are looked at as often as the configuration says, and a change is told once it stands still."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec
import pytest

from gateway.config.schema import Backend, Config, Key, Seconds, Server, ServerTls, UpstreamAuth, UpstreamTls
from gateway.watch import Watch

EVERY = Config(server=Server(watch=Seconds(10)))


class Looker:
    """A watch whose time goes on by ten seconds with each look."""

    def __init__(self, path: Path, config: Config = EVERY) -> None:
        self.config = config
        self._watch = Watch([str(path)], config)
        self._now = 1000.0

    def look(self) -> bool:
        self._now += 10.0
        return self._watch.has_changed(self.config, self._now)

    def too_soon(self) -> bool:
        return self._watch.has_changed(self.config, self._now + 9.9)

    @property
    def due(self) -> float:
        return self._watch.due(self.config) - self._now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "a.toml"
    file.write_text("a")
    return file


def test_what_does_not_change_is_not_told(file: Path) -> None:
    looker = Looker(file)
    assert [looker.look() for _ in range(5)] == [False] * 5


def test_a_change_is_told_once_and_only_when_it_stands_still(file: Path) -> None:
    looker = Looker(file)
    told = [looker.look()]
    for text in ("ab", "abc", "abcd"):
        file.write_text(text)
        told.append(looker.look())
    told += [looker.look() for _ in range(3)]
    assert told == [False, False, False, False, True, False, False]


def test_a_change_that_is_taken_back_in_time_is_none(file: Path) -> None:
    looker, other = Looker(file), file.with_name("other")
    os.rename(file, other)
    assert not looker.look()
    os.rename(other, file)
    assert [looker.look() for _ in range(3)] == [False] * 3


def test_nobody_looks_too_soon_nor_where_it_is_not_wanted(file: Path) -> None:
    looker = Looker(file)
    assert not looker.look() and looker.due == 10.0
    file.write_text("ab")
    assert not looker.look() and not looker.too_soon() and looker.look()
    looker.config = Config()
    assert looker.due == math.inf
    file.write_text("abc")
    assert not any(looker.look() for _ in range(3))


@pytest.mark.parametrize("how", ["written", "replaced", "removed", "added"])
def test_a_folder_s_files_come_and_go(tmp_path: Path, file: Path, how: str) -> None:
    looker = Looker(tmp_path)
    if how == "written":
        file.write_text("ab")
    elif how == "replaced":
        (tmp_path / "new").write_text("b")
        os.utime(tmp_path / "new", ns=(1, file.stat().st_mtime_ns))
        os.replace(tmp_path / "new", file)
    elif how == "removed":
        file.unlink()
    else:
        (tmp_path / "b.toml").write_text("b")
    assert [looker.look() for _ in range(3)] == [False, True, False]


def test_what_is_no_configuration_in_a_folder_does_not_count(tmp_path: Path, file: Path) -> None:
    looker = Looker(tmp_path)
    for name in (".a.toml.swp", ".b.toml", "notes.txt"):
        (tmp_path / name).write_text("x")
    assert not any(looker.look() for _ in range(3))


NAMED = {
    "cert": lambda name: Config(server=Server(tls=ServerTls(cert=name))),
    "key": lambda name: Config(server=Server(tls=ServerTls(key=name))),
    "client_ca": lambda name: Config(server=Server(tls=ServerTls(client_ca=name))),
    "key_file": lambda name: msgspec.structs.replace(Config(), auth=_auth(name)),
    "token_file": lambda name: Config(backends=(_backend(auth=UpstreamAuth(token_file=name)),)),
    "ca_file": lambda name: Config(backends=(_backend(tls=UpstreamTls(ca_file=name)),)),
    "backend's cert": lambda name: Config(backends=(_backend(tls=UpstreamTls(cert=name)),)),
    "backend's key": lambda name: Config(backends=(_backend(tls=UpstreamTls(key=name)),)),
}


def _auth(name: str) -> object:
    return msgspec.structs.replace(Config().auth, keys=(Key(name="k", key_file=name),))


def _backend(**fields: object) -> Backend:
    return Backend(name="b", endpoints=(), **fields)  # type: ignore[arg-type] # one of its sections


@pytest.mark.parametrize("name", NAMED)
def test_files_that_the_configuration_names_are_watched(tmp_path: Path, file: Path, name: str) -> None:
    other = tmp_path / "secret"
    config = NAMED[name](str(other))
    server = msgspec.structs.replace(config.server, watch=Seconds(10))
    looker = Looker(file, msgspec.structs.replace(config, server=server))
    assert not looker.look()
    other.write_text("x")
    assert [looker.look() for _ in range(3)] == [False, True, False]
