"""Who has far more connections than the others sheds some, unless it is because another one hangs."""

from __future__ import annotations

import pytest

from gateway.build import SKEW_FLOOR, SKEW_SWEEPS
from gateway.clients import Clients
from gateway.page import BEAT, SERVING, STATE, Page, Seat
from tests.unit.in_process import InProcess, running

#: Of the worker that looks.
CONNECTIONS = 4 * SKEW_FLOOR
SECOND = 1_000_000_000


@pytest.mark.parametrize(("behind", "shed"), [(SECOND, [CONNECTIONS // 2]), (2 * SECOND, [])])
def test_clients_are_not_sent_to_a_worker_that_hangs(
    monkeypatch: pytest.MonkeyPatch, behind: int, shed: list[int]
) -> None:
    async def play() -> None:
        house = InProcess()
        former, page = house.gateway.seat.page, Page.make(3)
        house.gateway.seat = Seat(page, page.rows[1], 2)
        for row, beat in ((page.rows[1], 10 * SECOND), (page.rows[2], 10 * SECOND - behind)):
            row.cells[STATE], row.cells[BEAT] = SERVING, beat
        told: list[int] = []
        monkeypatch.setattr(Clients, "shed", lambda _, count: told.append(count))
        for _ in range(CONNECTIONS):
            house.connect()
        for _ in range(SKEW_SWEEPS):
            house.gateway._even_out(0.0)
        assert told == shed
        await house.close()
        former.close()

    with running() as runner:
        runner.run(play())
