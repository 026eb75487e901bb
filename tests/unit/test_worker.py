"""A worker's start, in this process."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator

import pytest

from gateway.channel import Channel, Leave, Message, Ready, pair
from gateway.clock import Clock, monotonic_ns
from gateway.config.load import load
from gateway.page import BEAT, SERVING, STATE, Seat, alone
from gateway.worker import Worker
from tests.unit.in_process import running


@pytest.fixture
def collector() -> Iterator[None]:
    """A worker freezes what lives at its start: here that is everybody else's."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


@pytest.fixture
def seat() -> Iterator[Seat]:
    seat = alone()
    yield seat
    seat.page.close()


class Control(Channel):
    """The worker's end: remembers what its row said when it was ready, and has it leave then."""

    def __init__(self, sock: socket.socket, seat: Seat, supervisor: Channel) -> None:
        super().__init__(sock)
        self._seat = seat
        self._supervisor = supervisor
        self.said: list[int] = []

    def send(self, message: Message) -> None:
        if isinstance(message, Ready):
            self.said = self._seat.row.cells.tolist()
            self._supervisor.send(Leave())


@pytest.mark.usefixtures("collector")
def test_a_worker_that_serves_has_told_that_its_loop_turns_before_its_first_sweep(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is stopped between the two would else not be found to hang, ever."""
    monkeypatch.setattr(Clock, "start", lambda clock, loop: None)  # it never sweeps
    config = load([], {"GATEWAY_UPSTREAMS": "m=http://127.0.0.1:9", "GEN_GATEWAY__LOGGING__OUTPUT": "/dev/null"}, {})
    ours, theirs = pair()
    control = Control(theirs.sock, seat, ours)
    before = monotonic_ns()
    with socket.create_server(("127.0.0.1", 0)) as listener, running() as runner:
        assert runner.run(Worker(config, 1, [listener], seat, control).serve()) == 0
    assert control.said[STATE] == SERVING
    assert before < control.said[BEAT] <= monotonic_ns()
    ours.close()
    theirs.close()
