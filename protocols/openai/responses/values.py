"""Objects of a client's request, read with their types.

Owns how a wrong type and an unknown field are named to the client. It refuses to know what any field means.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from protocols.dialect import Dropped, Unmappable

Value = TypeVar("Value", bound=msgspec.Struct)

#: Where msgspec says what is wrong: "... - at `$.text.format`".
_WRONG_AT: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
#: Characters of a client's own name for a field that are said back to it.
_NAME_LIMIT: Final = 64

NO_EQUIVALENT: Final = "has no equivalent at a backend that only chats"


def read(value: Any, kind: type[Value], path: str, dropped: Dropped) -> Value:
    """*value*, the one at *path* of the request (empty: the whole of it), as *kind*.

    Raises `Unmappable` where a type is wrong, or for a field that *kind* does not know, unless it is null.
    """
    try:
        found = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _wrong(str(error), path) from None
    except RecursionError:
        raise Unmappable("the request is nested too deeply") from None
    known = kind.__struct_encode_fields__
    for name, inner in value.items():
        if name not in known and inner is not None:
            dropped.leave_out(join(path, name[:_NAME_LIMIT]), NO_EQUIVALENT)
    return found


def join(path: str, name: str) -> str:
    """The path of a member of the object at *path*."""
    return f"{path}.{name}" if path else name


def _wrong(text: str, path: str) -> Unmappable:
    at = _WRONG_AT.search(text)
    inner = at[1].removesuffix("[...]") if at is not None else ""
    where = path + inner if inner.startswith("[") or not inner else join(path, inner)
    missing = _MISSING.match(text)
    if missing is not None:
        where = join(where, missing[1])
        return Unmappable(f"'{where}' is missing", where)
    what = _WRONG_AT.sub("", text)
    return Unmappable(f"'{where}': {what[:1].lower()}{what[1:]}", where or None)
