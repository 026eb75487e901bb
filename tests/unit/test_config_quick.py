"""The quick form: a gateway from three variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.config.quick import NOT_SUPPORTED
from gateway.config.secrets import digest
from tests.unit.configuring import BACKEND, KEYED, faults, loaded

UPSTREAMS = "llama=http://localhost:8001;mock=mock://local; gpt = https://api.example.com/v1 ;"


def test_an_upstreams_name_is_a_backends_and_a_models() -> None:
    config = load([], {"GATEWAY_UPSTREAMS": UPSTREAMS}, {})
    assert [(b.name, b.endpoints, b.models, b.protocol) for b in config.backends] == [
        ("llama", ("http://localhost:8001",), ("llama",), "openai"),
        ("mock", ("mock://local",), ("mock",), "mock"),
        ("gpt", ("https://api.example.com/v1",), ("gpt",), "openai"),
    ]


def test_the_default_upstream_takes_unknown_models() -> None:
    config = load([], {"GATEWAY_UPSTREAMS": UPSTREAMS, "GATEWAY_DEFAULT_UPSTREAM": "gpt"}, {})
    assert config.routing.default_backend == "gpt"


@pytest.mark.parametrize("environ", [{"GATEWAY_UPSTREAMS": UPSTREAMS}, {"GATEWAY_DEFAULT_UPSTREAM": "mock"}])
def test_without_keys_the_key_is_dev_key(environ: dict[str, str]) -> None:
    [key] = load([], environ, {}).auth.keys
    assert (key.name, key.sha256) == ("dev", digest("dev-key"))


def test_keys_take_the_place_of_dev_key() -> None:
    keys = load([], {"GATEWAY_UPSTREAMS": UPSTREAMS, "GATEWAY_API_KEYS": "one, two"}, {}).auth.keys
    assert [(key.name, key.sha256) for key in keys] == [("gateway-1", digest("one")), ("gateway-2", digest("two"))]


def test_keys_alone_are_for_the_mock_backend() -> None:
    config = load([], {"GATEWAY_API_KEYS": "one"}, {})
    assert [backend.name for backend in config.backends] == ["mock"]
    assert [key.name for key in config.auth.keys] == ["gateway-1"]


def test_dev_key_is_never_added_beside_a_key_of_ones_own(tmp_path: Path) -> None:
    config = loaded(tmp_path, KEYED, {"GATEWAY_UPSTREAMS": UPSTREAMS})
    assert [key.name for key in config.auth.keys] == ["k"]
    config = load([], {"GATEWAY_UPSTREAMS": UPSTREAMS, "GEN_GATEWAY_API_KEYS": "one"}, {})
    assert [key.name for key in config.auth.keys] == ["env-1"]


def test_upstreams_come_after_the_backends_of_files(tmp_path: Path) -> None:
    config = loaded(tmp_path, KEYED + BACKEND, {"GATEWAY_UPSTREAMS": "x=http://x"})
    assert [backend.name for backend in config.backends] == ["b", "x"]


def test_an_upstream_inherits_and_can_be_refined(tmp_path: Path) -> None:
    environ = {"GATEWAY_UPSTREAMS": "x=http://x;y=http://y", "GEN_GATEWAY__BACKENDS__1__USAGE": "observe"}
    first, second = loaded(tmp_path, "[defaults]\ntimeouts.idle = 7\n", environ).backends
    assert (first.timeouts.idle, first.usage, second.usage) == (7, "inject", "observe")


def test_breakers_are_set_for_all_backends_and_a_backends_own_win(tmp_path: Path) -> None:
    environ = {
        "GATEWAY_UPSTREAMS": UPSTREAMS,
        "GATEWAY_CIRCUIT_BREAKER_MAX_FAILURES": "3",
        "GATEWAY_CIRCUIT_BREAKER_RESET_SECONDS": "7",
    }
    own = BACKEND + "breaker = { max_failures = 9 }\n"
    found = [(one.breaker.max_failures, one.breaker.reset) for one in loaded(tmp_path, KEYED + own, environ).backends]
    assert found == [(9, 7.0), (3, 7.0), (3, 7.0), (3, 7.0)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("MAX_FAILURES", "many", 'defaults.breaker.max_failures: is "many", expected'),
        ("MAX_FAILURES", "-1", 'defaults.breaker.max_failures: is "-1", expected'),
        ("RESET_SECONDS", "0", "defaults.breaker.reset: is 0, expected"),
        ("RESET_SECONDS", "soon", 'defaults.breaker.reset: is "soon", expected'),
    ],
)
def test_breakers_that_make_no_sense_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    name = f"GATEWAY_CIRCUIT_BREAKER_{name}"
    [line] = faults(tmp_path, environ={name: text})
    assert line.startswith(f"environment {name}: {said}")


@pytest.mark.parametrize("name", NOT_SUPPORTED)
def test_what_is_promised_but_not_built_is_refused(tmp_path: Path, name: str) -> None:
    assert faults(tmp_path, environ={name: "1"}) == [f"environment {name}: not supported by this version"]


@pytest.mark.parametrize("name", NOT_SUPPORTED)
def test_an_empty_variable_counts_as_none(tmp_path: Path, name: str) -> None:
    assert faults(tmp_path, environ={name: "", "GATEWAY_UPSTREAMS": "", "GATEWAY_API_KEYS": ""}) == []


@pytest.mark.parametrize("name", ["GATEWAY_SERVICE_HOST", "GATEWAY_PORT", "GATEWAY_PORT_8080_TCP_ADDR", "GATEWAY_URL"])
def test_other_gateways_variables_are_left_alone(tmp_path: Path, name: str) -> None:
    assert faults(tmp_path, environ={name: "tcp://10.0.0.1:80"}) == []


@pytest.mark.parametrize(
    ("upstreams", "said"),
    [
        ("g=litellm://", "backends[g].endpoints[0]: names no model"),
        ("w=grpc://a:50051", "backends[w].endpoints: grpc:// is not supported by this version"),
        ("http://a", "has a part that is not an upstream, expected name=url;name=url"),
        ("a", "has a part that is not an upstream"),
        ("=http://a", "has a part that is not an upstream"),
        ("a=", "has a part that is not an upstream"),
        ("a=localhost:8001", "has a part that is not an upstream"),
        ("a=http://", "backends[a].endpoints[0]: has no valid host and port"),
        ("a=http://u:hunter2@b", "backends[a].endpoints[0]: carries a user name or password"),
        ("a=http://b;a=http://c", 'backends[a].name: is "a", which environment GATEWAY_UPSTREAMS uses too'),
    ],
)
def test_a_wrong_upstream_is_refused(tmp_path: Path, upstreams: str, said: str) -> None:
    [fault] = faults(tmp_path, environ={"GATEWAY_UPSTREAMS": upstreams})
    assert fault.startswith(f"environment GATEWAY_UPSTREAMS: {said}")
    assert "hunter2" not in fault


def test_an_upstream_with_a_backends_name_is_refused(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, KEYED + BACKEND, {"GATEWAY_UPSTREAMS": "b=http://b"})
    assert fault == (
        'environment GATEWAY_UPSTREAMS: backends[b].name: is "b", which gateway.toml uses too, expected each name once'
    )


def test_an_unknown_default_upstream_is_refused(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, environ={"GATEWAY_UPSTREAMS": UPSTREAMS, "GATEWAY_DEFAULT_UPSTREAM": "lama"})
    assert fault == (
        'environment GATEWAY_DEFAULT_UPSTREAM: routing.default_backend: is "lama", which is no enabled backend, '
        'did you mean "llama"?'
    )
