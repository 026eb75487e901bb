"""PEM files are read with the configuration: what cannot be read is told with its key, and what was read stays."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gateway.config.changes import changed_keys
from gateway.config.pems import LARGEST
from gateway.config.render import to_toml
from gateway.places import contents
from tests.unit.configuring import KEYED, faults, loaded
from tests.wire import tls

CERT, KEY = tls.LISTENER["cert"], tls.LISTENER["key"]


def listener(**files: str) -> str:
    given = {"cert": CERT, "key": KEY, **files}
    return "[server.tls]\n" + "".join(f"{name} = '{file}'\n" for name, file in given.items())


def upstream(fields: str, more: str = "") -> str:
    return f"{KEYED}[[backends]]\nname = 'a'\nendpoints = ['https://a']\ntls = {{ {fields} }}\n{more}"


@pytest.mark.parametrize("name", ["cert", "key", "client_ca"])
def test_a_file_of_the_listener_that_is_not_there_is_told_with_its_key(name: str, tmp_path: Path) -> None:
    (said,) = faults(tmp_path, listener(**{name: f"{tmp_path}/none"}))
    assert said.endswith(f'server.tls.{name}: is "none", which is no file, expected a PEM file')


def test_a_file_of_a_backend_that_is_not_there_is_told_with_its_key_unless_it_is_off(tmp_path: Path) -> None:
    text = upstream(f"ca_file = '{tmp_path}'")
    (said,) = faults(tmp_path, text)
    assert f'backends[a].tls.ca_file: is "{tmp_path}", which is no file' in said
    off = text.replace("[[backends]]", "[[backends]]\nenabled = false")
    assert loaded(tmp_path, off).backends[0].tls.ca_file.content == b""


@pytest.mark.parametrize("name", ["/dev/zero", "a\\u0000"])
def test_what_is_no_file_is_not_read(name: str, tmp_path: Path) -> None:
    (said,) = faults(tmp_path, upstream(f'ca_file = "{name}"'))
    assert said.endswith("which is no file, expected a PEM file")


def test_a_file_that_is_too_large_is_no_pem_file(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as opened:
        opened.truncate(LARGEST + 1)
    (said,) = faults(tmp_path, upstream(f"ca_file = '{file}'"))
    assert f"which cannot be read (it is larger than {LARGEST >> 20} MiB)" in said


def test_what_files_say_goes_where_the_configuration_goes_and_is_shown_nowhere(tmp_path: Path) -> None:
    config = loaded(tmp_path, listener() + upstream(f"ca_file = '{tls.CA}'"))
    there = pickle.loads(pickle.dumps(config))
    assert there == config
    assert there.server.tls.key.content == Path(KEY).read_bytes()
    assert there.backends[0].tls.ca_file.content == Path(tls.CA).read_bytes()
    assert "PRIVATE KEY" not in repr(config) + to_toml(config) and KEY in to_toml(config)


def test_a_file_that_many_backends_name_is_held_and_sent_once(tmp_path: Path) -> None:
    more = "".join(f"[[backends]]\nname = 'b{at}'\nendpoints = ['https://a']\n" for at in range(50))
    text = f"[defaults]\ntls.ca_file = '{tls.CA}'\n" + upstream("verify = true", more)
    config = loaded(tmp_path, text)
    assert len({id(backend.tls.ca_file) for backend in config.backends}) == 1
    assert pickle.dumps(config).count(Path(tls.CA).read_bytes()) == 1


def test_a_file_with_other_content_is_the_same_key_and_makes_another_peer(tmp_path: Path) -> None:
    file = tmp_path / "authority.pem"
    found = []
    for content in (b"one", b"other"):
        file.write_bytes(content)
        found.append(loaded(tmp_path, upstream(f"ca_file = '{file}'")))
    before, after = found
    assert not list(changed_keys(before, after))
    assert contents(before.backends[0].tls) != contents(after.backends[0].tls)
