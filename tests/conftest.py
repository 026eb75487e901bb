"""What holds for every test: it leaves no file descriptor and no thread behind in the test process.

And the folder for what every kind of test may put there: a unix socket.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    threads = set(threading.enumerate())
    fds = set(os.listdir("/proc/self/fd"))
    yield
    left = [thread for thread in set(threading.enumerate()) - threads if thread.is_alive()]
    assert not left, f"threads left over: {left}"
    if set(os.listdir("/proc/self/fd")) - fds:
        gc.collect()
    extra = {fd: _target(fd) for fd in set(os.listdir("/proc/self/fd")) - fds}
    extra = {fd: target for fd, target in extra.items() if target and not target.startswith("/proc")}
    assert not extra, f"file descriptors left over: {extra}"


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A new one for unix sockets, whose paths are 96 bytes at most: those of `tmp_path` may be longer."""
    with TemporaryDirectory(prefix="socket-", dir="/tmp") as folder:
        yield Path(folder)


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
