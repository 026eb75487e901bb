"""One destination of log lines that several processes write to: each line comes out whole."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from gateway.observe.access import Outlet


def socket_pair() -> tuple[int, int]:
    """Its reading end, its writing end."""
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


@pytest.mark.parametrize("ends", [os.pipe, socket_pair], ids=["pipe", "socket"])
def test_lines_of_two_processes_on_one_pipe_are_whole(ends: Callable[[], tuple[int, int]]) -> None:
    reader, writer = ends()
    children = []
    for mark in b"ab":
        lines = b"".join(bytes([mark]) * (100 + number % 900) + b"\n" for number in range(4000))
        if (pid := os.fork()) == 0:
            os._exit(Outlet(writer, owned=False).write(lines))
        children.append(pid)
    os.close(writer)
    with open(reader, "rb") as read:
        came = read.read().splitlines()
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    for mark in b"ab":
        own = [len(line) for line in came if line[0] == mark and len({*line}) == 1]
        assert own == [100 + number % 900 for number in range(4000)]


def test_a_line_that_is_longer_than_one_write_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write = os.write

    def noted(fd: int, piece: memoryview) -> int:
        sizes.append(len(piece))
        return write(fd, piece)

    reader, writer = os.pipe()
    monkeypatch.setattr(os, "write", noted)
    lines = b"a\n" + b"b" * 5000 + b"\n" + b"c\n" * 3000
    assert Outlet(writer, owned=False).write(lines) == 0
    os.close(writer)
    with open(reader, "rb") as read:
        assert read.read() == lines
    assert sizes == [2, 5001, 4096, 1904]
