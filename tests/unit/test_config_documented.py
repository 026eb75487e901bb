"""conf/gateway.toml documents the schema: every key with its true default, and no key more."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from gateway.config.convert import convert
from gateway.config.faults import Faults
from gateway.config.load import load
from gateway.config.schema import Auth, Backend, Config, Key, Route, Section
from gateway.config.shape import REQUIRED, fields, item_of, section_of
from gateway.config.tree import Table, grow
from tests.unit.configuring import written
from tests.unit.test_config_render import SCHEMA, _valid

FILE = Path(__file__).parents[2] / "conf" / "gateway.toml"
TEXT = FILE.read_text()
#: Every "#" at the start of a line, with no space after it, hides a key.
UNCOMMENTED = re.sub(r"(?m)^#(?=[a-z\[])", "", TEXT)


def _documented(raw: dict[str, Any], path: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in raw.items():
        key = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value:
            found |= _documented(value, key)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            found |= _documented(value[0], key)
        else:
            found.add(key)
    return found


def _declared(section: type[Section], path: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in fields(section).items():
        key = f"{path}.{name}" if path else name
        item = item_of(field.kind)
        # an endpoint or a target may be a table too, which its line tells
        inner = section_of(field.kind) or (section_of(item) if key in ("auth.keys", "backends", "routes") else None)
        found |= _declared(inner, key) if inner is not None else {key}
    return found


def test_it_loads_as_it_stands_and_sets_nothing() -> None:
    assert load([str(FILE)], {}, {}) == load([], {}, {})


def test_every_key_of_the_schema_is_in_it_and_no_key_more() -> None:
    assert _documented(tomllib.loads(UNCOMMENTED)) == _declared(Config)


def test_every_key_stands_there_with_its_true_default() -> None:
    tree = grow(tomllib.loads(UNCOMMENTED), str(FILE))
    assert isinstance(tree, Table)
    faults = Faults()
    config = convert(tree, Config, faults)
    assert not faults.found()
    [key], [backend], [route] = config.auth.keys, config.backends, config.routes
    given = {name: getattr(backend, name) for name, field in fields(Backend).items() if field.default is REQUIRED}
    assert config == Config(
        auth=Auth(keys=(Key(name=key.name),)), backends=(Backend(**given),), routes=(Route(model=route.model),)
    )


def test_it_loads_with_every_key_uncommented_one_key_and_one_fallback_given(tmp_path: Path) -> None:
    given = {"GEN_GATEWAY__AUTH__KEYS__0__KEY": "a-key", "GEN_GATEWAY__ROUTES__0__FALLBACKS": "local"}
    config = load([written(tmp_path, UNCOMMENTED)], given, {})
    assert [backend.protocol for backend in config.backends] == ["openai"]


def test_the_json_schema_takes_it_commented_or_not() -> None:
    for text in (TEXT, UNCOMMENTED):
        assert _valid(tomllib.loads(text), SCHEMA, SCHEMA)


def test_every_key_has_a_remark() -> None:
    silent = [line for line in TEXT.partition("From here on")[0].splitlines() if re.match(r"#[a-z][^#]*$", line)]
    assert silent == ["#enabled = true"][: len(silent)]


def test_no_line_is_longer_than_a_line_of_code() -> None:
    assert [line for line in TEXT.splitlines() if len(line) > 110] == []
