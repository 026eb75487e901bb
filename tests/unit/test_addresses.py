"""Peers of names: what joins, what leaves and what stays when a name has other addresses."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import estate as estates
from gateway import upstreams
from gateway.clock import Clock
from gateway.config.schema import Config
from gateway.estate import Estate
from gateway.observe.access import DirectLines
from gateway.observe.counters import Measures
from gateway.observe.logs import Level, Log, Stamp
from gateway.page import Page, Seat
from gateway.routing.host import SharedPeerState
from gateway.routing.routes import Route
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.http import Target
from gateway.upstream.lookup import Answer
from gateway.upstream.pool import Pool
from gateway.upstreams import Upstreams
from protocols.http1.state import UpstreamState
from tests.unit.configuring import KEYED, loaded
from tests.unit.in_process import Transport
from tests.wire import tls

#: What the system's resolver is asked, and nobody has answered.
Begun = list[tuple[str, Callable[[Answer], None]]]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    asked: Begun = []
    monkeypatch.setattr(estates, "look_up", lambda host, done: asked.append((host, done)))
    return asked


@pytest.fixture
def estate(begun: Begun) -> Iterator[Estate]:
    page = Page.make(3)
    log = Log(DirectLines([], "json"), Level.ERROR, Stamp())
    yield Estate(Measures("1"), Clock(), log, Seat(page, page.rows[1], workers=2))
    page.close()


def config(folder: Path, *urls: str, per: str = "address", more: str = "") -> Config:
    listed = ", ".join(f'"{url}"' for url in urls)
    dns = f'dns = {{ peer_per = "{per}", refresh = "1s" }}'
    backend = f'[[backends]]\nname = "a"\nendpoints = [{listed}]\nmodels = ["m"]\n{dns}\n{more}\n'
    other = '[[backends]]\nname = "b"\nendpoints = ["http://10.9.9.9:1"]\nmodels = ["m"]\n'
    return loaded(folder, KEYED + backend + other)


def adopt(estate: Estate, config: Config) -> Upstreams:
    upstreams = Upstreams(config, estate, None)
    estate.take_over(upstreams)
    return upstreams


def resolve(estate: Estate, begun: Begun, **answers: tuple[str, ...]) -> None:
    """Ask all names, and answer."""
    estate.clock.now += 10
    estate.resolver.sweep(estate.clock.now)
    while begun:
        host, done = begun.pop()
        done(answers[host.partition(".")[0]])


def route(made: Upstreams) -> Route:
    found = made.routes.find("m")
    assert found is not None
    return found


def urls(made: Upstreams) -> list[str]:
    return [peer.url for peer in route(made).peers]


def open_to(pool: Pool, address: str = "") -> tuple[UpstreamConnection, Transport]:
    """A connection as `Pool.open` leaves it: busy with nothing yet."""
    connection, transport = UpstreamConnection(pool), Transport()
    pool.all.add(connection)
    connection.connection_made(transport)
    connection.address = address
    return connection, transport


def test_a_name_is_a_peer_itself_until_its_addresses_are_known(estate: Estate, begun: Begun, tmp_path: Path) -> None:
    made = adopt(estate, config(tmp_path, "http://x.test:1", "http://10.0.0.9:1"))
    assert urls(made) == ["http://x.test:1", "http://10.0.0.9:1", "http://10.9.9.9:1"]
    assert estate.standing.doubtful == 3
    resolve(estate, begun, x=("10.0.0.1", "10.0.0.2"))
    per_address = ["http://x.test:1 10.0.0.1", "http://x.test:1 10.0.0.2"]
    assert urls(made) == [*per_address, "http://10.0.0.9:1", "http://10.9.9.9:1"]
    assert estate.standing.doubtful == 4, "what stood for the name is no peer any more: nobody waits for its answer"


def test_a_change_leaves_the_peers_that_stay_as_they_were(estate: Estate, begun: Begun, tmp_path: Path) -> None:
    made = adopt(estate, config(tmp_path, "http://x.test:1"))
    resolve(estate, begun, x=("10.0.0.1", "10.0.0.2"))
    gone, kept, other = route(made).peers
    kept.state.begin(0.0)
    kept.state.answered()
    resolve(estate, begun, x=("10.0.0.2", "10.0.0.3"))
    assert urls(made) == ["http://x.test:1 10.0.0.2", "http://x.test:1 10.0.0.3", "http://10.9.9.9:1"]
    assert route(made).peers[0] is kept and route(made).peers[2] is other
    assert estate.standing.doubtful == 2
    assert isinstance(kept.state, SharedPeerState) and isinstance(gone.state, SharedPeerState)
    assert kept.state.column != gone.state.column
    assert {place.address for place in made.states} == {"10.0.0.2", "10.0.0.3", ""}
    assert len(made.options) == len(made.pools)


def test_a_peer_that_left_can_still_be_tried_by_calls_that_began_before_and_is_then_freed(
    estate: Estate, begun: Begun, tmp_path: Path
) -> None:
    made = adopt(estate, config(tmp_path, "http://x.test:1"))
    resolve(estate, begun, x=("10.0.0.1", "10.0.0.2"))
    before = route(made)
    resolve(estate, begun, x=("10.0.0.2",))
    gone = before.peers[0]
    assert gone.url == "http://x.test:1 10.0.0.1" and isinstance(gone.target, Target)
    assert route(made).peers[0] is before.peers[1]
    del before
    gc.collect()
    assert sys.getrefcount(gone) == 2, "this name's and the argument's: nothing else holds it"


def test_the_connections_of_a_peer_that_left_go_the_idle_at_once_the_busy_after_their_call(
    estate: Estate, begun: Begun, tmp_path: Path
) -> None:
    made = adopt(estate, config(tmp_path, "http://x.test:1"))
    resolve(estate, begun, x=("10.0.0.1", "10.0.0.2"))
    pool = next(pool for place, pool in made.pools.items() if place.address == "10.0.0.1")
    (idle, _), (busy, _) = open_to(pool), open_to(pool)
    assert pool.give(idle)
    resolve(estate, begun, x=("10.0.0.2",))
    assert idle.state is UpstreamState.CLOSED and busy.state is not UpstreamState.CLOSED
    assert not pool.give(busy) and pool in estate.pools
    busy.abort()
    estate.sweep(estate.clock.now)
    assert pool not in estate.pools


def test_where_a_name_is_one_peer_connections_to_an_address_that_left_go_the_idle_at_once_the_busy_after_their_call(
    estate: Estate, begun: Begun, tmp_path: Path
) -> None:
    made = adopt(estate, config(tmp_path, "http://x.test:1", per="name"))
    resolve(estate, begun, x=("10.0.0.1", "10.0.0.2"))
    assert urls(made) == ["http://x.test:1", "http://10.9.9.9:1"]
    pool = next(iter(made.pools.values()))
    gone, stays = open_to(pool, "10.0.0.1")[0], open_to(pool, "10.0.0.2")[0]
    busy, _ = open_to(pool, "10.0.0.1")
    assert pool.give(gone) and pool.give(stays)
    resolve(estate, begun, x=("10.0.0.2", "10.0.0.3"))
    assert gone.state is UpstreamState.CLOSED and busy.state is not UpstreamState.CLOSED
    assert busy.is_closing(), "it is dropped where it would go back"
    assert pool.idle == [stays] and not stays.is_closing()
    for connection in (busy, stays):
        connection.abort()
    assert not pool.all


def test_an_endpoint_listed_twice_has_two_shares_of_each_address(estate: Estate, begun: Begun, tmp_path: Path) -> None:
    made = adopt(estate, config(tmp_path, "http://x.test:1", "http://x.test:1"))
    resolve(estate, begun, x=("10.0.0.1",))
    first, second, _ = route(made).peers
    assert first is not second and first.state is second.state
    resolve(estate, begun, x=("10.0.0.2",))
    assert urls(made)[:2] == ["http://x.test:1 10.0.0.2"] * 2


def test_a_reload_keeps_answers_states_and_pools(estate: Estate, begun: Begun, tmp_path: Path) -> None:
    former = adopt(estate, config(tmp_path, "http://x.test:1", "http://y.test:1"))
    resolve(estate, begun, x=("10.0.0.1", "10.0.0.2"), y=("10.0.1.1",))
    made = adopt(estate, config(tmp_path, "http://x.test:1"))
    assert urls(made) == ["http://x.test:1 10.0.0.1", "http://x.test:1 10.0.0.2", "http://10.9.9.9:1"]
    for place, state in made.states.items():
        assert former.states[place] is state
    for place, pool in made.pools.items():
        assert former.pools[place] is pool
    resolve(estate, begun, x=("10.0.0.2",))
    assert len(urls(made)) == 2 and len(urls(former)) == 4, "only what is in force changes"


def test_a_configuration_that_is_not_taken_over_asks_for_no_name(estate: Estate, begun: Begun, tmp_path: Path) -> None:
    adopt(estate, config(tmp_path, "http://x.test:1"))
    Upstreams(config(tmp_path, "http://z.test:1"), estate, None)
    estate.resolver.sweep(estate.clock.now + 10)
    assert [host for host, _ in begun] == ["x.test"]


def test_models_that_were_told_outlive_the_change_of_what_a_peer_is(
    estate: Estate, begun: Begun, tmp_path: Path
) -> None:
    def auto(per: str) -> Config:
        text = f'[[backends]]\nname = "a"\nendpoints = ["http://x.test:1"]\ndns = {{ peer_per = "{per}" }}\n'
        return loaded(tmp_path, KEYED + text)

    former = adopt(estate, auto("name"))
    former.routes.learn("a", ["told"])
    resolve(estate, begun, x=("10.0.0.1",))
    assert Upstreams(auto("address"), estate, former.routes).routes.find("told") is not None


def test_addresses_share_the_tls_settings_of_their_name_which_are_read_once(
    estate: Estate, begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = f'tls.ca_file = "{tls.CA}"'
    adopt(estate, config(tmp_path, "https://x.test:1", more=more))
    resolve(estate, begun, x=("10.0.0.1",))
    made = adopt(estate, config(tmp_path, "https://x.test:1", more=more))
    monkeypatch.setattr(upstreams, "client_context", lambda tls: pytest.fail("files were read again"))
    resolve(estate, begun, x=("10.0.0.1", "10.0.0.2"))
    found = [pool.address for place, pool in made.pools.items() if place.url.startswith("https")]
    assert sorted(one.host for one in found) == ["10.0.0.1", "10.0.0.2", "x.test"]
    assert len({id(one.tls) for one in found}) == 1 and {one.server_name for one in found} == {"x.test"}


def test_the_discovery_of_models_asks_the_present_addresses(estate: Estate, begun: Begun, tmp_path: Path) -> None:
    text = '[[backends]]\nname = "a"\nendpoints = ["http://x.test:1"]\ndns = { peer_per = "address" }\n'
    made = adopt(estate, loaded(tmp_path, KEYED + text))
    (discovery,) = made.discoveries
    resolve(estate, begun, x=("10.0.0.1", "10.0.0.2"))
    targets: Any = discovery._targets
    assert [target.pool.address.host for target in targets] == ["10.0.0.1", "10.0.0.2"]
