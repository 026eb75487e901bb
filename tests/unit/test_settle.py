"""Access lines and counters of calls that are settled together: each call is told as if it were alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest

from gateway import settle
from gateway.admission.budget import ByteBudget
from gateway.admission.keys import Principal
from gateway.call import Attempt, Backend, Call, Client
from gateway.clock import monotonic_ns
from gateway.errors import Fault, Kind, Side
from gateway.observe.access import TEXT_LIMIT, AccessLog, outlet
from gateway.observe.counters import Counter, Measures
from gateway.observe.logs import Stamp
from gateway.routing.endpoints import Body, Endpoint
from gateway.routing.peer import Peer, PeerState, Standing
from gateway.routing.retry import RetryBudget
from gateway.routing.route import Group, Policy, Route
from gateway.settle import KINDS_LIMIT, Settler
from protocols.dialect import Usage
from protocols.http1.request import Request
from protocols.http1.response import ResponseHead

CHAT = Endpoint("/v1/chat/completions")
STATE = PeerState(Standing())
PEERS = [Peer(cast("Backend", SimpleNamespace(name=name)), f"http://{name}:1", 1, STATE) for name in ("one", "two")]
BUDGET = RetryBudget(0.2)
POLICY = Policy(cast("Any", None), tries=1, on=(), budget=BUDGET, inject_usage=False, first_byte=0, idle=0, total=0)
ROUTES = [Route(label, [Group("one", PEERS, POLICY, {})], None) for label in ("m", "n*")]

MEMBERS = (
    *(
        "ts",
        "level",
        "msg",
        "request_id",
        "trace_id",
        "client",
        "key",
        "method",
        "path",
        "model",
        "fallback",
        "upstream",
    ),
    *(
        "endpoint",
        "status",
        "ending",
        "fault",
        "stream",
        "translated",
        "tries",
        "bytes_in",
        "bytes_out",
        "chunks",
        "t_total",
    ),
    *("t_read", "t_admit", "t_queue", "t_connect", "t_head", "t_first", "t_body"),
    *("prompt_tokens", "completion_tokens", "cached_tokens"),
)


def answered(id: bytes = b"a") -> Call:
    """A call of the usual kind, its answer relayed."""
    client = cast("Client", SimpleNamespace(address="10.0.0.1"))
    now = monotonic_ns()
    call = Call(client, Request(b"POST"), CHAT, ByteBudget(0), None, None, b"", id, b"t" + id, now)
    call.model, call.route, call.peer = "m", ROUTES[0], PEERS[0]
    call.status, call.tries = 200, 1
    call.at_begin, call.at_attempt, call.at_sent = now + 1_000, now + 3_000, now + 6_000
    call.at_head, call.at_first = now + 10_000, now + 15_000
    return call


class House:
    """A settler that writes to a file."""

    def __init__(self, folder: Path, style: Literal["json", "pretty"] = "json") -> None:
        self._file = folder / "log"
        self._log = AccessLog([outlet(str(self._file))], 1 << 24, style, Counter())
        self.measures = Measures("0")
        self.settler = Settler(self.measures, self._log, Stamp())

    def text(self) -> str:
        assert self._log.close(10.0)
        return self._file.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


def test_a_line_has_all_members_in_their_order(tmp_path: Path) -> None:
    house = House(tmp_path)
    call = answered()
    call.usage, call.bytes_in, call.bytes_out = Usage(1, 2, 3), 4, 5
    attempt = Attempt(call, PEERS[0], cast("Any", None), call.at_attempt, False)
    attempt.response = ResponseHead(200, [])
    house.settler.settle(call, attempt)
    (line,) = house.lines()
    assert tuple(line) == MEMBERS
    assert line.pop("ts").endswith("Z")
    assert line.pop("t_total") >= 0
    line.pop("t_body")
    assert list(line.values()) == [
        *("info", "call", "a", "ta", "10.0.0.1", None, "POST", "/v1/chat/completions", "m", None, "one"),
        *("http://one:1", 200, "--", None, False, None, 1, 4, 5, 0, 1, 2, -1, 3, 4, 5, 1, 2, 3),
    ]
    assert house.measures.upstream_requests.child("one", "200").value == 1
    assert house.measures.requests.child("POST", "/v1/chat/completions", "200").value == 1
    assert [house.measures.tokens.child("m", kind).value for kind in ("prompt", "completion", "cached")] == [1, 2, 3]


def test_a_line_for_reading_has_them_too(tmp_path: Path) -> None:
    house = House(tmp_path, "pretty")
    house.settler.settle(answered())
    house.settler.settle(answered(b"b"))
    first, second = house.text().splitlines()
    assert first.split(" ")[1] == "INFO"
    assert [word.partition("=")[0] for word in first.split()[3:]] == list(MEMBERS[3:])
    assert "request_id=b trace_id=tb client=10.0.0.1 key=None method=POST" in second


def _fail(kind: Kind, timed_out: bool = False) -> Callable[[Call], None]:
    return _set(fault=Fault(Side.UPSTREAM, kind, "It failed.", timed_out=timed_out))


def _set(**values: Any) -> Callable[[Call], None]:
    def change(call: Call) -> None:
        for name, value in values.items():
            setattr(call, name, value)

    return change


CHANGES = {
    "address": _set(address="::1"),
    "endpoint": _set(endpoint=Endpoint("other", Body.NONE)),
    "fault": _fail(Kind.UPSTREAM_LOST),
    "another fault": _fail(Kind.UPSTREAM_BROKEN),
    "another ending": _fail(Kind.UPSTREAM_LOST, timed_out=True),
    "method": _set(request=Request(b"GET")),
    "model": _set(model="nn"),
    "route": _set(route=ROUTES[1]),
    "no route": _set(route=None),
    "peer": _set(peer=PEERS[1]),
    "no peer": _set(peer=None),
    "principal": _set(principal=Principal("key", b"", (), False)),
    "status": _set(status=404),
    "stream": _set(stream=True),
    "tries": _set(tries=2),
    "sizes": _set(bytes_in=7, bytes_out=8),
    "usage": _set(usage=Usage(7, 8, 9)),
    "no attempt": _set(at_attempt=0, at_sent=0, at_head=0, at_first=0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_call_is_told_beside_others_as_it_is_alone(change: Callable[[Call], None], tmp_path: Path) -> None:
    told = []
    for beside in (False, True):
        folder = tmp_path / str(beside)
        folder.mkdir()
        house = House(folder)
        if beside:
            for each in (_set(), _fail(Kind.UPSTREAM_LOST)):
                house.settler.settle(changed(each))
                house.settler.count()
        house.settler.settle(changed(change))
        line = {name: value for name, value in house.lines()[-1].items() if name not in _TIMES}
        tokens = {label: child.value for label, child in house.measures.tokens.children.items() if label[0] != "m"}
        told.append((line, tokens))
    assert told[0] == told[1]


def changed(change: Callable[[Call], None]) -> Call:
    call = answered()
    call.usage = Usage(1, 2, 3)
    change(call)
    return call


_TIMES = ("ts", "t_total", "t_body")


def test_names_that_clients_choose_fill_no_memory(tmp_path: Path) -> None:
    house = House(tmp_path)
    for at in range(3 * KINDS_LIMIT):
        call = answered()
        call.route, call.model = None, f"model-{at}"
        house.settler.settle(call)
    assert 0 < len(house.settler._kinds) <= KINDS_LIMIT
    house.settler.forget_doors()
    call = answered()
    call.route, call.model = None, "x" * 10_000
    house.settler.settle(call)
    house.settler.count()
    assert not house.settler._kinds
    assert house.lines()[-1]["model"] == "x" * TEXT_LIMIT


@pytest.mark.plain
def test_a_call_that_cannot_be_counted_costs_no_other_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    told: list[Exception] = []
    house.settler.on_error = told.append
    describe = settle._describe

    def picky(call: Call, ending: str) -> settle.Description:
        if call.model == "bad":
            raise ValueError("bad")
        return describe(call, ending)

    monkeypatch.setattr(settle, "_describe", picky)
    for id, model in ((b"a", "m"), (b"b", "bad"), (b"c", "m")):
        call = answered(id)
        call.model = model
        house.settler.settle(call)
    assert [line["request_id"] for line in house.lines()] == ["a", "c"]
    assert [str(error) for error in told] == ["bad"]
