"""The tables of legal moves: every state can be reached and left, and there is one way back to IDLE."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import pytest

from gateway.call import PHASE_LETTERS, PHASE_MOVES, Phase
from protocols.http1.state import CLIENT_MOVES, UPSTREAM_MOVES, ClientState, UpstreamState, moves_to

Moves = Mapping[Any, Mapping[Any, Any]]

TABLES: dict[str, tuple[Moves, type[IntEnum], IntEnum, IntEnum]] = {
    "client": (CLIENT_MOVES, ClientState, ClientState.IDLE, ClientState.CLOSED),
    "upstream": (UPSTREAM_MOVES, UpstreamState, UpstreamState.IDLE, UpstreamState.CLOSED),
    "call": (PHASE_MOVES, Phase, Phase.ADMITTING, Phase.SETTLED),
}
EACH = pytest.mark.parametrize(("moves", "states", "first", "last"), TABLES.values(), ids=TABLES.keys())
Kind = type[IntEnum]


def reached(moves: Moves, start: IntEnum) -> set[IntEnum]:
    found = {start}
    waiting = [start]
    while waiting:
        for state in moves[waiting.pop()]:
            if state not in found:
                found.add(state)
                waiting.append(state)
    return found


@EACH
def test_a_table_names_every_state_and_nothing_else(moves: Moves, states: Kind, first: IntEnum, last: IntEnum) -> None:
    assert set(moves) == set(states)
    for state, targets in moves.items():
        assert type(state) is states
        assert all(type(target) is states and target is found for target, found in targets.items())


@EACH
def test_every_state_can_be_reached_from_the_first(moves: Moves, states: Kind, first: IntEnum, last: IntEnum) -> None:
    assert reached(moves, first) == set(states)


@EACH
def test_from_every_state_there_is_a_way_to_the_end(moves: Moves, states: Kind, first: IntEnum, last: IntEnum) -> None:
    assert all(last in reached(moves, state) for state in states)
    assert all(last in moves[state] for state in states if state is not last)


@EACH
def test_only_the_last_state_has_no_moves(moves: Moves, states: Kind, first: IntEnum, last: IntEnum) -> None:
    assert [state for state, targets in moves.items() if not targets] == [last]


@pytest.mark.parametrize(
    ("moves", "idle", "only"),
    [
        (CLIENT_MOVES, ClientState.IDLE, ClientState.ANSWERING),
        (UPSTREAM_MOVES, UpstreamState.IDLE, UpstreamState.STREAMING),
    ],
)
def test_only_one_move_leads_back_to_idle(moves: Moves, idle: IntEnum, only: IntEnum) -> None:
    assert [state for state, targets in moves.items() if idle in targets] == [only]


def test_a_client_that_is_being_closed_gets_no_other_request() -> None:
    assert reached(CLIENT_MOVES, ClientState.CLOSING) == {ClientState.CLOSING, ClientState.CLOSED}


def test_nothing_is_repeated_once_the_client_saw_an_answer() -> None:
    assert reached(PHASE_MOVES, Phase.RELAYING) == {Phase.RELAYING, Phase.SETTLED}


def test_no_call_goes_back_to_admission() -> None:
    assert not [phase for phase, targets in PHASE_MOVES.items() if Phase.ADMITTING in targets]


def test_every_phase_that_can_end_a_call_has_its_letter() -> None:
    assert len(PHASE_LETTERS) == len(set(PHASE_LETTERS)) == len(Phase) - 1
    assert max(Phase) is Phase.SETTLED


@EACH
def test_moves_by_their_target_are_the_same_moves(moves: Moves, states: Kind, first: IntEnum, last: IntEnum) -> None:
    for target in states:
        found = moves_to(moves, target)
        assert set(found) == {state for state, targets in moves.items() if target in targets}
        assert all(to is target for to in found.values())
