"""What a peer sent while its connection was idle is nobody's answer, though the loop has not come to read it."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from gateway import sockets
from tests.unit.in_process import InProcess, Transport, chat, running


def test_a_connection_with_unread_bytes_carries_no_further_call() -> None:
    async def run() -> None:
        house = InProcess()
        try:
            warm, fresh = house.upstream_transport, house.add_upstream()[1]
            house.pool.idle.reverse()  # the first one is the warmest again
            warm.get_extra_info("socket").wake()
            client, _ = house.connect()
            client.data_received(chat())
            assert warm.aborted
            assert not warm.written
            assert len(fresh.written) == 1
            client.connection_lost(None)
        finally:
            await house.close()

    with running() as runner:
        runner.run(run())


ENDS: dict[str, Callable[[socket.socket], object]] = {
    "bytes": lambda peer: peer.send(b"x"),
    "a FIN": lambda peer: peer.shutdown(socket.SHUT_WR),
    "its end": socket.socket.close,
}


@pytest.mark.parametrize("what", ENDS)
def test_the_ear_hears_bytes_and_ends_and_no_silence(what: str) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        transport = Transport()
        transport._extra["socket"] = ours
        has_unread = sockets.ear(transport)
        assert not has_unread(0)
        ENDS[what](peer)
        assert has_unread(0)


def test_a_connection_that_ended_before_it_was_handed_over_is_never_used() -> None:
    transport = Transport()
    transport._extra["socket"] = None
    assert sockets.ear(transport)(0)
    ours, peer = socket.socketpair()
    ours.close()
    peer.close()
    transport._extra["socket"] = ours
    assert sockets.ear(transport)(0)
