"""The load processes as their parent sees them.

Owns one process's start and the parent's side of the talk that `window` holds on the other. It refuses to
know what is offered. Made by `measure`, which stops them.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bench.plan import Outcome, Plan
from bench.processes import Broken, start, tail
from bench.window import READY


class LoadProcess:
    """One running load process, spoken to through its pipes. All waits end with the plan's time limit."""

    def __init__(self, plan: Plan, cpu: int, log: Path) -> None:
        self.log = log
        self.deadline = time.monotonic() + plan.limit_s
        argv = [sys.executable, "-m", "bench.load", msgspec.json.encode(plan).decode()]
        with log.open("wb") as file:
            self.process: subprocess.Popen[bytes] = start(argv, {cpu}, file, piped=True)

    def await_ready(self) -> None:
        """Wait until its work runs steadily; Broken where it failed instead."""
        if self._read(len(READY)) != READY:
            raise self._failed()

    def tell(self, start_ns: int, end_ns: int) -> None:
        """Tell it the window."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"%d %d\n" % (start_ns, end_ns))
        except BrokenPipeError:
            raise self._failed() from None

    def outcome(self) -> Outcome:
        """What it saw; waits for its end."""
        said = b"".join(iter(lambda: self._read(1 << 20), b""))
        if self.process.wait() or not said:
            raise self._failed()
        return msgspec.msgpack.decode(said, type=Outcome)

    def _read(self, limit: int) -> bytes:
        assert self.process.stdout is not None
        left = max(self.deadline - time.monotonic(), 0)
        if not select.select([self.process.stdout], [], [], left)[0]:
            raise Broken(f"a load process is silent\n{tail(self.log)}")
        return self.process.stdout.read(limit) or b""

    def _failed(self) -> Broken:
        return Broken(f"a load process failed\n{tail(self.log)}")
