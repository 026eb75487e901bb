"""Server-sent events (WHATWG HTML, section 9.2): where events end, and what data they carry.

Owns the borders between events. It refuses to know what the data means (a dialect does) and how events are framed on
the connection (`protocols.http1.framing`).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from protocols.pieces import PARTIAL_LIMIT, Pieces

_BORDER: Final = re.compile(rb"\n\n|\n\r\n|\r\r")
_NAME: Final = re.compile(rb"(?:\A|[\r\n])event:([^\r\n]*)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
#: An event as almost all servers write it, read in one step.
_PLAIN: Final = re.compile(rb"(?:event: ?([^\r\n]*)\n)?data: ?([^\r\n]*)\n\n")


def last_border(payload: bytes) -> int:
    """The index just after the last blank line in *payload*; 0 if there is none."""
    border = 0
    for blank in (b"\n\n", b"\n\r\n", b"\r\r"):
        at = payload.rfind(blank)
        if at >= 0:
            border = max(border, at + len(blank))
    return border


def first_border(payload: bytes) -> int:
    """The index just after the first blank line in *payload*; 0 if there is none."""
    border = _BORDER.search(payload)
    return border.end() if border is not None else 0


def split_events(payload: bytes) -> list[bytes]:
    """The whole events in *payload*, each with its blank line; what follows the last border is left out."""
    events = []
    start = 0
    for border in _BORDER.finditer(payload):
        events.append(payload[start : border.end()])
        start = border.end()
    end = last_border(payload)
    if start < end:  # one line end more than a blank line needs
        events[-1] += payload[start:end]
    return events


def data_of(event: bytes) -> bytes | None:
    """The event's data, its lines joined by LF; None where it has none (a comment, a lone name or id)."""
    lines = []
    for line in _LINE_END.split(event):
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
    return b"\n".join(lines) if lines else None


def names_error(event: bytes) -> bool:
    """Whether the event's type is `error`, as Anthropic's API and others say it."""
    return b"event: error" in event and any(line == b"event: error" for line in _LINE_END.split(event))


def data_event(data: bytes) -> bytes:
    """One event that carries *data*, which must have no line end in it (compact JSON has none)."""
    return b"data: " + data + b"\n\n"


class Event(NamedTuple):
    """One event that carries data; *name* is empty where it has none."""

    name: bytes
    data: bytes


class EventReader:
    """Cuts a stream into events, each read whole; what follows the last blank line waits, up to *limit* bytes."""

    __slots__ = ("_last", "_limit", "_pieces")

    def __init__(self, limit: int = PARTIAL_LIMIT) -> None:
        self._limit = limit
        self._pieces = Pieces(limit)
        #: The last bytes of what is held: a blank line may come in two reads.
        self._last = b""

    def feed(self, payload: bytes) -> list[Event]:
        """The events that *payload* completes; comments and events without data are left out. Raises `Malformed`."""
        if not self._last and len(payload) <= self._limit:
            plain = _PLAIN.fullmatch(payload)
            if plain is not None:  # the usual read: one event, as most servers write it
                return [Event(plain[1] or b"", plain[2])]
        border = last_border(self._last + payload) - len(self._last)
        if border <= 0:
            self._hold(payload)
            return []
        whole = self._pieces.take(payload[:border])
        self._last = b""
        self._hold(payload[border:])
        if len(whole) > self._limit:
            self._pieces.bound(max(map(len, split_events(whole))))
        return _read_events(whole)

    def end(self) -> list[Event]:
        """The last event, where no blank line ended it."""
        self._last = b""
        return _read_events(self._pieces.take(b"\n\n"))

    def _hold(self, piece: bytes) -> None:
        self._pieces.hold(piece)
        self._last = (self._last + piece)[-3:]


def _read_events(payload: bytes) -> list[Event]:
    events = []
    at = 0
    while (plain := _PLAIN.match(payload, at)) is not None:
        events.append(Event(plain[1] or b"", plain[2]))
        at = plain.end()
    if at == len(payload):
        return events
    for event in split_events(payload[at:]):
        data = data_of(event)
        if data is not None:
            name = _NAME.search(event)
            events.append(Event(name[1].removeprefix(b" ") if name is not None else b"", data))
    return events
