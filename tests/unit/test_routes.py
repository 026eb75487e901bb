"""Routes: which backends serve a model, under which name, and what the table remembers."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from gateway.routing.balance import LeastConnections
from gateway.routing.peer import Peer, PeerState, Standing
from gateway.routing.retry import RetryBudget
from gateway.routing.route import Group, Policy, Route
from gateway.routing.routes import Routes


class Backend:
    def __init__(self, name: str) -> None:
        self.name = name


def group(name: str, *models: str, peers: int = 1, tries: int = 2, auto: bool = False, **renamed: str) -> Group:
    backend: Any = Backend(name)
    policy = Policy(
        LeastConnections(),
        tries=tries,
        on=(),
        budget=RetryBudget(0.2),
        inject_usage=True,
        first_byte=1.0,
        idle=1.0,
        total=0.0,
    )
    made = [Peer(backend, f"http://{name}:{at}", 1, PeerState(Standing())) for at in range(peers)]
    return Group(name, made, policy, {**{model: model for model in models}, **renamed}, auto=auto)


def where(routes: Routes, model: str) -> str:
    """The label and the backends of *model*'s route."""
    route = routes.find(model)
    return "" if route is None else f"{route.label}: {' '.join(peer.backend.name for peer in route.peers)}"


def test_an_exact_name_beats_every_pattern_and_a_pattern_the_default() -> None:
    routes = Routes([group("p", "gpt-*"), group("x", "gpt-4"), group("d", "other")], "d")
    assert where(routes, "gpt-4") == "gpt-4: x"
    assert where(routes, "gpt-5") == "gpt-*: p"
    assert where(routes, "llama") == "other: d"


@pytest.mark.parametrize("reverse", [False, True])
def test_a_longer_pattern_beats_a_shorter_one_in_any_order(reverse: bool) -> None:
    groups = [group("all", "*"), group("gpt", "gpt-*"), group("mini", "gpt-*-mini")]
    routes = Routes(groups[::-1] if reverse else groups)
    found = [where(routes, model) for model in ("gpt-4-mini", "gpt-4", "llama", "")]
    assert found == ["gpt-*-mini: mini", "gpt-*: gpt", "*: all", "*: all"]


def test_without_a_default_nobody_serves_what_nobody_named() -> None:
    routes = Routes([group("a", "m")])
    assert [where(routes, model) for model in ("m", "M", "m ", "", "mm", "a")] == ["m: a", "", "", "", "", ""]


def test_patterns_are_case_sensitive_and_match_the_whole_name() -> None:
    routes = Routes([group("a", "gpt-?", "[lm]x")])
    found = {model: where(routes, model) for model in ("gpt-4", "gpt-4o", "GPT-4", "xgpt-4", "lx", "mx", "nx")}
    assert {model for model, route in found.items() if route} == {"gpt-4", "lx", "mx"}


def test_a_model_that_several_backends_serve_has_the_peers_of_all_and_the_policy_of_the_first() -> None:
    first, second = group("a", "m", peers=2, tries=5), group("b", "m", tries=9)
    route = Routes([first, second]).find("m")
    assert route is not None
    assert [peer.url for peer in route.peers] == ["http://a:0", "http://a:1", "http://b:0"]
    assert (route.policy, route.tries) == (first.policy, 5)


def test_a_route_is_made_once() -> None:
    routes = Routes([group("a", "m", "p-*"), group("d")], "d")
    for model in ("m", "p-1", "other"):
        assert routes.find(model) is routes.find(model)


def test_a_renamed_model_goes_under_the_backends_name_where_it_has_another() -> None:
    routes = Routes([group("a", fast="llama-8b", m="m"), group("b", "fast"), group("c", fast="qwen")])
    fast, same = routes.find("fast"), routes.find("m")
    assert fast is not None and same is not None
    assert fast.renames == {"a": "llama-8b", "c": "qwen"}
    assert same.renames is None
    assert routes.find("llama-8b") is None


def test_what_a_backend_tells_takes_the_place_of_what_it_told_before() -> None:
    routes = Routes([group("a", auto=True), group("b", "m", "p-*")])
    assert [where(routes, model) for model in ("x", "m", "p-1")] == ["", "m: b", "p-*: b"]
    routes.learn("a", ["x", "m", "p-1"])
    assert [where(routes, model) for model in ("x", "m", "p-1", "p-2")] == ["x: a", "m: a b", "p-1: a", "p-*: b"]
    routes.learn("a", [])
    assert [where(routes, model) for model in ("x", "m", "p-1")] == ["", "m: b", "p-*: b"]


def test_the_table_is_complete_when_every_backend_told() -> None:
    routes = Routes([group("a", auto=True), group("b", auto=True), group("c", "m")])
    found = [routes.complete]
    for name in ("a", "b"):
        routes.learn(name, ["m"])
        found.append(routes.complete)
    routes.learn("a", [])
    assert [*found, routes.complete] == [False, False, True, True]


@pytest.mark.parametrize("told", ["*", "g*", "gpt-?", "[a-z]*"])
def test_a_backend_cannot_make_itself_everybodys_by_what_it_tells(told: str) -> None:
    routes = Routes([group("a", auto=True), group("d")], "d")
    routes.learn("a", [told, "gpt-4"])
    assert [where(routes, model) for model in ("gpt-5", "gpt-4")] == ["other: d", "gpt-4: a"]


def test_a_model_whose_name_looks_like_a_pattern_can_still_be_asked_for() -> None:
    routes = Routes([group("a", auto=True)])
    routes.learn("a", ["llama[q4]", "gpt-4"])
    assert where(routes, "llama[q4]") == "llama[q4]: a"
    assert ("llama[q4]", "a") in routes.listed()
    assert where(routes, "llamaq") == ""


def test_what_is_listed_has_a_name_of_its_own_and_its_first_backend() -> None:
    routes = Routes([group("a", "m", "p-*", fast="slow"), group("b", "m", "n"), group("c", auto=True)])
    routes.learn("c", ["n", "o"])
    assert routes.listed() == [("m", "a"), ("fast", "a"), ("n", "b"), ("o", "c")]


def test_a_backend_is_found_by_its_own_name() -> None:
    routes = Routes([group("a", "m", peers=2)])
    route = routes.of_backend("a")
    assert route is not None
    assert (route.label, len(route.peers), route.renames) == ("", 2, None)
    assert routes.of_backend("m") is None
    assert routes.of_backend("") is None


def test_a_flood_of_model_names_costs_no_memory() -> None:
    routes = Routes([group("a", "p-*"), group("d")], "d")
    labels = set()
    for at in range(3 * Routes.MEMO_LIMIT):
        for model in (f"p-{at}", f"x-{at}"):
            route = routes.find(model)
            assert isinstance(route, Route)
            labels.add(route.label)
        assert len(routes._memo) <= Routes.MEMO_LIMIT
    assert labels == {"p-*", "other"}
    assert where(routes, "p-0") == "p-*: a"


def test_long_model_names_are_not_hoarded() -> None:
    routes = Routes([group("a", "*")])
    for at in range(100):
        assert where(routes, f"{at}" + "x" * 1_000_000) == "*: a"
    assert sum(map(sys.getsizeof, routes._memo)) < 1 << 20
