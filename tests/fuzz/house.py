"""A whole gateway in this process, driven by bytes: for the properties of the glue.

Owns the gateway, its loop and the turns of it. It refuses sockets (tests/unit/in_process.py fakes them) and judgement.
Made by `opened`, once for many checks.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.downstream import ClientConnection
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.http import HttpBackend
from tests.unit.in_process import InProcess, Transport, running

#: Idle connections that wait for calls: more than one message can use up.
PEERS = 12
#: What differs from run to run.
_CHANGES = re.compile(
    rb"x-(?:request|trace)-id: [0-9a-f]{32}\r\n|(?:date|server-timing): [^\r]*\r\n|HTTP/1.1 100 Continue\r\n\r\n"
)


def settled(written: bytes) -> bytes:
    """*written* without what differs from run to run: ids of the gateway's own, times, and interim answers."""
    return _CHANGES.sub(b"", written)


class House:
    """One gateway. `client` and `upstream` are what the last `fresh` connected."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.gateway = runner.run(self._make())
        self.peers: list[tuple[UpstreamConnection, Transport]] = []
        self.crashes: list[str] = []
        self.gateway.gateway.log.error = self._crashed  # type: ignore[method-assign]  # seen, not written

    async def _make(self) -> InProcess:
        return InProcess()

    def _crashed(self, message: str, **fields: object) -> None:
        self.crashes.append(f"{message}: {fields}")

    def fresh(self) -> tuple[ClientConnection, Transport]:
        """A client on a gateway whose upstream connections are all new and idle."""
        pool = self.gateway.pool
        for connection in list(pool.all):
            connection.abort()
        self.peers = [self.gateway.add_upstream() for _ in range(PEERS)]
        self.crashes.clear()
        return self.gateway.connect()

    def hear(self, protocol: ClientConnection | UpstreamConnection, data: bytes) -> None:
        """Bytes for *protocol*, and what was put off to the loop's next turns."""
        self._runner.run(self._turn(lambda: protocol.data_received(data)))

    def lose(self, protocol: ClientConnection | UpstreamConnection) -> None:
        """The other side of *protocol* ends its connection."""
        self._runner.run(self._turn(lambda: protocol.connection_lost(None)))

    async def _turn(self, step: Callable[[], None]) -> None:
        step()
        for _ in range(3):
            await asyncio.sleep(0)
        for backend in self.gateway.gateway.estate.backends:
            if isinstance(backend, HttpBackend) and backend._tasks:  # a retry connects, to a port where nobody is
                await asyncio.wait(set(backend._tasks))

    def rest(self, client: ClientConnection) -> None:
        """The client leaves; nothing may be held, and no step may have raised."""
        self.lose(client)
        assert not self.crashes, self.crashes
        house = self.gateway.gateway
        assert not house.proxy.active
        assert house.budget.used == 0
        assert self.gateway.pool.busy == 0

    def close(self) -> None:
        self._runner.run(self.gateway.close())


@contextmanager
def opened() -> Iterator[House]:
    with running() as runner:
        house = House(runner)
        try:
            yield house
        finally:
            for connection in list(house.gateway.pool.all):
                connection.abort()
            house.close()
