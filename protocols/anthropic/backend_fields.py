"""Fields of a hub request, read without trusting their types.

Owns the getters by which a Messages request is built from a client's values. It refuses to know what a field means.
A field is called as its client knows it (`messages[2].content[0].type`), so that a refusal can name it.
"""

from __future__ import annotations

from typing import Any

from protocols.dialect import JsonObject, Unmappable


def text_of(value: Any, param: str) -> str:
    """*value* as a string. Raises `Unmappable`."""
    if not isinstance(value, str):
        raise Unmappable(f"'{param}' must be a string", param)
    return value


def object_of(value: Any, param: str) -> JsonObject:
    """*value* as an object. Raises `Unmappable`."""
    if not isinstance(value, dict):
        raise Unmappable(f"'{param}' must be an object", param)
    return value


def list_of(value: Any, param: str) -> list[Any]:
    """*value* as an array; null is an empty one. Raises `Unmappable`."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unmappable(f"'{param}' must be an array", param)
    return value


def flag_of(value: Any, param: str, default: bool) -> bool:
    """*value* as a boolean; null is *default*. Raises `Unmappable`."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Unmappable(f"'{param}' must be true or false", param)
    return value


def number_of(value: Any, param: str) -> float | None:
    """*value* as a number; None where it is null. Raises `Unmappable`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unmappable(f"'{param}' must be a number", param)
    return value


def count_of(value: Any, param: str) -> int | None:
    """*value* as a positive whole number; None where it is null. Raises `Unmappable`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Unmappable(f"'{param}' must be a positive integer", param)
    return value
