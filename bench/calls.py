"""Whole calls, offered in a closed loop or at a fixed rate, each answer verified.

Owns the sending, the reading and the latencies of one load process. It refuses streams (`streams`) and the
talk with the parent (`window`). Called by `load`.
"""

from __future__ import annotations

import select
import socket
import time
from array import array
from itertools import cycle
from typing import Final

from bench import messages
from bench.answers import Wrong, is_answer, may_become_answer
from bench.plan import Outcome, Plan
from bench.window import Window

READ: Final = 16384
#: Answers per connection before the work counts as steady: pools are full and caches warm.
WARM_UP: Final = 8
#: Seconds of silence after which the loops look at the time limit.
IDLE: Final = 0.2


class Connections:
    """The sockets of one process, their partial answers, and the epoll that watches them and the window."""

    def __init__(self, plan: Plan, window: Window) -> None:
        self.epoll = select.epoll()
        self.epoll.register(window.fd, select.EPOLLIN)
        self.sockets: dict[int, socket.socket] = {}
        self._partial: dict[int, bytes] = {}
        for _, port in zip(range(plan.connections), cycle(plan.ports), strict=False):
            sock = socket.create_connection(("127.0.0.1", port), timeout=10)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets[sock.fileno()] = sock
            self.epoll.register(sock.fileno(), select.EPOLLIN)

    def completed(self, fd: int, data: bytes) -> bool:
        """Whether *data* ends an answer that came in pieces; Wrong where it cannot become ours."""
        if not data:
            raise Wrong("the connection was closed under a call")
        whole = self._partial.pop(fd, b"") + data
        if is_answer(whole):
            return True
        if not may_become_answer(whole):
            raise Wrong(f"not the scripted answer: {whole[:400]!r}")
        self._partial[fd] = whole
        return False


def closed_loop(plan: Plan, window: Window) -> Outcome:
    """Keep every connection busy until the window has ended; latencies of the answers that came in it."""
    connections = Connections(plan, window)
    sockets, poll, clock = connections.sockets, connections.epoll.poll, time.monotonic_ns
    request = messages.Request(plan.ports[0], messages.call_body())
    size = len(request.buffer)
    sent: dict[int, int] = {}
    times = array("d")
    number, busy, verified = plan.first, len(sockets), 0
    for fd, sock in sockets.items():
        number += 1
        sent[fd] = clock()
        sock.send(request.number(number))
    while busy:
        events = poll(IDLE)
        if not events:
            window.check(f"{busy} answers")
        for fd, _ in events:
            if fd == window.fd:
                window.told()
                continue
            sock = sockets[fd]
            data = sock.recv(READ)
            if not is_answer(data) and not connections.completed(fd, data):
                continue
            verified += 1
            now = clock()
            if window.start <= now < window.end:
                times.append(now - sent[fd])
            elif now >= window.end:
                busy -= 1
                continue
            number += 1
            sent[fd] = now
            if sock.send(request.number(number)) != size:
                raise Wrong("a request did not fit into the socket")
        if verified >= WARM_UP * len(sockets):
            window.ready()
    return Outcome(work=len(times), verified=verified, times=times.tobytes())


def paced(plan: Plan, window: Window) -> Outcome:
    """Send at a fixed rate until the window has ended; latencies count from the instant at which a call was
    due.

    Where every connection is busy a call waits for one, and its latency with it: nothing is left out because
    the proxy was slow (the "coordinated omission" of a closed loop).
    """
    connections = Connections(plan, window)
    epoll, sockets, clock = connections.epoll, connections.sockets, time.monotonic_ns
    request = messages.Request(plan.ports[0], messages.call_body())
    free = list(sockets)
    due_at: dict[int, int] = {}
    times = array("d")
    number, verified = plan.first, 0
    gap, due = int(1e9 / plan.rate), clock()
    while due < window.end or len(free) < len(sockets):
        now = clock()
        while free and due <= now and due < window.end:
            fd = free.pop()
            number += 1
            due_at[fd] = due
            due += gap
            if sockets[fd].send(request.number(number)) != len(request.buffer):
                raise Wrong("a request did not fit into the socket")
        # epoll counts in milliseconds, select in microseconds, and an epoll descriptor can be waited for.
        select.select((epoll,), (), (), min(max(due - clock(), 0) / 1e9, IDLE) if free else IDLE)
        window.check(f"{len(sockets) - len(free)} answers")
        for fd, _ in epoll.poll(0):
            if fd == window.fd:
                window.told()
                continue
            data = sockets[fd].recv(READ)
            if not is_answer(data) and not connections.completed(fd, data):
                continue
            verified += 1
            free.insert(0, fd)
            if window.start <= due_at[fd] < window.end:
                times.append(clock() - due_at[fd])
        if verified >= WARM_UP * len(sockets):
            window.ready()
    return Outcome(work=len(times), verified=verified, times=times.tobytes())
