"""Which of a name's addresses is dialled, and what becomes of those that fail, hang or come in second."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from gateway.clock import Clock
from gateway.upstream import dial
from gateway.upstream.dial import Dialler
from gateway.upstream.pool import Address, Pool
from gateway.upstream.resolver import Name
from tests.unit.in_process import running


def name(*addresses: str) -> Name:
    made = Name("a.test")
    made.addresses = addresses
    return made


class Net:
    """Addresses that accept, refuse or hang: what `_reach` would find."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refusing: set[str] = set()
        self.hanging: set[str] = set()
        self.tried: list[str] = []
        self.made: list[socket.socket] = []
        self.now = 0.0
        monkeypatch.setattr(dial, "_reach", self.reach)
        monkeypatch.setattr(dial, "monotonic", lambda: self.now)
        monkeypatch.setattr(dial, "HEAD_START", 0.0)

    async def reach(self, address: str, port: int) -> socket.socket:
        self.tried.append(address)
        if address in self.refusing:
            raise ConnectionRefusedError(address)
        if address in self.hanging:
            await asyncio.get_running_loop().create_future()
        self.made.append(sock := socket.socket())
        return sock


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    return Net(monkeypatch)


def run(play: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await play()

    asyncio.run(main())


async def dialled(dialler: Dialler, times: int) -> list[str]:
    chosen = []
    for _ in range(times):
        sock, address = await dialler.dial()
        sock.close()
        chosen.append(address)
    return chosen


def test_connections_go_to_the_addresses_in_turn(net: Net) -> None:
    async def play() -> None:
        assert await dialled(Dialler(name("1", "2", "3"), 80), 6) == ["1", "2", "3", "1", "2", "3"]
        assert net.tried == ["1", "2", "3", "1", "2", "3"]

    run(play)


def test_where_one_refuses_the_next_is_taken_and_it_comes_last_for_a_while(net: Net) -> None:
    async def play() -> None:
        net.refusing.add("1")
        dialler = Dialler(name("1", "2"), 80)
        assert await dialled(dialler, 4) == ["2", "2", "2", "2"]
        assert net.tried == ["1", "2", "2", "2", "2"]
        net.refusing.clear()
        net.now += dial.LAST_FOR + 1
        assert sorted(await dialled(dialler, 2)) == ["1", "2"]

    run(play)


def test_where_one_hangs_the_next_is_tried_beside_it(net: Net) -> None:
    async def play() -> None:
        net.hanging.add("1")
        dialler = Dialler(name("1", "2"), 80)
        assert await dialled(dialler, 3) == ["2", "2", "2"]
        assert net.tried == ["1", "2", "2", "2"], "it comes last for a while"
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(play)


def test_where_all_fail_the_last_one_says_why(net: Net) -> None:
    async def play() -> None:
        net.refusing = {"1", "2", "3"}
        with pytest.raises(ConnectionRefusedError, match="3"):
            await Dialler(name("1", "2", "3"), 80).dial()

    run(play)


def test_all_that_failed_lately_are_tried_all_the_same(net: Net) -> None:
    async def play() -> None:
        net.refusing = {"1", "2"}
        dialler = Dialler(name("1", "2"), 80)
        with pytest.raises(ConnectionRefusedError):
            await dialler.dial()
        net.refusing.clear()
        assert len(await dialled(dialler, 2)) == 2

    run(play)


def test_one_that_comes_in_second_is_closed(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        begun = asyncio.Event()

        async def both(address: str, port: int) -> socket.socket:
            if address == "2":
                begun.set()
            await begun.wait()
            net.made.append(sock := socket.socket())
            return sock

        monkeypatch.setattr(dial, "_reach", both)
        sock, _ = await Dialler(name("1", "2"), 80).dial()
        assert [one.fileno() >= 0 for one in net.made].count(True) == 1
        sock.close()
        assert len(net.made) == 2

    run(play)


def test_a_dial_that_is_given_up_leaves_nothing(net: Net) -> None:
    async def play() -> None:
        net.hanging = {"1", "2"}
        trying = asyncio.ensure_future(Dialler(name("1", "2"), 80).dial())
        while len(net.tried) < 2:
            await asyncio.sleep(0)
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(play)


@pytest.fixture
def full_backlog() -> Iterator[tuple[str, int]]:
    """An address to which a connect neither succeeds nor fails."""
    with socket.create_server(("127.0.0.2", 0), backlog=0) as listener:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()
        for filler in fillers:
            filler.close()


def test_real_sockets_are_connected_refused_and_given_up_cleanly(full_backlog: tuple[str, int]) -> None:
    async def play() -> None:
        hanging, port = full_backlog
        with socket.create_server(("127.0.0.3", port)) as listener:
            sock, address = await Dialler(name(hanging, "127.0.0.4", "127.0.0.3"), port).dial()
            with sock:
                assert address == "127.0.0.3" and sock.getpeername() == listener.getsockname()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Dialler(name(hanging), port).dial()

    with running() as runner:
        runner.run(play())


@pytest.mark.parametrize(("after", "worn_out"), [("127.0.0.1", False), ("127.0.0.2", True)])
def test_a_connection_to_an_address_that_left_meanwhile_serves_one_call_only(after: str, worn_out: bool) -> None:
    class Slow(Dialler):
        async def dial(self) -> tuple[socket.socket, str]:
            found = await super().dial()
            self.name.addresses = (after,)
            return found

    async def play() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            pool = Pool(
                "alpha",
                Address("a.test", port, None, "a.test"),
                max_idle=1,
                idle_timeout=1.0,
                clock=Clock(),
                on_crash=lambda error: pytest.fail(repr(error)),
                dialler=Slow(name("127.0.0.1"), port),
            )
            connection = await pool.open()
            assert connection.address == "127.0.0.1" and connection.is_closing() is worn_out
            connection.abort()
            assert not pool.all

    with running() as runner:
        runner.run(play())
