"""A stream of TGI's events, cut into what each says.

Owns the loop over them. It refuses to know an event (the sides do, which are
made of this).
"""

from __future__ import annotations

from protocols.dialect import Broken, JsonObject
from protocols.pieces import Malformed
from protocols.sse import EventReader


class EventStream:
    """What both sides have in common: `feed` and `end` of a BackendSide, over their `_read` and `_close`."""

    def __init__(self) -> None:
        self._reader = EventReader()
        #: The last event came.
        self._ended = False

    @property
    def is_over(self) -> bool:
        """See `BackendSide`."""
        return self._ended

    def feed(self, payload: bytes) -> list[JsonObject]:
        """The chunks in *payload*; the last one before the end has the usage and no choices."""
        chunks: list[JsonObject] = []
        try:
            for _, data in self._reader.feed(payload):
                self._read(data, chunks)
        except (Malformed, Broken) as fault:
            fault.before = chunks
            raise
        return chunks

    def end(self) -> list[JsonObject]:
        """See `BackendSide`; a stream ends whole or not at all."""
        chunks: list[JsonObject] = []
        for _, data in self._reader.end():
            self._read(data, chunks)
        self._close()
        return chunks

    def _read(self, data: bytes, chunks: list[JsonObject]) -> None:
        """Add to *chunks* what one event's *data* says. Raises `Malformed` and `Broken`."""
        raise NotImplementedError

    def _close(self) -> None:
        """Raises `Malformed` where the stream did not say that it is over."""
        raise NotImplementedError
