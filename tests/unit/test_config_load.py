"""The order of strength, inheritance, what an empty configuration serves, and what loading never shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gateway.config.load import load
from gateway.config.schema import Config
from gateway.config.secrets import digest
from tests.unit.configuring import BACKEND, KEYED, faults, loaded

PORT = "GEN_GATEWAY__SERVER__PORT"


def test_defaults_are_weaker_than_files_than_the_environment_than_the_command_line(tmp_path: Path) -> None:
    file, environ, line = "[server]\nport = 2\n", {PORT: "3"}, {"server.port": 4}
    assert loaded(tmp_path).server.port == 8080
    assert loaded(tmp_path, file).server.port == 2
    assert loaded(tmp_path, file, environ).server.port == 3
    assert loaded(tmp_path, file, environ, line).server.port == 4
    assert loaded(tmp_path, file, {}, line).server.port == 4


def test_an_override_is_plain_or_text_and_none_is_no_override(tmp_path: Path) -> None:
    line = {"server.port": "9000", "server.backlog": 7, "server.host": None, "logging.level": "debug"}
    config = loaded(tmp_path, "", {}, line)
    assert (config.server.port, config.server.backlog, config.server.host) == (9000, 7, "127.0.0.1")
    assert config.logging.level == "debug"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"server.port": 70000}, "command line: server.port: is 70000, expected an integer from 0 to 65535"),
        ({"server.port": "x"}, 'command line: server.port: is "x", expected an integer from 0 to 65535'),
        ({"server.prot": 1}, 'command line: is not a key, did you mean "server.port"?'),
    ],
)
def test_a_wrong_override_is_a_fault_of_the_command_line(tmp_path: Path, line: dict[str, object], said: str) -> None:
    assert faults(tmp_path, overrides=line) == [said]


def test_faults_of_every_source_come_in_one_run(tmp_path: Path) -> None:
    found = faults(tmp_path, "[server]\nbacklog = 0\n", {PORT: "x", "GATEWAY_REDIS_URL": "r"}, {"logging.level": "x"})
    assert sorted(fault.partition(": ")[0] for fault in found) == [
        "command line",
        "environment GATEWAY_REDIS_URL",
        f"environment {PORT}",
        "gateway.toml",
    ]


def test_nothing_configured_is_one_mock_backend_and_dev_key() -> None:
    config = load([], {}, {})
    [backend] = config.backends
    assert (backend.name, backend.endpoints, backend.protocol, backend.models) == (
        "mock",
        ("mock://local",),
        "mock",
        ("mock",),
    )
    [key] = config.auth.keys
    assert (key.name, key.sha256, str(key.key)) == ("dev", digest("dev-key"), "")
    assert msgspec.structs.replace(config, backends=(), auth=Config().auth) == Config()


@pytest.mark.parametrize("text", ["# nothing\n", "[server]\nport = 1\n", "backends = []\n", "auth.keys = []\n"])
def test_a_file_without_backends_serves_the_mock_one_too(tmp_path: Path, text: str) -> None:
    config = loaded(tmp_path, text)
    assert [backend.name for backend in config.backends] == ["mock"]
    assert [key.name for key in config.auth.keys] == ["dev"]


def test_the_mock_backend_takes_a_configured_key(tmp_path: Path) -> None:
    assert [key.name for key in loaded(tmp_path, KEYED).auth.keys] == ["k"]


def test_the_mock_backend_inherits_nothing_it_would_be_refused_for(tmp_path: Path) -> None:
    text = "[defaults]\ntimeouts.idle = 7\n"
    assert loaded(tmp_path, text).backends[0].protocol == "mock"


def test_backends_without_a_key_are_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, BACKEND) == [
        "gateway.toml: auth.keys: no key is configured, expected at least one "
        "(set auth.enabled = false to serve everyone)"
    ]
    environ = {"GEN_GATEWAY__BACKENDS": '[{"name": "b", "endpoints": ["http://b"]}]'}
    assert [fault.partition(": no")[0] for fault in faults(tmp_path, environ=environ)] == ["environment: auth.keys"]


def test_backends_for_everyone_need_no_key(tmp_path: Path) -> None:
    config = loaded(tmp_path, BACKEND + "[auth]\nenabled = false\n[server]\nhost = '0.0.0.0'\n")
    assert config.auth.keys == ()


def test_a_mock_gateway_for_everyone_has_no_key(tmp_path: Path) -> None:
    assert loaded(tmp_path, "[auth]\nenabled = false\n").auth.keys == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gateway"])
@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"GATEWAY_UPSTREAMS": "a=http://a"},
        {"GEN_GATEWAY_API_KEYS": "dev-key"},
        {"GATEWAY_API_KEYS": "dev-key"},
        {"GEN_GATEWAY__AUTH__KEYS": f'[{{"name": "k", "sha256": "{digest("dev-key")}"}}]'},
    ],
)
def test_dev_key_alone_does_not_serve_other_hosts(tmp_path: Path, host: str, environ: dict[str, str]) -> None:
    environ = {**environ, "GEN_GATEWAY__SERVER__HOST": host}
    [fault] = faults(tmp_path, environ=environ)
    assert fault.startswith(
        f'environment GEN_GATEWAY__SERVER__HOST: server.host: is "{host}" while dev-key is the only'
    )
    assert "auth.allow_dev_key = true" in fault
    assert "GEN_GATEWAY__AUTH__ALLOW_DEV_KEY" in fault
    assert faults(tmp_path, environ={**environ, "GEN_GATEWAY__AUTH__ALLOW_DEV_KEY": "true"}) == []
    assert faults(tmp_path, "[auth]\nallow_dev_key = true\n", environ) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_dev_key_serves_this_machine(tmp_path: Path, host: str) -> None:
    assert faults(tmp_path, overrides={"server.host": host}) == []


def test_a_key_beside_dev_key_serves_other_hosts(tmp_path: Path) -> None:
    environ = {"GEN_GATEWAY_API_KEYS": "dev-key,another", "GEN_GATEWAY__SERVER__HOST": "0.0.0.0"}
    assert faults(tmp_path, environ=environ) == []


def test_what_could_not_be_read_is_not_taken_for_missing(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("[[auth.keys]\n")
    (tmp_path / "backends.toml").write_text(BACKEND + "[routing]\ndefault_backend = 'c'\n")
    with pytest.raises(Exception, match="line 1") as caught:
        load([str(tmp_path)], {}, {})
    assert "no key is configured" not in str(caught.value)
    assert "default_backend" not in str(caught.value)


# Inheritance


def test_a_backend_inherits_what_it_does_not_set(tmp_path: Path) -> None:
    text = f"""
        {KEYED}
        [defaults]
        balance = "p2c"
        timeouts = {{ connect = "1s", idle = "9s" }}
        retry.tries = 5
        tls.verify = false
        [[backends]]
        name = "b"
        endpoints = ["http://b"]
        timeouts.idle = "3s"
        usage = "observe"
    """
    config = loaded(tmp_path, text)
    [backend] = config.backends
    assert (backend.balance, backend.usage, backend.retry.tries, backend.tls.verify) == ("p2c", "observe", 5, False)
    assert (backend.timeouts.connect, backend.timeouts.idle, backend.timeouts.first_byte) == (1, 3, 120)
    assert config.defaults.timeouts.idle == 9


def test_defaults_of_one_file_hold_for_backends_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(KEYED + BACKEND)
    (tmp_path / "b.toml").write_text("[defaults]\npool.max_idle = 3\n")
    assert load([str(tmp_path)], {}, {}).backends[0].pool.max_idle == 3


def test_defaults_of_the_environment_are_inherited(tmp_path: Path) -> None:
    environ = {"GEN_GATEWAY__DEFAULTS__TIMEOUTS__CONNECT": "1s"}
    two = BACKEND + BACKEND.replace('"b"', '"c"') + "timeouts.connect = 5\n"
    assert [b.timeouts.connect for b in loaded(tmp_path, KEYED + two, environ).backends] == [1, 5]


AUTH = "[defaults]\nauth = { type = 'bearer', token_env = 'SHARED' }\n"
SHARED = {"SHARED": "shared", "OWN": "own"}


@pytest.mark.parametrize(
    ("own", "kind", "token"),
    [
        ("", "bearer", "shared"),
        ("auth = { }", "bearer", "shared"),
        ("auth.type = 'none'", "none", ""),
        ("auth.token = 'own'", "bearer", "own"),
        ("auth.token_env = 'OWN'", "bearer", "own"),
        ("auth = { type = 'header', header_name = 'api-key' }", "header", "shared"),
        ("auth = { type = 'basic', username = 'u', token = 'own' }", "basic", "own"),
    ],
)
def test_a_backends_own_credentials_take_the_place_of_inherited_ones(
    tmp_path: Path, own: str, kind: str, token: str
) -> None:
    [backend] = loaded(tmp_path, KEYED + AUTH + BACKEND + own, SHARED).backends
    assert (backend.auth.type, str(backend.auth.token)) == (kind, token)


def test_the_defaults_need_not_be_complete(tmp_path: Path) -> None:
    text = KEYED + "[defaults]\nauth.type = 'bearer'\n" + BACKEND + "auth.token = 'own'\n"
    assert faults(tmp_path, text) == []
    [fault] = faults(tmp_path, text.replace("auth.token = 'own'\n", ""))
    assert "expected exactly one of token, token_env, token_file" in fault


def test_a_secret_that_an_inherited_variable_lacks_names_the_defaults(tmp_path: Path) -> None:
    two = BACKEND + BACKEND.replace('"b"', '"c"')
    assert faults(tmp_path, KEYED + AUTH + two) == [
        "gateway.toml: defaults.auth.token_env: the environment variable SHARED is not set or empty, "
        "expected the secret in it"
    ]


@pytest.mark.parametrize(
    ("lines", "protocol"),
    [
        ("endpoints = ['mock://a']", "mock"),
        ("endpoints = [{ url = 'mock://a' }]", "mock"),
        ("endpoints = ['http://a']", "openai"),
        ("endpoints = ['http://a']\nprotocol = 'vllm'", "vllm"),
    ],
)
def test_a_protocol_left_out_follows_the_endpoints(tmp_path: Path, lines: str, protocol: str) -> None:
    [backend] = loaded(tmp_path, f"{KEYED}[[backends]]\nname = 'b'\n{lines}\n").backends
    assert backend.protocol == protocol


# What is never shown


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    text = f"""
        [[auth.keys]]
        name = "k"
        key = "hunter2-key"
        [defaults]
        auth = {{ type = "bearer", token = "hunter2-shared" }}
        {BACKEND}
        {BACKEND.replace('"b"', '"c"')}
        auth = {{ token_env = "TOKEN" }}
    """
    config = loaded(tmp_path, text, {"TOKEN": "hunter2-variable"})
    assert str(config.backends[0].auth.token) == "hunter2-shared"
    assert str(config.backends[1].auth.token) == "hunter2-variable"
    for shown in (repr(config), str(config), f"{config}", repr(config.backends[1].auth)):
        assert "hunter2" not in shown


def test_a_loaded_key_is_a_digest_only(tmp_path: Path) -> None:
    [key] = loaded(tmp_path, KEYED).auth.keys
    assert (str(key.key), key.sha256) == ("", digest("a-key"))


def test_loading_needs_nothing_of_the_network() -> None:
    code = (
        "import sys; import gateway.config.load, gateway.config.render, gateway.admission.keys;"
        "print(sorted({'asyncio', 'ssl', 'socket', 'httptools', 'uvloop', 'orjson', 'logging'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"
