"""Health as one worker answers it: of the host, not of itself."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from gateway.page import GENERATION, LEAVING, SERVING, STARTING, STATE
from tests.unit.in_process import InProcess, running


def in_house(test: Callable[[InProcess], None]) -> None:
    async def play() -> None:
        house = InProcess()
        try:
            test(house)
        finally:
            await house.close()

    with running() as runner:
        runner.run(play())


def asked(house: InProcess, path: str) -> tuple[int, dict[str, object]]:
    client, transport = house.connect()
    client.data_received(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
    head, _, body = transport.written[0].partition(b"\r\n\r\n")
    return int(head.split()[1]), orjson.loads(body)


def test_a_worker_that_leaves_while_the_host_stays_takes_nobody_out() -> None:
    def test(house: InProcess) -> None:
        house.gateway.seat.row.cells[STATE] = LEAVING
        assert asked(house, "/health/ready") == (200, {"status": "ready"})
        status, health = asked(house, "/health")
        assert (status, health["status"], health["workers"]) == (200, "healthy", 0)

    in_house(test)


def test_the_host_that_goes_down_says_so() -> None:
    def test(house: InProcess) -> None:
        page = house.gateway.seat.page
        house.gateway.seat.row.cells[STATE] = SERVING
        page.leave()
        assert asked(house, "/health/ready") == (503, {"status": "draining"})
        assert asked(house, "/health/live")[0] == 200
        status, health = asked(house, "/health")
        assert (status, health["status"], health["workers"]) == (200, "draining", 1)

    in_house(test)


def test_the_generation_told_is_one_that_every_serving_worker_has() -> None:
    def test(house: InProcess) -> None:
        first, own = house.gateway.seat.page.rows
        assert own is house.gateway.seat.row and first is not own
        own.cells[GENERATION], own.cells[STATE] = 7, SERVING
        assert asked(house, "/health")[1]["generation"] == 7
        own.cells[STATE] = STARTING
        assert asked(house, "/health")[1]["generation"] == 1

    in_house(test)
