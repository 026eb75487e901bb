"""What a socket is set to, and what asyncio does not do with it: the kernel is asked, turns are fair, leavers are told.

Owns the socket options, the questions and the turn-taking that both sides need, how a client's address is read, and
`Departures` (made by `gateway.clients`, one for each worker). It refuses connections (`gateway.downstream`,
`gateway.upstream.connection`).
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from fcntl import ioctl
from typing import Final

from gateway.config.schema import UNIX

#: Asks whether anything has come that the loop has not read; called with 0, it does not wait. Empty: nothing.
Ear = Callable[[int], Sequence[object]]

#: What an IPv4 address begins with where an IPv6 socket tells it (RFC 4291 section 2.5.5.2).
_MAPPED: Final = "::ffff:"

#: A read of so many bytes is a flood's. uvloop reads up to 256,000 bytes at once, and a socket that fills them up to 32
#: times in a row before it looks at any other: 8 MB, and tens of milliseconds in which nobody else is served.
FLOOD_READ: Final = 128 << 10

#: Above this many queued bytes a transport says `pause_writing`, and with no more than the second `resume_writing`. So
#: small that what waits for a client is little more than the one read that did not fit (uvloop takes up to 256,000
#: bytes), and above an event's size: what is below it uvloop writes at the end of the turn, together with others',
#: which costs a stream's chunk 7 % less than a write at once.
WRITE_HIGH, WRITE_LOW = 8 << 10, 0
#: Bytes queued for a client beyond what pausing the upstream can stop; past it the client is cut off.
WRITE_LIMIT: Final = 4 << 20


def send_at_once(transport: asyncio.BaseTransport) -> None:
    """Small writes leave at once: with Nagle's algorithm an event would wait for the last one's acknowledgement."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def bound_writes(transport: asyncio.Transport) -> None:
    """Let the transport tell its protocol soon when the other side takes less than it is sent."""
    transport.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)


def address_of(transport: asyncio.BaseTransport) -> str:
    """The other side's address, an IPv4 one as such; empty where it was gone before it was accepted."""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, str):
        return UNIX  # as nginx shows the clients of a unix socket
    return str(peer[0]).removeprefix(_MAPPED) if peer else ""


def ear(transport: asyncio.BaseTransport) -> Ear:
    """What tells of unread bytes, or of the other side's FIN, on an open connection, for half a microsecond."""
    sock = transport.get_extra_info("socket")
    fd = sock.fileno() if sock is not None else -1
    if fd < 0:  # it ended before it was handed over
        return lambda wait: (fd,)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll.poll


def reset(transport: asyncio.Transport) -> None:
    """End the connection by RST: the other side must not take what it got for whole."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def untaken(transport: asyncio.WriteTransport) -> int:
    """Bytes written whose receipt the other side has not acknowledged: those queued here, and those in the kernel.

    The kernel alone takes megabytes before a slow reader is noticed here, and gives room back by the megabyte: by what
    is queued here, a client that reads 400 KB a second stands still. 0 where nothing is queued here.
    """
    unsent = transport.get_write_buffer_size()
    if not unsent:
        return 0
    sock = transport.get_extra_info("socket")
    queued = ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ, tcp(7)
    return unsent + int.from_bytes(queued, sys.byteorder)


def read_later(transport: asyncio.Transport, read_on: Callable[[], None]) -> None:
    """Let every other socket have its turn before *transport* is read again: pause it, and call *read_on* then."""
    transport.pause_reading()
    asyncio.get_running_loop().call_soon(read_on)


class Departures:
    """Tells at once who left although its socket is not read: the loop itself learns that only by reading.

    An epoll of its own, which the loop watches like any socket, and which asks for the other side's end alone.
    """

    __slots__ = ("_epoll", "_told")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._told: dict[int, Callable[[], None]] = {}

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_reader(self._epoll.fileno(), self._tell)

    def watch(self, transport: asyncio.Transport, told: Callable[[], None], *, half_close: bool) -> None:
        """Call *told* once *transport*'s other side has left. With *half_close* its FIN does not mean that."""
        fd = transport.get_extra_info("socket").fileno()
        self._told[fd] = told
        self._epoll.register(fd, 0 if half_close else select.EPOLLRDHUP)  # EPOLLHUP and EPOLLERR come unasked

    def forget(self, transport: asyncio.Transport) -> None:
        """Watch *transport* no longer: it is read again, or closed. Harmless when it was not watched."""
        self._drop(transport.get_extra_info("socket").fileno())

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called once, after the last connection's end was begun."""
        loop.remove_reader(self._epoll.fileno())
        self._told.clear()
        self._epoll.close()

    def _tell(self) -> None:
        for fd, _ in self._epoll.poll(0):
            told = self._drop(fd)
            if told is not None:
                told()

    def _drop(self, fd: int) -> Callable[[], None] | None:
        told = self._told.pop(fd, None)
        if told is not None:
            self._epoll.unregister(fd)
        return told
