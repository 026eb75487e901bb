"""A hub chat request becomes what Anthropic's Messages API gets; what has no equivalent there is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protocols.anthropic.backend_side import MessagesBackend
from protocols.dialect import Dropped, Terms
from tests.unit.messages_asked import IMAGE, ask, chat, refused

DATA = Path(__file__).parents[1] / "data" / "anthropic"
NEW = "2026-10-21"


@pytest.mark.parametrize("path", sorted(DATA.glob("backend_*.hub.json")), ids=lambda path: path.name.partition(".")[0])
def test_each_transcribed_request_is_what_the_api_gets(path: Path) -> None:
    hub = json.loads(path.read_bytes())
    wanted = json.loads(path.with_name(path.name.replace(".hub.", ".request.")).read_bytes())
    assert ask(hub, model=hub["model"]) == (wanted, [])


def test_the_request_goes_to_messages_and_names_its_version() -> None:
    side = MessagesBackend(chat(), False, "ab12", 7, Terms(api_version=NEW), Dropped(False))
    asked = side.ask("claude")
    assert (asked.path, asked.lines) == (b"/v1/messages", b"anthropic-version: 2026-10-21\r\n")
    assert json.loads(asked.body)["model"] == "claude"
    assert json.loads(side.ask("another").body)["model"] == "another"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"max_completion_tokens": 5, "max_tokens": 6}, 5),
        ({"max_tokens": 6}, 6),
        ({"max_completion_tokens": None}, 77),
    ],
)
def test_the_newer_limit_counts_before_the_older_and_the_configured_one(fields: dict[str, Any], wanted: int) -> None:
    assert ask(chat(**fields), max_tokens=77)[0]["max_tokens"] == wanted


def test_sampling_is_forwarded_to_the_first_version_and_its_temperature_capped() -> None:
    fields, _ = ask(chat(temperature=0.5, top_p=0.9, top_k=40))
    assert (fields["temperature"], fields["top_p"], fields["top_k"]) == (0.5, 0.9, 40)
    assert "temperature" not in ask(chat(temperature=1.7))[0], "1 is the most there, and the default"


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_the_second_version_takes_no_sampling(name: str) -> None:
    assert refused(chat(**{name: 0.5}), api_version=NEW) == name
    fields, left = ask(chat(**{name: 0.5}), api_version=NEW, lenient=True)
    assert name not in fields
    assert left == [name]


@pytest.mark.parametrize("version", ["2023-06-01", NEW])
def test_sampling_that_is_the_default_is_never_sent(version: str) -> None:
    fields, left = ask(chat(temperature=1.0, top_p=1, top_k=-1), api_version=version)
    assert set(fields) == {"model", "max_tokens", "messages"}
    assert left == []


@pytest.mark.parametrize(
    ("choice", "parallel", "wanted"),
    [
        (None, None, None),
        (None, True, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"type": "function", "function": {"name": "f"}}, True, {"type": "tool", "name": "f"}),
    ],
)
def test_the_choice_of_tools_says_whether_many_may_be_called(choice: Any, parallel: Any, wanted: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "strict": False, "parameters": {}}}]
    fields, _ = ask(chat(tools=tools, tool_choice=choice, parallel_tool_calls=parallel))
    assert fields.get("tool_choice") == wanted
    assert fields["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]


def test_choices_among_no_tools_mean_nothing_but_one_that_wants_a_tool() -> None:
    fields, _ = ask(chat(tools=[], tool_choice="auto", parallel_tool_calls=False))
    assert set(fields) == {"model", "max_tokens", "messages"}
    assert refused(chat(tool_choice="required")) == "tool_choice"


@pytest.mark.parametrize(
    ("effort", "model", "fields"),
    [
        ("none", "claude-opus-4-6", {"thinking": {"type": "disabled"}}),
        ("minimal", "claude-opus-4-6", {"output_config": {"effort": "low"}}),
        ("max", "claude-opus-5", {"output_config": {"effort": "max"}}),
        ("medium", "claude-opus-4-5-20251101", {"output_config": {"effort": "medium"}}),
        ("medium", "claude-opus-4-1-20250805", {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
        ("high", "us.anthropic.claude-3-7-sonnet-v1:0", {"thinking": {"type": "enabled", "budget_tokens": 5000}}),
        ("medium", "claude-sonnet-4-20250514", {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
        (None, "claude-opus-4-6", {}),
    ],
)
def test_efforts_are_efforts_or_budgets_as_the_model_knows_them(effort: Any, model: str, fields: Any) -> None:
    asked, _ = ask(chat(reasoning_effort=effort, max_tokens=10000), model=model)
    assert {name: asked[name] for name in ("thinking", "output_config") if name in asked} == fields


@pytest.mark.parametrize("limit", [1, 1024, 1025, 2000])
def test_a_budget_leaves_room_for_an_answer(limit: int) -> None:
    asked, _ = ask(chat(reasoning_effort="high", max_tokens=limit), model="claude-haiku-4-5")
    assert asked.get("thinking") == ({"type": "enabled", "budget_tokens": 1024} if limit > 1024 else None)


def test_an_effort_and_a_schema_share_their_place() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    asked, _ = ask(chat(reasoning_effort="low", response_format=schema))
    assert asked["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}


@pytest.mark.parametrize("entry", ["\n", " "])
def test_a_stop_of_white_space_is_refused_or_left_out(entry: str) -> None:
    assert refused(chat(stop=entry)) == "stop"
    assert refused(chat(stop=["a", entry])) == "stop[1]"
    assert ask(chat(stop=["a", entry, ""]), lenient=True)[0]["stop_sequences"] == ["a"]


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_options": {"include_usage": True}, "store": True, "service_tier": "auto", "prompt_cache_key": "k"},
        {
            "n": 1,
            "logprobs": False,
            "top_logprobs": 0,
            "logit_bias": {},
            "presence_penalty": 0,
            "frequency_penalty": 0.0,
        },
        {
            "repetition_penalty": 1.0,
            "min_p": 0,
            "verbosity": "medium",
            "modalities": ["text"],
            "seed": None,
            "new": None,
        },
        {"response_format": {"type": "text"}, "stop": None, "tools": None, "metadata": {"run": "7"}},
    ],
)
def test_labels_hints_and_defaults_are_left_out_silently(fields: dict[str, Any]) -> None:
    asked, left = ask(chat(**fields))
    assert set(asked) == {"model", "max_tokens", "messages"}
    assert left == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n", True),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"1": 2}),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("repetition_penalty", 1.1),
        ("min_p", 0.1),
        ("seed", 0),
        ("verbosity", "low"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("functions", [{"name": "f"}]),
        ("an_unknown_field", False),
    ],
)
def test_what_changes_an_answer_and_has_no_equivalent_is_refused_or_left_out(name: str, value: Any) -> None:
    assert refused(chat(**{name: value})) == name
    asked, left = ask(chat(**{name: value}), lenient=True)
    assert set(asked) == {"model", "max_tokens", "messages"}
    assert left == [name]


def test_other_formats_tools_and_choices_are_refused_or_left_out() -> None:
    assert refused(chat(response_format={"type": "json_object"})) == "response_format.type"
    assert refused(chat(tools=[{"type": "custom", "custom": {"name": "f"}}])) == "tools[0].type"
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert refused(chat(tools=tools, tool_choice={"type": "allowed_tools"})) == "tool_choice"
    lenient, left = ask(chat(tools=tools, tool_choice={"type": "allowed_tools"}), lenient=True)
    assert (lenient.get("tool_choice"), left) == (None, ["tool_choice"])


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"user": "a", "safety_identifier": "b", "metadata": {"user_id": "c"}}, "a"),
        ({"safety_identifier": "b", "metadata": {"user_id": "c"}}, "b"),
        ({"metadata": {"user_id": "c", "else": "d"}}, "c"),
    ],
)
def test_who_the_call_is_for_is_told(fields: dict[str, Any], wanted: str) -> None:
    assert ask(chat(**fields))[0]["metadata"] == {"user_id": wanted}


@pytest.mark.parametrize(
    ("hub", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [{"role": 7}]}, "messages[0].role"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url.url"),
        ({"messages": [{"role": "system", "content": [IMAGE]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "tool", "tool_call_id": "", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
        ({"messages": [{"role": "assistant", "function_call": {}}]}, "messages[0].function_call"),
        ({"messages": [{"role": "assistant", "thinking_blocks": [{}]}]}, "messages[0].thinking_blocks[0].type"),
        (chat([{"type": "image_url", "image_url": {"url": "ftp://x"}}]), "messages[0].content[0].image_url.url"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(max_tokens=True), "max_tokens"),
        (chat(max_completion_tokens="7"), "max_completion_tokens"),
        (chat(temperature="hot"), "temperature"),
        (chat(stop=7), "stop"),
        (chat(stop=[7]), "stop[0]"),
        (chat(user=7), "user"),
        (chat(metadata=[]), "metadata"),
        (chat(tools=[{"type": "function"}]), "tools[0].function"),
        (chat(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
        (chat(tool_choice=7), "tool_choice"),
        (chat(tool_choice=[]), "tool_choice"),
        (chat(parallel_tool_calls=1), "parallel_tool_calls"),
        (chat(reasoning_effort="hard"), "reasoning_effort"),
        (chat(reasoning_effort=[]), "reasoning_effort"),
        (chat(response_format="json"), "response_format"),
        (chat(response_format={"type": "json_schema"}), "response_format.json_schema"),
    ],
)
def test_a_wrong_field_is_named(hub: dict[str, Any], param: str) -> None:
    assert refused(hub) == param
