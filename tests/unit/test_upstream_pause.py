"""An upstream connection is paused while it carries an answer, and never beyond: nobody would resume it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from gateway.call import Receiver
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.pool import Pool
from protocols.http1.state import UpstreamState
from tests.unit.in_process import Transport

pytestmark = pytest.mark.plain

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Keeper:
    """A pool that keeps every connection."""

    def give(self, connection: UpstreamConnection) -> bool:
        return True

    def closed(self, connection: UpstreamConnection) -> None:
        raise AssertionError("given up")


class SlowClient:
    """Takes an answer, and has it paused at the payload of *at*; "end" is after the connection was given back."""

    reused = False

    def __init__(self, at: bytes) -> None:
        self.at = at
        self.exchange: Any = None
        self.sink = None

    def sent(self) -> None:
        """Nothing to time."""

    def head(self, head: object) -> None:
        """Nothing to relay."""

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        if payload == self.at:
            self.exchange.pause()

    def end(self) -> None:
        if self.at == b"end":
            self.exchange.pause()


@pytest.fixture
def connection() -> Iterator[UpstreamConnection]:
    connection = UpstreamConnection(cast("Pool", Keeper()))
    transport = Transport()
    connection.connection_made(transport)
    yield connection
    transport.get_extra_info("socket").close()


def transport(connection: UpstreamConnection) -> Transport:
    return cast("Transport", connection._transport)


def test_it_is_paused_amid_an_answer(connection: UpstreamConnection) -> None:
    connection.send(cast("Receiver", SlowClient(b"ab")), b"request")
    connection.data_received(ANSWER + b"ab")
    assert transport(connection).paused
    connection.resume()
    assert not transport(connection).paused


@pytest.mark.parametrize("at", [b"cd", b"end"])
def test_it_is_given_back_reading_whenever_its_client_stopped(connection: UpstreamConnection, at: bytes) -> None:
    connection.send(cast("Receiver", SlowClient(at)), b"request")
    connection.data_received(ANSWER + b"ab")
    connection.data_received(b"cd")
    assert connection.state is UpstreamState.IDLE
    assert not transport(connection).paused
