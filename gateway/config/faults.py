"""What is wrong with a configuration, told so that one run names everything.

Owns `ConfigFault`, the collector `Faults` and `ConfigError`. It refuses to judge (that is `convert` and
`rules`). A collector is made by `load`, once per load.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from gateway.config import text

BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


class ConfigFault(NamedTuple):
    """One fault. `source` is a file, `environment NAME` or `command line`; `key` may be empty."""

    source: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class ConfigError(Exception):
    """The configuration cannot be used. `faults` holds every reason; `str()` gives one line for each."""

    def __init__(self, faults: tuple[ConfigFault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class Faults:
    """Collects faults in the order in which they are found, each once."""

    def __init__(self) -> None:
        self._found: dict[ConfigFault, None] = {}

    def add(self, source: str, key: str, message: str) -> None:
        self._found[ConfigFault(source, key, message)] = None

    def found(self) -> tuple[ConfigFault, ...]:
        return tuple(self._found)

    def throw(self) -> None:
        """Raise ConfigError if anything was found."""
        if self._found:
            raise ConfigError(tuple(self._found))


def dotted(key: str, name: str) -> str:
    """The path of *name* in the table *key*, quoted as in TOML where it must be."""
    step = name if BARE_KEY.fullmatch(name) else text.quoted(name)
    return f"{key}.{step}" if key else step
