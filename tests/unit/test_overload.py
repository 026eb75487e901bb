"""Overload: when calls are refused, when they are taken again, and who ends for the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import overload as module
from gateway.clock import Clock
from gateway.memory import Resident, allowed
from gateway.observe.access import DirectLines
from gateway.observe.counters import Measures
from gateway.observe.logs import Level, Log, Stamp
from gateway.overload import LOOK_INTERVAL, Bounds, Overload
from tests.unit.in_process import InProcess, chat, running

MIB = 1 << 20


class Client:
    """A connection, as far as it is judged."""

    address = "somebody"

    def __init__(self, held: int) -> None:
        self.held = held
        self.ended: str | None = None

    def give_up(self, fault: Any) -> None:
        self.ended = fault.kind.code
        self.held = 0


class Front:
    shedding: Any = None


class Clients:
    def __init__(self) -> None:
        self.front = Front()
        self.open: set[Client] = set()
        self.busy = True


class Load:
    """An Overload with what it looks at: `used` bytes of 100 MiB, and the lag."""

    def __init__(self) -> None:
        self.clients: Any = Clients()
        self.used = 0
        self.given_back = 0
        self.freed_by_that = 0
        self.clock = Clock()
        self.measures = Measures("1")
        log = Log(DirectLines([], "json"), Level.ERROR, Stamp())
        self.overload = Overload(self.clients, self.clock, lambda: self.used, self.measures.shed, log)
        self.overload.bounds = Bounds(100 * MIB, 0.5)
        self.now = 0.0

    def look(self, used: float = 0.0, lag: float = 0.0, after: float = LOOK_INTERVAL) -> str | None:
        """Why calls are refused with so many MiB in use."""
        self.now += after
        self.used = int(used * MIB)
        self.clock.lag = lag
        self.overload.sweep(self.now)
        shedding = self.clients.front.shedding
        reasons = {id(counter): labels[0] for labels, counter in self.measures.shed.children.items()}
        return reasons[id(shedding.refused)] if shedding is not None else None

    def give_back(self) -> None:
        self.given_back += 1
        self.used -= self.freed_by_that

    @property
    def ended(self) -> int:
        return self.measures.shed.child("largest").value


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    made = Load()
    monkeypatch.setattr(module, "give_back", made.give_back)
    return made


def test_calls_are_refused_above_nine_tenths_until_there_is_some_room(load: Load) -> None:
    used = [50, 89.9, 90.1, 86, 85.1, 84.9, 89.9, 90.1]
    assert [load.look(one) for one in used] == [None, None, "memory", "memory", "memory", None, None, "memory"]


def test_what_is_free_is_given_back_before_anybody_is_refused(load: Load) -> None:
    load.freed_by_that = 20 * MIB
    assert load.look(96) is None
    assert (load.given_back, load.ended) == (1, 0)


def test_giving_back_which_stalls_the_loop_is_not_tried_at_each_sweep(load: Load) -> None:
    assert load.look(91) == "memory"
    assert load.look(91, after=0.05) == "memory"
    assert load.given_back == 1


def test_a_worker_where_nothing_runs_takes_a_call_whatever_its_memory(load: Load) -> None:
    load.clients.busy = False
    assert load.look(99) is None
    load.clients.busy = True
    assert load.look(99) == "memory"


def test_the_call_that_holds_most_ends_first_and_one_at_a_look(load: Load) -> None:
    small, large, larger = Client(100), Client(4 * MIB), Client(5 * MIB)
    load.clients.open = {small, large, larger}
    load.look(94)
    assert load.ended == 0
    load.look(96)
    assert (larger.ended, large.ended, load.ended) == ("load_shed", None, 1)
    load.look(96, after=0.05)
    assert load.ended == 1
    load.look(96)
    assert (large.ended, load.ended) == ("load_shed", 2)
    load.look(96)
    assert (small.ended, load.ended) == (None, 2), "it holds nothing that would help"


def test_without_a_limit_nothing_is_refused(load: Load) -> None:
    load.overload.bounds = Bounds(0, 0.0)
    assert load.look(1000, lag=5.0) is None
    assert load.look(1000, lag=5.0) is None


def test_a_loop_that_is_late_twice_in_a_row_sheds_until_the_lag_is_gone(load: Load) -> None:
    lags = [0.4, 0.6, 0.6, 0.3, 0.2, 0.6, 0.1, 0.6, 0.6]
    assert [load.look(lag=lag) for lag in lags] == [None, None, "lag", "lag", None, None, None, None, "lag"]


def test_one_stall_sheds_nobody(load: Load) -> None:
    assert [load.look(lag=lag) for lag in (0.0, 30.0, 0.0)] == [None, None, None]


def in_house(test: Callable[[InProcess], None]) -> None:
    """Play *test* on a gateway of its own."""

    async def play() -> None:
        house = InProcess()
        try:
            test(house)
        finally:
            await house.close()

    with running() as runner:
        runner.run(play())


def test_a_refused_call_is_told_so_and_health_is_not_refused() -> None:
    def test(house: InProcess) -> None:
        gateway = house.gateway
        front = gateway.clients.front
        front.shedding = gateway.overload._by_memory
        client, transport = house.connect()
        client.data_received(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert transport.written.pop().startswith(b"HTTP/1.1 200")
        client.data_received(chat())
        [answer] = transport.written
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1\r\n" in answer and b"connection: close\r\n" in answer and b'"load_shed"' in answer
        assert (gateway.budget.used, gateway.measures.shed.child("memory").value) == (0, 1)
        # For lag the connection stays: a new one would cost more.
        front.shedding = gateway.overload._by_lag
        client, transport = house.connect()
        client.data_received(chat())
        assert transport.written[0].startswith(b"HTTP/1.1 503") and b"connection: close" not in transport.written[0]
        front.shedding = None
        client.data_received(chat())
        assert house.upstream_transport.written

    in_house(test)


def test_a_key_that_is_wrong_is_told_so_also_while_calls_are_refused() -> None:
    def test(house: InProcess) -> None:
        house.gateway.clients.front.shedding = house.gateway.overload._by_lag
        client, transport = house.connect()
        client.data_received(chat().replace(b"dev-key", b"bad-key"))
        assert transport.written[0].startswith(b"HTTP/1.1 401")
        assert house.gateway.measures.shed.child("lag").value == 0

    in_house(test)


def test_another_configuration_does_not_end_the_shedding() -> None:
    def test(house: InProcess) -> None:
        gateway = house.gateway
        gateway.clients.front.shedding = gateway.overload._by_lag
        gateway.adopt(2, gateway.generation.config)
        assert gateway.clients.front.shedding is gateway.overload._by_lag

    in_house(test)


def group(root: Path, path: str, limit: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit + "\n")


@pytest.mark.parametrize(
    ("outer", "inner", "least"),
    [("max", "max", 0), ("1000", "max", 1000), ("max", "2000", 2000), ("1000", "2000", 1000), ("3000", "2000", 2000)],
)
def test_the_least_limit_of_the_control_groups_holds(tmp_path: Path, outer: str, inner: str, least: int) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    group(root, "system.slice", outer)
    group(root, "system.slice/headrace.service", inner)
    membership.write_text("0::/system.slice/headrace.service\n")
    assert allowed(root, membership) == least


def test_in_a_container_the_roots_limit_is_ones_own(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    group(root, ".", "4096")
    membership.write_text("0::/\n")
    assert allowed(root, membership) == 4096
    assert allowed(root, tmp_path / "nothing") == 0
    membership.write_text("4:memory:/old\n")
    assert allowed(root, membership) == 0


def test_what_is_resident_grows_with_what_is_held() -> None:
    resident = Resident()
    before = resident()
    held = bytearray(b"x" * (32 * MIB))
    assert 30 * MIB < resident() - before < 80 * MIB
    del held
