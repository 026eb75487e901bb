"""The rest of an answer whose receiver has all that it wants: read, so that its connection may be kept, and let go.

Owns how much of it is read. It refuses how long that may take (`pool`). One is made by
`connection.UpstreamConnection.leave`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.call import Exchange, Sink
from gateway.errors import Fault
from protocols.http1.response import ResponseHead

if TYPE_CHECKING:
    from gateway.upstream.connection import UpstreamConnection
    from gateway.upstream.pool import Pool

#: Bytes. What means well sends the end of its body, and perhaps a comment.
REST_LIMIT: Final = 16 << 10


class Rest:
    """A `Receiver` that tells nobody."""

    __slots__ = ("_connection", "_left", "_pool", "exchange", "reused", "sink")

    def __init__(self, connection: UpstreamConnection, pool: Pool) -> None:
        self._connection = connection
        self._pool = pool
        self.exchange: Exchange | None = connection
        self.sink: Sink | None = None
        self.reused = False
        self._left = REST_LIMIT

    def sent(self) -> None:
        """It was long ago."""

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """Its head came long ago."""

    def head(self, head: ResponseHead) -> None:
        """It came long ago."""

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        self._left -= len(payload)
        if self._left < 0:
            self._connection.abort()

    def end(self) -> None:
        """The connection is idle again, or closed."""
        self._pool.rest_came(self._connection)

    def fail(self, fault: Fault) -> None:
        """The connection is closed; nobody misses anything."""

    def crashed(self) -> None:
        """The connection is closed."""
