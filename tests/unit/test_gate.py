"""Accepting that fails though the gate's own count says that there is room."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.gate import Gate
from gateway.observe.access import DirectLines
from gateway.observe.counters import Counter
from gateway.observe.logs import Level, Log, Stamp


class Exhausted(socket.socket):
    """A listener of a process that has no descriptor left."""

    def accept(self) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with Exhausted(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.setblocking(False)
        yield sock


def test_who_serves_nobody_makes_room_too_where_accept_itself_finds_no_descriptor(listener: socket.socket) -> None:
    pauses = Counter()

    async def knock() -> int:
        asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def make_room(wanted: int) -> None:
            if not asked.done():
                asked.set_result(wanted)

        log = Log(DirectLines([], "json"), Level.INFO, Stamp())
        gate = Gate([listener], asyncio.Protocol, lambda entering: 0, make_room, pauses, log)
        gate.open()
        with socket.create_connection(listener.getsockname()):
            try:
                return await asyncio.wait_for(asked, 5.0)
            finally:
                gate.close()

    assert asyncio.run(knock()) > 0
    assert pauses.value > 0
