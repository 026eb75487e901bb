"""What holds for every test: it leaves no file descriptor and no thread behind in the test process.

And the folder for what every kind of test may put there: a unix socket.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    threads = set(threading.enumerate())
    fds = open_files()
    yield
    left = [thread for thread in set(threading.enumerate()) - threads if thread.is_alive()]
    assert not left, f"threads left over: {left}"
    if open_files().keys() - fds.keys():
        gc.collect()  # what a finished exception holds: a second's work where every client library is imported
    extra = {fd: target for fd, target in open_files().items() if fd not in fds}
    assert not extra, f"file descriptors left over: {extra}"


@pytest.fixture(scope="session")
def socket_folders() -> Iterator[Path]:
    with TemporaryDirectory(prefix="sockets-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def socket_folder(socket_folders: Path) -> Path:
    """A new one for unix sockets, whose paths are 96 bytes at most: those of `tmp_path` may be longer.

    It outlives the test, as what listens there may end after it.
    """
    return Path(mkdtemp(dir=socket_folders))


def open_files() -> dict[str, str]:
    """What each descriptor of this process is, but for those that looking at them takes."""
    targets = {fd: _target(fd) for fd in os.listdir("/proc/self/fd")}
    return {fd: target for fd, target in targets.items() if target and not target.startswith("/proc")}


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
