"""The gateway under test: a process of its own, started from a configuration, watched from outside.

Owns the process, its files, and the check that an idle gateway holds nothing. It refuses to know how the
gateway is built: all is seen through sockets, /proc and what it prints. Made by `Stage.gateway`.
Times are seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.wire import tls
from tests.wire.client import Client, Incomplete, Response, build_request
from tests.wire.ledger import Overdue
from tests.wire.printed import Printed

ROOT = Path(__file__).parents[2]
#: Whether what is installed is tested and not the checkout, as `tox -e wire` has it.
INSTALLED = (_CODE := find_spec("gateway")) is not None and _CODE.origin != str(ROOT / "gateway" / "__init__.py")
#: For whatever a test starts in the checkout's folder: then it runs the same.
PATH_OF_CODE = {"PYTHONSAFEPATH": "1"} if INSTALLED else {}
Configuration = dict[str, Any]

_ports = threading.Lock()
_used: set[int] = set()


class DidNotStart(Exception):
    """The gateway ended, or did not answer, before it was ready."""


#: Each of pytest-xdist's processes (gw0, gw1, ...) has ports of its own: what one finds free the next does not take.
_PORTS = 12_000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_FIRST_PORT = 20_000 + _PORTS * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])


def free_port() -> int:
    """A port nobody listens on, below those that the kernel gives to clients."""
    with _ports:
        while True:
            port = random.randrange(_FIRST_PORT, _FIRST_PORT + _PORTS)
            if port in _used:
                continue
            _used.add(port)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            return port


def to_toml(config: Configuration) -> str:
    """*config* as TOML: inline tables throughout, whose scalars and arrays are spelled as in JSON."""

    def value(item: Any) -> str:
        if isinstance(item, Mapping):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(one)}" for key, one in item.items()) + "}"
        if isinstance(item, list | tuple):
            return "[" + ", ".join(map(value, item)) + "]"
        return json.dumps(item, ensure_ascii=False)

    return "".join(f"{key} = {value(item)}\n" for key, item in config.items())


class Metrics:
    """One scrape, parsed by prometheus_client."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def families(self) -> dict[str, Metric]:
        return {family.name: family for family in text_string_to_metric_families(self.text)}

    def value(self, sample: str, **labels: str) -> float:
        """The sum of all samples called *sample* that carry *labels*; 0 where there is none.

        Tests ask for one again and again until it is as it should be, so no others are parsed.
        """
        lines = [line for line in self.text.splitlines() if line.startswith(sample)]
        return sum(
            one.value
            for family in text_string_to_metric_families("\n".join([*lines, ""]))
            for one in family.samples
            if one.name == sample and labels.items() <= one.labels.items()
        )


def wait_until(true: Callable[[], Any], what: str | Callable[[], str], timeout: float = 5.0) -> Any:
    """Ask until *true()* holds, and return its value: nothing tells us when another process changes."""
    end = time.monotonic() + timeout
    while not (value := true()):
        if time.monotonic() > end:
            raise Overdue(f"not within {timeout} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.005)
    return value


def start_in_vain(config: Configuration, folder: Path) -> str:
    """What a gateway that cannot start from *config* says on stderr; it has to exit with 2."""
    file = folder / "vain.toml"
    file.write_text(to_toml(config))
    command = [sys.executable, "-W", "error", "-X", "dev", "-m", "gateway", "serve", "-c", str(file)]
    env = {**os.environ, **PATH_OF_CODE}
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=15
    )
    assert done.returncode == 2, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


