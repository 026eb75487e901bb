"""Puts one value, given as text or plain, at its path in the tree: how the environment and the command line
speak.

Owns the reading of text as the schema's kind at that path, and the way down to it. It refuses to judge the
value (`convert`). Called by `environment` and `load`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from gateway.config.convert import meant
from gateway.config.faults import Faults, dotted
from gateway.config.schema import Config, Ratio
from gateway.config.shape import described, fields, is_map, item_of, scalar_of, section_of, words_of
from gateway.config.text import quoted
from gateway.config.tree import BUILT_IN, Array, Node, Table, grow, overlay

_FRACTION: Final = re.compile(r"\s*[0-9]{0,18}\.?[0-9]{1,18}\s*")
_INTEGER: Final = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")
_BOOLS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_INDEX: Final = re.compile(r"[0-9]{1,6}")

#: How a source spells the path of a key, for "did you mean".
Spelling = Callable[[Sequence[str]], str]


class _Misplaced(ValueError):
    """The path leads nowhere. The message says so without the value."""


class _Way:
    """One value on its way to its place."""

    def __init__(self, source: str, path: Sequence[str], raw: object, spell: Spelling) -> None:
        self.source = source
        self.path = path
        self.raw = raw
        self.spell = spell

    def put(self, node: Node | None, kind: Any, key: str, depth: int) -> Node:
        """The node that stands at *key* once the value is in. Raises _Misplaced."""
        if depth == len(self.path):
            return self._replace(node, kind, key)
        section, item = section_of(kind), item_of(kind)
        if section is not None:
            return self._enter_table(node, section, key, depth)
        if item is not None:
            return self._enter_array(node, item, key, depth)
        raise _Misplaced(f"{key} has no keys of its own, expected {self.spell(self.path[:depth])}")

    def _enter_table(self, node: Node | None, section: Any, key: str, depth: int) -> Node:
        table = node if isinstance(node, Table) else Table(self.source, key, {})
        name, known = self.path[depth], fields(section)
        if name not in known:
            close = meant(name, known, lambda other: self.spell((*self.path[:depth], other)))
            raise _Misplaced(f"is not a key, {close}")
        field, inner = known[name], dotted(key, name)
        there = table.entries.get(name)
        if there is None and isinstance(field.default, tuple):
            there = grow(field.default, BUILT_IN, inner)
        table.entries[name] = self.put(there, field.kind, inner, depth + 1)
        return table

    def _enter_array(self, node: Node | None, item: Any, key: str, depth: int) -> Node:
        array = node if isinstance(node, Array) else Array(self.source, key, [])
        step, size = self.path[depth], len(array.items)
        at = int(step) if _INDEX.fullmatch(step) else -1
        if not 0 <= at <= size:
            raise _Misplaced(f"{quoted(step)} is not an element of {key}, expected an index from 0 to {size}")
        made = self.put(array.items[at] if at < size else None, item, f"{key}[{at}]", depth + 1)
        array.items[at : at + 1] = [made]
        return array

    def _replace(self, node: Node | None, kind: Any, key: str) -> Node:
        raw = _read(self.raw, kind) if isinstance(self.raw, str) else self.raw
        made = grow(raw, self.source, key)
        if isinstance(node, Array):
            for item in node.items:
                # named things may come from several variables: none may drop another's without a word
                if isinstance(item, Table) and self._rivals(item.source):
                    raise _Misplaced(f"{key} is given by {item.source} too, expected only one of the two")
        return overlay(node, made) if isinstance(node, Table) and isinstance(made, Table) else made

    def _rivals(self, source: str) -> bool:
        """True where *source* is a variable that this one does not refine (`__0__USAGE` refines `__0`)."""
        both = source.startswith("environment ") and self.source.startswith("environment ")
        return both and not self.source.startswith(source + "__")


def assign(root: Table, path: Sequence[str], raw: object, source: str, faults: Faults, spell: Spelling) -> None:
    """Put *raw* at *path* below *root*, over what is there. Text is read as the schema's kind there."""
    try:
        _Way(source, path, raw, spell).put(root, Config, "", 0)
    except _Misplaced as error:
        faults.add(source, "", str(error))


def _read(text: str, kind: Any) -> object:
    """*text* as plain values of *kind*; text that does not fit is left for `convert` to name."""
    item, scalar, words = item_of(kind), scalar_of(kind), words_of(kind)
    opens = text.lstrip()[:1]
    if text in words:
        return text
    if (opens == "[" and item is not None) or (opens == "{" and (section_of(kind) or is_map(kind))):
        return _json(text, kind)
    if item is not None and (scalar_of(item) is str or words_of(item)):
        return [_read_element(part.strip(), item) for part in text.split(",") if part.strip()]
    if scalar is bool:
        return _BOOLS.get(text.strip().lower(), text)
    if scalar is int and _INTEGER.fullmatch(text):
        return int(text)
    if scalar is Ratio and _FRACTION.fullmatch(text):
        return float(text)
    if scalar is None and not words:
        return _json(text, kind)
    return text


def _read_element(text: str, kind: Any) -> object:
    """A part of a comma list: text, or a number where words and numbers are taken."""
    return int(text) if scalar_of(kind) is int and _INTEGER.fullmatch(text) else text


def _json(text: str, kind: Any) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # the decoder's message names a byte, never the text, which may hold a secret
        raise _Misplaced(f"is not JSON ({error}), expected {described(kind)}, written as JSON") from None
