"""What a process under test prints into a file, read on from where the last reading ended.

Owns how far it has read: a module's tests share a gateway that prints a line for each call, and each test looks at them
many times. It refuses to know who prints. Made by `process.Gateway` for each of its outputs.
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

FORBIDDEN = re.compile(r"Traceback|[Ee]xception|never retrieved|never awaited|ResourceWarning|was destroyed")


class Printed:
    """The file at *path*, which only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # by the whole lines read so far
        self._reading = threading.Lock()
        self._read = 0
        self._log_lines: list[dict[str, Any]] = []
        self._forbidden = ""

    @property
    def text(self) -> str:
        return self.path.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """Every whole line that is JSON."""
        with self._reading:
            self._read_on()
            return self._log_lines.copy()

    def forbidden(self) -> str:
        """The first word of an exception, or of a warning of Python's, if there is one; the last line may be half."""
        with self._reading:
            rest = self._read_on()
            found = FORBIDDEN.search(rest)
            return self._forbidden or (found[0] if found else "")

    def _read_on(self) -> str:
        """Take the whole lines that have come; returns what stands behind them."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, newline, rest = file.read().rpartition(b"\n")
        self._read += len(whole + newline)
        text = whole.decode(errors="replace")
        self._log_lines += [json.loads(line) for line in text.split("\n") if line.startswith("{")]
        if not self._forbidden and (found := FORBIDDEN.search(text)):
            self._forbidden = found[0]
        return rest.decode(errors="replace")
