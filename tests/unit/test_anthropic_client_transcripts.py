"""The transcripts client_* of tests/data/anthropic: what a client sends and gets, and what the hub says for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from protocols.anthropic.client import MessagesClient
from protocols.dialect import Dropped
from protocols.sse import EventReader

DATA = Path(__file__).parents[1] / "data" / "anthropic"
ID = "0123456789abcdef"
NAMES = sorted(path.name.removesuffix(".request.json") for path in DATA.glob("client_*.request.json"))
STREAMS = sorted(path.name.removesuffix(".stream") for path in DATA.glob("client_*.stream"))
ANSWERS = sorted(path.name.removesuffix(".answer.json") for path in DATA.glob("client_*.answer.json"))


def load(name: str) -> Any:
    return orjson.loads((DATA / name).read_bytes())


def open_side(name: str) -> MessagesClient:
    fields = load(f"{name}.request.json")
    return MessagesClient(fields, bool(fields.get("stream")), ID, 1_700_000_000, Dropped(lenient=False))


def events_of(payload: bytes) -> list[Any]:
    reader = EventReader()
    return [(event.name, orjson.loads(event.data)) for event in reader.feed(payload) + reader.end()]


def without_zeros(value: Any) -> Any:
    """*value* without the counts of 0 that the vendor's examples leave out."""
    if isinstance(value, dict):
        shown = {key: without_zeros(inner) for key, inner in value.items()}
        return {key: inner for key, inner in shown.items() if not (key.startswith("cache_") and inner == 0)}
    return [without_zeros(inner) for inner in value] if isinstance(value, list | tuple) else value


def test_there_are_transcripts_and_each_is_explained() -> None:
    sources = (DATA / "SOURCES.md").read_text()
    assert STREAMS
    assert ANSWERS
    assert {*STREAMS, *ANSWERS} < set(NAMES)
    assert not [name for name in NAMES if name not in sources]


@pytest.mark.parametrize("name", NAMES)
def test_a_request_is_said_in_the_hubs_words(name: str) -> None:
    assert open_side(name).hub == load(f"{name}.hub.json")


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_the_documented_message(name: str) -> None:
    body = open_side(name).answer(load(f"{name}.completion.json"))
    assert without_zeros(orjson.loads(body)) == load(f"{name}.answer.json")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_documented_sequence_of_events(name: str) -> None:
    side = open_side(name)
    payload = b"".join([side.feed(chunk) for chunk in load(f"{name}.chunks.json")]) + side.end()
    ours = events_of(payload)
    documented = events_of((DATA / f"{name}.stream").read_bytes())
    for (our_name, our_data), (their_name, their_data) in zip(ours, documented, strict=True):
        assert our_name == their_name
        if our_data["type"] == "message_delta" and "input_tokens" not in their_data["usage"]:
            del our_data["usage"]["input_tokens"]  # the vendor may leave it out, and says it in its newer answers
        assert without_zeros(our_data) == their_data
