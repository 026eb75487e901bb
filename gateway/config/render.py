"""A configuration as text: the effective one as TOML with its secrets masked, and the schema as JSON Schema.

Pure. It refuses to load. The TOML loads again: what a variable or file gave is written as its name, and a
masked secret stays text. Called by `gateway.cli`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from gateway.config import units
from gateway.config.faults import dotted
from gateway.config.schema import Bytes, Config, Ratio, Seconds, Secret, Section
from gateway.config.shape import (
    REQUIRED,
    Field,
    bounds,
    fields,
    is_map,
    item_of,
    scalar_of,
    section_of,
    words_of,
)
from gateway.config.text import quoted

MASK: Final = "***"

#: What is left out where one of the named keys tells where it comes from.
_FETCHED: Final = {"token": ("token_env", "token_file"), "sha256": ("key_env", "key_file")}

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def to_toml(config: Config) -> str:
    """Every key of *config* with its value, as TOML."""
    return "\n".join(_table(config, "")).strip() + "\n"


def _table(section: Section, path: str) -> Iterator[str]:
    """The lines of a table: its own keys first, since a header ends them."""
    inner: list[str] = []
    for name, value in _shown(section):
        key = dotted(path, name)
        if isinstance(value, Section):
            inner += ["", f"[{key}]", *_table(value, key)]
        elif _is_tables(value):
            for element in value:
                inner += ["", f"[[{key}]]", *_table(element, key)]
        else:
            yield f"{name} = {_inline(value)}"
    yield from inner


def _shown(section: Section) -> Iterator[tuple[str, Any]]:
    """Keys and values, inherited ones last: a backend's name stands above its timeouts."""
    own = type(section).__annotations__
    for name in sorted(fields(type(section)), key=lambda name: name not in own):
        if not any(getattr(section, other, "") for other in _FETCHED.get(name, ())):
            yield name, getattr(section, name)


def _is_tables(value: object) -> bool:
    """True for an array that can be written as [[tables]]; a mixed or empty one is written in its line."""
    return isinstance(value, tuple) and bool(value) and all(isinstance(element, Section) for element in value)


def _inline(value: Any) -> str:
    if isinstance(value, Secret):
        return quoted(MASK if value else "")
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Seconds):
        return units.seconds_text(value)
    if isinstance(value, Bytes):
        return units.size_text(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, Section):
        value = dict(_shown(value))
    if isinstance(value, dict):
        pairs = (f"{dotted('', name)} = {_inline(inner)}" for name, inner in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return str(float(value)) if isinstance(value, Ratio) else str(value)


def to_json_schema() -> dict[str, Any]:
    """The schema of a configuration file, for editors: types, ranges, words, defaults, no unknown keys."""
    # Not msgspec.json.schema: it cannot write a default of a type that is not its own.
    definitions: dict[str, Any] = {}
    schema = _schema_of_section(Config, definitions)
    return {"$schema": _DIALECT, "title": "Headrace", **schema, "$defs": definitions}


def _schema_of_section(section: type[Section], definitions: dict[str, Any]) -> dict[str, Any]:
    known = fields(section)
    return {
        "type": "object",
        "properties": {name: _schema_of_field(field, definitions) for name, field in known.items()},
        "required": [name for name, field in known.items() if field.default is REQUIRED],
        "additionalProperties": False,
    }


def _schema_of_field(field: Field, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _schema(field.kind, definitions)
    plain = section_of(field.kind) is None and field.default is not REQUIRED
    return schema | ({"default": field.default} if plain else {})


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    options: list[dict[str, Any]] = []
    if words := words_of(kind):
        options.append({"enum": list(words)})
    scalar = scalar_of(kind)
    if scalar is not None:
        options += _schemas_of_scalar(scalar, kind)
    section, item = section_of(kind), item_of(kind)
    if section is not None:
        if section.__name__ not in definitions:
            definitions[section.__name__] = _schema_of_section(section, definitions)
        options.append({"$ref": f"#/$defs/{section.__name__}"})
    if item is not None:
        options.append({"type": "array", "items": _schema(item, definitions)})
    if is_map(kind):
        options.append({"type": "object", "additionalProperties": {"type": "string"}})
    return options[0] if len(options) == 1 else {"anyOf": options}


def _schemas_of_scalar(scalar: type, kind: Any) -> list[dict[str, Any]]:
    limits = bounds(kind)
    said = {"minimum": limits.low, "maximum": limits.high, "exclusiveMinimum": limits.over}
    numbers = {name: limit for name, limit in said.items() if limit is not None}
    if scalar is Seconds:
        return [
            {"type": "number", "minimum": 0, **numbers},
            {"type": "string", "pattern": units.SECONDS_PATTERN},
        ]
    if scalar is Bytes:
        return [
            {"type": "integer", "minimum": 0, **numbers},
            {"type": "string", "pattern": units.SIZE_PATTERN},
        ]
    if scalar is Ratio:
        return [{"type": "number", "minimum": 0, "maximum": 1}]
    return [{"type": {int: "integer", bool: "boolean"}.get(scalar, "string"), **numbers}]
