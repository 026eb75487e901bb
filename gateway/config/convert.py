"""A tree of written values to the schema's Structs, with every fault found in one run.

Owns types, ranges and unknown keys. It refuses what takes two keys to judge (`rules`). A value that is wrong
becomes its default, so that the rest can still be judged; `load` then raises and nobody sees the result.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from gateway.config import units
from gateway.config.faults import Faults, dotted
from gateway.config.schema import Bytes, PemFile, Ratio, Seconds, Secret, Section
from gateway.config.shape import (
    REQUIRED,
    bounds,
    described,
    fields,
    is_map,
    item_of,
    scalar_of,
    secret_inside,
    section_of,
    words_of,
)
from gateway.config.text import one_of, quoted, shown
from gateway.config.tree import Array, Leaf, Node, Table

S = TypeVar("S", bound=Section)


class _Invalid:
    """What stands for a value that was wrong and is already told."""


_INVALID: Final = _Invalid()


def convert(table: Table, section: type[S], faults: Faults) -> S:
    """*table* as a *section*."""
    known = fields(section)
    values: dict[str, Any] = {}
    for name, node in table.entries.items():
        if name not in known:
            faults.add(node.source, node.key, f"is not a key, {meant(name, known)}")
        elif (value := _value(node, known[name].kind, faults)) is not _INVALID:
            values[name] = value
    for name, field in known.items():
        if field.default is REQUIRED and name not in values:
            if name not in table.entries:
                expected = f"expected {described(field.kind)}"
                faults.add(table.source, dotted(table.key, name), f"is missing, {expected}")
            values[name] = _stand_in(field.kind)
    return section(**values)


def meant(name: str, known: Iterable[str], spelled: Callable[[str], str] = str) -> str:
    """What an unknown *name* may have been meant for, as *spelled* in its source."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {quoted(spelled(close[0]))}?" if close else f"expected one of {one_of(known)}"


def _value(node: Node, kind: Any, faults: Faults) -> Any:
    if isinstance(node, Table):
        section = section_of(kind)
        if section is not None:
            return convert(node, section, faults)
        if is_map(kind):
            return _map(node, faults)
    elif isinstance(node, Array):
        item = item_of(kind)
        if item is not None:
            return tuple(_element(element, item, faults) for element in node.items)
    elif isinstance(node, Leaf):
        value = _scalar(node.value, kind)
        if value is not _INVALID:
            return value
    faults.add(node.source, node.key, f"is {_shown(node, kind)}, expected {described(kind)}")
    return _INVALID


def _element(node: Node, kind: Any, faults: Faults) -> Any:
    """One element of an array. A wrong one is replaced, so that the others keep their place."""
    value = _value(node, kind, faults)
    return _stand_in(kind) if value is _INVALID else value


def _map(table: Table, faults: Faults) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, node in table.entries.items():
        value = _value(node, str, faults)
        values[name] = "" if value is _INVALID else value
    return values


def _scalar(raw: object, kind: Any) -> Any:
    """*raw* as the scalar or the word that *kind* takes, or _INVALID."""
    if isinstance(raw, str) and raw in words_of(kind):
        return raw
    wanted = scalar_of(kind)
    if wanted in _READERS:
        try:
            number = _READERS[wanted](raw)
        except ValueError:
            return _INVALID
        return number if bounds(kind).hold(number) else _INVALID
    if wanted in (Secret, PemFile) and isinstance(raw, str):
        return wanted(raw)
    if wanted is None or type(raw) is not wanted:  # type, since a bool is an int too
        return _INVALID
    return raw if not isinstance(raw, int) or bounds(kind).hold(raw) else _INVALID


_READERS: Final[dict[Any, Callable[[object], float]]] = {
    Seconds: units.seconds,
    Bytes: units.size,
    Ratio: units.ratio,
}


def _stand_in(kind: Any) -> Any:
    """A harmless value of *kind* where the written one is wrong or missing."""
    scalar = scalar_of(kind)
    if scalar is not None:
        return scalar()
    if item_of(kind) is not None:
        return ()
    section = section_of(kind)
    return convert(Table("", "", {}), section, Faults()) if section is not None else {}


def _shown(node: Node, kind: Any) -> str:
    """What was written, unless it may hold a secret."""
    if isinstance(node, Table):
        return "a table"
    if isinstance(node, Array):
        return "an array"
    if not isinstance(node, Leaf):
        return "nothing"
    if secret_inside(kind):
        return _TYPES.get(type(node.value), "a date or time")
    return shown(node.value)


_TYPES: Final[dict[type, str]] = {str: "text", int: "a number", float: "a number", bool: "true or false"}
