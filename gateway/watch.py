"""Whether the files behind the configuration have changed: those that it was read from, and those that it names.

Owns the looking. It refuses to read them (`gateway.config`) and to decide what follows (`gateway.supervisor`). Made by
`gateway.host`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.config.files import listed
from gateway.config.schema import Config


class FileMark(NamedTuple):
    """Tells a file from what it was before, and from one that took its place. Nanoseconds, bytes."""

    changed: int
    size: int
    inode: int


#: By the file's name; None: there is no such file, or it may not be looked at.
Marks = dict[str, FileMark | None]


class Watch:
    """Looks at the files of *paths*, and at those that the configuration names, every so often.

    A change is told once it stands still: a file that is being written differs from one look to the next.
    """

    def __init__(self, paths: Sequence[str], config: Config) -> None:
        self._paths = tuple(paths)
        self._known = self._look(config)
        self._seen = self._known
        self._last = -math.inf

    def due(self, config: Config) -> float:
        """When to look again, monotonic seconds; never where *config* says so."""
        return self._last + config.server.watch if config.server.watch else math.inf

    def has_changed(self, config: Config, now: float) -> bool:
        """Whether the files are others than when this was last said, and the same as at the last look."""
        if now < self.due(config):
            return False
        self._last = now
        before, self._seen = self._seen, self._look(config)
        if self._seen == self._known or self._seen != before:
            return False
        self._known = self._seen
        return True

    @staticmethod
    def named(config: Config) -> Marks:
        """The files that *config* names: certificates and secrets."""
        return {file: _mark(file) for file in _named(config)}

    def _look(self, config: Config) -> Marks:
        return {file: _mark(file) for file in self._read()} | self.named(config)

    def _read(self) -> Iterator[str]:
        for path in self._paths:
            try:
                yield from listed(path)
            except OSError:
                yield path


def _mark(file: str) -> FileMark | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return FileMark(found.st_mtime_ns, found.st_size, found.st_ino)


def _named(config: Config) -> Iterator[str]:
    """The files of certificates and secrets."""
    tls = config.server.tls
    yield from filter(None, (tls.cert, tls.key, tls.client_ca))
    yield from (key.key_file for key in config.auth.keys if key.key_file)
    for backend in config.backends:
        yield from filter(None, (backend.tls.ca_file, backend.tls.cert, backend.tls.key, backend.auth.token_file))
