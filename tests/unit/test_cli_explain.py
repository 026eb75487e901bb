"""`headrace check --explain`: what it says of a model, its exit status, and that it asks nobody."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.cli.explain import explain, told
from tests.unit.configuring import KEYED, loaded, written

TEXT = f"""{KEYED}
[[backends]]
name = "a"
endpoints = ["http://a:1", {{ url = "http://a:2", weight = 2 }}]
models = ["ma", {{ "fast" = "slow" }}, "p-*"]
balance = "p2c"
retry = {{ tries = 3, on = ["connect", 500], budget = 0.5 }}
timeouts = {{ connect = "250ms", first_byte = 0.3333, idle = "90s", total = "5m" }}
[[backends]]
name = "b"
endpoints = ["http://b:1"]
models = ["mb", "ma"]
[[backends]]
name = "told"
protocol = "vllm"
endpoints = ["http://c:1"]
[[routes]]
model = "chat"
targets = ["a", "b"]
fallbacks = ["told", "mb"]
[[routes]]
model = "canary"
strategy = "canary"
targets = ["a", {{ backend = "b", weight = 5 }}]
[[routes]]
model = "p-*"
fallbacks = ["gone", "p-1"]
[[routes]]
model = "new"
fallbacks = ["gone", "mb"]
[routing]
model_mappings = {{ "gpt-4" = "chat", "gpt-3" = "b" }}
"""
#: What the lines begin with that say how a backend is asked.
DOORS = ("  relayed untouched: ", "  translated, in the dialect of ", "  estimated here: ")


@pytest.fixture
def of(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    config = loaded(tmp_path, TEXT)
    return lambda model, id="": explain(config, model, id)


def steps(found: dict[str, Any]) -> list[tuple[float, list[tuple[str, dict[str, str]]]]]:
    return [(way["share"], [(step["fallback"], step["sent"]) for step in way["steps"]]) for way in found["ways"]]


A, B = ("", {"a": "ma"}), ("", {"b": "mb"})
FALLBACKS = [("told", {"told": "chat"}), ("mb", {"b": "mb"})]


def test_a_divided_model_has_a_way_for_each_target(of: Callable[..., dict[str, Any]]) -> None:
    assert steps(of("chat")) == [(0.5, [A, B, *FALLBACKS]), (0.5, [B, A, *FALLBACKS])]
    assert steps(of("canary")) == [(0.95, [A, B]), (0.05, [B, A])]


def test_an_id_has_one_way_which_is_that_of_a_call(of: Callable[..., dict[str, Any]]) -> None:
    found = [of("chat", str(at))["ways"] for at in range(16)]
    assert [len(ways) for ways in found] == [1] * 16
    # as in test_routes_rules, and over sockets in tests/wire/test_routes
    assert "".join(next(iter(way["steps"][0]["sent"])) for [way] in found) == "aababbbbbaabbbbb"


@pytest.mark.parametrize(
    ("model", "why", "first"),
    [
        ("ma", ['backends list "ma"'], {"a": "ma", "b": "ma"}),
        ("fast", ['backends list "fast"'], {"a": "slow"}),
        ("chat", ['[[routes]] with model = "chat" names it', "its targets serve it, whoever lists it"], {"a": "ma"}),
        (
            "gpt-4",
            [
                'routing.model_mappings makes it the model "chat"',
                '[[routes]] with model = "chat" names it',
                "its targets serve it, whoever lists it",
            ],
            {"a": "ma"},
        ),
        ("gpt-3", ['routing.model_mappings makes it the backend "b"'], {"b": "mb"}),
        (
            "p-1",
            [
                '[[routes]] with model = "p-*" is the longest pattern that matches it',
                'backends list the pattern "p-*", which matches "p-1"',
                'the fallback "gone" is left out: it is tried before, or nobody serves it',
                'the fallback "p-1" is left out: it is tried before, or nobody serves it',
            ],
            {"a": "p-1"},
        ),
        (
            "new",
            [
                '[[routes]] with model = "new" names it',
                'no backend lists "new": its first fallback serves it',
                'the fallback "gone" is left out: it is tried before, or nobody serves it',
            ],
            {"b": "mb"},
        ),
    ],
)
def test_it_says_why(of: Callable[..., dict[str, Any]], model: str, why: list[str], first: dict[str, str]) -> None:
    found = of(model)
    assert (found["served"], found["why"], found["unasked"]) == (True, why, ["told"])
    assert found["ways"][0]["steps"][0]["sent"] == first


def test_who_is_not_listed_takes_the_default(tmp_path: Path) -> None:
    config = loaded(tmp_path, TEXT.replace("[routing]", '[routing]\ndefault_backend = "b"'))
    assert explain(config, "x")["why"] == ['no backend lists "x": routing.default_backend takes it']


def test_every_setting_of_a_backend_is_told(of: Callable[..., dict[str, Any]]) -> None:
    assert list(of("chat")["backends"]) == ["a", "b", "told"]
    backends = of("fast")["backends"]
    assert len(backends["a"].pop("doors")["relayed"]) == 12
    assert backends == {
        "a": {
            "protocol": "openai",
            "asked": True,
            "endpoints": [{"url": "http://a:1", "weight": 1}, {"url": "http://a:2", "weight": 2}],
            "balance": "p2c",
            "retry": {"tries": 3, "on": ["connect", 500], "budget": 0.5},
            "timeouts": {"connect": 0.25, "first_byte": 0.3333, "idle": 90, "total": 300},
        }
    }


def test_the_text_says_all_of_it(of: Callable[..., dict[str, Any]]) -> None:
    lines = told(of("gpt-4", "3")).splitlines()
    doors = [line for line in lines if line.startswith(DOORS)]
    assert len(doors) == 8
    assert [line for line in lines if line not in doors] == [
        '"gpt-4"',
        '  because routing.model_mappings makes it the model "chat"',
        '  because [[routes]] with model = "chat" names it',
        "  because its targets serve it, whoever lists it",
        '  not known here: which models told would tell (models = "auto"); nobody was asked',
        "",
        'request id "3" always goes this way:',
        '  backend a, asked for "ma"',
        '  if that fails: backend b, asked for "mb"',
        '  if that fails: backend told, asked for "chat" [x-fallback-model: told]',
        '  if that fails: backend b, asked for "mb" [x-fallback-model: mb]',
        "",
        "backend a: openai, balance p2c",
        "  http://a:1, weight 1",
        "  http://a:2, weight 2",
        "  retry: 3 tries, on connect, 500, budget 0.5",
        "  timeouts: connect 250ms, first_byte 0.3333, idle 90s, total 5m",
        "",
        "backend b: openai, balance least_connections",
        "  http://b:1, weight 1",
        "  retry: 2 tries, on connect, reused, lost, 429, 502, 503, 504, budget 0.2",
        "  timeouts: connect 2s, first_byte 2m, idle 2m, total none",
        "",
        "backend told: vllm, balance least_connections, its models not known before it is asked",
        "  http://c:1, weight 1",
        "  retry: 2 tries, on connect, reused, lost, 429, 502, 503, 504, budget 0.2",
        "  timeouts: connect 2s, first_byte 2m, idle 2m, total none",
    ]
    assert "95.0% of the calls, by request id:\n" in told(of("canary"))
    assert '\n  backend a, asked for "ma" and backend b, asked for "ma" (balance, retry and timeouts of a)\n' in told(
        of("ma")
    )


@pytest.mark.parametrize(
    ("more", "doors"),
    [
        (
            "protocol = 'anthropic'",
            [
                "relayed untouched: /v1/messages, /v1/messages/count_tokens",
                "translated, in the dialect of anthropic: "
                "/api/chat, /api/generate, /v1/chat/completions, /v1/responses",
            ],
        ),
        (
            "native = ['/v1/chat/completions']",
            [
                "relayed untouched: /v1/chat/completions",
                "translated, in the dialect of openai: /api/chat, /api/generate, /v1/messages, /v1/responses",
                "estimated here: /v1/messages/count_tokens",
            ],
        ),
        (
            "protocol = 'ollama'\ncapabilities = ['embeddings']",
            [
                "relayed untouched: /api/embed, /api/embeddings",
                "translated, in the dialect of ollama: /v1/embeddings",
            ],
        ),
    ],
)
def test_it_says_which_doors_are_relayed_and_which_translated(tmp_path: Path, more: str, doors: list[str]) -> None:
    text = f"[[backends]]\nname = 'a'\nendpoints = ['http://a:1']\nmodels = ['m']\n{more}\n"
    lines = told(explain(loaded(tmp_path, KEYED + text), "m")).splitlines()
    assert lines[-len(doors) :] == [f"  {door}" for door in doors]


@pytest.fixture
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment of ours, and whoever looks for a peer fails."""
    monkeypatch.setattr("os.environ", {})
    for name in ("socket", "getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, lambda *args, **more: pytest.fail("somebody was asked"))


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize(("model", "status"), [("chat", 0), ("p-9", 0), ("nobody", 1), ("", 1)])
def test_its_status_says_whether_somebody_serves_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, status: int
) -> None:
    path = written(tmp_path, TEXT)
    assert main(["check", "-c", path, "--explain", model]) == status
    text = capsys.readouterr().out
    assert text.startswith(f'"{model}"' + (": nobody serves it" if status else "") + "\n")
    assert main(["check", "-c", path, "--explain", model, "--json"]) == status
    assert json.loads(capsys.readouterr().out)["served"] is (status == 0)


