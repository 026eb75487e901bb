"""The environment: every key has its variable, and every variable has its key."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import ConfigError, load
from gateway.config.schema import Bytes, Config, Seconds, Section
from gateway.config.shape import bounds, fields, item_of, scalar_of, section_of, words_of
from tests.unit.configuring import BACKEND, KEYED, STEADY, faults, loaded

ONE_OF_EACH = {
    "GEN_GATEWAY__AUTH__KEYS": '[{"name": "k", "key": "a-key"}]',
    "GEN_GATEWAY__BACKENDS": """[
        {"name": "b", "endpoints": [{"url": "http://localhost:1"}]}, {"name": "c", "endpoints": ["http://localhost:2"]}
    ]""",
    "GEN_GATEWAY__ROUTES": '[{"model": "chat", "targets": [{"backend": "c"}]}]',
}

#: Where a rule narrows the kind: the text, and the value that it becomes.
SPECIAL: dict[str, tuple[str, Any]] = {
    "server.host": ("::1", "::1"),
    "server.socket_mode": ("0600", "0600"),
    "server.trusted_proxies": ("10.0.0.0/8, unix:", ("10.0.0.0/8", "unix:")),
    "auth.query_param": ("api_key", "api_key"),
    "auth.bypass_paths": ("/a, /b*", ("/a", "/b*")),
    "auth.keys.0.key": ("other", None),
    "auth.keys.0.key_env": ("A_KEY", "A_KEY"),
    "auth.keys.0.key_file": (__file__, None),
    "auth.keys.0.sha256": ("5e" * 32, "5e" * 32),
    "backends.0.endpoints.0.url": ("http://[::1]:7/v1", "http://[::1]:7/v1"),
    "backends.0.passthrough": ("/v1/files*", ("/v1/files*",)),
    "backends.0.protocol": ("vllm", "vllm"),
    "backends.0.models": ("a,b", ("a", "b")),
    "backends.0.tls.ca_file": (__file__, __file__),
    "defaults.tls.ca_file": (__file__, __file__),
    **{f"{table}.retry.on": ("timeout, 500", ("timeout", 500)) for table in ("defaults", "backends.0")},
    **{f"{table}.retry.budget": ("0.5", 0.5) for table in ("defaults", "backends.0")},
    **{f"{table}.{asked}.path": ("/h", "/h") for table in ("defaults", "backends.0") for asked in ("health", "load")},
    "routes.0.strategy": ("direct", "direct"),
    "routes.0.targets.0.backend": ("b", "b"),
    "routes.0.fallbacks": ("c, m", ("c", "m")),
    "routing.default_backend": ("b", "b"),
    "routing.model_mappings": ('{"x": "b"}', {"x": "b"}),
    "cors.allow_origins": ("https://a", ("https://a",)),
    "metrics.path": ("/m", "/m"),
}

#: Read only together with others; each has a test of its own below or in test_config_rules.
TOGETHER = {
    *("auth.type", "auth.header_name", "auth.username", "auth.token", "auth.token_env", "auth.token_file"),
    *("tls.cert", "tls.key", "tls.client_ca", "server.proxy_protocol"),
}


def _paths(section: type[Section], path: str = "") -> list[tuple[str, Any, Any]]:
    """The path, kind and default of every key of the schema; 0 stands for the element of an array."""
    found: list[tuple[str, Any, Any]] = []
    for name, field in fields(section).items():
        key = f"{path}.{name}" if path else name
        inner, element = section_of(field.kind), section_of(item_of(field.kind) or str)
        if inner is not None:
            found += _paths(inner, key)
        elif element is not None:
            found += _paths(element, f"{key}.0")
        else:
            found.append((key, field.kind, field.default))
    return found


def _other(key: str, kind: Any, default: Any) -> tuple[str, Any]:
    """A value that is not the default: as text, and as loaded."""
    if key in SPECIAL:
        return SPECIAL[key]
    scalar = scalar_of(kind)
    if (item := item_of(kind)) is not None and len(words := words_of(item)) > 1:
        return ", ".join(words[:2]), words[:2]
    if words := words_of(kind):
        word = next(word for word in words if word != default)
        return word, word
    if scalar is bool:
        return str(not default).upper(), not default
    if scalar is Seconds:
        return "1500ms", 1.5
    if scalar is Bytes:
        return "3KiB", 3072
    if scalar is int:
        return str(high := (bounds(kind).high or 0) // 2), high
    return ("a, b", ("a", "b")) if item_of(kind) is not None else ("another", "another")


ALL = _paths(Config)
ALONE = [one for one in ALL if ".".join(one[0].split(".")[-2:]) not in TOGETHER]


def _at(config: Config, key: str) -> Any:
    found: Any = config
    for step in key.split("."):
        found = found[int(step)] if step.isdecimal() else getattr(found, step)
    return found


def test_the_schema_has_keys_to_test() -> None:
    assert len(ALL) > 80
    assert set(SPECIAL) <= {key for key, _, _ in ALL} | {"backends.0.endpoints.0.url"}


@pytest.mark.parametrize(("key", "kind", "default"), ALONE, ids=[key for key, _, _ in ALONE])
def test_every_key_has_its_variable(key: str, kind: Any, default: Any) -> None:
    text, expected = _other(key, kind, default)
    environ = {**ONE_OF_EACH, "A_KEY": "from a variable"}
    if key.startswith("auth.keys.0.") and key.rpartition(".")[2] in ("key_env", "key_file", "sha256"):
        environ["GEN_GATEWAY__AUTH__KEYS"] = '[{"name": "k"}]'
    if key == "auth.keys.0.key_file":
        with pytest.raises(Exception, match="control characters"):  # it was read: this file is no key
            load([], {**environ, _variable(key): text}, {})
        return
    before = load([], {**ONE_OF_EACH, "A_KEY": "x"}, {})
    after = load([], {**environ, _variable(key): text}, {})
    if expected is None:
        assert after.auth.keys[0].sha256 != before.auth.keys[0].sha256
    else:
        assert _at(after, key) == expected
        assert _at(before, key) != expected


def _variable(key: str) -> str:
    return "GEN_GATEWAY__" + key.replace(".", "__").upper()


@pytest.mark.parametrize(
    ("kind", "credentials"),
    [
        ("bearer", {"TOKEN": "t"}),
        ("bearer", {"TOKEN_ENV": "A_TOKEN"}),
        ("bearer", {"TOKEN_FILE": "secret"}),
        ("header", {"TOKEN": "t", "HEADER_NAME": "api-key"}),
        ("basic", {"TOKEN": "t", "USERNAME": "u"}),
    ],
)
@pytest.mark.parametrize("table", ["DEFAULTS", "BACKENDS__0"])
def test_credentials_have_their_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, kind: str, credentials: dict[str, str]
) -> None:
    (tmp_path / "secret").write_text("t\n")
    monkeypatch.chdir(tmp_path)
    prefix = f"GEN_GATEWAY__{table}__AUTH__"
    environ = {**ONE_OF_EACH, "A_TOKEN": "t", f"{prefix}TYPE": kind}
    environ |= {prefix + name: value for name, value in credentials.items()}
    auth = load([], environ, {}).backends[0].auth
    assert (auth.type, str(auth.token)) == (kind, "t")
    assert (auth.header_name, auth.username) == (credentials.get("HEADER_NAME", ""), credentials.get("USERNAME", ""))


def test_a_clients_certificate_has_its_variables() -> None:
    environ = {
        **ONE_OF_EACH,
        "GEN_GATEWAY__BACKENDS__0__TLS__CERT": __file__,
        "GEN_GATEWAY__BACKENDS__0__TLS__KEY": __file__,
    }
    tls = load([], environ, {}).backends[0].tls
    assert (tls.cert, tls.key) == (__file__, __file__)


@pytest.mark.parametrize("name", ["GEN_GATEWAY__server__port", "GEN_GATEWAY__Server__PORT"])
def test_case_does_not_matter_after_the_prefix(name: str) -> None:
    assert load([], {name: "9000"}, {}).server.port == 9000


def test_two_variables_for_one_key_are_a_fault(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, environ={"GEN_GATEWAY__SERVER__PORT": "1", "GEN_GATEWAY__server__port": "2"})
    assert fault == (
        "environment GEN_GATEWAY__server__port: is given by GEN_GATEWAY__SERVER__PORT too, expected one of them"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("YES", True), ("on", True), ("1", True), ("no", False), ("Off", False), ("0", False)],
)
def test_a_switch_has_the_usual_words(text: str, value: bool) -> None:
    assert load([], {"GEN_GATEWAY__CORS__ENABLED": text}, {}).cors.enabled is value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("SERVER__PORT", "abc", 'server.port: is "abc", expected an integer from 0 to 65535'),
        ("SERVER__PORT", "", 'server.port: is "", expected an integer from 0 to 65535'),
        ("SERVER__PORT", "70000", "server.port: is 70000, expected an integer from 0 to 65535"),
        ("SERVER__PORT", "8_0", 'server.port: is "8_0", expected an integer from 0 to 65535'),
        ("SERVER__PORT", "9" * 5000, None),
        ("AUTH__ENABLED", "maybe", 'auth.enabled: is "maybe", expected true or false'),
        ("LOGGING__LEVEL", "loud", 'logging.level: is "loud", expected one of "debug", "info", "warning", "error"'),
        ("SERVER__PROT", "1", 'is not a key, did you mean "GEN_GATEWAY__SERVER__PORT"?'),
        ("SEVER__PORT", "1", 'is not a key, did you mean "GEN_GATEWAY__SERVER"?'),
        ("PORT", "1", None),
        ("", "1", None),
        ("SERVER____PORT", "1", None),
        ("SERVER__PORT__X", "1", "server.port has no keys of its own, expected GEN_GATEWAY__SERVER__PORT"),
        ("BACKENDS__1__USAGE", "observe", '"1" is not an element of backends, expected an index from 0 to 0'),
        ("BACKENDS__X__USAGE", "observe", '"x" is not an element of backends, expected an index from 0 to 0'),
        ("BACKENDS__-1__USAGE", "observe", '"-1" is not an element of backends, expected an index from 0 to 0'),
        ("BACKENDS__\u0660__USAGE", "observe", '"\u0660" is not an element of backends, expected an index from 0 to 0'),
        ("SERVER", "{]", None),
        ("BACKENDS", "local=http://a", None),
        ("BACKENDS", '{"name": "b"}', None),
        ("BACKENDS", "null", None),
        (
            "CORS__ALLOW_ORIGINS__2",
            "https://a",
            '"2" is not an element of cors.allow_origins, expected an index from 0 to 1',
        ),
    ],
)
def test_a_wrong_variable_is_a_fault_that_names_it(tmp_path: Path, name: str, text: str, said: str | None) -> None:
    [fault] = faults(tmp_path, environ={f"GEN_GATEWAY__{name}": text})
    assert fault.startswith(f"environment GEN_GATEWAY__{name}: ")
    assert said is None or fault.endswith(f": {said}")
    assert ", expected " in fault or ", did you mean " in fault


def test_json_that_is_none_is_not_repeated(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, environ={"GEN_GATEWAY__AUTH__KEYS": '[{"name": "k", "key": "hunter2"'})
    assert "is not JSON" in fault
    assert "hunter2" not in fault


@pytest.mark.parametrize("name", ["GEN_GATEWAY_SERVER__PORT", "GEN_GATEWAY___SERVER__PORT"])
def test_a_missing_or_extra_underscore_is_told(tmp_path: Path, name: str) -> None:
    [fault] = faults(tmp_path, environ={name: "1"})
    assert fault.startswith(f"environment {name}: is not a key")


@pytest.mark.parametrize(
    "name", ["GEN_GATEWAY_SERVICE_HOST", "GEN_GATEWAY_PORT_8080_TCP", "HOME", "gen_gateway__server__port"]
)
def test_the_variables_of_others_are_left_alone(tmp_path: Path, name: str) -> None:
    assert faults(tmp_path, environ={name: "tcp://10.0.0.1:8080"}) == []


def test_a_table_as_json_merges_and_an_array_as_json_replaces(tmp_path: Path) -> None:
    environ = {
        "GEN_GATEWAY__SERVER": '{"port": 1, "backlog": 2}',
        "GEN_GATEWAY__AUTH__BYPASS_PATHS": '["/x"]',
        "GEN_GATEWAY__BACKENDS": '[{"name": "c", "endpoints": ["http://c"]}]',
    }
    config = loaded(tmp_path, KEYED + BACKEND + "[server]\nport = 5\nkeepalive_requests = 7\n", environ)
    assert (config.server.port, config.server.backlog, config.server.keepalive_requests) == (1, 2, 7)
    assert config.auth.bypass_paths == ("/x",)
    assert [backend.name for backend in config.backends] == ["c"]


def test_an_element_is_set_by_its_index_and_the_array_grows_by_one(tmp_path: Path) -> None:
    environ = {
        "GEN_GATEWAY__BACKENDS__0__USAGE": "observe",
        "GEN_GATEWAY__BACKENDS__1__NAME": "c",
        "GEN_GATEWAY__BACKENDS__1__ENDPOINTS": "http://c, http://d",
        "GEN_GATEWAY__BACKENDS__0__MODELS": "a,b",
        "GEN_GATEWAY__BACKENDS__0__MODELS__2": '{"alias": "upstream"}',
        "GEN_GATEWAY__AUTH__BYPASS_PATHS__0": "/x",
        "GEN_GATEWAY__AUTH__BYPASS_PATHS__3": "/y",
    }
    config = loaded(tmp_path, KEYED + BACKEND, environ)
    first, second = config.backends
    assert (first.name, first.usage, first.models) == ("b", "observe", ("a", "b", {"alias": "upstream"}))
    assert (second.name, second.endpoints) == ("c", ("http://c", "http://d"))
    assert config.auth.bypass_paths == ("/x", "/v1/health", "/metrics", "/y")


def test_elements_come_in_the_order_of_their_numbers() -> None:
    environ = {f"GEN_GATEWAY__BACKENDS__{at}": f'{{"name": "b{at}", "endpoints": ["http://b"]}}' for at in range(12)}
    config = load([], {**environ, "GEN_GATEWAY_API_KEYS": "k"}, {})
    assert [backend.name for backend in config.backends] == [f"b{at}" for at in range(12)]


def test_models_auto_is_a_word_and_not_a_list() -> None:
    config = load([], {**ONE_OF_EACH, "GEN_GATEWAY__BACKENDS__0__MODELS": "auto"}, {})
    assert config.backends[0].models == "auto"


def test_an_empty_text_is_a_text_and_an_empty_list(tmp_path: Path) -> None:
    environ = {"GEN_GATEWAY__ROUTING__DEFAULT_BACKEND": "", "GEN_GATEWAY__AUTH__BYPASS_PATHS": ""}
    config = loaded(tmp_path, "[routing]\ndefault_backend = 'mock'\n", environ)
    assert (config.routing.default_backend, config.auth.bypass_paths) == ("", ())


def test_api_keys_are_added_with_numbered_names(tmp_path: Path) -> None:
    config = loaded(tmp_path, KEYED, {"GEN_GATEWAY_API_KEYS": "one, two,,"})
    assert [key.name for key in config.auth.keys] == ["k", "env-1", "env-2"]


def test_an_added_key_can_be_refined_by_its_index() -> None:
    environ = {"GEN_GATEWAY_API_KEYS": "one", "GEN_GATEWAY__AUTH__KEYS__0__ALLOWED_MODELS": "gpt-*"}
    [key] = load([], environ, {}).auth.keys
    assert (key.name, key.allowed_models) == ("env-1", ("gpt-*",))


def test_a_list_that_would_drop_another_variables_elements_is_a_fault(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, environ={**ONE_OF_EACH, "GEN_GATEWAY_API_KEYS": "one"})
    assert fault == (
        "environment GEN_GATEWAY__AUTH__KEYS: auth.keys is given by environment GEN_GATEWAY_API_KEYS too, "
        "expected only one of the two"
    )


@pytest.mark.parametrize(
    ("text", "level"),
    [
        *(("trace", "debug"), ("debug", "debug"), ("info", "info"), ("warn", "warning"), ("ERROR", "error")),
        *(("off", "error"), ("hyper=debug,warn", "warning"), ("warn,hyper=debug", "warning"), ("info,debug", "debug")),
        *(("hyper=debug", "info"), ("", "info"), ("nonsense", "info")),
    ],
)
def test_rust_logs_level_word_is_ours(text: str, level: str) -> None:
    assert load([], {"RUST_LOG": text}, {}).logging.level == level


def test_rust_log_is_weaker_than_anything_said_to_us(tmp_path: Path) -> None:
    rust = {"RUST_LOG": "trace"}
    assert loaded(tmp_path, "[logging]\nlevel = 'error'\n", rust).logging.level == "error"
    assert load([], {**rust, "GEN_GATEWAY__LOGGING__LEVEL": "error"}, {}).logging.level == "error"
    assert load([], rust, {"logging.level": "error"}).logging.level == "error"
    assert loaded(tmp_path, "[logging]\nformat = 'pretty'\n", rust).logging.level == "debug"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted({key.rpartition(".")[2] for key, _, _ in ALL})), inner, max_size=4)
    ),
    max_leaves=10,
)


@STEADY
@given(
    st.sampled_from([key for key, _, _ in ALL] + ["server", "auth", "defaults", "backends"]), st.text() | json_values
)
def test_no_value_of_a_variable_does_worse_than_a_fault(key: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    with suppress(ConfigError):
        load([], {**ONE_OF_EACH, _variable(key): text}, {})


@STEADY
@given(json_values, st.sampled_from(["server", "auth.keys", "backends", "defaults", "cors.allow_origins"]))
def test_no_plain_value_does_worse_than_a_fault(value: Any, key: str) -> None:
    with suppress(ConfigError):
        load([], ONE_OF_EACH, {key: value})
