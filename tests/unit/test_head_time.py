"""An answer's head has a time of its own, from its first byte to its end: one that drips ends its call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.upstream.pool import HEAD_TIME
from tests.unit.in_process import InProcess, Transport, chat, running

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\n\r\n"


def played(story: Callable[[InProcess, Transport], None], *, stream: bool = False) -> None:
    async def run() -> None:
        house = InProcess()
        try:
            client, transport = house.connect()
            client.data_received(chat(stream))
            story(house, transport)
            client.connection_lost(None)
        finally:
            await house.close()

    with running() as runner:
        runner.run(run())


def pass_time(house: InProcess, seconds: float) -> None:
    house.pool.sweep(house.gateway.clock.now + seconds)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pieces", [[b"H"], [ANSWER[:20], b"X"], [EARLY + b"H"], [EARLY, b"H"], [ANSWER[:-1]]])
def test_a_head_that_does_not_come_to_its_end_is_502(pieces: list[bytes], stream: bool) -> None:
    def story(house: InProcess, transport: Transport) -> None:
        for piece in pieces:
            house.upstream.data_received(piece)
            pass_time(house, HEAD_TIME / 2)
        assert not transport.written
        pass_time(house, HEAD_TIME)
        assert b"".join(transport.written).startswith(b"HTTP/1.1 502 ")
        assert house.upstream_transport.aborted
        assert not house.pool.all

    played(story, stream=stream)


@pytest.mark.parametrize("begun", [b"", EARLY, EARLY * 9, ANSWER + b"{"])
def test_what_comes_before_a_head_or_behind_it_has_no_such_time(begun: bytes) -> None:
    """A generation may take as long as it takes; so may the rest of its body."""

    def story(house: InProcess, transport: Transport) -> None:
        if begun:
            house.upstream.data_received(begun[:5])
            house.upstream.data_received(begun[5:])
        pass_time(house, 100 * HEAD_TIME)
        assert not house.upstream_transport.aborted
        house.upstream.data_received((ANSWER + b"{}")[len(begun) if begun.startswith(ANSWER) else 0 :])
        assert b"".join(transport.written).endswith(b"\r\n\r\n{}")

    played(story)


def test_each_head_has_a_time_of_its_own() -> None:
    def story(house: InProcess, transport: Transport) -> None:
        house.upstream.data_received(EARLY[:5])
        pass_time(house, HEAD_TIME / 2)
        house.upstream.data_received(EARLY[5:])
        pass_time(house, HEAD_TIME)
        house.upstream.data_received(ANSWER[:5])
        house.upstream.data_received(ANSWER[5:] + b"{}")
        assert b"".join(transport.written).endswith(b"\r\n\r\n{}")

    played(story)
