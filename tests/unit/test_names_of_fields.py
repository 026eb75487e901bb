"""What a backend has no word for is refused under the name that the client gave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.presets import PRESETS
from gateway.routing.endpoints import INFERENCE, Endpoint
from protocols.dialect import Dropped, Terms, Unmappable, renamed

DOORS = {door.path: door for door in INFERENCE}
HI = [{"role": "user", "content": "hi"}]
URL = "https://example.org/cat.png"
IMAGE = {"type": "image", "source": {"type": "url", "url": URL}}
DOCUMENT = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}

#: door, the client's request, the backend's protocol, the field that the client is told.
CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "an image's URL": (
        "/v1/messages",
        {"max_tokens": 5, "messages": [{"role": "user", "content": [IMAGE]}]},
        "ollama",
        "messages.content.source.url",
    ),
    "an image's URL in an item": (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]},
        "ollama",
        "input.content.image_url",
    ),
    "a document": (
        "/v1/messages",
        {"max_tokens": 5, "messages": [{"role": "user", "content": [DOCUMENT]}]},
        "ollama",
        "messages.content.type",
    ),
    "a file of another kind": (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "data:text/csv;base64,YQ=="}]}]},
        "anthropic",
        "input.content.file_data",
    ),
    "a stop": ("/api/chat", {"messages": HI, "options": {"stop": ["a", " "]}}, "anthropic", "options.stop[1]"),
    "a message": ("/api/chat", {"messages": [{"role": "system", "content": "x"}]}, "anthropic", "messages"),
    "an item": ("/v1/responses", {"input": [{"role": "system", "content": "x"}]}, "anthropic", "input"),
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
    assert renamed("messagess", {"messages": "input"}) == "messagess"


def test_the_longest_place_that_is_known_names_what_lies_within_and_keeps_its_indexes() -> None:
    names = {"messages": "input", "messages[].content[]": "messages[].images", "stop[]": "options.stop[]"}
    assert renamed("messages[3].content[1].image_url.url", names) == "messages[3].images"
    assert renamed("messages[3].content", names) == "input"
    assert renamed("stop[12]", names) == "options.stop[12]"
    part = Unmappable("'messages[3].content[1].type' is odd", "messages[3].content[1].type").renamed(names)
    assert (part.message, part.param) == ("A part of 'messages[3].images' is odd", "messages[3].images")
    assert Unmappable("it is odd").renamed(names).message == "It is odd"


@pytest.mark.parametrize("door", [door for door in INFERENCE if door.client is not None], ids=repr)
def test_a_clients_name_has_no_more_indexes_than_the_place_that_it_names(door: Endpoint) -> None:
    names: Mapping[str, str] = getattr(door.client, "names", {})
    assert all(name.count("[]") <= place.count("[]") for place, name in names.items())


def test_the_older_embeddings_have_a_prompt() -> None:
    make = DOORS["/api/embeddings"].client
    assert make is not None
    client = make({"model": "m", "prompt": "x"}, False, "ab", 1, Dropped(False))
    assert Unmappable("'input' is odd", "input").renamed(client.names).message == "'prompt' is odd"
