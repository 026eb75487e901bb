"""The evil upstreams: one process, several listening sockets, and the ledger of every request that began.

Owns the sockets, the reading of requests, and the book of starts. It refuses to know what is done (`deeds`, by the
word that each request carries). Started by `run` as `python -m bench.faults.peers BOOK`; it prints its ports, answers
each line on its standard input with what it holds open, and ends with that input.
"""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from bench.faults import speech
from bench.faults.backlog import FullBacklog
from bench.faults.deeds import ALWAYS, AT_HEAD, DEEDS, PATIENCE, Deed, Exchange, refusing, slow
from bench.faults.ledger import Book, How, Lag, Start, Watch
from bench.faults.wire import Gone, Wire

#: Seconds in which a request may still be under way that left before its upstream spoke unasked.
CROSSING: Final = 0.05
#: Peers that serve whatever deed is asked for.
WILLING: Final = (
    *("well", "solo", "brisk", "left", "right", "spare", "rest", "worn", "odd", "mumble"),
    *("swift", "quick", "extra", "squall", "gale", "cliff", "pulse", "rescue"),
)
#: Peers that do the same to everybody.
STUBBORN: Final[dict[str, Deed]] = {"lame": slow, "hole": refusing(500)}
#: Ports that nobody listens on, and one on which nobody is let in.
CLOSED: Final = ("shut", "bolted")
FULL: Final = "full"
#: Accepts, never reads, never answers.
DEAF: Final = "deaf"

_LENGTH: Final = b"\r\ncontent-length: "
_TOLD: Final = b"\r\n%b: " % speech.TOLD.encode()


class Holding(msgspec.Struct):
    """What the process says when asked."""

    #: Connections that the gateway has not left, by peer.
    open: dict[str, int]
    lag: Lag


def field(head: bytes, name: bytes) -> bytes:
    """The value of the line that begins with *name*, whatever its case; empty where there is none."""
    at = head.lower().find(name)
    return head[at + len(name) : head.find(b"\r\n", at + len(name))].strip() if at >= 0 else b""


def told(head: bytes) -> speech.Ask:
    """What the request with *head* asks for; msgspec.DecodeError where it says nothing."""
    return msgspec.json.decode(field(head, _TOLD), type=speech.Ask)


