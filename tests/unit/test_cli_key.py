"""`headrace key`: new keys, and the digests of others."""

from __future__ import annotations

import io
import tomllib

import pytest

from gateway.admission.keys import Keyring
from gateway.cli import key as module
from gateway.cli import main
from gateway.config.load import load
from gateway.config.schema import Key
from gateway.config.secrets import digest


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def _given(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_new_key_is_let_in_by_the_toml_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "new", "--name", 'team "a"']) == 0
    secret, _, rest = capsys.readouterr().out.partition("\n")
    assert secret.startswith("hr_")
    assert len(secret) == len("hr_") + 43
    [raw] = tomllib.loads(rest)["auth"]["keys"]
    assert raw == {"name": 'team "a"', "sha256": digest(secret)}
    found = Keyring([Key(**raw)]).identify(secret.encode())
    assert found is not None and found.name == 'team "a"'


def test_the_toml_of_a_new_key_loads(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    main(["key", "new"])
    [raw] = tomllib.loads(capsys.readouterr().out.partition("\n")[2])["auth"]["keys"]
    config = load([], {}, {"auth.keys": [raw]})
    assert [key.name for key in config.auth.keys] == ["new"]


def test_no_two_new_keys_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        main(["key", "new"])
    keys = [line for line in capsys.readouterr().out.splitlines() if line.startswith("hr_")]
    assert len(set(keys)) == 20


@pytest.mark.parametrize("name", ["", " a", "a\nb"])
def test_a_name_that_would_not_load_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["key", "new", "--name", name]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("--name: ")


@pytest.mark.parametrize("content", [b"a-key", b"a-key\n", b"a-key\r\n"])
def test_a_piped_key_is_hashed_without_its_line_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    _given(monkeypatch, content)
    assert main(["key", "hash"]) == 0
    assert capsys.readouterr() == (digest("a-key") + "\n", "")


def test_a_typed_key_is_not_echoed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def typed(prompt: str) -> str:
        asked.append(prompt)
        return "a-key"

    monkeypatch.setattr("sys.stdin", _Terminal(io.BytesIO(b"")))
    monkeypatch.setattr(module.getpass, "getpass", typed)
    assert main(["key", "hash"]) == 0
    assert asked == ["Key: "]
    assert capsys.readouterr().out == digest("a-key") + "\n"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b" hunter2", b"hunter2\n\n", b"hun\x00ter2", b"hunter2" * 50, b"\xff\n"]
)
def test_a_key_that_would_not_load_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    _given(monkeypatch, content)
    assert main(["key", "hash"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("standard input: the key ")
    assert "hunter2" not in err
