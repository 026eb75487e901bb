"""Rules: shares between backends by request id, what follows when one fails, mappings, and the names sent upstream."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from gateway.routing.route import Group, Route, Rule, Share
from gateway.routing.routes import Match, Routes
from tests.unit.test_routes import group, where

IDS = [b"req-%d" % at for at in range(10_000)]


def table(
    *groups: Group, rules: tuple[Rule, ...] = (), default: str = "", aliases: dict[str, str] | None = None
) -> Routes:
    return Routes(groups, default, rules, aliases)


def divided(*weights: int, names: str = "abcdef") -> Rule:
    return Rule("chat", tuple(Share(name, weight) for name, weight in zip(names, weights, strict=False)))


def route_of(routes: Routes, model: str, id: bytes = b"id") -> Route:
    route = routes.find(model)
    assert route is not None
    return route.choose(id) if route.choices else route


def step(route: Route, model: str) -> str:
    """Where *route* leads: the fallback that it is, each backend, and the name that it is asked for."""
    sent = [f"{group.name}:{(route.renames or {}).get(group.name, model)}" for group in route.groups]
    return (f"{route.serves}=" if route.serves else "") + " ".join(sent)


def way(routes: Routes, model: str, id: bytes = b"id") -> list[str]:
    """Where a call for *model* goes, first and then in turn while it fails."""
    route = route_of(routes, model, id)
    return [step(one, model) for one in (route, *route.fallbacks)]


# Shares.


@pytest.mark.parametrize("weights", [(1, 1), (90, 10), (1, 2, 3, 4), (95, 5, 0), (0, 1), (7,), (3, 0, 1)])
def test_calls_are_divided_by_weight(weights: tuple[int, ...]) -> None:
    rule = divided(*weights)
    route = table(*(group(share.backend, "m") for share in rule.shares), rules=(rule,)).find("chat")
    assert route is not None
    found = Counter(route.choose(id).groups[0].name for id in IDS)
    for share in rule.shares:
        assert abs(found[share.backend] / len(IDS) - share.weight / sum(weights)) <= 0.02
        assert share.weight or share.backend not in found


def test_one_id_has_one_target_in_every_table_of_the_same_weights() -> None:
    def targets() -> list[str]:
        route = table(group("a"), group("b"), rules=(divided(1, 1),)).find("chat")
        assert route is not None
        return [route.choose(id).groups[0].name for id in IDS[:500]]

    assert targets() == targets()


def test_the_target_of_an_id_is_the_same_in_every_release() -> None:
    route = table(group("a"), group("b"), rules=(divided(1, 1),)).find("chat")
    assert route is not None
    assert "".join(route.choose(b"%d" % at).groups[0].name for at in range(16)) == "aababbbbbaabbbbb"


def test_a_grown_canary_keeps_the_ids_that_it_had() -> None:
    def canaries(percent: int) -> set[bytes]:
        route = table(group("a"), group("b"), rules=(divided(100 - percent, percent),)).find("chat")
        assert route is not None
        return {id for id in IDS if route.choose(id).groups[0].name == "b"}

    found = [canaries(percent) for percent in (0, 1, 5, 20, 100)]
    assert all(few <= many for few, many in pairwise(found))
    assert not found[0] and len(found[-1]) == len(IDS)


def test_a_route_says_of_itself_which_backends_take_part() -> None:
    route = table(group("a"), group("b"), group("c"), rules=(divided(1, 0, 1),)).find("chat")
    assert route is not None
    assert (route.label, [one.name for one in route.groups]) == ("chat", ["a", "c"])


# What follows when a target fails.


def test_other_targets_come_before_fallbacks_and_those_without_weight_never() -> None:
    rule = divided(1, 1, 0, 1)._replace(fallbacks=("f", "mf"))
    names = [group(name, name) for name in "abcdf"]
    routes = table(*names, group("g", "mf"), rules=(rule,))
    rest = ["f=f:f", "mf=g:mf"]
    assert {tuple(way(routes, "chat", id)) for id in IDS[:100]} == {
        ("a:a", "b:b", "d:d", *rest),
        ("b:b", "a:a", "d:d", *rest),
        ("d:d", "a:a", "b:b", *rest),
    }


def test_each_step_has_those_after_it_as_its_own_fallbacks() -> None:
    rule = divided(1, 1)._replace(fallbacks=("f", "g"))
    routes = table(*(group(name) for name in "abfg"), rules=(rule,))
    route = route_of(routes, "chat")
    steps = [route, *route.fallbacks]
    assert len(steps) == 4
    for at, one in enumerate(steps):
        assert list(one.fallbacks) == steps[at + 1 :]


def test_a_fallback_to_a_target_that_was_tried_is_left_out() -> None:
    rule = divided(1, 0)._replace(fallbacks=("a", "b", "m"))
    assert way(table(group("a", "m"), group("b"), rules=(rule,)), "chat") == ["a:m", "b=b:chat", "m=a:m"]


def test_a_model_without_targets_goes_to_whoever_lists_it_and_then_to_its_fallbacks() -> None:
    routes = table(group("a", "m"), group("b", "m"), group("f", "n"), rules=(Rule("m", (), ("n", "f")),))
    assert where(routes, "m") == "m: a b"
    assert way(routes, "m") == ["a:m b:m", "n=f:n", "f=f:n"]
    assert way(routes, "n") == ["f:n"]


def test_two_models_that_are_each_others_fallback_do_not_go_in_circles() -> None:
    rules = (Rule("m", (), ("n",)), Rule("n", (), ("m",)))
    routes = table(group("a", "m"), group("b", "n"), rules=rules)
    assert [way(routes, "m"), way(routes, "n")] == [["a:m", "n=b:n"], ["b:n", "m=a:m"]]


def test_a_pattern_rule_holds_for_all_that_it_matches_and_the_longest_wins() -> None:
    rules = (Rule("*", (), ("f",)), Rule("gpt-*", (Share("b", 1),), ("f",)), Rule("gpt-4", (), ("b",)))
    routes = table(group("a", "*"), group("b", "gpt-*"), group("f", "n"), rules=rules)
    assert [where(routes, model) for model in ("gpt-5", "gpt-4", "llama")] == ["gpt-*: b", "gpt-*: b", "*: a"]
    assert way(routes, "gpt-5") == ["b:gpt-5", "f=f:n"]
    assert way(routes, "gpt-4") == ["b:gpt-4", "b=b:gpt-4"]
    assert way(routes, "llama") == ["a:llama", "f=f:n"]


def test_a_model_is_not_its_own_fallback_under_a_pattern() -> None:
    routes = table(group("a", "gpt-4", "gpt-mini"), group("f", "f"), rules=(Rule("gpt-*", (), ("gpt-mini", "f")),))
    assert way(routes, "gpt-4") == ["a:gpt-4", "gpt-mini=a:gpt-mini", "f=f:f"]
    assert way(routes, "gpt-mini") == ["a:gpt-mini", "f=f:f"]


def test_a_model_under_a_pattern_with_targets_may_fall_back_to_whoever_lists_it() -> None:
    rule = Rule("gpt-*", (Share("b", 1),), ("gpt-mini",))
    routes = table(group("a", "gpt-mini"), group("b", "gpt-*"), rules=(rule,))
    assert way(routes, "gpt-mini") == ["b:gpt-mini", "gpt-mini=a:gpt-mini"]


def test_where_nobody_serves_a_model_its_first_fallback_does() -> None:
    routes = table(group("a", auto=True), group("f", "n"), group("g", "o"), rules=(Rule("m", (), ("x", "n", "g")),))
    assert way(routes, "m") == ["n=f:n", "g=g:o"]
    assert ("m", "f") in routes.listed()
    routes.learn("a", ["m"])
    assert way(routes, "m") == ["a:m", "n=f:n", "g=g:o"]
    assert ("m", "a") in routes.listed()


def test_without_anybody_there_is_no_route() -> None:
    routes = table(group("a", auto=True), rules=(Rule("m", (), ("x",)),))
    assert routes.find("m") is None
    assert routes.listed() == []


# The names that fallbacks are asked for.

FALLBACKS = [
    ("a model that a backend lists", group("f", "n"), "n", "n=f:n"),
    ("a model that several backends list", group("f", "m", "n"), "n", "n=f:n"),
    ("an alias that a backend lists", group("f", fast="slow"), "fast", "fast=f:slow"),
    ("a model that a pattern matches", group("f", "n-*"), "n-1", "n-1=f:n-1"),
    ("a model that a renamed pattern matches", group("f", **{"n-*": "big"}), "n-1", "n-1=f:big"),
    ("a backend that lists the model", group("f", "x", "m"), "f", "f=f:m"),
    ("a backend that renames the model", group("f", "x", m="y"), "f", "f=f:y"),
    ("a backend whose pattern takes the model", group("f", "x", "*"), "f", "f=f:m"),
    ("a backend whose renamed pattern takes the model", group("f", "x", **{"*": "y"}), "f", "f=f:y"),
    ("a backend that lists other models", group("f", "x", "y"), "f", "f=f:x"),
    ("a backend that renames another model", group("f", x="y"), "f", "f=f:y"),
    ("a backend that lists other patterns", group("f", "x-*"), "f", "f=f:m"),
    ("a backend that lists nothing", group("f"), "f", "f=f:m"),
    ("an auto backend that has not told yet", group("f", auto=True), "f", "f=f:m"),
    ("a backend that lists its own name", group("f", "x", "f"), "f", "f=f:f"),
]


@pytest.mark.parametrize(
    ("backend", "name", "expected"), [one[1:] for one in FALLBACKS], ids=[one[0] for one in FALLBACKS]
)
def test_a_fallback_is_asked_for_a_model_that_it_has(backend: Group, name: str, expected: str) -> None:
    routes = table(group("a", "m"), backend, rules=(Rule("m", (), (name,)),))
    [_, found] = way(routes, "m")
    assert found == expected
    route = route_of(routes, "m").fallbacks[0]
    assert (route.label, route.served_line) == ("m", b"x-fallback-model: %b\r\n" % name.encode())


def test_an_auto_backend_is_asked_for_what_it_told() -> None:
    routes = table(group("a", "m"), group("f", auto=True), rules=(Rule("m", (), ("f", "n")),))
    assert way(routes, "m") == ["a:m", "f=f:m"]
    routes.learn("f", ["x[1]", "n"])
    assert way(routes, "m") == ["a:m", "f=f:x[1]", "n=f:n"]
    routes.learn("f", ["m"])
    assert way(routes, "m") == ["a:m f:m", "f=f:m"]


def test_a_fallback_that_nobody_lists_is_the_default_backends() -> None:
    routes = table(group("a", "m"), group("d", "x"), rules=(Rule("m", (), ("n",)),), default="d")
    assert way(routes, "m") == ["a:m", "n=d:n"]


def test_a_fallback_may_be_mapped() -> None:
    routes = table(group("a", "m"), group("f", "n"), rules=(Rule("m", (), ("x", "y")),), aliases={"x": "n", "y": "f"})
    assert way(routes, "m") == ["a:m", "x=f:n", "y=f:n"]


def test_a_target_is_asked_for_the_routes_model_or_for_its_first() -> None:
    rule = divided(1, 1)
    routes = table(group("a", "x", "chat"), group("b", "y", "z"), rules=(rule,))
    assert {tuple(way(routes, "chat", id)) for id in IDS[:50]} == {("a:chat", "b:y"), ("b:y", "a:chat")}


# Mappings.


@pytest.mark.parametrize(
    ("backend", "target", "expected"),
    [
        (group("b", "n"), "n", "b:n"),
        (group("b", n="o"), "n", "b:o"),
        (group("b", "n-*"), "n-1", "b:n-1"),
        (group("b", "n"), "b", "b:n"),
        (group("b", "n", "m"), "b", "b:m"),
        (group("b", auto=True), "b", "b:m"),
    ],
)
def test_a_mapped_model_is_asked_for_under_the_other_name(backend: Group, target: str, expected: str) -> None:
    routes = table(group("a", "m"), backend, aliases={"m": target})
    assert way(routes, "m") == [expected]
    assert where(routes, "m").startswith("m: ")


def test_a_mapped_model_has_the_route_of_the_other() -> None:
    rules = (Rule("chat", (Share("a", 1),), ("f",)), Rule("x-*", (), ("f",)))
    aliases = {"gpt": "chat", "old": "x-1"}
    routes = table(group("a", "a"), group("b", "chat", "x-1"), group("f", "f"), rules=rules, aliases=aliases)
    assert way(routes, "gpt") == ["a:a", "f=f:f"]
    assert where(routes, "gpt") == "chat: a"
    assert way(routes, "old") == ["b:x-1", "f=f:f"]


def test_a_target_is_asked_for_the_name_that_the_model_is_mapped_to() -> None:
    routes = table(group("a", "*"), rules=(divided(1),), aliases={"gpt": "chat"})
    assert way(routes, "gpt") == ["a:chat"]


def test_a_fallback_backend_is_asked_for_the_name_that_the_model_is_mapped_to() -> None:
    rules, aliases = (Rule("gpt", (), ("f",)), Rule("old", (), ("f",))), {"gpt": "chat", "old": "a"}
    routes = table(group("a", "chat"), group("f", "x", "c*"), rules=rules, aliases=aliases)
    assert way(routes, "gpt") == ["a:chat", "f=f:chat"]
    assert way(routes, "old") == ["a:chat", "f=f:x"]


def test_a_mapped_model_may_have_fallbacks_of_its_own() -> None:
    routes = table(group("a", "n"), group("f", "f"), rules=(Rule("m", (), ("f",)),), aliases={"m": "n"})
    assert way(routes, "m") == ["a:n", "f=f:f"]
    assert way(routes, "n") == ["a:n"]


def test_a_mapping_wins_over_patterns_and_over_what_is_listed() -> None:
    rules = (Rule("gpt-*", (Share("a", 1),)),)
    routes = table(group("a", "gpt-4", "*"), group("b", "n"), rules=rules, aliases={"gpt-4": "n"})
    assert [where(routes, "gpt-4"), where(routes, "gpt-5")] == ["gpt-4: b", "gpt-*: a"]


def test_a_mapping_to_what_nobody_serves_is_no_route_until_somebody_does() -> None:
    routes = table(group("a", auto=True), aliases={"m": "n"})
    assert routes.find("m") is None
    routes.learn("a", ["n"])
    assert way(routes, "m") == ["a:n"]


def test_what_is_said_of_a_name_can_be_asked() -> None:
    chat, own = divided(1)._replace(fallbacks=("f",)), Rule("gpt", (), ("g",))
    routes = table(*(group(name) for name in "afg"), rules=(chat, own), aliases={"gpt": "chat"})
    assert routes.match("gpt") == Match("chat", (own, chat), chat.shares, ("g",))
    assert routes.match("chat") == Match("chat", (chat,), chat.shares, ("f",))
    assert routes.match("x") == Match("x", (), (), ())


# What the table remembers and lists.


def test_routes_and_mappings_are_listed_with_the_backend_that_serves_them_first() -> None:
    rules = (divided(0, 1), Rule("p-*", (), ("a",)), Rule("nobody", (), ("x",)))
    routes = table(group("a", "m"), group("b", "n"), rules=rules, aliases={"gpt": "n", "gone": "x"})
    assert routes.listed() == [("m", "a"), ("n", "b"), ("chat", "b"), ("gpt", "b")]


def test_what_is_learnt_changes_every_route_that_it_concerns() -> None:
    rules = (divided(1, names="b"), Rule("p-*", (), ("b",)))
    routes = table(group("a", "p-*"), group("b", auto=True), rules=rules, aliases={"gpt": "new"})
    assert [way(routes, "chat"), way(routes, "p-1"), routes.find("gpt")] == [["b:chat"], ["a:p-1", "b=b:p-1"], None]
    routes.learn("b", ["new"])
    found = [way(routes, model) for model in ("chat", "p-1", "gpt", "new")]
    assert found == [["b:new"], ["a:p-1", "b=b:new"], ["b:new"], ["b:new"]]


def test_a_call_keeps_the_route_that_it_began_with() -> None:
    routes = table(group("a", auto=True), group("f", "f"), rules=(Rule("m", (), ("f",)),))
    routes.learn("a", ["m"])
    route = route_of(routes, "m")
    routes.learn("a", [])
    assert step(route, "m") == "a:m"
    assert way(routes, "m") == ["f=f:f"]


def test_a_flood_of_names_under_a_rule_costs_no_memory() -> None:
    rule = Rule("p-*", (Share("a", 1), Share("b", 1)), ("f",))
    routes = table(*(group(name, name) for name in "abf"), rules=(rule,))
    for at in range(3 * Routes.MEMO_LIMIT):
        assert way(routes, f"p-{at}")[-1] == "f=f:f"
        assert len(routes._memo) <= Routes.MEMO_LIMIT
    assert way(routes, "p-" + "x" * Routes.MEMO_NAME_LIMIT)[-1] == "f=f:f"
    assert max(map(len, routes._memo)) <= Routes.MEMO_NAME_LIMIT


def test_the_metrics_label_is_a_configured_name() -> None:
    rules = (Rule("p-*", (), ("a",)), Rule("m", (), ("a",)))
    routes = table(group("a", "x"), rules=rules, default="a", aliases={"gpt": "x"})
    labels = {model: route_of(routes, model).label for model in ("p-1", "m", "gpt", "x", "unknown")}
    assert labels == {"p-1": "p-*", "m": "m", "gpt": "gpt", "x": "x", "unknown": "other"}