class Gateway:
    """A running gateway, started from `config`."""

    def __init__(
        self,
        config: Configuration,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        args: tuple[str, ...] = (),
        ready_path: str = "/health/live",
        dev: bool = True,
        within: tuple[str, ...] = (),
        root: Path = ROOT,
        command: tuple[str, ...] = (),
    ) -> None:
        """*within* is the beginning of a command that becomes (exec) the one that stands behind it.

        *root* is where the code is found, *command* what runs it, by default a strict interpreter.
        """
        self.config = config
        self.folder = folder
        server = config.get("server", {})
        self.host: str = server.get("host", "127.0.0.1")
        self.port: int = server.get("port") or free_port()
        #: how a client must speak to it: see `Client`
        self.manner: dict[str, Any] = {}
        if "tls" in server:
            self.manner["tls"] = tls.client()
        if server.get("proxy_protocol") and self.host in server.get("trusted_proxies", ()):
            self.manner["preface"] = b"PROXY UNKNOWN\r\n"
        if "port" not in server:
            args = (*args, "--port", str(self.port))
        if "workers" not in server:
            args = (*args, "--workers", "1")
        self._file = folder / "gateway.toml"
        self._file.write_text(to_toml(config))
        self._stdout = Printed(folder / "stdout")
        self._stderr = Printed(folder / "stderr")
        # Without dev mode only what is measured: its allocator fills every block with a pattern.
        python = [sys.executable, "-W", "error", *(["-X", "dev"] if dev else []), "-m", "gateway"]
        # What is compiled anew at each start makes up half of it. A copy may be edited twice in one second.
        variables = PATH_OF_CODE if root == ROOT else {"PYTHONDONTWRITEBYTECODE": "1"}
        with self._stdout.path.open("wb") as out, self._stderr.path.open("wb") as err:
            self.process = subprocess.Popen(
                [*within, *(command or python), "serve", "-c", str(self._file), *args],
                cwd=root,
                env={"PATH": os.environ["PATH"], **variables, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        try:
            self._await_ready(ready_path)
            if server.get("workers", 1) > 1 and "logging" not in config:
                # Another worker may still start: it would have fewer files open than it will have.
                wait_until(lambda: '"msg":"listening"' in self.stdout, "every worker serves", timeout=15.0)
            self.idle_fds = self._fds_at_rest()
        except BaseException:
            self.kill()
            raise

    # --- seen from outside ---

    @property
    def pid(self) -> int:
        """The worker's process; the oldest one's where there are several."""
        return self.workers[0]

    @property
    def workers(self) -> list[int]:
        """The processes that serve, oldest first."""
        pid = self.process.pid
        return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    @property
    def stdout(self) -> str:
        return self._stdout.text

    @property
    def stderr(self) -> str:
        return self._stderr.text

    def log_lines(self) -> list[dict[str, Any]]:
        """Every JSON line on stdout."""
        return self._stdout.log_lines()

    def calls(self, **fields: Any) -> list[dict[str, Any]]:
        """The access lines whose fields equal *fields*."""
        return [
            line
            for line in self.log_lines()
            if line.get("msg") == "call" and all(line.get(name) == value for name, value in fields.items())
        ]

    def wait_call(self, count: int = 1, timeout: float = 2.0, **fields: Any) -> dict[str, Any]:
        """The last access line with *fields*, as soon as there are *count* of them."""
        enough = lambda: len(self.calls(**fields)) >= count  # noqa: E731
        wait_until(enough, lambda: f"{count} access lines with {fields} in\n{self.stdout[-4000:]}", timeout)
        return self.calls(**fields)[-1]

    def fds(self) -> int:
        """How many file descriptors the workers hold."""
        return sum(self._fds())

    def _fds(self) -> list[int]:
        return [count for pid in self.workers if (count := _open_files(pid))]

    def rss(self) -> int:
        """Resident memory, bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Seconds of processor time so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # --- asking ---

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        timeout: float = 5.0,
        **more: Any,
    ) -> Response:
        """One request on a connection of its own, and its whole answer."""
        client = Client(self.port, self.host, timeout=timeout, **self.manner)
        try:
            client.send(build_request(method, target, body, (("Connection", "close"), *headers), **more))
            return client.response(method)
        finally:
            client.close()

    @property
    def has_metrics(self) -> bool:
        return bool(self.config.get("metrics", {}).get("enabled", True))

    def metrics(self) -> Metrics:
        answer = self.ask("GET", self.config.get("metrics", {}).get("path", "/metrics"))
        assert answer.status == 200, answer
        return Metrics(answer.body.decode())

    def gauge(self, name: str, **labels: str) -> float:
        return self.metrics().value(name, **labels)

    def wait_gauge(self, value: float, name: str, timeout: float = 1.0, **labels: str) -> None:
        """Return as soon as the sum over *labels* is *value*."""
        wait_until(lambda: self.gauge(name, **labels) == value, f"{name}{labels} is {value}", timeout)

    # --- ending ---

    def check_idle(self) -> None:
        """Nothing may be held once every call is over and every connection of the test is closed."""
        assert self.process.poll() is None, f"the gateway ended: {self.process.returncode}\n{self.stderr}"
        if self.has_metrics:
            wait_until(lambda: not self._held(), lambda: f"an idle gateway still holds {self._held()}", 3.0)
        wait_until(lambda: self.fds() <= self.idle_fds, self._open_files, 3.0)
        self.check_output()

    def _held(self) -> dict[str, float]:
        metrics = self.metrics()
        held = {
            "in flight": metrics.value("gateway_in_flight_requests"),
            "leases": metrics.value("gateway_upstream_connections", state="busy"),
            "idle upstream connections": metrics.value("gateway_upstream_connections", state="idle"),
            "body budget": metrics.value("gateway_body_budget_bytes"),
        }
        return {name: value for name, value in held.items() if value}

    def _open_files(self) -> str:
        folder = f"/proc/{self.pid}/fd"
        links = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]
        return f"{len(links)} open files go back to {self.idle_fds}: {links}"

    def check_output(self) -> None:
        found = self._stderr.forbidden() or self._stdout.forbidden()
        assert not found, f"the gateway printed {found!r}:\n{self.stderr}\n{self.stdout[-4000:]}"

    def stop(self, timeout: float = 5.0) -> None:
        """SIGTERM; it has to exit with 0 within *timeout*."""
        self.process.send_signal(signal.SIGTERM)
        self.wait_exit(0, timeout)

    def wait_exit(self, code: int, timeout: float = 5.0) -> None:
        try:
            found = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Overdue(f"the gateway did not exit within {timeout} s\n{self.stderr}") from None
        assert found == code, f"the gateway exited with {found}:\n{self.stderr}"
        self.check_output()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    # --- starting ---

    def _await_ready(self, path: str, timeout: float = 15.0) -> None:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise DidNotStart(f"exit {self.process.returncode}\n{self.stdout}\n{self.stderr}")
            try:
                if self.ask("GET", path).status == 200:
                    return
            except (OSError, Incomplete):
                pass
            time.sleep(0.01)
        raise DidNotStart(f"{path} did not answer within {timeout} s\n{self.stdout}\n{self.stderr}")

    def _fds_at_rest(self) -> int:
        """The count after two equal readings, and once every worker has as many as the others.

        The readiness connection takes a moment to go, and one worker answers before another is up.
        """
        before: list[int] = []
        while (now := self._fds()) != before or len(set(now)) > 1:
            before = now
            time.sleep(0.02)
        return sum(now)


def _open_files(pid: int) -> int:
    """How many files *pid* has open, without the spare one that libuv opens beside its first connection."""
    count = 0
    with suppress(FileNotFoundError):  # it has just ended
        for fd in os.scandir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                count += os.readlink(fd) != os.devnull
    return count
