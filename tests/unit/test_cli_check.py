"""`headrace check`: what it prints where, and its exit status."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from gateway.cli import main
from gateway.config.schema import Backend, Protocol
from gateway.presets import kinds_of, speech_of
from protocols.dialect import Task
from tests.unit.configuring import BACKEND, KEYED, written


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("GEN_GATEWAY", "GATEWAY_", "RUST_LOG")):
            monkeypatch.delenv(name)


def test_a_sound_configuration_is_ok_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = BACKEND + BACKEND.replace('"b"', '"c"').replace(':1"', ':1", "http://d"')
    off = BACKEND.replace('"b"', '"off"') + "enabled = false\n"
    assert main(["check", "-c", written(tmp_path, KEYED + two + off)]) == 0
    assert capsys.readouterr() == ("ok: 2 backends, 3 endpoints, 1 key\n", "")


def test_without_a_file_the_built_in_one_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "ok: 1 backend, 1 endpoint, 1 key\n"


def test_every_fault_is_a_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "[server]\nport = -1\nprot = 1\n")
    assert main(["check", "-c", path]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{path}: server.port: is -1, expected an integer from 0 to 65535",
        f'{path}: server.prot: is not a key, did you mean "port"?',
    ]


def test_the_environment_is_judged_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GEN_GATEWAY__SERVER__PORT", "x")
    assert main(["check"]) == 2
    assert capsys.readouterr().err.startswith("environment GEN_GATEWAY__SERVER__PORT: server.port: ")


def test_what_is_in_a_certificate_s_files_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certs = Path(__file__).parents[1] / "wire" / "certs"
    text = f"[server.tls]\ncert = '{certs}/server.pem'\nkey = '{certs}/KEY'\n"
    assert main(["check", "-c", written(tmp_path, text.replace("KEY", "server.key"))]) == 0
    path = written(tmp_path, text.replace("KEY", "client.key"))
    assert main(["check", "-c", path]) == 2
    said = capsys.readouterr().err
    expected = f"{path}: server.tls.key: the file {certs}/client.key is not the key of "
    assert said.startswith(expected) and said.count("\n") == 1


def test_litellm_without_its_package_is_told_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cli.trial.is_installed", lambda: False)
    text = """
        [[backends]]
        name = "sdk"
        endpoints = ["litellm://groq/llama-3:8b", "litellm://m?api_key=x"]
        models = ["m"]
    """
    path = written(tmp_path, KEYED + text)
    assert main(["check", "-c", path]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: backends[sdk].endpoints: protocol litellm needs the extra: pip install 'headrace[litellm]'",
        f"{path}: backends[sdk].endpoints[1]: cannot be asked: 'api_key' is no option of a litellm address, "
        "expected api_base once",
    ]
    monkeypatch.setattr("gateway.cli.trial.is_installed", lambda: True)
    assert main(["check", "-c", written(tmp_path, KEYED + text.replace("?api_key=x", ""))]) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'endpoints = ["litellm://m", "http://a"]',
            'has the scheme http while protocol is "litellm", expected litellm',
        ),
        ('protocol = "openai"\nendpoints = ["litellm://m"]', 'has the scheme litellm while protocol is "openai"'),
        ('endpoints = ["litellm://m"]\nauth = { type = "basic", username = "u", token = "t" }', "expected bearer"),
    ],
)
def test_litellm_goes_with_its_own_scheme_and_a_bearer_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr("gateway.cli.trial.is_installed", lambda: True)
    backend = f'[[backends]]\nname = "sdk"\nmodels = ["m"]\n{text}\n'
    assert main(["check", "-c", written(tmp_path, KEYED + backend)]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name a message has room for: pytest's may be long."""
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        yield Path(folder)


def test_what_serving_would_fail_at_is_found_with_its_file_and_key(
    short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path = short
    server_key = Path(__file__).parents[1] / "wire" / "certs" / "server.key"
    (tmp_path / "folder").mkdir()
    text = f"""
        [logging]
        output = ["stdout", "{tmp_path}/none/a.log", "{tmp_path}/folder", "{tmp_path}/new.log"]
        [[backends]]
        name = "played"
        endpoints = ["mock://a?text=x", {{ url = "mock://b?nix=1" }}]
        models = ["m"]
        [[backends]]
        name = "called"
        endpoints = ["https://a"]
        models = ["n"]
        tls = {{ ca_file = "{server_key}" }}
    """
    path = written(tmp_path, KEYED + text)
    assert main(["check", "-c", path]) == 2
    expected = "expected a file, stdout or stderr"
    assert capsys.readouterr().err.splitlines() == [
        f'{path}: logging.output[1]: is "{tmp_path}/none/a.log", which cannot be written '
        f"({tmp_path}/none is no directory), {expected}",
        f'{path}: logging.output[2]: is "{tmp_path}/folder", which cannot be written (Is a directory), {expected}',
        f"{path}: backends[played].endpoints[1]: cannot be played: 'nix' is no option of a mock address",
        f"{path}: backends[called].tls: names files that cannot be used (NO_CERTIFICATE_OR_CRL_FOUND), "
        "expected PEM files",
    ]
    assert not (tmp_path / "new.log").exists(), "a file that is not there yet is not made"
    off = text.replace("name = ", "enabled = false\nname = ").replace(
        f', "{tmp_path}/none/a.log", "{tmp_path}/folder"', ""
    )
    assert main(["check", "-c", written(tmp_path, KEYED + off)]) == 0


@pytest.mark.parametrize("count", [-1, 257, 1_000_000])
def test_there_is_a_most_of_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int) -> None:
    path = written(tmp_path, f"[server]\nworkers = {count}\n")
    assert main(["check", "-c", path]) == 2
    assert capsys.readouterr().err == f"{path}: server.workers: is {count}, expected an integer from 0 to 256\n"


