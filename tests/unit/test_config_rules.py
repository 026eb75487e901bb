"""What must hold beyond types: a table of what each rule refuses, beside what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.configuring import BACKEND, KEYED, faults, loaded, written

NAMES = "expected text without control characters or spaces around it"
HEX = "5e" * 32

REFUSED = [
    # server
    ("server.host = ''", "server.host", 'is ""'),
    ("server.host = 'a b'", "server.host", 'is "a b"'),
    ("server.host = 'http://a'", "server.host", "expected an IP address or the name of a host"),
    ("server.host = '1.2.3'", "server.host", 'is "1.2.3"'),
    ("server.host = 'unix:gateway.sock'", "server.host", "expected unix:/"),
    ('server.host = "unix:/a\\nb"', "server.host", "expected unix:/"),
    (f"server.host = 'unix:/{'a' * 96}'", "server.host", "of at most 96 bytes"),
    ("server.socket_mode = '660!'", "server.socket_mode", 'expected three octal digits such as "0660"'),
    ("server.socket_mode = '0888'", "server.socket_mode", "octal"),
    # auth
    ("auth.header = ''", "auth.header", "the name of a header"),
    ("auth.header = 'X Key'", "auth.header", "the name of a header"),
    ("auth.header = 'X:Key'", "auth.header", "the name of a header"),
    ('auth.header = "X\\r\\nKey"', "auth.header", "the name of a header"),
    ("auth.query_param = 'a=b'", "auth.query_param", "expected letters, digits"),
    ("auth.bypass_paths = ['health']", "auth.bypass_paths[0]", 'starts with "/"'),
    ("auth.bypass_paths = ['/a', '/b c']", "auth.bypass_paths[1]", "visible ASCII"),
    # keys
    ("[[auth.keys]]\nname='k'", "auth.keys[k]", "has none of them, expected exactly one of"),
    ("[[auth.keys]]\nname='k'\nkey='a'\nkey_env='B'", "auth.keys[k]", "has key and key_env, expected exactly one"),
    (f"[[auth.keys]]\nname='k'\nkey='a'\nsha256='{HEX}'", "auth.keys[k]", "has key and sha256"),
    ("[[auth.keys]]\nkey='a'", "auth.keys[0].name", "is missing, expected text"),
    ("[[auth.keys]]\nname=''\nkey='a'", "auth.keys[0].name", NAMES),
    ("[[auth.keys]]\nname=' k'\nkey='a'", "auth.keys[0].name", NAMES),
    ('[[auth.keys]]\nname="k\\nk"\nkey="a"', "auth.keys[0].name", NAMES),
    ("[[auth.keys]]\nname='k'\nsha256='5e'", "auth.keys[k].sha256", "64 hexadecimal digits"),
    (f"[[auth.keys]]\nname='k'\nsha256='{'g' * 64}'", "auth.keys[k].sha256", "64 hexadecimal digits"),
    (f"[[auth.keys]]\nname='k'\nsha256='{HEX}0'", "auth.keys[k].sha256", "64 hexadecimal digits"),
    ("[[auth.keys]]\nname='k'\nkey=' a'", "auth.keys[k].key", "spaces around it"),
    ('[[auth.keys]]\nname="k"\nkey="a\\u0000b"', "auth.keys[k].key", "control characters"),
    (f"[[auth.keys]]\nname='k'\nkey='{'a' * 257}'", "auth.keys[k].key", "longer than 256 bytes"),
    (f"[[auth.keys]]\nname='k'\nkey='{'é' * 129}'", "auth.keys[k].key", "longer than 256 bytes"),
    ("[[auth.keys]]\nname='k'\nkey_env='UNSET'", "auth.keys[k].key_env", "the environment variable UNSET is not set"),
    ("[[auth.keys]]\nname='k'\nkey_env='EMPTY'", "auth.keys[k].key_env", "the environment variable EMPTY is not set"),
    ("[[auth.keys]]\nname='k'\nkey_env='A-B'", "auth.keys[k].key_env", "not the name of an environment variable"),
    ("[[auth.keys]]\nname='k'\nkey_env='SPACED'", "auth.keys[k].key_env", "spaces around it"),
    ("[[auth.keys]]\nname='k'\nkey_file='/no/such'", "auth.keys[k].key_file", "/no/such cannot be read"),
    ("[[auth.keys]]\nname='k'\nkey_file='/'", "auth.keys[k].key_file", "cannot be read"),
    ("[[auth.keys]]\nname='k'\nkey_file='/dev/null'", "auth.keys[k].key_file", "empty or too large"),
    ("[[auth.keys]]\nname='k'\nkey_file='/dev/zero'", "auth.keys[k].key_file", "empty or too large"),
    ("[[auth.keys]]\nname='k'\nkey='a'\nallowed_models=['']", "auth.keys[k].allowed_models[0]", NAMES),
    (
        "[[auth.keys]]\nname='k'\nkey='a'\n[[auth.keys]]\nname='k'\nkey='b'",
        "auth.keys[k].name",
        "expected each name once",
    ),
    (
        "[[auth.keys]]\nname='k'\nkey='a'\n[[auth.keys]]\nname='j'\nkey='a'",
        "auth.keys[j]",
        'is the same key as "k"',
    ),
    # routing, logging, cors, metrics
    ("routing.default_backend = 'none'", "routing.default_backend", "is no enabled backend"),
    ("routing.default_backend = 'mok'", "routing.default_backend", 'did you mean "mock"?'),
    ("logging.output = ['']", "logging.output[0]", NAMES),
    ('logging.output = ["a\\u0000"]', "logging.output[0]", NAMES),
    ("cors.allow_origins = ['example.com']", "cors.allow_origins[0]", "scheme://host[:port]"),
    ("cors.allow_origins = ['https://a/']", "cors.allow_origins[0]", "scheme://host[:port]"),
    ("cors.allow_origins = ['https://a, https://b']", "cors.allow_origins[0]", "scheme://host[:port]"),
    ('cors.allow_origins = ["https://a\\r\\nx: y"]', "cors.allow_origins[0]", "scheme://host[:port]"),
    ("cors.allow_headers = ['a b']", "cors.allow_headers[0]", "the name of a header"),
    ("cors.allow_headers = ['']", "cors.allow_headers[0]", "the name of a header"),
    ("metrics.path = 'metrics'", "metrics.path", 'starts with "/"'),
    ('metrics.path = "/a\\n"', "metrics.path", "visible ASCII"),
]

REFUSED_IN_A_BACKEND = [
    ("name = ''", "name", "expected visible ASCII"),
    ('name = "a\\r\\nb"', "name", "expected visible ASCII"),
    ("name = 'café'", "name", "expected visible ASCII"),
    ("name = ' a'", "name", "expected visible ASCII"),
    ("endpoints = []", "endpoints", "is empty, expected at least one URL"),
    ("endpoints = ['localhost:8000']", "endpoints[0]", "is not a URL"),
    ("endpoints = ['http://a', 'http://u:p@b']", "endpoints[1]", "carries a user name or password"),
    ("endpoints = [{ url = 'http://a?b=c' }]", "endpoints[0].url", "carries a query"),
    ("endpoints = ['https://a#b']", "endpoints[0]", "carries a fragment"),
    ("endpoints = ['grpc://a:1']", "endpoints[0]", "has the scheme grpc"),
    ("endpoints = ['http://a', 'mock://a']", "endpoints[1]", 'the scheme mock while protocol is "openai"'),
    ("endpoints = ['mock://a', 'http://a']", "endpoints[1]", 'the scheme http while protocol is "mock"'),
    ("protocol = 'mock'", "endpoints[0]", 'the scheme http while protocol is "mock"'),
    ("protocol = 'vllm'\nendpoints = ['mock://a']", "endpoints[0]", "the scheme mock while protocol is"),
    ("protocol = 'grpc'", "protocol", 'expected one of "openai", "together", "groq", "vllm"'),
    ("auth.type = 'bearer'", "auth", "has none of them, expected exactly one of token, token_env, token_file"),
    ("auth = { type = 'bearer', token = 'a', token_file = 'b' }", "auth", "has token and token_file"),
    ("auth.token = 'a'", "auth.type", 'is "none" although a token is given'),
    ("auth = { type = 'header', token = 'a' }", "auth.header_name", "the name of a header"),
    ("auth = { type = 'header', token = 'a', header_name = 'a b' }", "auth.header_name", "the name of a header"),
    ("auth = { type = 'header', token = 'a', header_name = 'Host' }", "auth.header_name", "the gateway itself writes"),
    ("auth = { type = 'basic', token = 'a' }", "auth.username", "expected a user name"),
    ("auth = { type = 'basic', token = 'a', username = 'a:b' }", "auth.username", "expected a user name"),
    ("auth = { type = 'bearer', token_env = 'UNSET' }", "auth.token_env", "variable UNSET is not set"),
    ("auth = { type = 'bearer', token_file = '/no/such' }", "auth.token_file", "/no/such cannot be read"),
    ('auth = { type = "bearer", token = "a\\r\\nb" }', "auth.token", "control characters"),
    ("auth = { type = 'bearer', token = 'é' }", "auth.token", "one line of ASCII"),
    ("auth = { type = 'bearer', token_env = 'SPACED' }", "auth.token_env", "spaces around it"),
    (f"tls.cert = '{__file__}'", "tls", "has only one of cert and key"),
    (f"tls.key = '{__file__}'", "tls", "has only one of cert and key"),
    ("tls.ca_file = '/no/such'", "tls.ca_file", "is no file"),
    ("models = ['a', 'a']", "models[1]", 'is "a" once more'),
    ("models = ['a', { a = 'b' }]", "models[1]", 'is "a" once more'),
    ("models = ['']", "models[0]", "is not the name of a model"),
    ("models = [{ a = '' }]", "models[0]", "is not the name of a model"),
    ("models = [{ }]", "models[0]", "is an empty table"),
    ('models = ["a\\nb"]', "models[0]", "is not the name of a model"),
    ("passthrough = ['/files']", "passthrough[0]", 'starts with "/v1/"'),
    ("passthrough = ['/v1/files*', 'v1/a']", "passthrough[1]", 'starts with "/v1/"'),
    ("passthrough = ['/v1/a b']", "passthrough[0]", "visible ASCII"),
    ("health.path = 'health'", "health.path", 'starts with "/"'),
    ("health.path = '/a b'", "health.path", "visible ASCII"),
    ("health.interval = -1", "health.interval", "expected"),
    ("load.path = 'metrics'", "load.path", 'starts with "/"'),
    ("load.timeout = 0", "load.timeout", "expected"),
    ("breaker.max_failures = -1", "breaker.max_failures", "expected"),
    ("breaker.reset = 0", "breaker.reset", "expected"),
    ("balance = 'fastest'", "balance", 'expected one of "least_connections"'),
]

ENVIRON = {"EMPTY": "", "SPACED": " a ", "TOKEN": "tok-123", "KEY": "key-123"}


@pytest.mark.parametrize(("text", "key", "said"), REFUSED)
def test_a_rule_refuses(tmp_path: Path, text: str, key: str, said: str) -> None:
    [fault] = faults(tmp_path, text, ENVIRON)
    assert fault.startswith(f"gateway.toml: {key}: ")
    assert said in fault


def _backend(lines: str) -> str:
    defaults = {"name": "'b'", "endpoints": "['http://localhost:1']"}
    given = {line.partition(" = ")[0] for line in lines.splitlines()}
    kept = "".join(f"{name} = {value}\n" for name, value in defaults.items() if name not in given)
    return f"{KEYED}[[backends]]\n{kept}{lines}\n"


@pytest.mark.parametrize(("lines", "key", "said"), REFUSED_IN_A_BACKEND)
def test_a_rule_refuses_a_backend(tmp_path: Path, lines: str, key: str, said: str) -> None:
    [fault] = faults(tmp_path, _backend(lines), ENVIRON)
    label = "0" if lines.startswith("name") else "b"
    assert fault.startswith(f"gateway.toml: backends[{label}].{key}: ")
    assert said in fault


@pytest.mark.parametrize(
    "lines",
    [
        "endpoints = ['http://a', 'https://b/v1', { url = 'http://[::1]:8000', weight = 3 }]",
        "endpoints = ['mock://a?delay=5ms', { url = 'MOCK://b' }]",
        "protocol = 'vllm'",
        "auth = { type = 'bearer', token_env = 'TOKEN' }",
        "auth = { type = 'header', header_name = 'api-key', token = 'a' }",
        "auth = { type = 'basic', username = 'u', token = 'pä ss:word' }",
        "models = ['a/b:c', 'gpt-*', { 'x' = 'y', 'z' = 'y' }]",
        "passthrough = ['/v1/files*', '/v1/batches']",
        "name = 'meta-llama/Llama 3'",
        "enabled = false\nauth = { type = 'bearer', token_env = 'UNSET' }",
        "enabled = false\ntls.ca_file = '/no/such'",
    ],
)
def test_a_rule_takes_what_is_sound(tmp_path: Path, lines: str) -> None:
    assert faults(tmp_path, _backend(lines), ENVIRON) == []


def test_several_backends_may_list_one_model(tmp_path: Path) -> None:
    one = BACKEND + 'models = ["m"]\n'
    assert faults(tmp_path, KEYED + one + one.replace('"b"', '"c"')) == []


def test_a_default_backend_must_be_enabled(tmp_path: Path) -> None:
    text = KEYED + BACKEND + "enabled = false\n[routing]\ndefault_backend = 'b'\n"
    [fault] = faults(tmp_path, text)
    assert fault.startswith('gateway.toml: routing.default_backend: is "b", which is no enabled backend')


def test_each_wrong_key_of_one_table_is_told(tmp_path: Path) -> None:
    found = faults(tmp_path, KEYED + BACKEND + "auth = { type = 'header', token = 'a', token_env = 'B' }\n")
    assert [fault.partition(": has")[0].partition(": is")[0] for fault in found] == [
        "gateway.toml: backends[b].auth",
        "gateway.toml: backends[b].auth.header_name",
    ]


def test_a_misspelt_key_is_told_without_what_only_follows_from_it(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, KEYED + BACKEND + "auth = { type = 'bearer', tokn = 'a' }\n")
    assert "auth.tokn: is not a key" in fault


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_file_loses_one_line_end(tmp_path: Path, end: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"tok-123" + end.encode())
    plain = loaded(tmp_path, KEYED + BACKEND + "auth = { type = 'bearer', token = 'tok-123' }\n")
    read = loaded(tmp_path, KEYED + BACKEND + f"auth = {{ type = 'bearer', token_file = '{file}' }}\n")
    assert str(read.backends[0].auth.token) == str(plain.backends[0].auth.token) == "tok-123"


def test_a_secret_file_of_two_lines_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "a\n\n", "secret")
    [fault] = faults(tmp_path, f"[[auth.keys]]\nname = 'k'\nkey_file = '{file}'\n")
    assert "auth.keys[k].key_file: the key is empty, has spaces around it or control characters" in fault


def test_a_secret_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff")
    [fault] = faults(tmp_path, f"[[auth.keys]]\nname = 'k'\nkey_file = '{tmp_path}/secret'\n")
    assert "is not UTF-8" in fault


def test_a_key_is_the_same_in_each_of_its_four_ways(tmp_path: Path) -> None:
    file = written(tmp_path, "key-123\n", "secret")
    hexed = loaded(tmp_path, "[[auth.keys]]\nname='k'\nkey='key-123'\n").auth.keys[0].sha256
    for way in (f"key_file = '{file}'", "key_env = 'KEY'", f"sha256 = '{hexed.upper()}'"):
        [key] = loaded(tmp_path, f"[[auth.keys]]\nname = 'k'\n{way}\n", ENVIRON).auth.keys
        assert (key.sha256, str(key.key)) == (hexed, "")
