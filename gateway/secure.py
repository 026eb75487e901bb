"""TLS over a TCP transport, such that nothing which came is lost and an end is known for what it is.

Owns `SecureTransport` and `secure`, which makes one for each connection. It refuses the settings
(`gateway.upstream.tls`), the way to the peer and what a cancelled connect leaves (`gateway.upstream.pool`).

uvloop's own TLS transport, when its reading is paused, reads the socket on into a buffer; when it then meets the other
side's FIN it closes, and drops that buffer with the close_notify in it (uvloop 0.23, `SSLProtocol.eof_received`; pull
request 661 there is open). So here the TCP transport below is what is paused: what was read has been handed over, and
all the rest, FIN included, waits in the kernel, as it does without TLS.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any


class SecureTransport(asyncio.Transport):
    """What a protocol over TLS is given, and no more than that of a transport.

    `eof_received` is called for the other side's close_notify alone; a bare FIN, which anybody on the way can forge,
    comes as `connection_lost` only (RFC 8446 section 6.1).
    """

    __slots__ = ("_tcp", "_tls")

    def __init__(self, tcp: asyncio.Transport, tls: asyncio.Transport) -> None:
        super().__init__()
        self._tcp = tcp
        self._tls = tls

    def write(self, data: Any) -> None:
        self._tls.write(data)

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken; those below are encrypted already."""
        return self._tls.get_write_buffer_size() + self._tcp.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def is_closing(self) -> bool:
        return self._tls.is_closing() or self._tcp.is_closing()

    def abort(self) -> None:
        self._tls.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls.get_extra_info(name, default)


async def secure(
    tcp: asyncio.Transport, protocol: asyncio.Protocol, context: ssl.SSLContext, *, server_name: str
) -> None:
    """Shake hands as a client on *tcp*, on which nothing was read or written yet; then *protocol* is connected.

    Raises OSError or ssl.SSLError; then, and when cancelled, *tcp* is closed.
    """
    try:
        if tcp.is_closing():
            raise ConnectionResetError("the peer left before the handshake")
        loop = asyncio.get_running_loop()
        tls = await loop.start_tls(tcp, protocol, context, server_hostname=server_name)
        if tls is None or tls.is_closing() or tcp.is_closing():
            raise ConnectionResetError("the peer left with the handshake")
    except BaseException:
        tcp.abort()
        raise
    protocol.connection_made(SecureTransport(tcp, tls))