@pytest.mark.parametrize("options", [("-c", "A", "-c", "B"), ("-c", "A", "B"), ("--config", "A", "B")])
def test_several_paths_are_one_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    paths = {"A": written(tmp_path, KEYED, "a.toml"), "B": written(tmp_path, BACKEND, "b.toml")}
    assert main(["check", *(paths.get(option, option) for option in options)]) == 0


def test_print_shows_toml_that_loads_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, KEYED + BACKEND + "auth = { type = 'bearer', token = 'hunter2' }\n")
    assert main(["check", "-c", path, "--print"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# ok: 1 backend, 1 endpoint, 1 key\n")
    assert "hunter2" not in printed
    assert tomllib.loads(printed)["server"]["port"] == 8080
    assert main(["check", "-c", written(tmp_path, printed, "again.toml"), "--print"]) == 0
    assert capsys.readouterr().out == printed


def test_schema_prints_a_json_schema_and_judges_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", "/no/such", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Headrace"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "protocol = 'anthropic'\ncapabilities = ['chat', 'images']",
            'capabilities[1]: is "images", for which protocol anthropic has no path, expected one of "chat", '
            "or its path in native",
        ),
        (
            "protocol = 'tgi'\ncapabilities = ['generate_stream', 'embeddings']",
            'capabilities[1]: is "embeddings", for which protocol tgi has no path, expected one of "chat", '
            '"completion", or its path in native',
        ),
        (
            "native = ['/v1/embeddings']\ncapabilities = ['chat']",
            'capabilities[0]: is "chat", for which native has no path, expected one of "embeddings", '
            "or its path in native",
        ),
        (
            "endpoints = ['mock://local']\nprotocol = 'mock'\nnative = ['/v1/chat/completions', '/v1/messages']",
            'native[1]: is "/v1/messages", which protocol mock has not, expected one of "/v1/chat/completions", ',
        ),
        (
            "endpoints = ['litellm://m']\nprotocol = 'litellm'\ncapabilities = ['audio']",
            'capabilities[0]: is "audio", for which protocol litellm has no path, expected one of "chat", '
            '"completion", "embeddings"',
        ),
        (
            "protocol = 'vllm'\napi_version = '2026-10-21'",
            'api_version: is "2026-10-21" with protocol vllm, expected anthropic with it',
        ),
    ],
)
def test_what_a_backend_can_never_be_asked_for_is_a_fault(
    short: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr("gateway.cli.trial.is_installed", lambda: True)
    endpoints = "" if "endpoints" in text else "endpoints = ['http://a:1']\n"
    path = written(short, f"{KEYED}[[backends]]\nname = 'b'\nmodels = ['m']\n{endpoints}{text}\n")
    assert main(["check", "-c", path]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: backends[b].{said}")


@pytest.mark.parametrize(
    "text",
    [
        "protocol = 'groq'\nnative = ['/v1/images/generations']\ncapabilities = ['images']",
        "protocol = 'ollama'\nnative = ['/v1/chat/completions']\ncapabilities = ['chat', 'embeddings']",
        "protocol = 'tgi'\ncapabilities = ['generate', 'chat']",
        "protocol = 'openai'\ncapabilities = ['images', 'audio', 'rerank', 'moderations']",
        "native = ['/v1/responses']\ncapabilities = ['chat']",
        "protocol = 'openai'\nnative = ['/api/chat', '/v1/messages']",
        "[defaults]\napi_version = '2026-10-21'",
    ],
)
def test_what_some_server_may_have_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    backend = f"[[backends]]\nname = 'b'\nmodels = ['m']\nendpoints = ['http://a:1']\n{text}\n"
    assert main(["check", "-c", written(tmp_path, KEYED + backend)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_every_protocol_can_what_its_kinds_say(protocol: Protocol) -> None:
    backend = Backend(name="b", protocol=protocol, endpoints=("http://a:1",))
    speech = speech_of(backend)
    served = {door.capability for door in speech.native} | {
        {Task.CHAT: "chat", Task.COMPLETION: "completion", Task.EMBEDDINGS: "embeddings"}[task] for task in speech.sides
    }
    assert set(kinds_of(backend)) == served
