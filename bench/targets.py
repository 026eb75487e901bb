"""What is measured: the upstream itself ("direct"), nginx and the gateway, with one worker or several.

Owns their names and how each is started. It refuses to measure. Made by `overhead`, which stops them.
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
    #: A CPU for each worker, though upstream or generator run there too.
    spread: bool = False

    def of_proxy(self, workers: int) -> set[int]:
        """The CPUs of a proxy: one for each worker, as far as there are any that upstream and generator can do without.

        Where there are none its workers share one, unless they are to be *spread*: next to the generator they pay for
        its work too.
        """
        free = self.generator[::-1] if self.spread else self.generator[2:]
        return {self.proxy, *free[: workers - 1]}

    @property
    def apart(self) -> bool:
        return self.proxy not in self.generator

    @property
    def of_upstream(self) -> int:
        return self.generator[0]

    def of_load(self, n: int) -> int:
        """The CPU of load process *n*: the upstream's own only where there is no other."""
        return self.generator[(n + 1) % len(self.generator)]


def cpus(*, spread: bool = False) -> Cpus:
    """The first usable CPU for the proxies, the others for the upstream and the load."""
    first, *others = sorted(os.sched_getaffinity(0))
    return Cpus(first, tuple(others) or (first,), spread)


class Asked(msgspec.Struct, frozen=True):
    """What the name of a target asks for."""

    #: DIRECT, NGINX or GATEWAY.
    what: str
    #: Processes that serve on one port: `gateway:2` has two.
    workers: int = 1
    #: How many of them there are that know nothing of each other, each with a port of its own: `2xgateway` is two.
    copies: int = 1

    @property
    def is_gateway(self) -> bool:
        return self.what == GATEWAY

    @property
    def serving(self) -> int:
        """Processes that serve, in all."""
        return self.workers * self.copies


class Proxy(msgspec.Struct, frozen=True):
    """One of a target's proxies as it runs."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path


class Target:
    """Something that answers chat calls, on one port or on several. Directly, there is no proxy between."""

    def __init__(self, name: str, ports: Sequence[int], proxies: Sequence[Proxy] = (), cores: int = 1) -> None:
        self.name = name
        self.asked = asked(name)
        #: Where calls are sent, connection by connection in turn.
        self.ports = tuple(ports)
        self.proxies = tuple(proxies)
        #: How many CPUs its workers have.
        self.cores = cores


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
        return Target(name, upstream_ports[:1])
    shape = asked(name)
    own = cpus.of_proxy(shape.serving)
    proxies = []
    for n in range(shape.copies):
        room = folder / f"{name}-{n}"
        room.mkdir()
        port, log = free_port(), room / "output.log"
        argv, environment = COMMANDS[shape.what](port, upstream_ports, room, shape.workers)
        with log.open("wb") as file:
            process = start(argv, own, file, environment)
        stack.callback(stop, process)
        await_port(process, port, log)
        proxies.append(Proxy(process, port, log))
    return Target(name, [proxy.port for proxy in proxies], proxies, len(own))


def _nginx(port: int, upstream_ports: Sequence[int], room: Path, workers: int) -> tuple[list[str], Mapping[str, str]]:
    file = room / "nginx.conf"
    file.write_text(nginx.configuration(port, upstream_ports, room, workers))
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
#: Every target, in the order of the report.
NAMES: Final = (DIRECT, *COMMANDS)
#: A proxy's name with a number of workers behind it, or of copies before it.
_SEVERAL: Final = re.compile(f"(?:([2-9]|[1-9][0-9])x)?({'|'.join(COMMANDS)})(?::([2-9]|[1-9][0-9]))?")


def asked(name: str) -> Asked:
    """What *name* asks for; ValueError where there is no target of that name."""
    if name == DIRECT:
        return Asked(DIRECT)
    parts = _SEVERAL.fullmatch(name)
    if parts is None:
        raise ValueError(f"no such target: {name}")
    copies, what, workers = parts.groups()
    return Asked(what, int(workers or 1), int(copies or 1))
