"""What a stock JDK 17 HttpClient sends with a POST of 20 KB arrives whole, however it is cut into pieces.

It offers h2c with every request. llhttp takes that for the end of HTTP and drops the body; ours must not.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.in_process import InProcess, running

RECORDED = Path(__file__).parents[1] / "data" / "jdk"
BODY = b'{"model":"m","user":"%b"}' % (b"x" * 20_000)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def recorded(framing: str) -> bytes:
    """The recording, with the key of the gateway in place of the one that was recorded."""
    return (RECORDED / f"post_{framing}.http").read_bytes().replace(b"Bearer test-key-0123456789", b"Bearer dev-key")


def cuts(data: bytes) -> Iterable[list[int]]:
    """Everywhere in the head and the first chunk's size, every 61 bytes of the body, and pieces of few bytes."""
    head = data.index(b"\r\n\r\n") + 12
    yield []
    yield from ([at] for at in range(1, head))
    yield from ([at] for at in range(head, len(data), 61))
    yield from ([len(data) - at] for at in range(1, 12))
    for size in (1, 7, 1448):
        yield list(range(size, len(data), size))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_behind_an_offer_of_h2c_arrives_whole_in_any_pieces(framing: str) -> None:
    data = recorded(framing)
    assert b"\r\nUpgrade: h2c\r\n" in data

    async def run() -> None:
        house = InProcess()
        try:
            client, transport = house.connect()
            for count, ends in enumerate(cuts(data), 1):
                for start, end in pairwise([0, *ends, len(data)]):
                    client.data_received(data[start:end])
                head, _, body = house.upstream_transport.written[-1].partition(b"\r\n\r\n")
                assert body == BODY, ends
                assert b"content-length: %d" % len(BODY) in head
                assert b"h2c" not in head
                assert b"HTTP2-Settings" not in head
                house.upstream.data_received(ANSWER)
                assert transport.written[-1].endswith(ANSWER[-6:])
                assert len(transport.written) == len(house.upstream_transport.written) == count
                if count % 900 == 0:  # a connection serves a thousand requests
                    client.connection_lost(None)
                    client, transport = house.connect()
                    transport.written = [b""] * count
        finally:
            await house.close()

    with running() as runner:
        runner.run(run())


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_two_of_them_in_a_row_are_two_in_any_pieces(framing: str) -> None:
    data = 2 * recorded(framing)

    async def run() -> None:
        house = InProcess()
        try:
            for at in range(1, len(data), 251):
                client, transport = house.connect()
                before = len(house.upstream_transport.written)
                for piece in (data[:at], data[at:]):
                    client.data_received(piece)
                    answer(house, before)
                client._next()
                answer(house, before)
                sent = house.upstream_transport.written[before:]
                assert [one.partition(b"\r\n\r\n")[2] for one in sent] == [BODY, BODY], at
                assert len(transport.written) == 2
                client.connection_lost(None)
        finally:
            await house.close()

    def answer(house: InProcess, before: int) -> None:
        if house.pool.busy and len(house.upstream_transport.written) > before:
            house.upstream.data_received(ANSWER)

    with running() as runner:
        runner.run(run())


def test_the_recordings_are_what_they_are_said_to_be() -> None:
    length = recorded("length")
    assert length.endswith(b"\r\n\r\n" + BODY)
    chunked = recorded("chunked")
    assert b"\r\nTransfer-encoding: chunked\r\n" in chunked
    assert chunked.endswith(BODY[0x4000:] + b"\r\n0\r\n\r\n")
