"""What a backend has no word for is refused under the name that the client gave it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.presets import PRESETS
from gateway.routing.endpoints import INFERENCE
from protocols.dialect import Dropped, Terms, Unmappable, renamed

DOORS = {door.path: door for door in INFERENCE}
HI = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}}

#: door, the client's request, the backend's protocol, the field that the client is told.
CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "an image's URL": (
        "/v1/messages",
        {"max_tokens": 5, "messages": [{"role": "user", "content": [IMAGE]}]},
        "ollama",
        "messages",
    ),
    "a seed": ("/api/chat", {"messages": HI, "options": {"seed": 7}}, "anthropic", "options.seed"),
    "a penalty": (
        "/api/generate",
        {"prompt": "hi", "options": {"presence_penalty": 1}},
        "anthropic",
        "options.presence_penalty",
    ),
    "a format": (
        "/v1/responses",
        {"input": "hi", "text": {"format": {"type": "json_object"}}},
        "anthropic",
        "text.format",
    ),
    "OpenAI's own": ("/v1/chat/completions", {"messages": HI, "seed": 7}, "anthropic", "seed"),
    "OpenAI's own places": (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
            ]
        },
        "anthropic",
        "messages[0].content[0].type",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_refused_field_has_the_name_that_the_client_gave_it(case: tuple[str, dict[str, Any], str, str]) -> None:
    path, request, protocol, expected = case
    make = DOORS[path].client
    assert make is not None
    client = make({"model": "m", **request}, False, "ab", 1, Dropped(False))
    with pytest.raises(Unmappable) as refused:
        PRESETS[protocol].sides[client.task](client.hub, False, "ab", 1, Terms(), Dropped(False))
    told = refused.value.renamed(client.names)
    assert told.param == expected
    assert f"'{expected}'" in told.message


def test_a_field_that_has_no_other_name_keeps_its_place() -> None:
    assert renamed("tools[1].type", {"messages": "input"}) == "tools[1].type"
    assert renamed("messages[3].content", {"messages": "input"}) == "input"
    assert renamed("", {"messages": "input"}) == ""
