"""The effective configuration as TOML, and the schema as JSON Schema."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.faults import dotted
from gateway.config.load import load
from gateway.config.render import to_json_schema, to_toml
from gateway.config.text import quoted
from tests.unit.configuring import BACKEND, KEYED, STEADY, loaded, written

FULL = """
[server]
host = "::1"
drain_timeout = 0.3333
body_limit = 1000
[[auth.keys]]
name = "plain \\"quoted\\" \\\\ é"
key = "hunter2-key"
[[auth.keys]]
name = "variable"
key_env = "KEY"
allowed_models = ["gpt-*"]
passthrough = true
[defaults]
auth = { type = "bearer", token_env = "TOKEN" }
timeouts.idle = "90s"
[[backends]]
name = "b"
endpoints = ["http://b/v1", { url = "http://c", weight = 2 }]
models = ["m", { "an alias" = "up/stream", x = "y" }]
passthrough = ["/v1/files*"]
[[backends]]
name = "c"
endpoints = [{ url = "http://d" }]
auth.type = "none"
models = []
[routing]
default_backend = "b"
[cors]
allow_origins = []
"""
ENVIRON = {"KEY": "hunter2-variable", "TOKEN": "hunter2-token"}


@pytest.mark.parametrize(
    ("text", "environ"),
    [("", {}), (FULL, ENVIRON), ("", {"GATEWAY_UPSTREAMS": "a=http://a;m=mock://m", "GATEWAY_DEFAULT_UPSTREAM": "m"})],
)
def test_the_printed_configuration_loads_to_the_same(tmp_path: Path, text: str, environ: dict[str, str]) -> None:
    config = loaded(tmp_path, text, environ)
    printed = to_toml(config)
    secrets = {name: value for name, value in environ.items() if name in ENVIRON}
    again = load([written(tmp_path, printed, "printed.toml")], secrets, {})
    assert again == config
    assert to_toml(again) == printed


def test_every_secret_is_masked_and_its_origin_kept(tmp_path: Path) -> None:
    text = FULL.replace('auth.type = "none"', 'auth = { token = "hunter2-own" }')
    printed = to_toml(loaded(tmp_path, text, ENVIRON))
    assert "hunter2" not in printed
    assert 'token = "***"' in printed
    assert 'token_env = "TOKEN"' in printed
    assert 'key_env = "KEY"' in printed
    load([written(tmp_path, printed, "printed.toml")], ENVIRON, {})


def test_a_backends_name_stands_first() -> None:
    printed = to_toml(load([], {}, {}))
    assert '[[backends]]\nname = "mock"\n' in printed


@STEADY
@given(st.text())
def test_any_text_is_quoted_so_that_toml_reads_it_back(value: str) -> None:
    if all(not 0xD800 <= ord(char) <= 0xDFFF for char in value):
        assert tomllib.loads(f"value = {quoted(value)}")["value"] == value
        assert tomllib.loads(f"{dotted('', value)} = 1") == {value: 1}


# The JSON Schema, checked with the few words that it uses. A word that is not known here is a failure.

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def _valid(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    known = {"default", "title", "$schema", "$defs", "$ref", "anyOf", "enum", "type", "properties", "required"}
    known |= {"additionalProperties", "items", "pattern", "minimum", "maximum", "exclusiveMinimum"}
    assert set(schema) <= known
    if "$ref" in schema:
        return _valid(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema:
        return any(_valid(value, one, root) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema["type"]
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    if kind == "object":
        return _valid_object(value, schema, root)
    if kind == "array":
        return all(_valid(item, schema["items"], root) for item in value)
    if kind == "string":
        return re.search(schema.get("pattern", ""), value) is not None
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    over = schema.get("exclusiveMinimum", value - 1) if not isinstance(value, bool) else -1
    return bool(low <= value <= high and value > over)


def _valid_object(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    others = schema["additionalProperties"]
    for name, inner in value.items():
        allowed = schema.get("properties", {}).get(name, others)
        if allowed is False or not _valid(inner, allowed, root):
            return False
    return all(name in value for name in schema.get("required", []))


SCHEMA = json.loads(json.dumps(to_json_schema()))


@pytest.mark.parametrize("text", ["", FULL, KEYED + BACKEND, "[server]\nheader_timeout = 1.5\nbody_limit = '8 mib'\n"])
def test_the_schema_takes_what_loads(text: str) -> None:
    assert _valid(tomllib.loads(text), SCHEMA, SCHEMA)


def test_the_schema_takes_the_printed_configuration(tmp_path: Path) -> None:
    assert _valid(tomllib.loads(to_toml(loaded(tmp_path, FULL, ENVIRON))), SCHEMA, SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "sever = {}",
        "server.prot = 1",
        "server.port = 70000",
        "server.port = -1",
        "server.port = true",
        "server.port = '1'",
        "server.backlog = 0",
        "server.header_timeout = 0",
        "server.header_timeout = '10 parsecs'",
        "server.body_limit = 1.5",
        "server.body_limit = '8MB'",
        "server.half_close = 'never'",
        "auth.enabled = 1",
        "auth.keys = [{ key = 'a' }]",
        "backends = [{ name = 'b' }]",
        "backends = [{ name = 'b', endpoints = [7] }]",
        "backends = [{ name = 'b', endpoints = [], models = 'all' }]",
        "backends = [{ name = 'b', endpoints = [], models = [{ a = 1 }] }]",
        "backends = [{ name = 'b', endpoints = [{ weight = 1 }] }]",
    ],
)
def test_the_schema_refuses_what_does_not_load(text: str) -> None:
    assert not _valid(tomllib.loads(text), SCHEMA, SCHEMA)


def test_the_schema_tells_defaults_and_no_secret() -> None:
    server = SCHEMA["$defs"]["Server"]["properties"]
    assert server["port"] == {"type": "integer", "minimum": 0, "maximum": 65535, "default": 8080}
    assert server["half_close"] == {"enum": ["abort", "serve"], "default": "abort"}
    assert SCHEMA["$defs"]["Backend"]["required"] == ["name", "endpoints"]
