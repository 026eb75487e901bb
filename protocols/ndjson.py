"""Lines of JSON, one object each (application/x-ndjson), read from bytes however they are cut.

Owns the borders between lines. It refuses to know what a line means (a dialect does).
"""

from __future__ import annotations

from protocols.pieces import PARTIAL_LIMIT, Pieces


class LineReader:
    """Cuts a stream into lines; what follows the last line end waits, up to *limit* bytes."""

    __slots__ = ("_limit", "_pieces")

    def __init__(self, limit: int = PARTIAL_LIMIT) -> None:
        self._limit = limit
        self._pieces = Pieces(limit)

    def feed(self, payload: bytes) -> list[bytes]:
        """The lines that *payload* completes, without their ends; blank ones are left out. Raises `Malformed`."""
        border = payload.rfind(b"\n") + 1
        if not border:
            self._pieces.hold(payload)
            return []
        whole = self._pieces.take(payload[:border])
        self._pieces.hold(payload[border:])
        lines = [line for line in whole.splitlines() if line and not line.isspace()]
        if len(whole) > self._limit:
            self._pieces.bound(max(map(len, lines), default=0))
        return lines

    def end(self) -> list[bytes]:
        """The last line, where nothing ended it."""
        rest = self._pieces.take()
        return [rest] if rest and not rest.isspace() else []


def last_border(payload: bytes) -> int:
    """The index just after the last line end in *payload*; 0 if there is none."""
    return payload.rfind(b"\n") + 1


def first_border(payload: bytes) -> int:
    """The index just after the first line end in *payload*; 0 if there is none."""
    return payload.find(b"\n") + 1


def split_events(payload: bytes) -> list[bytes]:
    """The whole lines in *payload*, each with its end; what follows the last one is left out."""
    return payload[: last_border(payload)].splitlines(keepends=True)


def data_of(line: bytes) -> bytes | None:
    """The line without its end; None where it is blank."""
    return line.strip() or None


def names_error(line: bytes) -> bool:
    """Lines have no names."""
    return False
