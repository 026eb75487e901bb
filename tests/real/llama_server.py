"""llama.cpp's own HTTP server as a test's upstream.

Owns the process and what can be asked of it from outside. It answers OpenAI's API with random words, about 10,000
tokens a second, closes connections after streams, after 5 s and after 100 requests. Made by `conftest`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.real.tiny_model import write_model

CHILD = Path(__file__).with_name("serve_llama.py")
SLOTS = 4
#: Tokens of each slot: enough for a generation that lasts some seconds.
SLOT_CONTEXT = 16_384


class LlamaServer:
    """Use as `with LlamaServer(folder) as server`. `url` is its base, without /v1."""

    def __init__(self, folder: Path) -> None:
        model = write_model(folder / "tiny.gguf")
        self._log = folder / "llama.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(CHILD), str(model), str(SLOTS), str(SLOT_CONTEXT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        # Ends at once where the server dies, so there is nothing to time out.
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self.close()
            raise RuntimeError(f"the server did not start:\n{self._log.read_text(errors='replace')}")

    def metric(self, name: str) -> float:
        """The value of the server's own metric `llamacpp:NAME`."""
        for line in self._get("/metrics").decode().splitlines():
            if line.startswith(f"llamacpp:{name} "):
                return float(line.split()[1])
        raise KeyError(name)

    def busy_slots(self) -> int:
        """How many of its slots are generating."""
        slots: list[dict[str, Any]] = json.loads(self._get("/slots"))
        return sum(slot["is_processing"] for slot in slots)

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def close(self) -> None:
        """End the process: it ends with its standard input, or is killed."""
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> LlamaServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
