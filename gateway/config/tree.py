"""The configuration as it was written: plain values, of which each knows its source and its key.

Owns the three kinds of node and the two ways to join tables: `merge` (equals, a clash is a fault) and
`overlay` (the stronger wins). It refuses types and defaults (`convert`). Grown by `files`, `assign`, `quick`
and `complete`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.config.faults import Faults, dotted

BUILT_IN: Final = "built-in default"
# An element that has a plain name, or is about one model, is called by it: nobody counts backends.
_PLAIN_NAME: Final = re.compile(r"(?!\d+\Z)[A-Za-z0-9._/-]{1,64}")


class Node:
    """A value and where it was written."""

    __slots__ = ("key", "source")

    def __init__(self, source: str, key: str) -> None:
        self.source = source
        self.key = key


class Leaf(Node):
    __slots__ = ("value",)

    def __init__(self, source: str, key: str, value: object) -> None:
        super().__init__(source, key)
        self.value = value


class Table(Node):
    __slots__ = ("entries",)

    def __init__(self, source: str, key: str, entries: dict[str, Node]) -> None:
        super().__init__(source, key)
        self.entries = entries

    def table(self, name: str) -> Table:
        """The table *name* within, made empty where nothing is, and not kept where something else is."""
        found = self.entries.get(name)
        if isinstance(found, Table):
            return found
        made = Table(self.source, dotted(self.key, name), {})
        if found is None:
            self.entries[name] = made
        return made

    def array(self, name: str) -> Array:
        """The array *name* within, made empty where nothing is, and not kept where something else is."""
        found = self.entries.get(name)
        if isinstance(found, Array):
            return found
        made = Array(self.source, dotted(self.key, name), [])
        if found is None:
            self.entries[name] = made
        return made


class Array(Node):
    __slots__ = ("items",)

    def __init__(self, source: str, key: str, items: list[Node]) -> None:
        super().__init__(source, key)
        self.items = items


def grow(raw: object, source: str, key: str = "") -> Node:
    """Plain values (of TOML or JSON) to nodes."""
    if isinstance(raw, Mapping):
        entries = {str(name): grow(value, source, dotted(key, str(name))) for name, value in raw.items()}
        return Table(source, key, entries)
    if isinstance(raw, list | tuple):
        items = [grow(value, source, element_key(key, value, at)) for at, value in enumerate(raw)]
        return Array(source, key, items)
    return Leaf(source, key, raw)


def element_key(array: str, element: object, at: int) -> str:
    """The key of *element*, which stands at index *at* of *array*."""
    name = element.get("name") or element.get("model") if isinstance(element, Mapping) else None
    label = name if isinstance(name, str) and _PLAIN_NAME.fullmatch(name) else at
    return f"{array}[{label}]"


def merge(first: Table, second: Table, faults: Faults) -> Table:
    """Two files as one: tables merge, arrays of tables append; the same key twice otherwise is a fault."""
    merged = dict(first.entries)
    for name, node in second.entries.items():
        there = merged.get(name)
        if there is None:
            merged[name] = node
        elif isinstance(there, Table) and isinstance(node, Table):
            merged[name] = merge(there, node, faults)
        elif isinstance(there, Array) and isinstance(node, Array) and _tables(there) and _tables(node):
            merged[name] = Array(there.source, there.key, [*there.items, *node.items])
        else:
            faults.add(node.source, node.key, f"is set in {there.source} too, expected it in one file only")
    return Table(first.source, first.key, merged)


def _tables(array: Array) -> bool:
    return all(isinstance(item, Table) for item in array.items)


def overlay(weak: Table, strong: Table) -> Table:
    """Tables merge; of anything else the strong one stays."""
    entries = dict(weak.entries)
    for name, node in strong.entries.items():
        there = entries.get(name)
        if isinstance(there, Table) and isinstance(node, Table):
            entries[name] = overlay(there, node)
        else:
            entries[name] = node
    return Table(strong.source, strong.key, entries)
