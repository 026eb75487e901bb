"""What the environment sets: `GEN_GATEWAY__SECTION__KEY` for every key, `GEN_GATEWAY_API_KEYS` and
`RUST_LOG`.

Owns these names. It refuses the quick form `GATEWAY_*` (`quick`) and judging values (`convert`). Called by
`load`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.config.assign import assign
from gateway.config.faults import Faults, dotted
from gateway.config.tree import Leaf, Table, element_key, grow

PREFIX: Final = "GEN_GATEWAY__"
# With the second underscore missing, and `__` further on: too close to ours to be anybody else's.
_NEARLY: Final = "GEN_GATEWAY_"
API_KEYS: Final = "GEN_GATEWAY_API_KEYS"

_INDEX: Final = re.compile(r"[0-9]{1,6}")
_RUST_LEVELS: Final = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "error": "error",
    "off": "error",
}


def apply(root: Table, environ: Mapping[str, str], faults: Faults) -> None:
    """Set in *root* what *environ* says; outer keys first, so that an element may refine its array."""
    given: dict[tuple[str, ...], str] = {}
    for name in sorted(environ):
        if name.startswith(PREFIX):
            path = tuple(name[len(PREFIX) :].lower().split("__"))
            if path in given:
                faults.add(f"environment {name}", "", f"is given by {given[path]} too, expected one of them")
            else:
                given[path] = name
        elif name == API_KEYS[:-1]:
            faults.add(f"environment {name}", "", f'is not a variable of the gateway, did you mean "{API_KEYS}"?')
        elif name.startswith(_NEARLY) and "__" in name:
            meant = PREFIX + name[len(_NEARLY) :].lstrip("_")
            faults.add(f"environment {name}", "", f'is not a key, did you mean "{meant}"?')
    for path in sorted(given, key=_outer_first):
        name = given[path]
        assign(root, path, environ[name], f"environment {name}", faults, spelled)


def spelled(path: Sequence[str]) -> str:
    """The variable that sets the key at *path*."""
    return PREFIX + "__".join(path).upper()


def _outer_first(path: tuple[str, ...]) -> list[tuple[int, str]]:
    # a prefix sorts first; elements by their numbers, since the tenth extends the ninth
    return [(int(step) if _INDEX.fullmatch(step) else -1, step) for step in path]


def add_keys(root: Table, environ: Mapping[str, str], variable: str, prefix: str) -> None:
    """Append the API keys of the comma list *variable*, named *prefix*-1 and on. None is replaced."""
    keys = [part.strip() for part in environ.get(variable, "").split(",") if part.strip()]
    if not keys:
        return
    source = f"environment {variable}"
    array = root.table("auth").array("keys")
    raws = [{"name": f"{prefix}-{count}", "key": key} for count, key in enumerate(keys, 1)]
    array.items.extend(grow(raw, source, element_key("auth.keys", raw, 0)) for raw in raws)


def apply_rust_log(root: Table, environ: Mapping[str, str]) -> None:
    """Set logging.level by the last bare level word of RUST_LOG, unless something else sets it."""
    words = [_RUST_LEVELS.get(part.strip().lower()) for part in environ.get("RUST_LOG", "").split(",")]
    found = [word for word in words if word]
    logging = root.table("logging")
    if found and "level" not in logging.entries:
        logging.entries["level"] = Leaf("environment RUST_LOG", dotted("logging", "level"), found[-1])
