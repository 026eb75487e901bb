"""Which backends may list one model together: those of one dialect, or any where a route says who serves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.configuring import KEYED, faults
from tests.unit.test_config_routes import backend, route


def spoken(name: str, protocol: str, models: str) -> str:
    return backend(name, models, f'protocol = "{protocol}"\n')


@pytest.mark.parametrize(
    ("models", "listed"), [('["m"]', '["x", "m"]'), ('["m"]', '[{{ m = "n" }}]'), ('["*"]', '["*"]')]
)
def test_a_model_in_two_dialects_needs_a_route(tmp_path: Path, models: str, listed: str) -> None:
    text = KEYED + spoken("a", "vllm", models) + spoken("b", "anthropic", listed)
    [fault] = faults(tmp_path, text)
    place = 1 if '"x"' in listed else 0
    model = "*" if "*" in listed else "m"
    assert fault == (
        f'gateway.toml: backends[b].models[{place}]: is "{model}", which "a" (vllm) lists too, in another dialect than '
        f'"b" (anthropic), expected a route with targets for it'
    )


def test_a_route_says_which_dialect_a_model_is_served_in(tmp_path: Path) -> None:
    text = KEYED + spoken("a", "openai", '["model"]') + spoken("b", "ollama", '["model"]')
    assert faults(tmp_path, text + route("targets = ['b']", "model")) == []
    assert faults(tmp_path, text + route("targets = ['a', 'b']", "mod*")) == []
    assert faults(tmp_path, text + '[routing]\nmodel_mappings = { model = "b" }\n') == []
    assert len(faults(tmp_path, text + route("fallbacks = ['b']", "model"))) == 1, "no targets"
    assert len(faults(tmp_path, text + route("targets = ['b']", "other"))) == 1, "another model"
    both = route("targets = ['b']", "mod*") + route("fallbacks = ['b']", "model")
    assert len(faults(tmp_path, text + both)) == 1, "its own entry holds"


def test_backends_of_one_dialect_list_a_model_together(tmp_path: Path) -> None:
    text = KEYED + spoken("a", "openai", '["m"]') + spoken("b", "groq", '["m"]') + spoken("c", "llamacpp", '["m"]')
    assert faults(tmp_path, text) == []
    text = KEYED + spoken("a", "openai", '["m"]') + spoken("b", "tgi", '["m"]') + "enabled = false\n"
    assert faults(tmp_path, text) == []
