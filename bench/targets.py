"""What is measured: the upstream itself ("direct"), nginx and the gateway, each a process that listens on a
port.

Owns how each is started. It refuses to measure. Made by `overhead`, which stops them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench import build, nginx
from bench.processes import ROOT, Broken, await_port, free_port, start, stop, tail

DIRECT: Final = "direct"
NGINX: Final = "nginx"
GATEWAY: Final = "gateway"

EVERYTHING_ON: Final = ROOT / "bench" / "everything_on.toml"


class Cpus(msgspec.Struct, frozen=True):
    """Who runs where. On a machine of one CPU everything shares it, and the report says so."""

    proxy: int
    generator: tuple[int, ...]

    def of_proxy(self, workers: int) -> set[int]:
        """The CPUs of a proxy: one for each worker, as far as there are any that upstream and generator can do without.

        Where there are none its workers share one: next to the generator they would pay for its work too.
        """
        return {self.proxy, *self.generator[2:][: workers - 1]}

    @property
    def apart(self) -> bool:
        return self.proxy not in self.generator

    @property
    def of_upstream(self) -> int:
        return self.generator[0]

    def of_load(self, n: int) -> int:
        """The CPU of load process *n*: the upstream's own only where there is no other."""
        return self.generator[(n + 1) % len(self.generator)]


def cpus() -> Cpus:
    """The first usable CPU for the proxies, the others for the upstream and the load."""
    first, *others = sorted(os.sched_getaffinity(0))
    return Cpus(first, tuple(others) or (first,))


class Target:
    """Something that answers chat calls on a port. Without a proxy between there is no process and no log."""

    def __init__(
        self,
        name: str,
        port: int,
        process: subprocess.Popen[bytes] | None = None,
        log: Path | None = None,
        cores: int = 1,
    ) -> None:
        self.name = name
        self.port = port
        self.process = process
        self.log = log
        self.workers = workers_of(name)
        #: How many CPUs its workers have.
        self.cores = cores
        self.is_gateway = is_gateway(name)


class Upstream:
    """The running scripted upstream and its two ports."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Broken(f"the scripted upstream did not start\n{tail(log)}")
        self.ports: list[int] = msgspec.json.decode(line, type=list[int])


def start_upstream(stack: ExitStack, folder: Path, cpu: int) -> Upstream:
    """Start it; *stack* stops it."""
    log = folder / "upstream.log"
    with log.open("wb") as file:
        process = start([sys.executable, "-m", "bench.upstream"], {cpu}, file, piped=True)
    stack.callback(stop, process)
    return Upstream(process, log)


def start_target(name: str, stack: ExitStack, folder: Path, cpus: Cpus, upstream_ports: Sequence[int]) -> Target:
    """Start *name* on its CPUs and wait until it listens; *stack* stops it. Broken where that fails."""
    if name == DIRECT:
        return Target(name, upstream_ports[0])
    port = free_port()
    room = folder / name
    room.mkdir()
    log = room / "output.log"
    workers = workers_of(name)
    argv, environment = COMMANDS[name.partition(":")[0]](port, upstream_ports, room, workers)
    with log.open("wb") as file:
        process = start(argv, own := cpus.of_proxy(workers), file, environment)
    stack.callback(stop, process)
    await_port(process, port, log)
    return Target(name, port, process, log, len(own))


def _nginx(port: int, upstream_ports: Sequence[int], room: Path, workers: int) -> tuple[list[str], Mapping[str, str]]:
    file = room / "nginx.conf"
    file.write_text(nginx.configuration(port, upstream_ports, room))
    return [str(nginx.binary()), "-p", str(room), "-e", str(room / "error.log"), "-c", str(file)], os.environ


def _gateway(port: int, upstream_ports: Sequence[int], room: Path, workers: int) -> tuple[list[str], Mapping[str, str]]:
    """The gateway as bench/everything_on.toml has it; ports, the log's path and workers come from here."""
    urls = [f"http://127.0.0.1:{peer}" for peer in upstream_ports]
    environment = {
        **build.environment(),
        "GEN_GATEWAY__SERVER__PORT": str(port),
        "GEN_GATEWAY__SERVER__WORKERS": str(workers),
        "GEN_GATEWAY__BACKENDS__0__ENDPOINTS": msgspec.json.encode(urls).decode(),
        "GEN_GATEWAY__LOGGING__OUTPUT": msgspec.json.encode([str(room / "access.log")]).decode(),
    }
    return build.measured().command("serve", "-c", str(EVERYTHING_ON)), environment


COMMANDS: Final[dict[str, Callable[[int, Sequence[int], Path, int], tuple[list[str], Mapping[str, str]]]]] = {
    NGINX: _nginx,
    GATEWAY: _gateway,
}
#: Every target, in the order of the report. `gateway:2` and the like are the gateway with so many workers.
NAMES: Final = (DIRECT, *COMMANDS)
_SEVERAL: Final = re.compile(f"{GATEWAY}:([2-9]|[1-9][0-9])")


def is_target(name: str) -> bool:
    """Whether there is a target called *name*."""
    return name in NAMES or _SEVERAL.fullmatch(name) is not None


def is_gateway(name: str) -> bool:
    """Whether the target called *name* is the gateway, with however many workers."""
    return name.partition(":")[0] == GATEWAY


def workers_of(name: str) -> int:
    """How many processes of the target called *name* serve."""
    several = _SEVERAL.fullmatch(name)
    return int(several[1]) if several else 1
