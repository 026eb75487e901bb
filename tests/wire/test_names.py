"""Upstreams by name: the C library's own resolver against a scripted DNS server, and names that change under load.

Skipped where this machine does not allow the server its port or a gateway its own resolv.conf (`names.lacking`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire import answers, tls
from tests.wire.accepted import Gate
from tests.wire.client import chat_request
from tests.wire.names import NXDOMAIN, SERVFAIL, SILENCE, NameServer, lacking, private
from tests.wire.process import Configuration, Gateway, free_port, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.test_reload import reload
from tests.wire.test_workers import held_stream, streams
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
#: As often as a sweep looks.
OFTEN = {"refresh": "50ms"}
EACH = {**OFTEN, "peer_per": "address"}


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> None:
    if reason := lacking(tmp_path_factory.mktemp("lacking")):
        pytest.skip(reason)


@pytest.fixture(autouse=True)  # and so there before any gateway, and until the last one is gone
def names(allowed: None) -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.close()


def spread(stage: Stage, *hosts: str, **more: Any) -> list[Upstream]:
    """Upstreams at several loopback addresses, all on one port."""
    port = free_port()
    return [stage.upstream(host=host, port=port, **more) for host in hosts]


def start(stage: Stage, config: Configuration, folder: Path) -> Gateway:
    return stage.gateway(config, within=private(folder))


def named(upstream: Upstream, name: str = "up.test") -> str:
    return upstream.url.replace(upstream.host, name)


def ask(gateway: Gateway) -> int:
    return gateway.ask("POST", CHAT, chat_request()).status


def counts(*upstreams: Upstream) -> list[int]:
    return [len(upstream.requests) for upstream in upstreams]


def peers(gateway: Gateway, url: str) -> set[str]:
    """The addresses that were told to have become peers."""
    family = gateway.metrics().families["gateway_peer_cooldowns"]
    return {one.labels["endpoint"].removeprefix(url).strip() for one in family.samples} - {""}


def test_every_address_of_a_name_is_a_peer_where_configured(stage: Stage, names: NameServer, tmp_path: Path) -> None:
    upstreams = spread(stage, "127.0.0.2", "127.0.0.3", "127.0.0.4")
    names.table["up.test"] = [one.host for one in upstreams]
    url = named(upstreams[0])
    gateway = start(stage, configuration(backend(url, dns=EACH, balance="round_robin")), tmp_path)
    wait_until(lambda: len(peers(gateway, url)) == 3, "three peers")
    assert [ask(gateway) for _ in range(9)] == [200] * 9
    assert counts(*upstreams) == [3, 3, 3]
    assert upstreams[1].ledger.last.header("host") == f"up.test:{upstreams[0].port}"


def test_the_addresses_of_a_name_have_one_balance_for_all_workers(
    stage: Stage, names: NameServer, tmp_path: Path
) -> None:
    gate = Gate()
    upstreams = spread(stage, "127.0.0.2", "127.0.0.3", "127.0.0.4")
    names.table["up.test"] = [one.host for one in upstreams]
    config = configuration(backend(named(upstreams[0]), dns=EACH), server={"workers": 2})
    gateway = start(stage, config, tmp_path)
    often = lambda: gateway.gauge("gateway_dns_lookups_total", result="answered") >= 10  # noqa: E731
    wait_until(often, "both workers know the addresses")
    assert [ask(gateway) for _ in range(12)] == [200] * 12
    before = counts(*upstreams)
    for upstream in upstreams:
        upstream.answer = held_stream(gate)
    held = streams(stage, gateway, 18)
    assert [now - then for now, then in zip(counts(*upstreams), before, strict=True)] == [6, 6, 6]
    gate.open()
    assert all(client.finish().status == 200 for client in held)


def test_a_name_that_is_one_peer_spreads_its_connections_over_its_addresses(
    stage: Stage, names: NameServer, tmp_path: Path
) -> None:
    gate = Gate()
    upstreams = spread(stage, "127.0.0.2", "127.0.0.3")
    for upstream in upstreams:
        upstream.answer = answers.stalled(gate)
    names.table["up.test"] = [one.host for one in upstreams]
    gateway = start(stage, configuration(backend(named(upstreams[0]), dns=OFTEN)), tmp_path)
    clients = [stage.connect(gateway) for _ in range(6)]
    for client in clients:
        client.chat()
    for upstream in upstreams:
        upstream.ledger.wait_requests(3)
    gate.open()
    assert [client.response().status for client in clients] == [200] * 6


def test_an_address_that_refuses_costs_no_call(stage: Stage, names: NameServer, tmp_path: Path) -> None:
    (upstream,) = spread(stage, "127.0.0.3")
    names.table["up.test"] = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    fields = {"dns": OFTEN, "retry": {"tries": 1}, "pool": {"max_idle": 0}}
    gateway = start(stage, configuration(backend(named(upstream), **fields)), tmp_path)
    assert [ask(gateway) for _ in range(6)] == [200] * 6
    assert gateway.gauge("gateway_peer_cooldowns_total") == 0


@pytest.mark.parametrize("dns", [OFTEN, EACH], ids=["name", "address"])
def test_calls_move_to_new_addresses_and_a_running_one_stays(
    dns: dict[str, str], stage: Stage, names: NameServer, tmp_path: Path
) -> None:
    gate = Gate()
    stalled = answers.stalled_stream(gate, answers.chat_events(1)[:1], answers.chat_events(1)[1:])
    old, new = spread(stage, "127.0.0.2", "127.0.0.3")
    names.table["up.test"] = [old.host]
    config = configuration(backend(named(old), dns=dns, pool={"idle_timeout": "60s"}))
    gateway = start(stage, config, tmp_path)
    assert ask(gateway) == 200
    old.answer = stalled
    runs = stage.connect(gateway)
    runs.chat(stream=True)
    runs.read_head()
    old.answer = answers.chat()
    spare = stage.connect(gateway)
    spare.chat()
    assert spare.response().status == 200
    busy, idle = (one.connection for one in (old.requests[1], old.requests[2]))
    assert busy is not idle

    names.table["up.test"] = [new.host]
    old.ledger.wait_left(idle, 2.0)
    assert [ask(gateway) for _ in range(5)] == [200] * 5
    assert counts(old, new) == [3, 5]
    assert not busy.left, "a call still runs there"
    gate.open()
    assert runs.finish().status == 200
    old.ledger.wait_left(busy, 2.0)


def test_addresses_come_and_go_under_load_and_no_call_fails(stage: Stage, names: NameServer, tmp_path: Path) -> None:
    upstreams = spread(stage, "127.0.0.2", "127.0.0.3", "127.0.0.4")
    hosts = [one.host for one in upstreams]
    names.table["up.test"] = hosts
    other = stage.upstream()
    config = configuration(
        backend(named(upstreams[0]), dns=EACH, retry={"tries": 1}),
        backend(other, name="beta"),
        server={"workers": 2},
    )
    gateway = start(stage, config, tmp_path)
    for turn in range(9):
        names.table["up.test"] = [hosts[turn % 3], hosts[(turn + turn // 3) % 3]]
        names.wait_asked("up.test", 4)
        assert [ask(gateway) for _ in range(12)] == [200] * 12
    assert len(other.requests) >= 10, "the peers of both backends share the model's calls"
    assert all(counts(*upstreams))


def test_a_call_that_began_before_a_change_may_still_try_a_peer_that_left(
    stage: Stage, names: NameServer, tmp_path: Path
) -> None:
    left, new = spread(stage, "127.0.0.2", "127.0.0.4")
    stage.full_backlog("127.0.0.3", left.port)
    names.table["up.test"] = ["127.0.0.2", "127.0.0.3"]
    url = named(left)
    gateway = start(stage, configuration(backend(url, dns=EACH, balance="round_robin")), tmp_path)
    wait_until(lambda: len(peers(gateway, url)) == 2, "two peers")
    clients = [stage.connect(gateway) for _ in range(2)]
    for client in clients:
        client.chat()
    left.ledger.wait_requests(1)
    names.table["up.test"] = [new.host]
    wait_until(lambda: new.host in peers(gateway, url), "the new address is a peer")
    assert [client.response().status for client in clients] == [200, 200]
    assert counts(left, new) == [2, 0]
    assert ask(gateway) == 200 and counts(left, new) == [2, 1]


@pytest.mark.parametrize("trouble", [NXDOMAIN, SERVFAIL], ids=["nxdomain", "servfail"])
def test_a_failing_lookup_keeps_the_old_addresses_and_is_counted_and_told_once(
    trouble: int, stage: Stage, names: NameServer, tmp_path: Path
) -> None:
    (upstream,) = spread(stage, "127.0.0.2")
    names.table["up.test"] = [upstream.host]
    gateway = start(stage, configuration(backend(named(upstream), dns=OFTEN, pool={"max_idle": 0})), tmp_path)
    assert ask(gateway) == 200
    names.table["up.test"] = trouble
    result = "not_found" if trouble == NXDOMAIN else "failed"
    failed = lambda: gateway.gauge("gateway_dns_lookups_total", result=result) >= 3  # noqa: E731
    wait_until(failed, "lookups fail")
    assert [ask(gateway) for _ in range(3)] == [200] * 3
    names.table["up.test"] = [upstream.host]
    told = lambda: [line["msg"] for line in gateway.log_lines() if line.get("host") == "up.test"]  # noqa: E731
    wait_until(lambda: told() == ["a name is not resolved", "a name is resolved again"], lambda: str(told()))


def test_a_resolver_that_says_nothing_stalls_neither_calls_nor_reloads_nor_the_end(
    stage: Stage, names: NameServer, tmp_path: Path
) -> None:
    """The C library waits 10 s for each answer."""
    (upstream,) = spread(stage, "127.0.0.2")
    names.table["up.test"] = [upstream.host]
    config = configuration(backend(named(upstream), dns=OFTEN, pool={"max_idle": 0}))
    gateway = start(stage, config, tmp_path)
    assert ask(gateway) == 200
    names.table["up.test"] = SILENCE
    names.wait_asked("up.test")
    assert [ask(gateway) for _ in range(5)] == [200] * 5
    assert reload(gateway, {**config, "cors": {"enabled": True}})["msg"] == "reloaded"
    assert [ask(gateway) for _ in range(5)] == [200] * 5
    gateway.stop(timeout=5.0)


def test_a_name_that_never_resolved_fails_its_calls_unsent_and_heals(
    stage: Stage, names: NameServer, tmp_path: Path
) -> None:
    (upstream,) = spread(stage, "127.0.0.2")
    gateway = start(stage, configuration(backend(named(upstream), dns=EACH)), tmp_path)
    assert ask(gateway) == 503
    names.table["up.test"] = [upstream.host]
    wait_until(lambda: ask(gateway) == 200, "the name is resolved")


def test_where_a_name_fails_another_peer_takes_the_call(stage: Stage, names: NameServer, tmp_path: Path) -> None:
    upstream = stage.upstream()
    config = configuration(backend("http://nobody.test:9", upstream, balance="round_robin", dns=OFTEN))
    gateway = start(stage, config, tmp_path)
    assert [ask(gateway) for _ in range(4)] == [200] * 4


def test_the_first_answer_is_waited_for_no_longer_than_a_connect(
    stage: Stage, names: NameServer, tmp_path: Path
) -> None:
    names.table["up.test"] = SILENCE
    fields = {"dns": OFTEN, "timeouts": {"connect": "100ms"}, "retry": {"tries": 1}}
    gateway = start(stage, configuration(backend("http://up.test:9", **fields)), tmp_path)
    assert gateway.ask("POST", CHAT, chat_request(), timeout=3.0).status == 503
    gateway.stop()


def test_one_lookup_serves_all_backends(stage: Stage, names: NameServer, tmp_path: Path) -> None:
    (upstream,) = spread(stage, "127.0.0.2")
    names.table["up.test"] = [upstream.host]
    slow = {"refresh": "1h"}
    many = [backend(named(upstream, "UP.test"), name=f"b{number}", dns=slow) for number in range(10)]
    gateway = start(stage, configuration(*many), tmp_path)
    assert [ask(gateway) for _ in range(20)] == [200] * 20
    assert names.asked["up.test"] == 1
    assert gateway.gauge("gateway_dns_lookups_total") == 1


def test_an_address_is_asked_of_nobody(stage: Stage, names: NameServer, tmp_path: Path) -> None:
    upstream = stage.upstream()
    gateway = start(stage, configuration(backend(upstream, dns=EACH)), tmp_path)
    assert [ask(gateway) for _ in range(3)] == [200] * 3
    assert gateway.gauge("gateway_dns_lookups_total") == 0 and not names.asked


@pytest.mark.parametrize("dns", [OFTEN, EACH], ids=["name", "address"])
def test_a_certificate_is_judged_by_the_name_whatever_the_address(
    dns: dict[str, str], stage: Stage, names: NameServer, tmp_path: Path
) -> None:
    asked_for: list[str | None] = []
    context = tls.server("elsewhere")
    context.sni_callback = lambda sock, name, context: asked_for.append(name)
    (upstream,) = spread(stage, "127.0.0.2", tls=context)
    names.table["elsewhere.example"] = names.table["other.example"] = [upstream.host]
    config = configuration(
        *(
            backend(named(upstream, host), name=host, models=[host], dns=dns, tls={"ca_file": tls.CA})
            for host in ("elsewhere.example", "other.example")
        )
    )
    gateway = start(stage, config, tmp_path)
    assert gateway.ask("POST", CHAT, chat_request(model="elsewhere.example")).status == 200
    wait_until(lambda: gateway.gauge("gateway_dns_lookups_total", result="answered") > 4, "addresses are known")
    assert gateway.ask("POST", CHAT, chat_request(model="elsewhere.example")).status == 200
    assert gateway.ask("POST", CHAT, chat_request(model="other.example")).status == 502
    assert set(asked_for) == {"elsewhere.example", "other.example"}


def test_a_reload_keeps_the_answers_of_the_names_that_stay(stage: Stage, names: NameServer, tmp_path: Path) -> None:
    (upstream,) = spread(stage, "127.0.0.2")
    names.table["up.test"] = [upstream.host]
    config = configuration(backend(named(upstream), dns={**EACH, "refresh": "1h"}))
    gateway = start(stage, config, tmp_path)
    assert ask(gateway) == 200
    names.table["up.test"] = NXDOMAIN
    more = backend(named(upstream, "new.test"), name="beta", models=["n"], dns=EACH)
    names.table["new.test"] = [upstream.host]
    reload(gateway, {**config, "backends": [*config["backends"], more]})
    assert ask(gateway) == 200
    assert gateway.ask("POST", CHAT, chat_request(model="n")).status == 200
    assert names.asked["up.test"] == 1
