"""The gateway under the fault ledger: a process of its own, disturbed on purpose and looked at from outside.

Owns its file of configuration, its log, the two disturbances (a reload, a killed worker) and the look at what it
holds. It refuses to judge (`judge`). Made by `run`, which stops it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from string import Template
from typing import Any, Final

import msgspec

from bench import build
from bench.faults import look
from bench.faults.look import Held
from bench.faults.speech import KEY
from bench.processes import ROOT, Broken, await_port, free_port, start, stop, tail

TEMPLATE: Final = ROOT / "bench" / "faults" / "gateway.toml"
#: What the log says about a reload.
VERDICTS: Final = ('"msg":"reloaded"', '"msg":"the configuration is refused')
#: Words that no gateway prints while all is well.
FORBIDDEN: Final = re.compile(r"Traceback|[Ee]xception|never retrieved|never awaited|ResourceWarning|was destroyed")
#: Seconds for a reload, and for a new worker.
PATIENCE: Final = 10.0


class Death(msgspec.Struct, frozen=True):
    """A worker that was killed: when, and the clients' ports of the connections that it had."""

    at: float
    ports: frozenset[int]
    #: seconds until another one had taken its place
    mourned: float = 0.0


class Line(msgspec.Struct):
    """What is read of an access line."""

    request_id: str
    ending: str
    status: int
    tries: int = 0
    stream: bool = False
    fault: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    msg: str = ""


class Subject:
    """A running gateway."""

    def __init__(self, stack: ExitStack, folder: Path, ports: Mapping[str, int], workers: int) -> None:
        self.port = free_port()
        self.log = folder / "gateway.log"
        self.deaths: list[Death] = []
        self._workers = workers
        self._file = folder / "gateway.toml"
        self._output = folder / "gateway.output"
        self._values: dict[str, Any] = {
            **ports, "gateway": self.port, "workers": workers, "key": KEY, "log": str(self.log), "with_extra": "true",
        }  # fmt: skip
        self._generation = 0
        self._write()
        command = build.measured().command("serve", "-c", str(self._file), more=("-W", "error"))
        with self._output.open("wb") as file:
            self.process = start(command, os.sched_getaffinity(0), file, build.environment())
        stack.callback(stop, self.process)
        await_port(self.process, self.port, self._output)

    def _write(self, more: str = "") -> None:
        """Put the configuration in place at once: a file that is half written is not what is tried here."""
        new = self._file.with_suffix(".new")
        new.write_text(Template(TEMPLATE.read_text()).substitute(self._values) + more)
        os.replace(new, self._file)

    @property
    def workers(self) -> list[int]:
        """The processes that serve, oldest first."""
        pid = self.process.pid
        return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def held(self) -> Held:
        return look.held(self.port, self.workers)

    # --- disturbances ---

    def reload(self) -> None:
        """SIGHUP with another value of a key that does no harm. Broken where it is not taken."""
        self._generation += 1
        self._write(f"\n[cors]\nmax_age = {3600 + self._generation}\n")
        self._hang_up(VERDICTS[0])

    def reload_in_vain(self) -> None:
        """SIGHUP with a bad file; the former configuration has to stay, and the log has to say so."""
        self._write("\nnonsense = [")
        self._hang_up(VERDICTS[1])
        self._write()

    def turn_extra(self) -> None:
        """Take one backend away, or give it back."""
        gone = self._values["with_extra"] == "false"
        self._values["with_extra"] = "true" if gone else "false"
        self._write()
        self._hang_up(VERDICTS[0])

    def _hang_up(self, verdict: str) -> None:
        seen = self.log.stat().st_size if self.log.exists() else 0
        self.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with self.log.open() as file:
                file.seek(seen)
                said = [line for line in file if line.endswith("\n") and any(word in line for word in VERDICTS)]
            if said:
                if verdict not in said[0]:
                    raise Broken(f"after SIGHUP the gateway said {said[0]}")
                return
            time.sleep(0.02)
        raise Broken(f"the gateway said nothing within {PATIENCE:.0f} s after SIGHUP\n{tail(self.log)}")

    def kill_worker(self) -> None:
        """SIGKILL one worker. Its connections are noted first, while it stands still."""
        before = self.workers
        victim = before[len(self.deaths) % len(before)]
        os.kill(victim, signal.SIGSTOP)
        while not look.stands_still(victim):
            time.sleep(0.0005)
        ports = look.client_ports(victim, self.port)
        now = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        end = now + PATIENCE
        while len(self.workers) < self._workers or victim in self.workers:
            if time.monotonic() > end:
                raise Broken(f"no new worker within {PATIENCE:.0f} s\n{tail(self.log)}")
            time.sleep(0.02)
        self.deaths.append(Death(now, frozenset(ports), time.monotonic() - now))

    # --- afterwards ---

    def lines(self) -> list[Line]:
        """All access lines so far."""
        decoder = msgspec.json.Decoder(Line)
        return [decoder.decode(line) for line in self.log.read_bytes().splitlines() if b'"msg":"call"' in line]

    def complaints(self) -> list[str]:
        """What the gateway printed that it must not, whatever happens to it."""
        said = self._output.read_text(errors="replace") + self.log.read_text(errors="replace")
        return [line for line in said.splitlines() if FORBIDDEN.search(line)]

    def stop(self) -> int | None:
        """SIGTERM; the exit status, or None where it does not end in time."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return None
