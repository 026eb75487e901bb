"""Peers' states and pools from one configuration to the next: what is kept, what is new, and what gauges say of it."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from gateway.clock import Clock
from gateway.columns import Columns, held
from gateway.config.schema import Config
from gateway.errors import Fault, Kind, Retry, Side
from gateway.estate import Estate
from gateway.observe.access import DirectLines
from gateway.observe.counters import Measures
from gateway.observe.logs import Level, Log, Stamp
from gateway.page import CIRCUIT_CELLS, COLUMNS_LIMIT, HELD, NO_COLUMN, Page, Seat
from gateway.routing.breaker import CLOSED, STATE
from gateway.routing.host import SharedPeerState
from gateway.routing.peer import PeerState
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.http import Target
from gateway.upstream.pool import Pool
from gateway.upstream.resolver import Name
from gateway.upstreams import Upstreams
from tests.unit.configuring import KEYED, loaded
from tests.wire import tls


@pytest.fixture
def estate() -> Iterator[Estate]:
    page = Page.make(4)
    log = Log(DirectLines([], "json"), Level.ERROR, Stamp())
    yield Estate(Measures("1"), Clock(), log, Seat(page, page.rows[1], workers=2))
    page.close()


def backend(name: str, *urls: str, more: str = "") -> str:
    listed = ", ".join(f'"{url}"' for url in urls)
    return f'[[backends]]\nname = "{name}"\nendpoints = [{listed}]\nmodels = ["{name}-model"]\n{more}\n'


def config(folder: Path, *backends: str) -> Config:
    return loaded(folder, KEYED + "".join(backends))


def adopt(estate: Estate, config: Config) -> Upstreams:
    upstreams = Upstreams(config, estate, None)
    estate.take_over(upstreams)
    return upstreams


def connected(pool: Pool, count: int) -> list[UpstreamConnection]:
    """That many busy connections."""
    made = [UpstreamConnection(pool) for _ in range(count)]
    pool.all.update(made)
    return made


def busy(estate: Estate) -> dict[str, float]:
    children = estate.measures.upstream_connections.children
    return {name: gauge.read() for (name, state), gauge in children.items() if state == "busy"}


def test_a_backends_gauge_counts_its_own_connections_until_the_last_is_gone(estate: Estate, tmp_path: Path) -> None:
    adopt(estate, config(tmp_path, backend("a", "http://a:1", "http://a:2"), backend("b", "http://b:1")))
    first, second, other = estate.pools
    kept, leaving = connected(first, 1), connected(second, 2)
    connected(other, 4)
    assert busy(estate) == {"a": 3, "b": 4}
    adopt(estate, config(tmp_path, backend("a", "http://a:1", "http://a:3")))
    assert busy(estate) == {"a": 3, "b": 4}, "those that retire have them still"
    for connection in leaving:
        second.closed(connection)
    estate.sweep(0.0)
    assert busy(estate) == {"a": 1, "b": 4} and second not in estate.pools
    connected(estate.pools[1], 8)
    assert busy(estate) == {"a": 9, "b": 4}
    first.closed(kept[0])
    assert busy(estate) == {"a": 8, "b": 4}


@pytest.mark.plain
def test_a_pool_that_was_forgotten_is_known_again_when_a_call_of_before_opens_a_connection(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its connection would be in no gauge, and the deadline of its answer's head would never be looked at."""

    async def connect(self: Pool, connection: UpstreamConnection) -> None:
        assert self in estate.pools, "from its first moment on"

    monkeypatch.setattr(Pool, "_connect", connect)
    adopt(estate, config(tmp_path, backend("a", "http://a:1")))
    (former,) = estate.pools
    adopt(estate, config(tmp_path, backend("b", "http://b:1")))
    estate.sweep(0.0)
    assert former not in estate.pools
    first = asyncio.run(former.open())
    second = asyncio.run(former.open())
    assert estate.pools.count(former) == 1 and busy(estate) == {"a": 2, "b": 0}
    for connection in (first, second):
        former.closed(connection)
    estate.sweep(0.0)
    assert former not in estate.pools and busy(estate) == {"a": 0, "b": 0}


