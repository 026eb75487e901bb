"""How a rule says that a value breaks it: by the value's path, told with its own source and key.

Owns the way from a path to the node that was written, and what counts as text that may reach a header. It
refuses rules (`rules`, `backends`, `secrets`). Made by `load` once the tree is converted.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.config.faults import Faults, dotted
from gateway.config.tree import Array, Node, Table

#: A field name of RFC 9110, section 5.1.
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: A field value of RFC 9110, section 5.5, without the bytes above ASCII, of which nobody knows the charset.
FIELD_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

#: From the root: names of tables, indexes of arrays.
Path = tuple[str | int, ...]


def is_text(value: str) -> bool:
    """True for one line that shows as it is: not empty, no controls, no space around it."""
    return bool(value) and value.isprintable() and value == value.strip()


class Report:
    """Adds faults. One below or above a key that was wrong already is left out: it only follows from that."""

    def __init__(self, root: Table, faults: Faults) -> None:
        self._root = root
        self._faults = faults
        self._wrong = faults.found()

    def __call__(self, path: Path, message: str) -> None:
        source, key = self._place(path)
        # by source too, since two files may give one name to two elements
        if not any(wrong.source == source and _touch(key, wrong.key) for wrong in self._wrong):
            self._faults.add(source, key, message)

    def source(self, path: Path) -> str:
        """Where the value at *path* was written, or the table that lacks it."""
        return self._place(path)[0]

    def _place(self, path: Path) -> tuple[str, str]:
        node: Node = self._root
        for depth, step in enumerate(path):
            if isinstance(node, Table) and step in node.entries:
                node = node.entries[str(step)]
            elif isinstance(node, Array) and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            else:
                return node.source, _continued(node.key, path[depth:])
        return node.source, node.key


def _continued(key: str, path: Path) -> str:
    for step in path:
        key = f"{key}[{step}]" if isinstance(step, int) else dotted(key, step)
    return key


def _touch(one: str, other: str) -> bool:
    """True where the keys are the same, or one lies within the other."""
    short, long = sorted((one, other), key=len)
    return bool(short) and long.startswith(short) and long[len(short) : len(short) + 1] in ("", ".", "[")
