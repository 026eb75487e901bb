"""Connections that wait for a place among the handshakes: each is begun in its turn, whatever became of the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.arrival import Arrival, Arrivals, Stage, Terms
from gateway.certificates import server_context
from gateway.clock import NEVER
from gateway.config.pems import read
from tests.unit.in_process import InProcess, Socket, Transport, running
from tests.wire import tls

#: No record of TLS, and no request either.
GARBAGE = b"\x00" * 16
#: The first bytes of a record: more is waited for.
BEGUN = b"\x16\x03\x01"


@contextmanager
def arrivals_of(max_handshakes: int) -> Iterator[Arrivals]:
    async def made() -> InProcess:
        return InProcess()

    with running() as runner:
        gateway = runner.run(made())
        terms = Terms(server_context(read(tls.LISTENER["cert"]), read(tls.LISTENER["key"])), None, 5.0, max_handshakes)
        yield Arrivals(gateway.gateway.clients, gateway.gateway.measures.connections_failed, terms)
        runner.run(gateway.close())


def arrive(arrivals: Arrivals, data: bytes, socket: Socket) -> tuple[Arrival, Transport]:
    arrival, transport = arrivals.connection(), Transport(socket)
    arrival.connection_made(transport)
    arrival.data_received(data)
    return arrival, transport


def test_a_long_queue_of_broken_handshakes_is_worked_off_by_the_end_of_one() -> None:
    socket = Socket()
    with arrivals_of(max_handshakes=1) as arrivals:
        first, _ = arrive(arrivals, BEGUN, socket)
        queue = [arrive(arrivals, GARBAGE, socket) for _ in range(sys.getrecursionlimit())]
        assert first.stage is Stage.SHAKING
        assert {arrival.stage for arrival, _ in queue} == {Stage.QUEUED}
        first.abort()
        assert {arrival.stage for arrival, _ in queue} == {Stage.LEAVING}
        assert all(transport.aborted and arrival.deadline < NEVER for arrival, transport in queue)
        last, _ = arrive(arrivals, BEGUN, socket)
        assert last.stage is Stage.SHAKING, "places are given away again"


def test_those_that_wait_keep_the_terms_that_they_came_under() -> None:
    socket = Socket()
    with arrivals_of(max_handshakes=1) as arrivals:
        first, _ = arrive(arrivals, BEGUN, socket)
        second, _ = arrive(arrivals, BEGUN, socket)
        arrivals.terms = Terms(None, None, 5.0, 1)
        first.abort()
        assert first.stage is Stage.GONE
        assert second.stage is Stage.SHAKING