class Peers:
    """All evil upstreams."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._accepted = 0
        self._begun: Counter[str] = Counter()
        self._wires: dict[int, Wire] = {}
        self._loop = asyncio.get_running_loop()
        # A socket that is not read tells of its end by epoll only.
        self._departures = select.epoll()
        self._loop.add_reader(self._departures.fileno(), self._departed)
        self.sockets: list[socket.socket] = []

    def listen(self) -> dict[str, int]:
        """Name -> port of every peer."""
        ports = {}
        for name in (*WILLING, *STUBBORN, DEAF, *CLOSED):
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            self.sockets.append(sock)
            ports[name] = sock.getsockname()[1]
            if name not in CLOSED:
                sock.listen(1024)
                sock.setblocking(False)
                self._loop.add_reader(sock, self._accept, sock, name)
        return ports

    def holding(self) -> dict[str, int]:
        return dict(Counter(wire.peer for wire in self._wires.values()))

    def _accept(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            self._accepted += 1
            wire = Wire(sock, self._accepted, name, reading=name != DEAF)
            self._wires[wire.number] = wire
            serve = self._ignore if name == DEAF else self._serve
            wire.task = self._loop.create_task(serve(wire, name))
            # Not in a `finally` of the task's own: the gateway may leave before its first step, and then it has none.
            wire.task.add_done_callback(partial(self._forget, wire))

    def _forget(self, wire: Wire, task: asyncio.Task[None]) -> None:
        wire.close()
        self._wires.pop(wire.number, None)

    async def _serve(self, wire: Wire, name: str) -> None:
        index = 0
        try:
            while await self._exchange(wire, name, index):
                index += 1
            if not wire.closed:  # our side has ended; now the gateway has to
                await asyncio.sleep(PATIENCE)
        except (Gone, asyncio.CancelledError):
            pass

    async def _exchange(self, wire: Wire, name: str, index: int) -> bool:
        """Read one request and do what it asks for; False where the connection carries no other."""
        while (end := wire.inbox.find(b"\r\n\r\n")) < 0:
            await wire.more()
        head = bytes(wire.inbox[: end + 4])
        del wire.inbox[: end + 4]
        ask = told(head)
        start = self._begin(wire, name, index, ask)
        try:
            deed = self._deed(name, ask)
            body = b"" if deed in AT_HEAD else await self._read_body(wire, head, ask, start)
            await deed(Exchange(wire, ask, start, body))
            self._end(start, How.ANSWERED)
        except (Gone, asyncio.CancelledError):
            start.by = wire.left_by
            self._end(start, How.ABORTED if wire.left else How.OPEN, wire.left)
            raise
        finally:
            self._book.write(start)
        return not (wire.closed or wire.finished)

    def _deed(self, name: str, ask: speech.Ask) -> Deed:
        if name in STUBBORN:
            return STUBBORN[name]
        return DEEDS[ask.deed if self._begun[ask.id] == 1 or ask.deed in ALWAYS else "fine"]

    async def _read_body(self, wire: Wire, head: bytes, ask: speech.Ask, start: Start) -> bytes:
        length = int(field(head, _LENGTH) or b"0")
        while len(wire.inbox) < length:
            await wire.more()
        body = bytes(wire.inbox[:length])
        del wire.inbox[:length]
        if ask.id.encode() != field(head, b"\r\nx-request-id: "):
            start.wrong = "head of another call"
        elif speech.messages(ask) not in body:
            start.wrong = f"{length} bytes of body that are not the client's"
        elif wire.inbox:
            start.wrong = f"{len(wire.inbox)} bytes behind the request"
        return body

    def _begin(self, wire: Wire, name: str, index: int, ask: speech.Ask) -> Start:
        self._begun[ask.id] += 1
        now = time.monotonic()
        start = Start(ask.id, name, ask.deed, wire.number, index, now, crossed=now < wire.unasked + CROSSING)
        return start

    def _end(self, start: Start, how: How, when: float = 0.0) -> None:
        if start.how is How.OPEN:
            start.how, start.ended = how, when or time.monotonic()

    # --- the deaf peer ---

    async def _ignore(self, wire: Wire, name: str) -> None:
        """Look at the request without reading it, and wait for the gateway to leave."""
        start: Start | None = None
        self._departures.register(wire.sock, select.EPOLLRDHUP | select.EPOLLET)
        try:
            head = await self._peek(wire)
            start = self._begin(wire, name, 0, told(head))
            await asyncio.sleep(PATIENCE)
        except (Gone, asyncio.CancelledError):
            pass
        finally:
            if start is not None:
                start.by = wire.left_by
                self._end(start, How.ABORTED if wire.left else How.OPEN, wire.left)
                self._book.write(start)

    async def _peek(self, wire: Wire) -> bytes:
        while True:
            try:
                data = wire.sock.recv(1 << 16, socket.MSG_PEEK)
            except BlockingIOError:
                data = b""
            if b"\r\n\r\n" in data:
                return data
            await asyncio.sleep(0.002)

    def _departed(self) -> None:
        by_fd = {wire.sock.fileno(): wire for wire in self._wires.values() if not wire.closed}
        for fd, events in self._departures.poll(0):
            if fd in by_fd:
                by_fd[fd].gone("rst" if events & select.EPOLLERR else "fin")

    async def close(self) -> None:
        """Stop listening, and end what still runs: it is written down as open."""
        for sock in self.sockets:
            self._loop.remove_reader(sock)
            sock.close()
        tasks = [wire.task for wire in self._wires.values() if wire.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._departures.close()


async def serve(book: Book) -> None:
    """Serve until standard input ends."""
    peers, full, watch = Peers(book), FullBacklog(), Watch()
    ports = {**peers.listen(), FULL: full.port}
    print(msgspec.json.encode(ports).decode(), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(msgspec.json.encode(Holding(peers.holding(), watch.lag())).decode(), flush=True)
    await peers.close()
    full.close()


def main() -> None:
    book = Book(Path(sys.argv[1]))
    # A collection would show up as an abort that was seen late; what is cyclic here is small.
    gc.disable()
    try:
        uvloop.run(serve(book))
    finally:
        book.close()


if __name__ == "__main__":
    main()
