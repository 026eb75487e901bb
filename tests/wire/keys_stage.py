"""The stage of a key's check: it can start the same gateway without the key, to prove that the check would notice.

Owns the removal of a key from a configuration. It refuses to know keys (`keys_*` name them). Made by `test_keys`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.faults.backlog import FullBacklog
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

#: Where a key that both `backends` and `defaults` have is put.
BACKENDS, DEFAULTS = "backends", "defaults"


def without(value: Any, path: list[str]) -> Any:
    """*value* with the key at *path* removed, in every element where the path leads through an array."""
    if isinstance(value, list):
        return [without(one, path) for one in value]
    if not isinstance(value, dict) or path[0] not in value:
        return value
    name, *rest = path
    if not rest:
        return {key: one for key, one in value.items() if key != name}
    return {**value, name: without(value[name], rest)}


class KeyStage(Stage):
    """A Stage whose gateways lack the key *removed*, if it names one."""

    def __init__(self, folder: Path, removed: str = "", place: str = BACKENDS) -> None:
        super().__init__(folder)
        self.removed = removed
        self.place = place

    def gateway(self, config: Configuration, **more: Any) -> Gateway:
        if self.removed:
            reduced = without(config, self.removed.split("."))
            assert reduced != config, f"the check of {self.removed} does not set it"
            config = reduced
        return super().gateway(config, **more)

    def start(
        self, *upstreams: Upstream | FullBacklog | str, fields: dict[str, Any] | None = None, **sections: Any
    ) -> Gateway:
        """A gateway over one backend of *upstreams*; *fields* stand in the backend or in `defaults`."""
        if self.place == DEFAULTS:
            return self.gateway(configuration(backend(*upstreams), defaults=fields or {}, **sections))
        return self.gateway(configuration(backend(*upstreams, **(fields or {})), **sections))


Check = Callable[[KeyStage], None]
