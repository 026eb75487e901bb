"""TLS on one client's connection: records to bytes and back.

Owns `TlsConnection`, which is a protocol towards the socket's transport and a transport towards the connection above
it. It refuses time, counting and what came before TLS (`gateway.arrival`, which makes one for each handshake), and
settings (`gateway.certificates`).

Not the loop's own TLS: that one shows neither how much is unsent nor a handshake that fails, cannot end one direction
alone (RFC 8446 section 6.1), and cannot begin behind bytes that were read before.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

#: Bytes asked of OpenSSL at once: it gives a record at a time, and those have 16 KiB at most (RFC 8446 section 5.1).
_RECORD: Final = 16 << 10


class TlsConnection(asyncio.Transport, asyncio.Protocol):
    """`shake` until it is done, then `carry` the connection above."""

    __slots__ = ("_above", "_ended", "_incoming", "_outgoing", "_raw", "_tls")

    def __init__(self, raw: asyncio.Transport, context: ssl.SSLContext) -> None:
        super().__init__()
        self._raw = raw
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        #: Set once the handshake is done.
        self._above: asyncio.Protocol | None = None
        #: True once nothing more is sent: what comes then is not worth deciphering.
        self._ended = False

    def shake(self, data: bytes) -> bool:
        """Go on with the handshake; True where it is done. Raises ssl.SSLError, once the client was told."""
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()
        return True

    def carry(self, above: asyncio.Protocol) -> None:
        """The handshake is done: *above* reads and writes through this from now on."""
        self._above = above
        self._raw.set_protocol(self)
        above.connection_made(self)
        if self._incoming.pending:
            self.data_received(b"")  # a request may have come along with the handshake's end

    # Towards the socket: a protocol.

    def data_received(self, data: bytes) -> None:
        above = self._above
        assert above is not None
        if self._ended:
            above.data_received(data)  # it is only counted
            return
        self._incoming.write(data)
        read = self._tls.read
        pieces = []
        over = False
        try:
            while piece := read(_RECORD):
                pieces.append(piece)
            over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # a broken record: nobody can tell any more what the client says
            self._flush()
            self._raw.abort()
            return
        self._flush()
        if pieces:
            above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if over and not above.eof_received():
            self.close()

    def eof_received(self) -> bool | None:
        """A FIN without close_notify before it means the same here: every request has a length of its own."""
        assert self._above is not None
        return self._above.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._above is not None
        self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        assert self._above is not None
        self._above.pause_writing()

    def resume_writing(self) -> None:
        assert self._above is not None
        self._above.resume_writing()

    # Towards the connection above: a transport.

    def write(self, data: Any) -> None:
        if not self._ended:
            self._tls.write(data)
            self._raw.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """close_notify, and FIN; the client may send on."""
        self._say_end()
        self._raw.write_eof()

    def close(self) -> None:
        self._say_end()
        self._raw.close()

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)

    def _say_end(self) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it is said; that the client has not said so too is no matter
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())