def test_a_gauge_asks_the_pools_of_its_backend_only(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopt(estate, config(tmp_path, *(backend(f"b{at}", f"http://b:{at + 1}") for at in range(20))))
    monkeypatch.setattr(Estate, "pools", property(lambda _: pytest.fail("all pools were gone through")))
    assert sum(busy(estate).values()) == 0


def test_calls_under_way_before_and_after_a_change_of_a_peers_key_are_told_together(
    estate: Estate, tmp_path: Path
) -> None:
    def keyed(token: str) -> Config:
        auth = f'auth = {{ type = "bearer", token = "{token}" }}'
        return config(tmp_path, backend("a", "http://a:1", more=auth))

    (former,) = adopt(estate, keyed("first")).states.values()
    former.begin(0.0)
    former.begin(0.0)
    (state,) = adopt(estate, keyed("second")).states.values()
    assert state is not former
    told = estate.seat.row.calls
    state.begin(0.0)
    assert told[0] == 3
    former.end()
    assert told[0] == 2
    former.end()
    state.end()
    assert told[0] == 0 and not any(told)


def test_what_stays_configured_keeps_its_state_and_its_pool_and_what_goes_leaves(
    estate: Estate, tmp_path: Path
) -> None:
    first = adopt(estate, config(tmp_path, backend("a", "http://a:1", "http://a:2")))
    stays, goes = first.states.values()
    assert estate.standing.doubtful == 2
    stays.answered()
    second = adopt(estate, config(tmp_path, backend("a", "http://a:1", more="retry = { tries = 3 }")))
    assert list(second.states.values()) == [stays] and stays.proven
    assert list(second.pools.values()) == [next(iter(first.pools.values()))]
    assert estate.standing.doubtful == 0, "one that is gone keeps nobody in doubt"
    goes.answered()
    goes.failed(0.0, trial=False)
    assert estate.standing.doubtful == 0, "nor does what its last calls meet"


def test_a_configuration_that_is_not_taken_over_leaves_everything_as_it_is(estate: Estate, tmp_path: Path) -> None:
    adopt(estate, config(tmp_path, backend("a", "http://a:1")))
    pools = estate.pools
    Upstreams(config(tmp_path, backend("b", "http://b:1", "http://b:2")), estate, None)
    estate.recount()
    assert estate.pools == pools and estate.standing.doubtful == 1


def test_a_peer_has_the_same_column_in_every_worker_and_after_a_reload(estate: Estate, tmp_path: Path) -> None:
    def columns(of: Estate, *urls: str) -> list[int]:
        states = adopt(of, config(tmp_path, backend("a", *urls))).states.values()
        return [state.column for state in states if isinstance(state, SharedPeerState)]

    seat = estate.seat
    other = Estate(Measures("1"), Clock(), estate.log, Seat(seat.page, seat.page.rows[2], workers=2))
    assert columns(estate, "http://a:1", "http://a:2") == [0, 1]
    assert columns(other, "http://a:2", "http://a:3", "http://a:1") == [1, 2, 0]
    assert columns(estate, "http://a:3") == [2]
    assert columns(estate, "http://a:1") == [0], "also where it was gone for a while"


def test_peers_beyond_the_page_and_those_of_a_single_worker_count_for_themselves(
    estate: Estate, tmp_path: Path
) -> None:
    alone = Estate(Measures("1"), Clock(), estate.log, Seat(estate.seat.page, estate.seat.row))
    (state,) = adopt(alone, config(tmp_path, backend("a", "http://a:1"))).states.values()
    assert type(state) is PeerState
    others = Columns(Seat(estate.seat.page, estate.seat.page.rows[2]))
    for number in range(COLUMNS_LIMIT - 1):  # of which one is the single worker's
        others.use(b"other %d" % number)
    states = adopt(estate, config(tmp_path, backend("a", "http://a:1", "http://a:2"))).states.values()
    assert [state.column for state in states] == [0, NO_COLUMN] and estate.unshared == 1
    for state in states:
        state.begin(0.0)
        state.end()
    assert not any(estate.seat.row.calls)


def test_connections_of_backends_beyond_the_limit_are_counted_once_however_often_they_are_renamed(
    estate: Estate, tmp_path: Path
) -> None:
    gauges = estate.measures.upstream_connections
    gauges._limit = 4  # three states of one backend, and "other"
    for number in range(5):
        adopt(estate, config(tmp_path, *(backend(f"b{number}-{at}", "http://a:1") for at in range(3))))
        adopt(estate, config(tmp_path, *(backend(f"b{number}-{at}", "http://a:1") for at in range(3))))
    estate.sweep(0.0)
    for pool in estate.pools:
        connected(pool, 2)
    assert len(gauges.children) == 4
    assert gauges.children["other", "other"].read() == 3 * 2 and len(gauges.children["other", "other"]._reads) == 3


def test_a_peer_that_is_gone_keeps_its_column_until_its_last_call_is_over(estate: Estate, tmp_path: Path) -> None:
    first, second = config(tmp_path, backend("a", "http://a:1")), config(tmp_path, backend("a", "http://a:2"))
    row = estate.seat.row
    (gone,) = adopt(estate, first).states.values()
    gone.begin(0.0)
    (stays,) = adopt(estate, second).states.values()
    column = gone.column
    estate.sweep(0.0)
    assert gone.column == column and row.holds[column] and row.calls[column] == 1
    gone.end()
    estate.sweep(0.0)
    assert gone.column == NO_COLUMN and not row.holds[column] and row.cells[HELD] == 1
    gone.begin(0.0)  # a call of before is tried again, and goes there
    for _ in range(99):
        gone.failed(0.0, trial=True)
        gone.blamed(Fault(Side.UPSTREAM, Kind.NO_PEER, "", Retry.UNSENT), 0, None)
    assert gone.circuit.is_open
    assert estate.seat.page.circuits[1 + column * CIRCUIT_CELLS + STATE] == CLOSED
    assert not any(row.calls) and not any(row.words), "nobody else hears of it"
    gone.end()
    assert not any(row.calls) and stays.column != NO_COLUMN


def test_a_peer_of_two_states_keeps_its_column_while_one_of_them_has_a_call(estate: Estate, tmp_path: Path) -> None:
    def keyed(token: str) -> Config:
        return config(tmp_path, backend("a", "http://a:1", more=f'auth = {{ type = "bearer", token = "{token}" }}'))

    row = estate.seat.row
    (former,) = adopt(estate, keyed("first")).states.values()
    former.begin(0.0)
    (state,) = adopt(estate, keyed("second")).states.values()
    state.begin(0.0)
    column = state.column
    former.end()
    estate.sweep(0.0)
    assert (former.column, state.column, row.calls[column]) == (NO_COLUMN, column, 1)
    adopt(estate, config(tmp_path, backend("b", "http://b:1")))
    estate.sweep(0.0)
    assert row.holds[column]
    state.end()
    estate.sweep(0.0)
    assert not row.holds[column] and not row.calls[column]


def test_a_choice_that_nobody_made_use_of_leaves_its_column_too(estate: Estate, tmp_path: Path) -> None:
    (gone,) = adopt(estate, config(tmp_path, backend("a", "http://a:1"))).states.values()
    assert isinstance(gone, SharedPeerState)
    adopt(estate, config(tmp_path, backend("b", "http://b:1")))
    gone.announce()  # by a call of before
    column = gone.column
    assert estate.seat.row.calls[column] == 1
    estate.sweep(0.0)
    gone.begin(0.0)
    gone.end()
    assert not any(estate.seat.row.calls) and (gone.own.in_flight, gone.column) == (0, NO_COLUMN)


def test_columns_of_a_configuration_that_was_never_in_force_are_given_back(estate: Estate, tmp_path: Path) -> None:
    adopt(estate, config(tmp_path, backend("a", "http://a:1")))
    Upstreams(config(tmp_path, backend("b", "http://b:1")), estate, None)
    assert held(estate.seat.page) == 2
    estate.recount()
    estate.sweep(0.0)
    assert held(estate.seat.page) == 1


def test_what_was_said_of_a_peer_stands_though_a_configuration_with_another_key_of_it_is_refused(
    estate: Estate, tmp_path: Path
) -> None:
    def keyed(token: str) -> Config:
        auth = f'auth = {{ type = "bearer", token = "{token}" }}'
        return config(tmp_path, backend("a", "http://a:1", more=auth))

    (state,) = adopt(estate, keyed("first")).states.values()
    state.answered()
    (refused,) = Upstreams(keyed("second"), estate, None).states.values()
    estate.recount()
    estate.sweep(0.0)
    assert refused is not state and estate.seat.row.words[0] == state.word > 0


def test_peers_come_and_go_without_end_and_all_are_shared(estate: Estate, tmp_path: Path) -> None:
    """Two workers, of which one hears of each configuration later than the other."""
    seat = estate.seat
    other = Estate(Measures("1"), Clock(), estate.log, Seat(seat.page, seat.page.rows[2], workers=2))
    former: list[PeerState] = []
    for number in range(12):
        urls = [f"http://a:{number * 200 + at + 1}" for at in range(200)]
        told = config(tmp_path, backend("a", *urls))
        states = [list(adopt(one, told).states.values()) for one in (estate, other)]
        assert [one.column for one in states[0]] == [one.column for one in states[1]]
        assert NO_COLUMN not in {one.column for one in states[0]}
        states[0][0].begin(0.0)
        for one in (estate, other):
            one.sweep(0.0)
        if former:
            former[0].end()
        former = states[0]
    estate.sweep(0.0)
    assert held(seat.page) == 200 and estate.unshared == other.unshared == 0
    assert sum(seat.row.calls) == 1


def test_a_peer_that_one_worker_found_a_column_for_is_shared_by_all_whoever_waits_before_it(
    estate: Estate, tmp_path: Path
) -> None:
    page = Page(os.dup(estate.seat.page.fd))
    other = Estate(Measures("1"), Clock(), estate.log, Seat(page, page.rows[2], workers=2))
    full = Columns(Seat(page, page.rows[3]))
    columns = [full.use(b"other %d" % number) for number in range(COLUMNS_LIMIT)]
    one, two = "http://a:1", "http://a:2"
    adopt(estate, config(tmp_path, backend("a", one, two)))
    adopt(other, config(tmp_path, backend("a", two, one)))
    assert columns[0] is not None and estate.unshared == other.unshared == 2
    full.leave(columns[0])
    full.give_back()
    for second in (1, 3, 5):
        estate.sweep(float(second))
        other.sweep(float(second))
    assert estate.unshared == other.unshared == 1
    shared = [{place.label: state.column for place, state in each._states.items()} for each in (estate, other)]
    assert shared == [{one: 0, two: NO_COLUMN}] * 2
    page.close()


def named(estate: Estate, tmp_path: Path) -> tuple[Upstreams, Name]:
    """A backend each of whose name's addresses is a peer: it has two."""
    upstreams = adopt(estate, config(tmp_path, backend("a", "http://x.test:1", more='dns = { peer_per = "address" }')))
    name = upstreams.names["x.test"]
    estate.resolver._end(name, ("10.0.0.1", "10.0.0.2"))
    return upstreams, name


def at(upstreams: Upstreams) -> list[str]:
    """Where the calls of a-model go: each peer's connections are to its own address."""
    peers = upstreams.routes.exact["a-model"].peers
    addresses = [peer.url.partition(" ")[2] for peer in peers]
    assert [cast("Target", peer.target).pool.address.host for peer in peers] == addresses
    return addresses


def test_peers_join_and_leave_while_the_lock_of_the_page_is_held(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstreams, name = named(estate, tmp_path)
    assert at(upstreams) == ["10.0.0.1", "10.0.0.2"]
    monkeypatch.setattr("gateway.page.time.sleep", lambda _: None)
    holder = Page(os.dup(estate.seat.page.fd))
    with holder.lock():
        estate.resolver._end(name, ("10.0.0.2", "10.0.0.3"))
    holder.close()
    assert at(upstreams) == ["10.0.0.2", "10.0.0.3"]
    kept, joined = (peer.state for peer in upstreams.routes.exact["a-model"].peers)
    assert kept.column != NO_COLUMN and joined.column == NO_COLUMN and estate.unshared == 1
    joined.begin(0.0)
    estate.sweep(0.0)
    assert joined.column not in (NO_COLUMN, kept.column) and estate.unshared == 0, "it is tried again"
    assert estate.seat.row.calls[joined.column] == 1, "with the call that runs"
    joined.end()
    assert not any(estate.seat.row.calls)


def test_other_peers_and_other_models_are_told_as_other_routes(estate: Estate, tmp_path: Path) -> None:
    told: list[None] = []
    estate.on_reroute = lambda: told.append(None)
    _, name = named(estate, tmp_path)
    assert len(told) == 1
    estate.resolver._end(name, name.addresses)
    assert len(told) == 1
    asked = adopt(estate, loaded(tmp_path, KEYED + '[[backends]]\nname = "a"\nendpoints = ["http://a:1"]\n'))
    (discovery,) = asked.discoveries
    discovery._learn(("m",))
    assert len(told) == 2


def test_the_former_model_table_is_freed_with_its_last_call(estate: Estate, tmp_path: Path) -> None:
    told = config(tmp_path, backend("a", "http://a:1"))
    first = adopt(estate, told)
    now = Upstreams(told, estate, first.routes)
    estate.take_over(now)
    former = weakref.ref(first.routes)
    del first
    gc.collect()
    assert former() is None and now.routes.exact


def test_a_muster_that_fails_leaves_the_peers_as_they_were_and_the_next_answer_mends_it(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstreams, name = named(estate, tmp_path)
    name.known.clear()
    with monkeypatch.context() as broken:
        broken.setattr(Upstreams, "_target", lambda *_: 1 / 0)
        estate.resolver._end(name, ("10.0.0.2", "10.0.0.3"))
    assert at(upstreams) == ["10.0.0.1", "10.0.0.2"]
    assert name.known.is_set(), "nobody waits for what is known"
    estate.resolver._end(name, ("10.0.0.2", "10.0.0.3"))
    assert at(upstreams) == ["10.0.0.2", "10.0.0.3"]


@pytest.mark.parametrize("renewed", ["ca_file", "cert", "key"])
def test_a_renewed_file_makes_a_new_pool_and_one_that_stayed_does_not(
    renewed: str, estate: Estate, tmp_path: Path
) -> None:
    files = {"ca_file": "ca.pem", "cert": "client.pem", "key": "client.key"}
    for name in files.values():
        shutil.copy(tls.CERTS / name, tmp_path / name)
    lines = ", ".join(f'{key} = "{tmp_path / name}"' for key, name in files.items())

    def pools() -> list[Pool]:
        told = config(tmp_path, backend("a", "https://a:1", "https://a:2", more=f"tls = {{ {lines} }}"))
        return list(adopt(estate, told).pools.values())

    before = pools()
    assert pools() == before
    with (tmp_path / files[renewed]).open("a") as file:
        file.write("# another one\n")
    after = pools()
    assert len(after) == 2 and not {*after} & {*before}
