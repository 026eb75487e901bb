"""Values of a request, taken by type: what is of another type is the client's fault, and the message names it.

Owns these checks alone. It refuses to know fields. Each takes a value and `param`, its name as the client knows it,
and raises `Unmappable`. The sides of both directions use it: the hub's request is a client's too.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.ollama.json_text import UNWRITABLE, encode


def text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise Unmappable(f"'{param}' must be a string", param)
    return value


def optional_text(value: Any, param: str) -> str:
    """A string; empty where it is null or absent."""
    return "" if value is None else text(value, param)


def flag(value: Any, param: str) -> bool:
    """A boolean; False where it is null or absent."""
    if value is not None and not isinstance(value, bool):
        raise Unmappable(f"'{param}' must be true or false", param)
    return value is True


def integer(value: Any, param: str) -> int:
    """A whole number. 4096.0 is one: there are languages that write it so."""
    if isinstance(value, float) and isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unmappable(f"'{param}' must be an integer", param)
    return value


def number(value: Any, param: str) -> float:
    """A number, as it came."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unmappable(f"'{param}' must be a number", param)
    return value


def array(value: Any, param: str) -> list[Any]:
    """An array; empty where it is null or absent."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unmappable(f"'{param}' must be an array", param)
    return value


def json_object(value: Any, param: str) -> JsonObject:
    if not isinstance(value, dict):
        raise Unmappable(f"'{param}' must be an object", param)
    return value


def optional_object(value: Any, param: str) -> JsonObject:
    """An object; empty where it is null or absent."""
    return {} if value is None else json_object(value, param)


def texts(value: Any, param: str) -> list[str]:
    """An array of strings."""
    return [text(entry, f"{param}[{at}]") for at, entry in enumerate(array(value, param))]


def written(value: Any) -> bytes:
    """*value* as JSON."""
    try:
        return encode(value)
    except UNWRITABLE:
        raise Unmappable("the request is nested too deeply") from None


#: Values that mean "as if it were not there" for whatever field.
_NOTHING: Final[tuple[Any, ...]] = (None, False, "", [], {})


def refuse_rest(fields: Mapping[str, Any], known: frozenset[str], dropped: Dropped, why: str, within: str = "") -> None:
    """Leave out every field that is not *known*, unless it is null. *within*: what stands before its name."""
    for name, value in fields.items():
        if name not in known and value is not None:
            dropped.leave_out(within + name, why)


def refuse_set(fields: Mapping[str, Any], names: Mapping[str, Any], dropped: Dropped, why: str) -> None:
    """Leave out those of *names* that say something: more than nothing, and other than the default they map to."""
    for name, default in names.items():
        value = fields.get(name)
        if value != default and value not in _NOTHING:
            dropped.leave_out(name, why)
