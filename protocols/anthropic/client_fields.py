"""Fields of a request as its client sent them: read by type, or refused by name.

Owns the words with which a field is refused. It refuses to know any field (`client_request`, `client_turns`, ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec

from protocols.dialect import Dropped, JsonObject, Unmappable

T = TypeVar("T")

_KINDS: Final[dict[type, str]] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    dict: "an object",
    list: "an array",
}

NO_EQUIVALENT: Final = "has no equivalent for the backend of this model"


def join(at: str, key: str) -> str:
    """The name of the field *key* of what stands at *at*."""
    return f"{at}.{key}" if at else key


def optional(fields: JsonObject, key: str, kind: type[T], at: str = "") -> T | None:
    """The field, None where it is missing or null. Raises `Unmappable` where it is of another type."""
    value = fields.get(key)
    if value is None or type(value) is kind:  # a bool is no integer
        return value
    raise wrong(join(at, key), f"must be {_KINDS[kind]}")


def required(fields: JsonObject, key: str, kind: type[T], at: str = "") -> T:
    """The field. Raises `Unmappable` where it is missing or of another type."""
    value = optional(fields, key, kind, at)
    if value is None:
        raise wrong(join(at, key), "is required")
    return value


def number(fields: JsonObject, key: str) -> float | None:
    """The number, None where it is missing or null."""
    value = fields.get(key)
    if value is None or type(value) in (int, float):
        return value
    raise wrong(key, "must be a number")


def objects(values: list[Any], at: str) -> Iterator[tuple[str, JsonObject]]:
    """Each of *values* with its name; all must be objects."""
    for index, value in enumerate(values):
        name = f"{at}[{index}]"
        if type(value) is not dict:
            raise wrong(name, "must be an object")
        yield name, value


def strings(values: list[Any], at: str) -> list[str]:
    """*values*, which must all be strings."""
    for index, value in enumerate(values):
        if type(value) is not str:
            raise wrong(f"{at}[{index}]", "must be a string")
    return values


def dump(value: JsonObject, at: str) -> bytes:
    """The JSON of *value*, numbers of any size included."""
    try:
        return msgspec.json.encode(value)
    except RecursionError:
        raise wrong(at, "is nested too deeply") from None


def wrong(param: str, why: str) -> Unmappable:
    return Unmappable(f"'{param}' {why}", param)


def leave_out_others(fields: JsonObject, known: frozenset[str], dropped: Dropped, at: str = "") -> None:
    """Leave out what is not *known* and says something."""
    for key, value in fields.items():
        if key not in known and value is not None:
            dropped.leave_out(join(at, key), NO_EQUIVALENT)
