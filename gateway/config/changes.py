"""What differs between two configurations, by key.

Pure. It refuses to show values: some are secrets. Called by `gateway.host` when a configuration is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.config.schema import Config, Section

#: What is settled when the gateway starts: only an upgrade changes it.
SETTLED = ("server.host", "server.port", "server.socket_mode", "server.workers", "server.backlog", "logging")


def changed_keys(old: Section, new: Section, path: str = "") -> Iterator[str]:
    """The keys whose values differ, as `backends.alpha.timeouts.idle`; of a list that has no names, its own key."""
    for field in msgspec.structs.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        key = f"{path}{field.name}"
        if isinstance(before, Section) and isinstance(after, Section):
            yield from changed_keys(before, after, f"{key}.")
        elif (named := _named(before)) is not None and (others := _named(after)) is not None:
            yield from _changed_names(named, others, key)
        else:
            yield key


def _changed_names(old: dict[str, Section], new: dict[str, Section], key: str) -> Iterator[str]:
    for name in {**old, **new}:
        if name in old and name in new:
            yield from changed_keys(old[name], new[name], f"{key}.{name}.")
        else:
            yield f"{key}.{name}"


def _named(value: Any) -> dict[str, Section] | None:
    """The items of a list of tables by their names, or by the models that they are about; None for any other value."""
    if not isinstance(value, tuple) or not all(isinstance(item, Section) for item in value):
        return None
    names: list[str] = [getattr(item, "name", "") or getattr(item, "model", "") for item in value]
    return dict(zip(names, value, strict=True)) if all(names) else None


def settled(keys: Sequence[str]) -> list[str]:
    """Those of *keys* that cannot change while the gateway runs."""
    return [key for key in keys if any(key == one or key.startswith(f"{one}.") for one in SETTLED)]


def keep_settled(old: Config, new: Config) -> Config:
    """*new* with everything as in *old* that cannot change while the gateway runs."""
    names = [one.removeprefix("server.") for one in SETTLED if one.startswith("server.")]
    server = msgspec.structs.replace(new.server, **{name: getattr(old.server, name) for name in names})
    return msgspec.structs.replace(new, server=server, logging=old.logging)
