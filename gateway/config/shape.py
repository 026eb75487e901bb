"""What the schema expects at a place: its fields, and the kinds (types) that a value there may have.

Owns the reading of type annotations, so that nobody else looks into `typing`. It refuses values. A *kind* is
a type as the schema annotates it: a Section, a scalar, tuple[kind, ...], dict[str, str], a Literal, or a
union of these.
"""

from __future__ import annotations

import types
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from gateway.config import units
from gateway.config.schema import Bytes, PemFile, Ratio, Seconds, Secret, Section
from gateway.config.text import one_of

#: The default of a field that must be given.
REQUIRED: Final = msgspec.NODEFAULT


class Field(NamedTuple):
    kind: Any
    default: Any


class Bounds(NamedTuple):
    """What a number must be above (`over`), at least (`low`) and at most (`high`)."""

    low: int | None = None
    high: int | None = None
    over: int | None = None

    def hold(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.over is None or value > self.over)
        )

    def __str__(self) -> str:
        if self.over is not None:
            return f", above {self.over}"
        if self.low is None:
            return ""
        return f" from {self.low} to {self.high}"


@cache
def fields(section: type[Section]) -> dict[str, Field]:
    return {field.name: Field(field.type, _default_of(field)) for field in msgspec.structs.fields(section)}


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default_factory  # of a table of free names
    return field.default if made is msgspec.NODEFAULT else made()


@cache
def bounds(kind: Any) -> Bounds:
    if get_origin(kind) is not Annotated:
        return Bounds()
    [meta] = [note for note in get_args(kind)[1:] if isinstance(note, msgspec.Meta)]
    return Bounds(low=meta.ge, high=meta.le, over=(meta.extra or {}).get("gt"))  # type: ignore[arg-type] # ints


@cache
def choices(kind: Any) -> tuple[Any, ...]:
    """The plain kinds that *kind* is a union of; itself where it is none."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def section_of(kind: Any) -> type[Section] | None:
    """The Section that a table at *kind* becomes."""
    for choice in choices(kind):
        if isinstance(choice, type) and issubclass(choice, Section):
            return choice
    return None


def item_of(kind: Any) -> Any | None:
    """The kind of an array's elements, where *kind* takes an array."""
    for choice in choices(kind):
        if get_origin(choice) is tuple:
            return get_args(choice)[0]
    return None


def is_map(kind: Any) -> bool:
    """True where a table of free names to text may stand."""
    return any(get_origin(choice) is dict for choice in choices(kind))


def words_of(kind: Any) -> tuple[str, ...]:
    """The words of the Literal that *kind* is or takes."""
    return tuple(word for choice in choices(kind) if get_origin(choice) is Literal for word in get_args(choice))


def scalar_of(kind: Any) -> type | None:
    """One of `_SCALARS`, where *kind* takes one."""
    for choice in choices(kind):
        if choice in _SCALARS:
            return choice  # type: ignore[no-any-return] # a key of the dict
    return None


def secret_inside(kind: Any) -> bool:
    """True where a value of *kind* may hold a secret at any depth: a wrong one must not be shown."""
    section = section_of(kind)
    if section is not None:
        return any(secret_inside(field.kind) for field in fields(section).values())
    item = item_of(kind)
    return Secret in choices(kind) or (item is not None and secret_inside(item))


def described(kind: Any) -> str:
    """What is expected at *kind*, as an error message says it."""
    said = []
    if words := words_of(kind):
        said.append(f"one of {one_of(words)}" if len(words) > 1 else one_of(words))
    scalar = scalar_of(kind)
    if scalar is not None:
        said.append(_SCALARS[scalar] + str(bounds(kind)))
    item = item_of(kind)
    if item is not None:
        said.append(f"an array, each element {described(item)}")
    if section_of(kind) is not None or is_map(kind):
        said.append("a table")
    return " or ".join(said)


_SCALARS: Final[dict[type, str]] = {
    str: "text",
    Secret: "text",
    PemFile: "text",
    bool: "true or false",
    int: "an integer",
    Seconds: units.DURATION,
    Bytes: units.SIZE,
    Ratio: units.RATIO,
}
