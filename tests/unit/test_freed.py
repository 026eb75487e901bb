"""A finished call is freed by reference counting alone: the collector has nothing to do for it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from gateway.call import Attempt, Call
from gateway.relay import BodySink, EventSink
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.http import HttpBackend
from gateway.upstream.pool import Pool
from protocols.http1.framing import chunk
from tests.unit.in_process import InProcess, Transport, chat, running

ANSWER = b'{"choices":[{"index":0}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _whole(house: InProcess) -> None:
    client, transport = house.connect()
    client.data_received(chat())
    house.upstream.data_received(WHOLE + ANSWER)
    assert transport.written[-1].endswith(ANSWER)
    client.connection_lost(None)


def _in_pieces(house: InProcess) -> None:
    client, transport = house.connect()
    client.data_received(chat())
    for byte in WHOLE + ANSWER:
        house.upstream.data_received(bytes((byte,)))
    assert b"".join(transport.written).endswith(ANSWER)
    client.connection_lost(None)


def _stream(house: InProcess) -> None:
    client, transport = house.connect()
    client.data_received(chat(stream=True))
    house.upstream.data_received(STREAM + chunk(EVENT))
    house.upstream.data_received(chunk(EVENT) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    assert transport.written[-1] == b"0\r\n\r\n"
    client.connection_lost(None)


def _client_leaves(house: InProcess) -> None:
    client, _ = house.connect()
    client.data_received(chat(stream=True))
    house.upstream.data_received(STREAM + chunk(EVENT))
    client.connection_lost(None)
    assert house.upstream_transport.aborted


def _upstream_breaks(house: InProcess) -> None:
    client, transport = house.connect()
    client.data_received(chat(stream=True))
    house.upstream.data_received(STREAM + chunk(EVENT))
    house.upstream.connection_lost(ConnectionResetError())
    assert b'"error"' in transport.written[-1]
    client.connection_lost(None)


def _refused(house: InProcess) -> None:
    client, transport = house.connect()
    client.data_received(chat().replace(b'"m"', b'"x"'))
    assert transport.written[-1].startswith(b"HTTP/1.1 404 ")
    client.connection_lost(None)


@pytest.mark.parametrize(
    "story", [_whole, _in_pieces, _stream, _client_leaves, _upstream_breaks, _refused], ids=lambda story: story.__name__
)
def test_a_finished_call_leaves_no_object_behind(story: Callable[[InProcess], None]) -> None:
    async def run() -> list[object]:
        house = InProcess()
        gc.collect()
        gc.disable()
        try:
            story(house)
            house.gateway.settler.count()  # calls that are over are counted many at a time, and held until then
            kinds = (Call, Attempt, BodySink, EventSink)
            return [thing for thing in gc.get_objects() if isinstance(thing, kinds)]
        finally:
            gc.enable()
            await house.close()

    with running() as runner:
        assert runner.run(run()) == []


def test_the_count_would_see_a_call_that_lives() -> None:
    async def run() -> int:
        house = InProcess()
        client, _ = house.connect()
        client.data_received(chat())
        alive = sum(isinstance(thing, Call | Attempt) for thing in gc.get_objects())
        await house.close()
        return alive

    with running() as runner:
        assert runner.run(run()) == 2


def test_what_calls_had_in_common_keeps_no_peer_that_has_left() -> None:
    async def main() -> None:
        house = InProcess()
        _whole(house)
        settler = house.gateway.settler
        settler.count()
        assert settler._kinds
        house.gateway.estate.on_reroute()
        assert not settler._kinds
        await house.close()

    with running() as runner:
        runner.run(main())


@pytest.mark.plain
def test_a_connection_that_cannot_be_written_to_at_its_first_call_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be counted as busy for ever, and its descriptor stay open."""

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    async def connect(self: Pool, connection: UpstreamConnection) -> str:
        connection.connection_made(Transport())
        return ""

    async def main() -> None:
        house = InProcess()
        house.upstream.connection_lost(None)
        monkeypatch.setattr(Pool, "_connect", connect)
        monkeypatch.setattr(UpstreamConnection, "send", broken)
        client, _ = house.connect()
        client.data_received(chat())
        (backend,) = house.gateway.estate.backends
        assert isinstance(backend, HttpBackend)
        await asyncio.gather(*backend._tasks)
        assert not house.pool.all and house.pool.busy == 0
        client.connection_lost(None)
        await house.close()

    with running() as runner:
        runner.run(main())
