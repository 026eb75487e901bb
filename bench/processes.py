"""Starting, pinning and stopping what the benchmark runs.

Owns the processes' lives: each is started on given CPUs, in a session of its own (so that Ctrl-C reaches only
the benchmark, which then stops them), and stopped by its id. It refuses to know what a process is for. Used
by `targets`, `overhead` and `measure`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from bench.cpu import descendants

#: The folder in which `bench` and `gateway` are packages.
ROOT: Final = Path(__file__).resolve().parent.parent
#: Seconds a process has for its own end before it is killed with everything below it.
PATIENCE: Final = 5.0


class Broken(RuntimeError):
    """The benchmark cannot go on; the message is for the one who started it."""


@contextmanager
def pinned(cpus: set[int]) -> Iterator[None]:
    """Children started inside run on *cpus*, and so do theirs: affinity is inherited."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(
    argv: Sequence[str],
    cpus: set[int],
    log: IO[bytes],
    environment: Mapping[str, str] | None = None,
    *,
    piped: bool = False,
) -> subprocess.Popen[bytes]:
    """Start *argv* on *cpus*; errors, and output unless *piped*, go into *log*. OSError where it cannot.

    It is started in ROOT, with *environment* or else in our own `surroundings`.
    """
    with pinned(cpus):
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else log,
            stderr=log,
            cwd=ROOT,
            env=surroundings() if environment is None else environment,
            start_new_session=True,
            bufsize=0,
        )


def surroundings() -> dict[str, str]:
    """Our environment, but that Python looks into the working directory: `bench` is nowhere else."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}


def stop(process: subprocess.Popen[bytes]) -> None:
    """End *process* and everything below it. SIGTERM first; what lives on after PATIENCE is killed."""
    if process.poll() is None:
        family = descendants(process.pid)
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in family[1:]:
            _kill(pid, process.pid)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _kill(pid: int, session: int) -> None:
    """Kill *pid* if it lives and still belongs to the session that `start` made."""
    try:
        if os.getsid(pid) == session:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def end_children() -> None:
    """Kill whatever still runs below this process: a signal may come between a process's birth and the note of it."""
    for pid in descendants(os.getpid())[1:]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def await_port(process: subprocess.Popen[bytes], port: int, log: Path, seconds: float = 15.0) -> None:
    """Wait until *process* accepts on *port*; Broken, with the end of its log, where it does not."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Broken(f"{process.args!r} does not listen on port {port}\n{tail(log)}")


def tail(log: Path) -> str:
    """The last lines of *log*."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
