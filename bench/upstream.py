"""The scripted upstream: one process that answers chat calls with bytes made beforehand, whole or as timed
events.

Owns its two listening sockets, the schedule of the events and their send stamps. It refuses HTTP beyond what
the benchmark sends: a request head, a Content-Length body, a Connection that stays open. Started by
`overhead` as `python -m bench.upstream`, prints its two ports and then runs until its standard input ends.

It answers in two system calls (recv, send) and no library between, because it shares a core with the load
generator and must not be what a proxy waits for.
"""

from __future__ import annotations

import gc
import heapq
import re
import select
import socket
import sys
import time
from typing import Final

import msgspec

from bench import messages

#: Bytes per recv; the request fits several times.
READ: Final = 16384
#: The longest request that is waited for.
REQUEST_LIMIT: Final = 1 << 20
#: Seconds after which the loop looks whether it is still wanted.
IDLE: Final = 1.0

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class Served(msgspec.Struct):
    """What the upstream has done so far; the answer to `GET /served`."""

    calls: int = 0
    streams: int = 0
    events: int = 0
    #: Streams for which the proxy asked for usage: the load generator never does.
    usage_asked: int = 0


class Stream:
    """One answer that is sent event by event."""

    __slots__ = ("left", "period_ns", "sock", "usage")

    def __init__(self, sock: socket.socket, ask: messages.Ask) -> None:
        self.sock = sock
        self.left = ask.max_tokens
        self.period_ns = messages.period_of(ask.model) * 1_000_000
        self.usage = ask.stream_options.include_usage


def request_length(data: bytes) -> int:
    """Bytes of the request that *data* begins with, head and body; 0 while the head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    # The two spellings that occur, by plain search: a regular expression that ignores case costs a
    # microsecond.
    at = data.find(b"\r\nContent-Length: ", 0, end)
    if at < 0:
        at = data.find(b"\r\ncontent-length: ", 0, end)
    if at >= 0:
        return end + 4 + int(data[at + 18 : data.find(b"\r", at + 18)])
    found = _LENGTH.search(data, 0, end)
    return end + 4 + (int(found[1]) if found else 0)


class Upstream:
    """All connections and streams of the process."""

    def __init__(self, listeners: list[socket.socket], until_fd: int) -> None:
        # process
        self.listeners = {listener.fileno(): listener for listener in listeners}
        self.until_fd = until_fd
        self.epoll = select.epoll()
        self.served = Served()
        self.event = bytearray(messages.EVENT_CHUNK)
        # connections, by fd
        self.sockets: dict[int, socket.socket] = {}
        self.partial: dict[int, bytes] = {}
        # streams: a heap of (when the next event is due in ns, order, stream)
        self.due: list[tuple[int, int, Stream]] = []
        for fd in (*self.listeners, until_fd):
            self.epoll.register(fd, select.EPOLLIN)

    def run(self) -> None:
        """Serve until standard input ends."""
        poll = self.epoll.poll
        sockets = self.sockets
        begins = b"POST %s " % messages.PATH
        served = self.served
        while True:
            wait = IDLE
            if self.due:
                self._tick()
                wait = min(max(self.due[0][0] - time.monotonic_ns(), 0) / 1e9, IDLE) if self.due else 0
            # epoll rounds up to milliseconds: all that falls due in one leaves together. See docs/bench.md.
            for fd, _ in poll(wait):
                sock = sockets.get(fd)
                if sock is None:
                    if fd == self.until_fd:
                        return
                    self._accept(fd)
                    continue
                try:
                    data = sock.recv(READ)
                    if request_length(data) == len(data) and data.startswith(begins) and b'"stream"' not in data:
                        served.calls += 1
                        if sock.send(messages.ANSWER) != len(messages.ANSWER):
                            raise BlockingIOError("an answer did not fit into the socket")
                    else:
                        self._seldom(fd, sock, data)
                except OSError:
                    self._close(fd)

    def _accept(self, fd: int) -> None:
        while True:
            try:
                sock, _ = self.listeners[fd].accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets[sock.fileno()] = sock
            self.epoll.register(sock.fileno(), select.EPOLLIN)

    def _seldom(self, fd: int, sock: socket.socket, data: bytes) -> None:
        """A request in pieces, one for a stream, one that is not of the benchmark, or an end."""
        if not data:
            self._close(fd)
            return
        whole = self.partial.pop(fd, b"") + data
        length = request_length(whole)
        if not length or len(whole) < length:
            if len(whole) > REQUEST_LIMIT:
                raise ConnectionAbortedError("request too long")
            self.partial[fd] = whole
        elif len(whole) > length:
            raise ConnectionAbortedError("more than one request at once")
        elif whole.startswith(b"GET /served "):
            body = msgspec.json.encode(self.served)
            sock.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        elif not whole.startswith(b"POST %s " % messages.PATH):
            sock.send(messages.NOT_FOUND)
        else:
            self._answer(sock, whole)

    def _answer(self, sock: socket.socket, request: bytes) -> None:
        ask = msgspec.json.decode(request[request.index(b"\r\n\r\n") + 4 :], type=messages.Ask)
        if not ask.stream:
            self.served.calls += 1
            sock.send(messages.ANSWER)
            return
        stream = Stream(sock, ask)
        self.served.streams += 1
        self.served.usage_asked += stream.usage
        # The head leaves alone, as a model server's does while the model still thinks.
        sock.send(messages.STREAM_HEAD)
        heapq.heappush(self.due, (time.monotonic_ns(), self.served.streams, stream))

    def _tick(self) -> None:
        """Send every event that is due: one chunk and one send each, stamped just before."""
        due, event, now_ns = self.due, self.event, time.monotonic_ns
        while due and due[0][0] <= now_ns():
            when, order, stream = heapq.heappop(due)
            event[messages.CHUNK_STAMP] = b"%016x" % now_ns()
            try:
                if stream.sock.send(event) != len(event):
                    raise BlockingIOError("an event did not fit into the socket")
                self.served.events += 1
                stream.left -= 1
                if stream.left > 0:
                    heapq.heappush(due, (when + stream.period_ns, order, stream))
                else:
                    self._finish(stream)
            except OSError:
                # The client left, or it does not read: the load generator finds its stream cut and says so.
                self._close(stream.sock.fileno())

    def _finish(self, stream: Stream) -> None:
        stream.sock.send(messages.chunk(messages.FINISH_EVENT))
        if stream.usage:
            stream.sock.send(messages.chunk(messages.USAGE_EVENT))
        stream.sock.send(messages.chunk(messages.DONE_EVENT) + messages.LAST_CHUNK)

    def _close(self, fd: int) -> None:
        self.partial.pop(fd, None)
        sock = self.sockets.pop(fd, None)
        if sock is not None:
            sock.close()


def main() -> None:
    """Listen on two free ports, tell them in one line of JSON, serve."""
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(2)]
    for listener in listeners:
        listener.setblocking(False)
    upstream = Upstream(listeners, sys.stdin.fileno())
    print(msgspec.json.encode([listener.getsockname()[1] for listener in listeners]).decode(), flush=True)
    # Nothing here is cyclic on the hot path, and a collection would show up as a late event.
    gc.disable()
    upstream.run()


if __name__ == "__main__":
    main()
