"""Patience with a client that does not read, and how its connection ends."""

from __future__ import annotations

import asyncio

import pytest

from gateway import sockets
from gateway.clock import NEVER, Clock
from gateway.farewell import LINGER_LIMIT, LINGER_TIME, Farewell, Patience

START = 1000.0


class Transport(asyncio.Transport):
    """Holds `unsent` bytes, and remembers how it ended."""

    def __init__(self, unsent: int) -> None:
        super().__init__()
        self.unsent = unsent
        self.ended: list[str] = []

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended.append("fin")

    def close(self) -> None:
        self.ended.append("close")

    def abort(self) -> None:
        self.ended.append("abort")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(sockets, "untaken", Transport.get_write_buffer_size)  # nothing is in the kernel
    clock = Clock()
    clock.now = START
    return clock


def test_a_client_that_takes_nothing_is_out_of_patience_when_its_time_is_over(clock: Clock) -> None:
    patience = Patience(Transport(10), clock, 60)
    assert patience.ends == START + 60
    clock.now = START + 59.9
    assert not patience.is_spent()
    clock.now = START + 60
    assert patience.is_spent()


def test_a_byte_taken_gives_the_whole_time_anew(clock: Clock) -> None:
    transport = Transport(10)
    patience = Patience(transport, clock, 60)
    for unsent in (9, 8, 7):
        transport.unsent = unsent
        clock.now = patience.ends
        assert not patience.is_spent()
        assert patience.ends == clock.now + 60
    clock.now = patience.ends
    assert patience.is_spent()


def test_a_client_that_took_everything_is_never_out_of_patience(clock: Clock) -> None:
    transport = Transport(10)
    patience = Patience(transport, clock, 60)
    transport.unsent = 0
    for _ in range(3):
        clock.now = patience.ends
        assert not patience.is_spent()


def test_a_connection_with_nothing_unsent_lingers_a_moment(clock: Clock) -> None:
    transport = Transport(0)
    farewell = Farewell(transport, clock, 60)
    farewell.close(client_ended=False)
    assert transport.ended == ["fin"] and farewell.deadline == START + LINGER_TIME
    clock.now = farewell.deadline
    farewell.expired()
    assert transport.ended == ["fin", "abort"] and farewell.deadline == NEVER


def test_one_with_something_unsent_has_as_long_as_the_client_goes_on_taking_it(clock: Clock) -> None:
    transport = Transport(10)
    farewell = Farewell(transport, clock, 60)
    for unsent in (9, 8):
        transport.unsent = unsent
        clock.now = farewell.deadline
        farewell.expired()
        assert transport.ended == [] and farewell.deadline == clock.now + 60
    clock.now = farewell.deadline
    farewell.expired()
    assert transport.ended == ["abort"]


def test_a_client_that_said_fin_itself_is_not_waited_for(clock: Clock) -> None:
    transport = Transport(0)
    Farewell(transport, clock, 60).close(client_ended=True)
    assert transport.ended == ["close"]


def test_what_is_thrown_away_is_bounded(clock: Clock) -> None:
    transport = Transport(0)
    farewell = Farewell(transport, clock, 60)
    farewell.discard(LINGER_LIMIT)
    assert transport.ended == []
    farewell.discard(1)
    assert transport.ended == ["abort"]
