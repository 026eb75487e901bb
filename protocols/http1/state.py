"""The states of a connection on either side, and the legal moves between them, as data.

Owns the two tables; whoever holds a connection (`gateway.downstream`, `gateway.upstream.connection`) moves through
`move_client` and `move_upstream`. A pair that is missing from a table is a bug in the caller, never a peer's fault.

The tables are the reason why a connection is reused for exactly one cause: only one move leads back to IDLE.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ClientState(IntEnum):
    """IDLE > READING > WAITING > ANSWERING > IDLE; any fault > CLOSING > CLOSED."""

    IDLE = 0
    READING = 1
    WAITING = 2
    ANSWERING = 3
    CLOSING = 4
    CLOSED = 5


class UpstreamState(IntEnum):
    """IDLE > SENT > STREAMING > IDLE, or CLOSED from anywhere. Bytes while IDLE > CLOSED."""

    IDLE = 0
    SENT = 1
    STREAMING = 2
    CLOSED = 3


CLIENT_MOVES: Final[dict[ClientState, frozenset[ClientState]]] = {
    ClientState.IDLE: frozenset({ClientState.READING, ClientState.CLOSING, ClientState.CLOSED}),
    ClientState.READING: frozenset({ClientState.WAITING, ClientState.CLOSING, ClientState.CLOSED}),
    ClientState.WAITING: frozenset({ClientState.ANSWERING, ClientState.CLOSING, ClientState.CLOSED}),
    ClientState.ANSWERING: frozenset({ClientState.IDLE, ClientState.CLOSING, ClientState.CLOSED}),
    ClientState.CLOSING: frozenset({ClientState.CLOSED}),
    ClientState.CLOSED: frozenset(),
}

UPSTREAM_MOVES: Final[dict[UpstreamState, frozenset[UpstreamState]]] = {
    UpstreamState.IDLE: frozenset({UpstreamState.SENT, UpstreamState.CLOSED}),
    UpstreamState.SENT: frozenset({UpstreamState.STREAMING, UpstreamState.CLOSED}),
    UpstreamState.STREAMING: frozenset({UpstreamState.IDLE, UpstreamState.CLOSED}),
    UpstreamState.CLOSED: frozenset(),
}


class IllegalMove(AssertionError):
    """A connection was moved in a way that no table lists: a bug in its owner."""


def move_client(now: ClientState, to: ClientState) -> ClientState:
    """Return *to* if the table allows it from *now*; raise `IllegalMove` otherwise."""
    if to not in CLIENT_MOVES[now]:
        raise IllegalMove(f"client connection: {now.name} -> {to.name}")
    return to


def move_upstream(now: UpstreamState, to: UpstreamState) -> UpstreamState:
    """Return *to* if the table allows it from *now*; raise `IllegalMove` otherwise."""
    if to not in UPSTREAM_MOVES[now]:
        raise IllegalMove(f"upstream connection: {now.name} -> {to.name}")
    return to
