"""One accepted socket of a scripted upstream: bytes out, bytes in, and waiting that sees the peer leave.

Owns the socket and `Gate`. It refuses HTTP (`upstream` speaks it). Made by `Upstream` for each connection.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import time
import weakref

from tests.wire.ledger import Connection, Ledger
from tests.wire.unread import unread

GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Gate:
    """A barrier for scripts, open for ever once opened; a file descriptor, to be polled beside a socket."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._finalizer = weakref.finalize(self, os.close, self.fd)

    def open(self) -> None:
        os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """For who has it longer than it is needed; no script may wait for it."""
        self._finalizer()


class PeerGone(Exception):
    """The peer closed or reset the connection while a script was busy with it."""


class Dropped(Exception):
    """The test ended this connection."""


class Wire:
    """One accepted socket: bytes out, bytes in, and waiting that notices the peer's end."""

    def __init__(self, sock: socket.socket, record: Connection, ledger: Ledger) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.record = record
        self.ledger = ledger
        self.inbox = bytearray()
        self.drop = Gate()
        #: "fin" after our shutdown, "closed" after our close or reset
        self.ended = ""

    def wait(self, events: int, seconds: float | None = None, gate: Gate | None = None) -> bool:
        """Wait for *events*, *gate* or *seconds*; True where the time ran out or the gate opened.

        Bytes that come meanwhile go to the inbox; a peer that leaves meanwhile raises PeerGone.
        """
        poll = select.poll()
        poll.register(self.drop.fd, select.POLLIN)
        if gate is not None:
            poll.register(gate.fd, select.POLLIN)
        poll.register(self.sock, events | select.POLLIN | select.POLLRDHUP)
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if end is None else max(0.0, end - time.monotonic()) * 1000
            ready = dict(poll.poll(left))
            if self.drop.fd in ready:
                raise Dropped
            seen = ready.get(self.sock.fileno(), 0)
            if seen & (select.POLLIN | GONE):
                self.look()
                if events & select.POLLIN:
                    return False
            if seen & events:
                return False
            if not ready or (gate is not None and gate.fd in ready):
                return True

    def look(self) -> None:
        """Take what has come, without waiting; PeerGone where that is the end."""
        try:
            data = self.sock.recv(1 << 18)
        except WOULD_BLOCK:
            return
        except OSError:
            self._left("rst")
            raise PeerGone from None
        if not data:
            self._left("fin")
            raise PeerGone
        self.inbox += data

    def _left(self, how: str) -> None:
        with self.ledger.writing():
            if self.record.left is None:
                self.record.left = time.monotonic()
                self.record.left_by = how

    def receive(self) -> bytes:
        """Bytes, as soon as there are some."""
        while not self.inbox:
            self.wait(select.POLLIN)
        data = bytes(self.inbox)
        self.inbox.clear()
        return data

    def send(self, data: bytes) -> int:
        """Send all of *data*, however long the peer takes to read it."""
        sent = 0
        while sent < len(data):
            try:
                sent += self.sock.send(data[sent : sent + (1 << 18)])
            except WOULD_BLOCK:
                self.record.blocked = time.monotonic()
                self.wait(select.POLLOUT)
                self.record.blocked = None
            except OSError:
                self._left("rst")
                raise PeerGone from None
        return sent

    def await_read(self) -> None:
        """Wait until the peer has read all that was sent: it is no longer one piece with what comes next."""
        try:
            here, there = self.sock.getsockname(), self.sock.getpeername()
        except OSError:
            self._left("rst")
            raise PeerGone from None
        while unread(here, there):
            self.wait(0, 0.001)

    def notify(self) -> None:
        """Say over TLS that nothing more will come (close_notify), which `fin` and `close` do not."""
        assert isinstance(self.sock, ssl.SSLSocket)
        while True:
            try:
                self.sock.unwrap()
            except ssl.SSLWantWriteError:
                self.wait(select.POLLOUT)
            except ssl.SSLWantReadError:
                return  # said; the peer's own is not waited for
            except OSError:
                self._left("rst")
                raise PeerGone from None
            else:
                return

    def fin(self) -> None:
        """Say that nothing more will come; the socket stays open to see the peer leave."""
        self.ended = "fin"
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close: FIN, or RST where the peer's bytes were not read."""
        self._end()

    def rst(self) -> None:
        """Reset the connection; bytes that the peer has not read are lost."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end()

    def _end(self) -> None:
        if self.ended == "closed":
            return
        self.ended = "closed"
        self.sock.close()
        with self.ledger.writing():
            self.record.closed = time.monotonic()
