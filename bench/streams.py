"""Streams of events side by side: each one opened in turn, read as it comes, verified to its honest end.

Owns the opening, the reading, the delays and jitters of one load process. It refuses whole calls (`calls`)
and the talk with the parent (`window`). Called by `load`.
"""

from __future__ import annotations

import select
import socket
import time
from array import array
from typing import Final

from bench import messages
from bench.answers import StreamReader, Wrong
from bench.plan import Outcome, Plan
from bench.window import Window

READ: Final = 65536
#: Seconds of silence after which the loop looks at the time limit.
IDLE: Final = 0.2

CHUNK: Final = len(messages.EVENT_CHUNK)


class Reading:
    """One stream as it is read."""

    __slots__ = ("at_border", "delay", "events", "reader", "sock", "stamp")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = StreamReader()
        #: Copy of `reader.clean`: the next byte begins a chunk and an event.
        self.at_border = False
        self.events = 0
        #: Of the last event: when it was sent, and how long it was on its way. Nanoseconds.
        self.stamp = 0
        self.delay = 0


class Streams:
    """All streams of one process, and what they measured."""

    def __init__(self, plan: Plan, window: Window) -> None:
        # process
        self.plan = plan
        self.window = window
        self.epoll = select.epoll()
        self.epoll.register(window.fd, select.EPOLLIN)
        self.request = messages.Request(plan.ports[0], messages.stream_body(plan.period_ms, plan.events))
        # streams
        self.open: dict[int, Reading] = {}
        self.opened = 0
        self.begun = 0
        self.verified = 0
        # figures
        self.work = 0
        self.delays = array("d")
        self.jitters = array("d")

    def run(self) -> None:
        """Open every stream, read until the last has ended."""
        next_open = time.monotonic_ns()
        gap = int(self.plan.opening_ms * 1e6)
        while self.opened < self.plan.connections:
            while self.opened < self.plan.connections and next_open <= time.monotonic_ns():
                self._open()
                next_open += gap
            wait = max(next_open - time.monotonic_ns(), 0) / 1e9
            # epoll counts in milliseconds, select in microseconds, and an epoll descriptor can be waited for.
            select.select((self.epoll,), (), (), min(wait, IDLE))
            self._read(0)
        while self.open:
            self._read(IDLE)

    def _open(self) -> None:
        port = self.plan.ports[self.opened % len(self.plan.ports)]
        sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened += 1
        if sock.send(self.request.number(self.plan.first + self.opened)) != len(self.request.buffer):
            raise Wrong("a request did not fit into the socket")
        self.open[sock.fileno()] = Reading(sock)
        self.epoll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, timeout: float) -> None:
        """One turn: all sockets that have something to read."""
        clock = time.monotonic_ns
        events = self.epoll.poll(timeout)
        if not events:
            self.window.check(f"{len(self.open)} streams")
        for fd, _ in events:
            if fd == self.window.fd:
                self.window.told()
                continue
            stream = self.open[fd]
            data = stream.sock.recv(READ)
            now = clock()
            if (
                len(data) == CHUNK
                and stream.at_border
                and data.startswith(messages.CHUNK_START)
                and data.endswith(messages.CHUNK_END)
            ):
                self._event(stream, int(data[messages.CHUNK_STAMP], 16), now)
            else:
                self._other(fd, stream, data, now)

    def _event(self, stream: Reading, stamp: int, now: int) -> None:
        delay = now - stamp
        if stamp <= stream.stamp or delay < 0:
            raise Wrong("an event came twice, out of order or before it was sent")
        if self.window.start <= now < self.window.end:
            self.work += 1
            self.delays.append(delay)
            if stream.events:
                self.jitters.append(abs(delay - stream.delay))
        if not stream.events:
            self.begun += 1
            if self.begun == self.plan.connections:
                self.window.ready()
        stream.events += 1
        stream.stamp = stamp
        stream.delay = delay

    def _other(self, fd: int, stream: Reading, data: bytes, now: int) -> None:
        """A head, several events at once, a piece of one, or the end."""
        if not data:
            raise Wrong(f"a stream was cut after {stream.events} events")
        stamps = stream.reader.feed(data)
        stream.at_border = stream.reader.clean
        for stamp in stamps:
            self._event(stream, stamp, now)
        if stream.reader.ended:
            self._ended(fd, stream, now)

    def _ended(self, fd: int, stream: Reading, now: int) -> None:
        if stream.events != self.plan.events:
            raise Wrong(f"a stream had {stream.events} events of {self.plan.events}")
        if now < self.window.end:
            raise Wrong("a stream ended before the window did")
        self.verified += stream.events
        del self.open[fd]
        stream.sock.close()


def streams(plan: Plan, window: Window) -> Outcome:
    """Open the streams of *plan* and read them to their ends; figures of the events in the window."""
    running = Streams(plan, window)
    running.run()
    return Outcome(
        work=running.work,
        verified=running.verified,
        times=running.delays.tobytes(),
        jitters=running.jitters.tobytes(),
    )
