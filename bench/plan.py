"""What a load process is told and what it hands back.

Owns the two records and nothing else. A Plan is made by `scenarios`, an Outcome by `calls` or `streams`.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class Kind(Enum):
    """How work is offered."""

    #: Each connection sends its next request as soon as it has the answer: what the proxy can do at most.
    CLOSED = "closed"
    #: Requests leave at a fixed rate whatever comes back: what a call waits for when there is room.
    PACED = "paced"
    #: Streams of events run side by side.
    STREAMS = "streams"


class Plan(msgspec.Struct, frozen=True):
    """The work of one load process. It stops by itself after `limit_s`, whatever happens."""

    kind: Kind
    #: Where connections go, in turn.
    ports: tuple[int, ...]
    connections: int
    limit_s: float
    #: PACED: requests per second of this process.
    rate: float = 0.0
    #: STREAMS: milliseconds between two events, events of each stream, milliseconds between two openings.
    period_ms: int = 0
    events: int = 0
    opening_ms: float = 0.0
    #: Where this process begins to number its requests, so that no two of a run are the same.
    first: int = 0


class Outcome(msgspec.Struct):
    """What one load process saw in the window."""

    #: Answers, or events, received in the window.
    work: int
    #: Every one of them verified, outside the window too.
    verified: int
    #: Nanoseconds each, machine order doubles: latencies of calls, or one-way delays of events (receipt -
    #: stamp).
    times: bytes
    #: STREAMS: how far two neighbouring events of a stream moved towards or away from each other on the way.
    jitters: bytes = b""
