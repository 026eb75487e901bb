"""[[routes]], [routing] and `retry.on`: what the rules refuse, beside what they take; and routes by environment."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import ConfigError, load
from gateway.config.schema import Config
from tests.unit.configuring import BACKEND, KEYED, STEADY, faults, loaded


def backend(name: str, models: str = '["{}-model"]', more: str = "") -> str:
    lines = BACKEND.replace('"b"', f'"{name}"')
    return f"{lines}models = {models.format(name)}\n{more}"


TWO = KEYED + backend("a") + backend("b")


def route(lines: str, model: str = "chat") -> str:
    return f'[[routes]]\nmodel = "{model}"\n{lines}\n'


REFUSED = [
    ("fallbacks = ['a']", "model = ''", "[0].model", 'is "", expected text without control characters'),
    ("fallbacks = ['a']", 'model = "a\\nb"', "[0].model", "expected text without control characters"),
    ("", "", "[chat]", "has neither targets nor fallbacks nor lenient, expected at least one of them"),
    ("strategy = 'canary'\nfallbacks = ['a']", "", "[chat].targets", 'is empty while strategy is "canary"'),
    ("strategy = 'fastest'\ntargets = ['a']", "", "[chat].strategy", 'one of "weighted", "canary", "direct"'),
    # targets
    ("targets = ['c']", "", "[chat].targets[0]", 'is "c", which is no enabled backend, expected one of "a", "b"'),
    ("targets = ['a', 'a']", "", "[chat].targets[1]", 'is "a" once more, expected each target once'),
    ("targets = [{ backend = 'a-model' }]", "", "[chat].targets[0].backend", "is no enabled backend"),
    ("targets = [{ weight = 1 }]", "", "[chat].targets[0].backend", "is missing, expected text"),
    ("targets = [{ backend = 'a', weight = -1 }]", "", "[chat].targets[0].weight", "is -1, expected an integer from 0"),
    (
        "targets = [{ backend = 'a', weight = 0 }]",
        "",
        "[chat].targets",
        "has weights of 0 only, expected a weight above",
    ),
    ("strategy = 'direct'\ntargets = ['a', 'b']", "", "[chat].targets", "expected exactly one"),
    ("strategy = 'direct'\ntargets = [{ backend = 'a', weight = 0 }]", "", "[chat].targets", "has weights of 0 only"),
    (
        "strategy = 'canary'\ntargets = ['a']",
        "",
        "[chat].targets",
        "expected the stable backend and at least one canary",
    ),
    ("strategy = 'canary'\ntargets = ['a', 'b']", "", "[chat].targets[1]", "which gives no percent"),
    (
        "strategy = 'canary'\ntargets = ['a', { backend = 'b', weight = 101 }]",
        "",
        "[chat].targets",
        "has canaries of 101 percent together, expected at most 100",
    ),
    (
        "strategy = 'canary'\ntargets = [{ backend = 'a', weight = 80 }, { backend = 'b', weight = 5 }]",
        "",
        "[chat].targets[0].weight",
        "is 80 although the canaries leave 95 percent",
    ),
    # fallbacks
    ("fallbacks = ['']", "", "[chat].fallbacks[0]", 'is "", expected text'),
    ("fallbacks = ['a', 'chat']", "", "[chat].fallbacks[1]", "is the route's own model"),
    ("fallbacks = ['a', 'b', 'a']", "", "[chat].fallbacks[2]", 'is "a" once more, expected each fallback once'),
    ("fallbacks = ['a-modle']", "", "[chat].fallbacks[0]", 'did you mean "a-model"?'),
    ("fallbacks = ['xyz']", "", "[chat].fallbacks[0]", 'expected one of "a", "b", "a-model", "b-model"'),
]


@pytest.mark.parametrize(("lines", "model", "key", "said"), REFUSED)
def test_a_rule_refuses_a_route(tmp_path: Path, lines: str, model: str, key: str, said: str) -> None:
    text = route(lines)
    if model:
        text = text.replace('model = "chat"', model)
    [fault] = faults(tmp_path, TWO + text)
    assert fault.startswith(f"gateway.toml: routes{key}: ")
    assert said in fault


@pytest.mark.parametrize(
    "lines",
    [
        "targets = ['a']",
        "targets = ['a', { backend = 'b', weight = 0 }]",
        "targets = [{ backend = 'a', weight = 90 }, { backend = 'b', weight = 10 }]",
        "strategy = 'direct'\ntargets = ['a']",
        "strategy = 'canary'\ntargets = ['a', { backend = 'b', weight = 0 }]",
        "strategy = 'canary'\ntargets = ['a', { backend = 'b', weight = 100 }]",
        "strategy = 'canary'\ntargets = [{ backend = 'a', weight = 95 }, { backend = 'b', weight = 5 }]",
        "fallbacks = ['a-model', 'b']",
        "targets = ['a']\nfallbacks = ['a-model', 'a', 'b']",
    ],
)
def test_a_rule_takes_a_sound_route(tmp_path: Path, lines: str) -> None:
    assert faults(tmp_path, TWO + route(lines)) == []
    assert faults(tmp_path, TWO + route(lines, "gpt-*")) == []


def test_a_model_has_one_route(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, TWO + route("fallbacks = ['a']") + route("fallbacks = ['b']"))
    assert fault == 'gateway.toml: routes[chat].model: is "chat", which gateway.toml uses too, expected each model once'


def test_a_route_without_a_model_is_refused_once(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, TWO + "[[routes]]\nfallbacks = ['a']\n")
    assert fault == "gateway.toml: routes[0].model: is missing, expected text"


@pytest.mark.parametrize("lines", ["targets = ['off']", "fallbacks = ['off']", "fallbacks = ['off-model']"])
def test_a_backend_that_is_not_enabled_serves_nothing(tmp_path: Path, lines: str) -> None:
    text = TWO + backend("off", more="enabled = false\n") + route(lines)
    [fault] = faults(tmp_path, text)
    assert '"off' in fault and "enabled backend" in fault


@pytest.mark.parametrize(
    ("models", "more"),
    [('"auto"', ""), ('["any*"]', ""), ('["a"]', '[routing]\ndefault_backend = "c"\n'), ('["anything"]', "")],
)
def test_a_fallback_is_any_model_that_may_be_served(tmp_path: Path, models: str, more: str) -> None:
    text = TWO + route("fallbacks = ['anything']")
    assert faults(tmp_path, text)
    assert faults(tmp_path, text + backend("c", models) + more) == []


@pytest.mark.parametrize("model", ["other", "oth*"])
def test_fallbacks_do_not_chain(tmp_path: Path, model: str) -> None:
    text = TWO + backend("c", '["other"]') + route("fallbacks = ['other']")
    [fault] = faults(tmp_path, text + route("targets = ['a']", model))
    assert fault == (
        'gateway.toml: routes[chat].fallbacks[0]: is "other", which has a route with targets, '
        "expected a model or backend without one"
    )
    assert faults(tmp_path, text + route("fallbacks = ['chat-too', 'a']", model).replace("'chat-too', ", "")) == []


def test_two_models_may_be_each_others_fallback(tmp_path: Path) -> None:
    text = route("fallbacks = ['b-model']", "a-model") + route("fallbacks = ['a-model']", "b-model")
    assert faults(tmp_path, TWO + text) == []


def test_a_pattern_with_targets_may_fall_back_to_a_model_that_it_matches(tmp_path: Path) -> None:
    assert faults(tmp_path, TWO + route("targets = ['a']\nfallbacks = ['b-model']", "*")) == []


@pytest.mark.parametrize(
    ("lines", "key", "said"),
    [
        ("default_backend = 'c'", "default_backend", "is no enabled backend"),
        ("default_strategy = 'fastest'", "default_strategy", 'expected one of "least_connections"'),
        ("model_mappings = { 'gpt-*' = 'a' }", 'model_mappings."gpt-*"', "is a pattern"),
        ("model_mappings = { x = 'x' }", "model_mappings.x", "is mapped to itself"),
        ("model_mappings = { x = 'a', y = 'x' }", "model_mappings.y", 'which is mapped itself, expected "a"'),
        ("model_mappings = { x = '' }", "model_mappings.x", "is not the name of a model"),
        ("model_mappings = { '' = 'a' }", 'model_mappings.""', "is not the name of a model"),
        ("model_mappings = { x = 'a-modle' }", "model_mappings.x", 'did you mean "a-model"?'),
        ("model_mappings = { x = 1 }", "model_mappings.x", "is 1, expected text"),
        ("model_mappings = 'x'", "model_mappings", "expected a table"),
        ("model_mappings = { chat = 'a' }", "model_mappings.chat", "has a route with targets, which wins"),
    ],
)
def test_a_rule_refuses_what_routing_says(tmp_path: Path, lines: str, key: str, said: str) -> None:
    [fault] = faults(tmp_path, TWO + f"[routing]\n{lines}\n" + route("targets = ['a']"))
    assert fault.startswith(f"gateway.toml: routing.{key}: ")
    assert said in fault


@pytest.mark.parametrize("model", ["a", "a-model", "chat"])
def test_a_model_is_mapped_to_a_backend_a_model_or_a_route(tmp_path: Path, model: str) -> None:
    text = TWO + f"[routing]\nmodel_mappings = {{ x = '{model}' }}\n" + route("targets = ['a']")
    assert loaded(tmp_path, text).routing.model_mappings == {"x": model}


@pytest.mark.parametrize("cause", ["200", "400", "404", "499", "600", "'never'", "true", "5.0"])
@pytest.mark.parametrize("table", ["[defaults]", "[[backends]]"])
def test_only_what_may_pass_is_tried_again(tmp_path: Path, table: str, cause: str) -> None:
    line = f"retry.on = ['connect', {cause}]\n"
    text = TWO + line if table == "[[backends]]" else f"[defaults]\n{line}{TWO}"
    [fault] = faults(tmp_path, text)
    assert fault.partition(": is")[0] in ("gateway.toml: backends[b].retry.on[1]", "gateway.toml: defaults.retry.on[1]")
    assert '"connect", "reused", "lost", "timeout"' in fault


def test_what_may_pass_may_be_tried_again(tmp_path: Path) -> None:
    causes = ("connect", "reused", "lost", "timeout", 408, 409, 425, 429, 500, 529, 599)
    config = loaded(tmp_path, TWO + f"retry.on = {list(causes)}\n")
    assert config.backends[1].retry.on == causes
    assert config.backends[0].retry.on == ("connect", "reused", "lost", 429, 502, 503, 504)


@pytest.mark.parametrize("budget", ["-0.1", "1.1", "'20%'", "true", "nan", "inf"])
def test_a_budget_is_a_share(tmp_path: Path, budget: str) -> None:
    [fault] = faults(tmp_path, TWO + f"retry.budget = {budget}\n")
    assert fault.startswith("gateway.toml: backends[b].retry.budget: is ")
    assert fault.endswith(", expected a number from 0 to 1")


def balances(config: Config) -> list[str]:
    return [backend.balance for backend in config.backends]


@pytest.mark.parametrize("word", ["round_robin", "weighted", "random", "p2c"])
def test_the_default_strategy_holds_where_nothing_else_says_the_balance(tmp_path: Path, word: str) -> None:
    routing = f"[routing]\ndefault_strategy = '{word}'\n"
    assert balances(loaded(tmp_path, TWO + routing)) == [word, word]
    assert balances(loaded(tmp_path, TWO + "balance = 'least_connections'\n" + routing)) == [word, "least_connections"]
    assert balances(loaded(tmp_path, "[defaults]\nbalance = 'random'\n" + TWO + routing)) == ["random", "random"]
    assert balances(loaded(tmp_path, TWO)) == ["least_connections", "least_connections"]


# The quick form.

words = st.sampled_from(
    ["strategy", "weighted", "canary", "direct", "targets", "name", "weight", "primary", "percent", "target", "mock"]
)
policies = st.recursive(
    words | st.none() | st.integers(-1, 101) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
    max_leaves=12,
)

UPSTREAMS = {"GATEWAY_UPSTREAMS": "primary=http://a;canary=http://b;llama=http://c;mock=mock://local"}


def quick(**more: str) -> Config:
    return load([], UPSTREAMS | {f"GATEWAY_{name}": value for name, value in more.items()}, {})


def routes(config: Config) -> list[tuple[str, str, list[tuple[str, int]], tuple[str, ...]]]:
    return [
        (one.model, one.strategy, [(target.backend, target.weight) for target in one.targets], one.fallbacks)  # type: ignore[union-attr] # written as tables
        for one in config.routes
    ]


def test_fallbacks_by_environment() -> None:
    config = quick(FALLBACKS="llama=primary, mock; other=mock;")
    assert routes(config) == [("llama", "weighted", [], ("primary", "mock")), ("other", "weighted", [], ("mock",))]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            '{"strategy":"weighted","targets":[{"name":"primary","weight":90},{"name":"canary","weight":10}]}',
            ("weighted", [("primary", 90), ("canary", 10)]),
        ),
        ('{"targets":[{"name":"primary"}]}', ("weighted", [("primary", 1)])),
        (
            '{"strategy":"canary","primary":"primary","canary":"canary","percent":7}',
            ("canary", [("primary", 1), ("canary", 7)]),
        ),
        (
            '{"strategy":"canary","primary":"primary","canary":"canary","percentage":0}',
            ("canary", [("primary", 1), ("canary", 0)]),
        ),
        ('{"strategy":"canary","primary":"primary","canary":"canary"}', ("canary", [("primary", 1), ("canary", 5)])),
        ('{"strategy":"direct","target":"mock"}', ("direct", [("mock", 1)])),
    ],
)
def test_route_policies_by_environment(policy: str, expected: tuple[str, list[tuple[str, int]]]) -> None:
    assert routes(quick(ROUTE_POLICIES=f'{{"chat": {policy}}}')) == [("chat", *expected, ())]


def test_a_policy_and_fallbacks_of_one_model_are_one_route() -> None:
    config = quick(ROUTE_POLICIES='{"chat": {"strategy": "direct", "target": "primary"}}', FALLBACKS="chat=mock;x=mock")
    assert routes(config) == [("chat", "direct", [("primary", 1)], ("mock",)), ("x", "weighted", [], ("mock",))]


def test_a_target_of_the_quick_form_serves_the_model_under_its_own_name() -> None:
    config = quick(ROUTE_POLICIES='{"chat": {"targets": [{"name": "primary"}, {"name": "canary"}]}}')
    assert [one.models for one in config.backends] == [("primary", "chat"), ("canary", "chat"), ("llama",), ("mock",)]


def test_a_target_from_a_file_keeps_its_models(tmp_path: Path) -> None:
    config = loaded(tmp_path, TWO, {"GATEWAY_ROUTE_POLICIES": '{"chat": {"strategy": "direct", "target": "a"}}'})
    assert [one.models for one in config.backends] == [("a-model",), ("b-model",)]


@pytest.mark.parametrize("name", ["FALLBACKS", "ROUTE_POLICIES"])
def test_an_empty_variable_names_no_routes(name: str) -> None:
    assert quick(**{name: " "}).routes == ()


def test_either_variable_alone_brings_the_quick_forms_key(tmp_path: Path) -> None:
    keyless = TWO.removeprefix(KEYED)
    assert "no key is configured" in faults(tmp_path, keyless)[0]
    assert faults(tmp_path, keyless, {"GATEWAY_FALLBACKS": "a-model=b"}) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("llama", 'has the part "llama", expected model=name,name;model=name'),
        ("llama=", 'has the part "llama=", expected model=name,name;model=name'),
        ("=mock", 'has the part "=mock", expected'),
        ("llama=mock;llama=primary", 'names "llama" twice, expected each model once'),
        (
            "llama=mok",
            'routes[llama].fallbacks[0]: is "mok", which no enabled backend is or lists, did you mean "mock"?',
        ),
        ("llama=mock,llama", "routes[llama].fallbacks[1]: is the route's own model"),
    ],
)
def test_wrong_fallbacks_are_refused(tmp_path: Path, value: str, said: str) -> None:
    [fault] = faults(tmp_path, environ=UPSTREAMS | {"GATEWAY_FALLBACKS": value})
    assert fault.startswith(f"environment GATEWAY_FALLBACKS: {said}")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "is not JSON ("),
        ("[]", "is no JSON object, expected a table as JSON"),
        ('{"chat": []}', "routes[chat]: is no JSON object, expected a policy with a strategy"),
        ('{"chat": {"strategy": "best"}}', 'routes[chat]: has an unknown strategy, expected one of "weighted"'),
        ('{"chat": {"strategy": ["x"]}}', 'routes[chat]: has an unknown strategy, expected one of "weighted"'),
        ('{"chat": {}}', 'routes[chat]: has no targets, expected an array of {"name": upstream, "weight": number}'),
        ('{"chat": {"targets": ["primary"]}}', "routes[chat]: has a wrong target"),
        ('{"chat": {"targets": [{"name": "primary", "wieght": 1}]}}', "routes[chat]: has a wrong target"),
        ('{"chat": {"targets": [{"weight": 1}]}}', "routes[chat]: has no name, expected the name of an upstream"),
        ('{"chat": {"strategy": "direct"}}', "routes[chat]: has no target, expected the name of an upstream"),
        ('{"chat": {"strategy": "canary", "primary": "primary"}}', "routes[chat]: has no canary"),
        (
            '{"chat": {"strategy": "direct", "targets": []}}',
            'routes[chat]: has the key "targets", expected with direct',
        ),
        (
            '{"chat": {"targets": [{"name": "primry"}]}}',
            'routes[chat].targets[0].backend: is "primry", which is no enabled backend, did you mean "primary"?',
        ),
        (
            '{"chat": {"targets": [{"name": "primary", "weight": "a"}]}}',
            'routes[chat].targets[0].weight: is "a", expected an integer from 0',
        ),
        (
            '{"chat": {"strategy": "canary", "primary": "primary", "canary": "canary", "percent": 101}}',
            "routes[chat].targets: has canaries of 101 percent together",
        ),
    ],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, value: str, said: str) -> None:
    [fault] = faults(tmp_path, environ=UPSTREAMS | {"GATEWAY_ROUTE_POLICIES": value})
    assert fault.startswith(f"environment GATEWAY_ROUTE_POLICIES: {said}")


@STEADY
@given(st.sampled_from(["FALLBACKS", "ROUTE_POLICIES"]), st.text() | policies)
def test_no_text_of_the_two_does_worse_than_a_fault(name: str, value: Any) -> None:
    with suppress(ConfigError):
        quick(**{name: value if isinstance(value, str) else json.dumps({"chat": value})})


def test_a_model_that_a_file_routes_is_not_routed_by_environment_too(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, TWO + route("fallbacks = ['a']"), {"GATEWAY_FALLBACKS": "chat=b"})
    assert fault == (
        'environment GATEWAY_FALLBACKS: routes[chat].model: is "chat", which gateway.toml uses too, '
        "expected each model once"
    )