@pytest.mark.usefixtures("_alone")
def test_a_bad_configuration_is_not_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, TEXT.replace('targets = ["a", "b"]', 'targets = ["x"]'))
    assert main(["check", "-c", path, "--explain", "chat"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "routes[chat].targets[0]" in err


@pytest.mark.usefixtures("_alone")
def test_a_file_that_no_backend_can_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "no certificate", "ca.pem")
    text = KEYED + f"[[backends]]\nname='a'\nendpoints=['https://a']\nmodels=['m']\ntls.ca_file='{file}'\n"
    path = written(tmp_path, text)
    assert main(["check", "-c", path, "--explain", "m"]) == 2
    assert capsys.readouterr().err.startswith(f"{path}: backends[a].tls: ")


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("options", [["--json"], ["--request-id", "x"], ["--json", "--print"]])
def test_options_that_belong_to_it_are_refused_without_it(
    capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(["check", *options]) == 2
    assert "belong to --explain" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["not an id", "x" * 129, "a/b"])
def test_an_id_that_the_gateway_would_replace_says_nothing_of_the_way(tmp_path: Path, given: str) -> None:
    backends = "".join(f'[[backends]]\nname = "{name}"\nendpoints = ["http://{name}:1"]\n' for name in "ab")
    config = loaded(tmp_path, KEYED + backends + '[[routes]]\nmodel = "m"\ntargets = ["a", "b"]\n')
    found = explain(config, "m", given)
    assert found["request_id"] == "" and len(found["ways"]) == 2
    assert "would not take" in told(found) and "always goes" not in told(found)
    assert len(explain(config, "m", "x" * 128)["ways"]) == 1
