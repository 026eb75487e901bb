"""What a socket is set to, and what asyncio does not say about it, asked of the kernel.

Owns the socket options the questions and the turn-taking that both sides need, and how a client's address is read. It refuses
connections (`gateway.downstream`, `gateway.upstream.connection`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import termios
from collections.abc import Callable
from fcntl import ioctl
from typing import Final

#: TCP states in which the other side has sent its FIN or RST (include/net/tcp_states.h): CLOSE, CLOSE_WAIT, LAST_ACK.
_LEFT: Final = frozenset({7, 8, 9})
#: A read of so many bytes is a flood's. uvloop reads up to 256,000 bytes at once, and a socket that fills them up to 32
#: times in a row before it looks at any other: 8 MB, and tens of milliseconds in which nobody else is served.
FLOOD_READ: Final = 128 << 10

#: Above this many queued bytes a transport says `pause_writing`, below the second `resume_writing`.
WRITE_HIGH: Final = 64 << 10
WRITE_LOW: Final = 16 << 10


def send_at_once(transport: asyncio.BaseTransport) -> None:
    """Small writes leave at once: with Nagle's algorithm an event would wait for the last one's acknowledgement."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def bound_writes(transport: asyncio.Transport) -> None:
    """Let the transport tell its protocol soon when the other side takes less than it is sent."""
    transport.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)


def address_of(transport: asyncio.BaseTransport) -> str:
    """The other side's address; empty where it was gone before it was accepted."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def reset(transport: asyncio.Transport) -> None:
    """End the connection by RST: the other side must not take what it got for whole."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the other side has left, told although the socket is not read."""
    sock = transport.get_extra_info("socket")
    state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state in _LEFT


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
