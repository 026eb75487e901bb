"""The transcripts of tests/data/responses: what the OpenAI SDK sent, the chats these are, and a stream's very bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protocols.dialect import Dropped
from protocols.openai.responses.client import ResponsesClient
from tests.unit.responding import events

DATA = Path(__file__).parents[1] / "data" / "responses"
NAMES = sorted(path.name.partition(".")[0] for path in DATA.glob("*.request.json"))


def load(name: str, kind: str) -> Any:
    return json.loads((DATA / f"{name}.{kind}.json").read_text())


def open_transcript(name: str) -> ResponsesClient:
    fields = load(name, "request")
    return ResponsesClient(fields, bool(fields.get("stream")), "ab12", 7, Dropped(lenient=False))


@pytest.mark.parametrize("name", NAMES)
def test_a_request_of_the_sdk_is_the_chat_that_it_means(name: str) -> None:
    assert open_transcript(name).hub == load(name, "hub")


def test_chunks_become_the_events_byte_for_byte() -> None:
    client = open_transcript("responses_stream")
    heard = b"".join(map(client.feed, load("responses_stream", "chunks"))) + client.end()
    told = (DATA / "responses_stream.stream").read_bytes()
    assert events(heard) == events(told)
    assert heard == told
