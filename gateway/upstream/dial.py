"""The way to one of a name's addresses: in turn, and past those that do not answer.

Owns `Dialler`, made by `gateway.estate` for each pool whose peer is a name. It refuses lookups (`resolver`), what is
said over the connection (`pool`) and the time that all of it may take, which is its caller's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from gateway.clock import monotonic
from gateway.upstream.resolver import Name

#: Seconds that an address gets before the next one is tried beside it (RFC 8305 section 8, "Connection Attempt Delay").
HEAD_START: Final = 0.25
#: Seconds for which an address that did not answer is tried last.
LAST_FOR: Final = 10.0


class Dialler:
    """Each connection goes to the next address; to another one where that fails or takes too long."""

    __slots__ = ("_lame", "_port", "_turn", "name")

    def __init__(self, name: Name, port: int) -> None:
        self.name = name
        self._port = port
        self._turn = 0
        #: Addresses that did not answer -> monotonic seconds until which they are tried last.
        self._lame: dict[str, float] = {}

    async def dial(self) -> tuple[socket.socket, str]:
        """A connected socket and its address. Raises OSError: the last one's, where all addresses fail."""
        order = self._order(await self.name.resolved())
        if len(order) == 1:
            return await _reach(order[0], self._port), order[0]
        return await self._race(order)

    def _order(self, addresses: Sequence[str]) -> list[str]:
        turn = self._turn % len(addresses)
        self._turn += 1
        now = monotonic()
        self._lame = {address: until for address, until in self._lame.items() if now < until and address in addresses}
        return sorted([*addresses[turn:], *addresses[:turn]], key=lambda address: address in self._lame)

    async def _race(self, order: list[str]) -> tuple[socket.socket, str]:
        """The first of *order* that answers wins; the others are given up."""
        loop = asyncio.get_running_loop()
        running: dict[asyncio.Task[socket.socket], str] = {}
        left = order[::-1]
        try:
            while True:
                if left:
                    address = left.pop()
                    running[loop.create_task(_reach(address, self._port))] = address
                wait = HEAD_START if left else None
                done, _ = await asyncio.wait(running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    address = running.pop(task)
                    if (fault := task.exception()) is None:
                        self._won(address, order, list(running.values()))
                        return task.result(), address
                    self._lame[address] = monotonic() + LAST_FOR
                    if not running and not left:
                        raise fault
        finally:
            for task in running:
                # One that came in second has a socket.
                if not task.cancel() and not task.cancelled() and task.exception() is None:
                    task.result().close()

    def _won(self, address: str, order: list[str], running: list[str]) -> None:
        """*address* answered before those that were begun earlier and still run."""
        before = order[: order.index(address)]
        self._lame.pop(address, None)
        self._lame.update(dict.fromkeys((one for one in running if one in before), monotonic() + LAST_FOR))


async def _reach(address: str, port: int) -> socket.socket:
    """A socket that is connected to *address*. Raises OSError; then, and when cancelled, nothing is left open."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
