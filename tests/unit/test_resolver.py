"""When names are asked, and what each kind of answer leaves of what was known: by an injected lookup, on no clock."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import pytest

from gateway.clock import Clock
from gateway.observe.access import DirectLines
from gateway.observe.counters import Measures
from gateway.observe.logs import Level, Log, Stamp
from gateway.upstream.lookup import Answer, look_up
from gateway.upstream.resolver import ADDRESSES_LIMIT, FIRST_WAIT, LOOKUP_TIME, Name, Resolver

ABSENT = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
BROKEN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class World:
    """A Resolver, the lookups that it has begun and nobody has answered, and what it told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.now = 1000.0
        self.begun: list[tuple[str, Callable[[Answer], None]]] = []
        self.changes: list[tuple[str, ...]] = []
        self.measures = Measures("1")
        self.said: list[str] = []
        self.fields: dict[str, object] = {}
        log = Log(DirectLines([], "json"), Level.INFO, Stamp())
        log.warning = log.info = self._say  # type: ignore[method-assign]  # kept, not written
        self.resolver = Resolver(
            lambda host, done: self.begun.append((host, done)),
            self.measures.dns_lookups,
            self.clock,
            log,
            lambda name: self.changes.append(name.addresses),
        )

    def _say(self, text: str, /, **fields: object) -> None:
        self.said.append(text)
        self.fields = fields

    def names(self, **refresh: float) -> list[Name]:
        """Configure hosts with their intervals."""
        names = {host: self.resolver.name(host) for host in refresh}
        self.resolver.keep(names, refresh)
        return list(names.values())

    def after(self, seconds: float) -> list[str]:
        """The hosts for which lookups run once so many seconds have gone by."""
        self.clock.now += seconds
        self.resolver.sweep(self.clock.now)
        return [host for host, _ in self.begun]

    def answer(self, answer: Answer) -> None:
        """The oldest lookup ends."""
        _, done = self.begun.pop(0)
        done(answer)

    def counted(self) -> dict[str, int]:
        return {result: child.value for (result,), child in self.measures.dns_lookups.children.items() if child.value}


@pytest.fixture
def world() -> World:
    return World()


def test_a_name_is_asked_at_once_and_again_after_its_interval(world: World) -> None:
    (name,) = world.names(a=10)
    assert world.after(0) == ["a"]
    world.answer(("10.0.0.1",))
    assert name.addresses == ("10.0.0.1",)
    assert world.after(8.9) == []
    assert world.after(2.2) == ["a"]
    assert world.counted() == {"answered": 1}


def test_one_lookup_serves_all_who_name_the_host_and_only_one_is_in_flight(world: World) -> None:
    (name,) = world.names(a=10)
    assert world.resolver.name("a") is name
    for _ in range(100):
        assert world.after(1) == ["a"]


def test_intervals_are_spread(world: World) -> None:
    names = world.names(**{f"n{number}": 10 for number in range(50)})
    world.after(0)
    while world.begun:
        world.answer(("10.0.0.1",))
    waits = [name.due - world.clock.now for name in names]
    assert all(9 <= wait <= 11 for wait in waits) and max(waits) - min(waits) > 0.2


@pytest.mark.parametrize(("fault", "result"), [(ABSENT, "not_found"), (BROKEN, "failed")])
def test_a_failure_leaves_the_old_addresses_and_is_told_once(world: World, fault: socket.gaierror, result: str) -> None:
    (name,) = world.names(a=10)
    world.after(0)
    world.answer(("10.0.0.1",))
    for _ in range(5):
        assert world.after(20) == ["a"]
        world.answer(fault)
        assert name.addresses == ("10.0.0.1",)
    assert world.counted() == {"answered": 1, result: 5}
    assert world.said == ["a name is not resolved"]
    world.after(20)
    world.answer(("10.0.0.1",))
    assert world.said == ["a name is not resolved", "a name is resolved again"]
    assert world.changes == [("10.0.0.1",)]


def test_after_a_failure_a_name_is_asked_again_sooner_and_then_ever_later_up_to_its_interval(world: World) -> None:
    (name,) = world.names(a=3)
    waits = []
    world.after(0)
    for _ in range(5):
        world.answer(BROKEN)
        waits.append(name.due - world.clock.now)
        world.after(10)
    for wait, expected in zip(waits, (FIRST_WAIT, 1, 2, 3, 3), strict=True):
        assert expected * 0.9 <= wait <= expected * 1.1


