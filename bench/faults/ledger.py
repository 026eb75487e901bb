"""What each side writes down: starts by the upstreams, outcomes by the clients. One line of JSON each.

Owns the two records, and how late the writer's own event loop was. It refuses to judge (`judge`). Times are
CLOCK_MONOTONIC seconds, which all processes of a machine share; 0 means: never.
"""

from __future__ import annotations

import asyncio
import time
from enum import Enum
from pathlib import Path
from typing import IO, Final, TypeVar

import msgspec


class How(Enum):
    """How an upstream's work for a start ended."""

    ANSWERED = "answered"
    #: By the upstream itself, short of a sound answer.
    CUT = "cut"
    #: By the gateway.
    ABORTED = "aborted"
    #: Not at all, when the run was over.
    OPEN = "open"


class Start(msgspec.Struct):
    """One request as an upstream saw it begin, and what became of it."""

    id: str
    peer: str
    deed: str
    #: number of the upstream's connection, and of the request on it
    connection: int
    index: int
    begun: float
    ended: float = 0.0
    how: How = How.OPEN
    #: "fin" or "rst": how the gateway left
    by: str = ""
    sent: int = 0
    #: the request was under way when its upstream spoke unasked: what it is answered with nobody can know
    crossed: bool = False
    #: what no gateway may send, if it did
    wrong: str = ""


class Outcome(msgspec.Struct):
    """One call as its client saw it end: `word` is a status, or a word of `answers.Word`."""

    id: str
    word: str = "none"
    begun: float = 0.0
    ended: float = 0.0
    #: when the client left of its own will
    left: float = 0.0
    #: the client's own port, and when that connection was opened
    port: int = 0
    opened: float = 0.0
    detail: str = ""


class Lag(msgspec.Struct):
    """How late an event loop of the bench woke up, milliseconds: its own share of every time it measured."""

    p50_ms: float
    p99_ms: float
    most_ms: float


Record = TypeVar("Record", Start, Outcome)


class Book:
    """A file of records, one a line, written when each is final."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._encode = msgspec.json.Encoder().encode

    def write(self, record: Start | Outcome) -> None:
        self._file.write(self._encode(record) + b"\n")

    def close(self) -> None:
        self._file.close()


def read(path: Path, type: type[Record]) -> list[Record]:
    decoder = msgspec.json.Decoder(type)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


class Watch:
    """Wakes up every TICK and notes how late that was."""

    TICK: Final = 0.01

    def __init__(self) -> None:
        self._late: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._due = time.monotonic() + self.TICK
        self._loop.call_later(self.TICK, self._wake)

    def _wake(self) -> None:
        now = time.monotonic()
        self._late.append(now - self._due)
        self._due = now + self.TICK
        self._loop.call_later(self.TICK, self._wake)

    def lag(self) -> Lag:
        late = sorted(self._late) or [0.0]
        p50, p99 = (round(late[int(len(late) * share)] * 1e3, 1) for share in (0.5, 0.99))
        return Lag(p50, p99, round(late[-1] * 1e3, 1))
