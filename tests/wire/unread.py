"""How many bytes wait at the other end of a TCP connection of this host, as the kernel knows it (sock_diag(7)).

Owns the question, one netlink message each. It refuses to wait (`accepted`). Whoever sends two pieces that must not be
read as one has no other event to wait for: that bytes are acknowledged says only that the kernel has them.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

#: linux/netlink.h, sock_diag.h, inet_diag.h
_SOCK_DIAG, _BY_FAMILY, _REQUEST, _NO_COOKIE = 4, 20, 1, 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBBxI")
_ANSWER = struct.Struct("=4B48sII")


def unread(here: Any, there: Any) -> int:
    """Bytes that the socket at *there*, connected to *here*, has not read; 0 where it is gone, or the kernel mute.

    Addresses are those of `getsockname`.
    """
    family = socket.AF_INET6 if ":" in there[0] else socket.AF_INET
    source, destination = (socket.inet_pton(family, one[0]).ljust(16, b"\0") for one in (there, here))
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    question += struct.pack("!HH", there[1], here[1]) + source + destination
    question += struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
            kernel.settimeout(1.0)
            kernel.send(_HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST, 1, 0) + question)
            answer = kernel.recv(4096)
    except OSError:
        return 0
    if _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return 0
    return int(_ANSWER.unpack_from(answer, _HEADER.size)[-1])