def test_a_lookup_that_takes_too_long_has_failed_and_its_late_answer_is_taken(world: World) -> None:
    (name,) = world.names(a=1)
    world.after(0)
    assert world.after(LOOKUP_TIME) == ["a"]
    assert world.counted() == {"timeout": 1} and name.fault is not None
    assert world.after(100) == ["a"], "a second one would wait as well"
    world.answer(("10.0.0.1",))
    assert name.addresses == ("10.0.0.1",) and name.fault is None
    assert world.counted() == {"timeout": 1}


def test_a_lookup_that_failed_late_is_counted_and_told_once(world: World) -> None:
    (name,) = world.names(a=1)
    world.after(0)
    world.after(LOOKUP_TIME)
    world.answer(BROKEN)
    assert world.counted() == {"timeout": 1} and world.said == ["a name is not resolved"]
    assert name.due > world.clock.now and world.after(2) == ["a"]


def test_a_change_is_told_and_an_order_is_none(world: World) -> None:
    (name,) = world.names(a=1)
    for answer in (("1.0.0.1", "1.0.0.2"), ("1.0.0.2", "1.0.0.1"), ("1.0.0.3", "1.0.0.2")):
        world.after(2)
        world.answer(answer)
    assert world.changes == [("1.0.0.1", "1.0.0.2"), ("1.0.0.2", "1.0.0.3")]
    assert name.addresses == ("1.0.0.2", "1.0.0.3"), "what stays comes first"
    assert world.said == ["addresses changed"]
    assert world.fields == {"host": "a", "added": "1.0.0.3", "removed": "1.0.0.1"}


def test_too_many_addresses_are_cut_to_the_same_ones_however_they_are_shuffled(world: World) -> None:
    (name,) = world.names(a=1)
    many = [f"10.0.0.{number}" for number in range(100, 200)]
    for answer in (many, many[::-1], many[50:] + many[:50]):
        world.after(2)
        world.answer(tuple(answer))
        assert name.addresses == tuple(many[:ADDRESSES_LIMIT])
    assert len(world.changes) == 1 and world.said == ["a name has too many addresses"]


def test_names_that_are_no_longer_configured_are_not_asked_and_kept_ones_keep_their_answers(world: World) -> None:
    kept, gone = world.names(a=1, b=1)
    world.after(0)
    world.answer(("10.0.0.1",))
    assert world.names(a=1, c=1)[0] is kept and kept.addresses == ("10.0.0.1",)
    world.answer(("10.0.0.2",))
    assert gone.addresses == () and world.changes == [("10.0.0.1",)]
    assert world.after(2) == ["a", "c"]


def test_a_shorter_interval_counts_at_once(world: World) -> None:
    world.names(a=3600)
    world.after(0)
    world.answer(("10.0.0.1",))
    world.names(a=1)
    assert world.after(1) == ["a"]


def test_only_the_first_answer_is_waited_for(world: World) -> None:
    (name,) = world.names(a=1)

    async def play() -> None:
        waiting = [asyncio.ensure_future(name.resolved()) for _ in range(3)]
        await asyncio.sleep(0)
        world.after(0)
        waiting[0].cancel()
        world.answer(("10.0.0.1",))
        assert await asyncio.gather(*waiting[1:]) == [("10.0.0.1",)] * 2
        assert world.after(2) == ["a"]
        with pytest.raises(StopIteration) as now:
            name.resolved().send(None)  # not one turn of the loop
        assert now.value.value == ("10.0.0.1",)

    asyncio.run(play())


def test_who_waits_for_a_name_that_has_no_answer_is_told_why(world: World) -> None:
    name, gone = world.names(a=1, b=1)

    async def play() -> None:
        waiting = asyncio.ensure_future(name.resolved())
        forgotten = asyncio.ensure_future(gone.resolved())
        await asyncio.sleep(0)
        world.after(0)
        world.answer(ABSENT)
        world.names(a=1)
        with pytest.raises(socket.gaierror, match="not known"):
            await waiting
        with pytest.raises(socket.gaierror, match="no longer configured"):
            await forgotten
        with pytest.raises(socket.gaierror, match="not known"):
            await name.resolved()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("host", "expected"), [("localhost", "127.0.0.1"), ("x" * 64 + ".invalid", ""), ("no-such-name.invalid", "")]
)
def test_the_systems_resolver_is_asked_in_a_thread_and_answers_in_the_loop(
    host: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def without_network(host: str, *args: int, **more: int) -> object:
        if host.endswith("such-name.invalid"):
            raise ABSENT
        return known(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", without_network)

    async def ask() -> Answer:
        told: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        look_up(host, told.set_result)
        return await told

    answer = asyncio.run(ask())
    for thread in threading.enumerate():
        if thread.name.startswith("look-up"):
            thread.join()
    if expected:
        assert expected in answer
    else:
        assert isinstance(answer, socket.gaierror) and answer.errno == socket.EAI_NONAME
