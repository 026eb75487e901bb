"""The states of a connection on either side, and the legal moves between them, as data.

Owns the two tables. Whoever holds a connection (`gateway.downstream`, `gateway.upstream.connection`) moves by looking
up: `state = CLIENT_MOVES[state][ClientState.IDLE]`, or where each call does so in a table of `moves_to`, which takes
one look-up and not two. A missing key is a bug in the caller, never a peer's fault.

The tables are the reason why a connection is reused for exactly one cause: only one move leads back to IDLE.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeVar

State = TypeVar("State", bound=IntEnum)


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


ClientMoves = dict[ClientState, dict[ClientState, ClientState]]
UpstreamMoves = dict[UpstreamState, dict[UpstreamState, UpstreamState]]


def _to(*states: ClientState) -> dict[ClientState, ClientState]:
    return {state: state for state in states}


def moves_to(moves: Mapping[State, Mapping[State, State]], to: State) -> dict[State, State]:
    """The legal moves to *to*: from -> *to*."""
    return {state: to for state, targets in moves.items() if to in targets}


def _up_to(*states: UpstreamState) -> dict[UpstreamState, UpstreamState]:
    return {state: state for state in states}


#: From -> to -> to. A request that came whole in one read goes from IDLE to WAITING.
CLIENT_MOVES: Final[ClientMoves] = {
    ClientState.IDLE: _to(ClientState.READING, ClientState.WAITING, ClientState.CLOSING, ClientState.CLOSED),
    ClientState.READING: _to(ClientState.WAITING, ClientState.CLOSING, ClientState.CLOSED),
    ClientState.WAITING: _to(ClientState.ANSWERING, ClientState.CLOSING, ClientState.CLOSED),
    ClientState.ANSWERING: _to(ClientState.IDLE, ClientState.CLOSING, ClientState.CLOSED),
    ClientState.CLOSING: _to(ClientState.CLOSED),
    ClientState.CLOSED: _to(),
}

UPSTREAM_MOVES: Final[UpstreamMoves] = {
    UpstreamState.IDLE: _up_to(UpstreamState.SENT, UpstreamState.CLOSED),
    UpstreamState.SENT: _up_to(UpstreamState.STREAMING, UpstreamState.CLOSED),
    UpstreamState.STREAMING: _up_to(UpstreamState.IDLE, UpstreamState.CLOSED),
    UpstreamState.CLOSED: _up_to(),
}
