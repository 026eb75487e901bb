"""A raw prompt of Ollama's clients that sets no num_predict: no limit, and never the 16 tokens of a completion."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.config.schema import Backend, Protocol
from gateway.presets import speech_of
from protocols.dialect import Dropped, JsonObject, Task
from protocols.ollama.generate_client import GenerateClient
from protocols.openai.client import CompletionClient

#: Where a backend says nothing of it.
NUMBER = 4096


def asked(protocol: Protocol, hub: JsonObject, **more: Any) -> JsonObject:
    """What a backend of *protocol* is asked."""
    backend = Backend(name="b", protocol=protocol, endpoints=("http://127.0.0.1:1",), **more)
    speech = speech_of(backend)
    side = speech.sides[Task.COMPLETION](hub, False, "ab", 1, speech.terms, Dropped(False))
    body = json.loads(side.ask("n").body)
    assert isinstance(body, dict)
    return body


def raw(**options: Any) -> JsonObject:
    given = {"model": "m", "prompt": "x", "raw": True, "options": options}
    return GenerateClient(given, False, "ab", 1, Dropped(False)).hub


def completion(**fields: Any) -> JsonObject:
    return CompletionClient({"model": "m", "prompt": "x", **fields}, False, "ab", 1, Dropped(False)).hub


@pytest.mark.parametrize("options", [{}, {"num_predict": -1}, {"num_predict": None}])
@pytest.mark.parametrize("protocol", ["vllm", "llamacpp"])
def test_no_limit_is_said_where_it_can_be(protocol: Protocol, options: dict[str, Any]) -> None:
    body = asked(protocol, raw(**options))
    assert body["max_tokens"] is None


@pytest.mark.parametrize("options", [{}, {"num_predict": -1}, {"num_predict": None}])
@pytest.mark.parametrize("protocol", ["openai", "together", "sglang", "litellm", "mock"])
def test_the_backends_max_tokens_stand_for_it_elsewhere(protocol: Protocol, options: dict[str, Any]) -> None:
    assert asked(protocol, raw(**options))["max_tokens"] == NUMBER
    assert asked(protocol, raw(**options), max_tokens=77)["max_tokens"] == 77


def test_ollama_and_tgi_have_no_limit_where_none_is_said() -> None:
    assert "options" not in asked("ollama", raw())
    assert "max_new_tokens" not in asked("tgi", raw())["parameters"]


@pytest.mark.parametrize("protocol", ["openai", "vllm"])
def test_a_limit_is_kept(protocol: Protocol) -> None:
    assert asked(protocol, raw(num_predict=5))["max_tokens"] == 5


@pytest.mark.parametrize("fields", [{}, {"max_tokens": None}])
@pytest.mark.parametrize("protocol", ["openai", "vllm"])
def test_a_completion_of_openais_clients_keeps_the_default_that_openai_promises(
    protocol: Protocol, fields: dict[str, Any]
) -> None:
    assert "max_tokens" not in asked(protocol, completion(**fields))
    assert asked("tgi", completion(**fields))["parameters"]["max_new_tokens"] == 16
