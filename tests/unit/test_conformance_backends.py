"""What every backend's side keeps to, whatever it hears: each rule runs over each transcript of each adapter."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocols.dialect import Broken, ErrorObject, JsonObject
from protocols.pieces import Malformed
from tests.unit.conforming import (
    BACKENDS,
    DATA,
    Backend,
    Transcript,
    each,
    every_streaming_backend,
    hub_of,
    transcripts,
)
from tests.unit.meanings import assembled, heard, meaning

STREAMING = {name: backend for name, backend in BACKENDS.items() if backend.streams}
every_answer = each("answer.json", BACKENDS)
every_stream = each("stream", STREAMING, lambda one: not one.broken)
every_broken_stream = each("stream", STREAMING, lambda one: one.broken)
every_told_twice = each("stream", STREAMING, lambda one: one.sibling("answer.json") is not None)
every_error = pytest.mark.parametrize(
    ("adapter", "path"),
    [
        pytest.param(adapter, path, id=f"{name}-{path.name}")
        for name, adapter in BACKENDS.items()
        for path in sorted((DATA / adapter.dialect).glob("*.[45]??.json"))
    ],
)


def hear(adapter: Backend, transcript: Transcript, *pieces: bytes) -> list[JsonObject]:
    return heard(adapter.open(hub_of(adapter, transcript)), pieces)


def cuts(payload: bytes) -> Iterator[list[bytes]]:
    """Cut once at every byte, at all of them, and at random."""
    for at in range(1, len(payload)):
        yield [payload[:at], payload[at:]]
    yield [payload[at : at + 1] for at in range(len(payload))]
    dice = random.Random(7)
    for _ in range(20):
        places = sorted(dice.choices(range(len(payload) + 1), k=12))
        yield [payload[a:b] for a, b in zip([0, *places], [*places, len(payload)], strict=True)]


@every_answer
def test_an_answer_is_understood(adapter: Backend, transcript: Transcript) -> None:
    answer = adapter.open(hub_of(adapter, transcript), stream=False).answer(transcript.bytes)
    if adapter.streams:
        assert meaning(answer)["choices"]
    else:
        assert all(isinstance(number, float) for one in answer["data"] for number in one["embedding"])


@every_stream
def test_a_stream_is_understood(adapter: Backend, transcript: Transcript) -> None:
    assert meaning(assembled(hear(adapter, transcript, transcript.bytes)))["choices"]


@every_told_twice
def test_a_stream_tells_what_the_whole_answer_tells(adapter: Backend, transcript: Transcript) -> None:
    whole = transcript.sibling("answer.json")
    assert whole is not None
    answer = adapter.open(hub_of(adapter, transcript), stream=False).answer(whole.bytes)
    assert meaning(assembled(hear(adapter, transcript, transcript.bytes))) == meaning(answer)


@every_stream
def test_a_stream_is_the_same_however_it_is_cut(adapter: Backend, transcript: Transcript) -> None:
    whole = hear(adapter, transcript, transcript.bytes)
    hub = hub_of(adapter, transcript)
    for pieces in cuts(transcript.bytes):
        assert heard(adapter.open(hub), pieces) == whole


@every_stream
def test_a_stream_that_breaks_off_anywhere_is_malformed_unless_all_was_said(
    adapter: Backend, transcript: Transcript
) -> None:
    whole = meaning(assembled(hear(adapter, transcript, transcript.bytes)), usage=False)
    hub = hub_of(adapter, transcript)
    broken_off = 0
    for at in range(len(transcript.bytes)):
        side = adapter.open(hub)
        chunks = side.feed(transcript.bytes[:at])
        try:
            chunks += side.end()
        except Malformed:
            broken_off += 1
        else:
            assert meaning(assembled(chunks), usage=False) == whole, at
    assert broken_off > len(transcript.bytes) // 4


@every_stream
def test_an_error_at_any_border_breaks_a_stream(adapter: Backend, transcript: Transcript) -> None:
    parts = adapter.written.split(transcript.bytes)
    for at in range(len(parts)):
        side = adapter.open(hub_of(adapter, transcript))
        side.feed(b"".join(parts[:at]))
        with pytest.raises(Broken) as broken:
            side.feed(adapter.written.error)
        assert broken.value.error.status >= 400
        assert broken.value.error.message == "Out of order."


@every_broken_stream
def test_a_stream_that_ended_with_an_error_is_broken(adapter: Backend, transcript: Transcript) -> None:
    with pytest.raises(Broken):
        hear(adapter, transcript, transcript.bytes)


@every_streaming_backend
@pytest.mark.parametrize("payload", [b"", b"\n\n", b"\r\n"])
def test_an_empty_stream_is_malformed(backend: Backend, payload: bytes) -> None:
    side = backend.open()
    assert side.feed(payload) == []
    with pytest.raises(Malformed):
        side.end()


#: Names under which the dialects count tokens.
COUNTS = frozenset({"usage", "x_groq", "prompt_eval_count", "eval_count"})


def uncounted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: uncounted(inner) for name, inner in value.items() if name not in COUNTS}
    return [uncounted(inner) for inner in value] if isinstance(value, list) else value


@every_stream
def test_a_stream_without_usage_is_told_without(adapter: Backend, transcript: Transcript) -> None:
    lines = []
    for line in transcript.bytes.splitlines(keepends=True):
        at = line.find(b"{")
        told = uncounted(json.loads(line[at:])) if at in range(7) else None
        if told is not None and not (told.get("choices") == [] or told == {}):
            line = line[:at] + json.dumps(told).encode() + line[len(line.rstrip()) :]
        elif told is not None:
            line = b""
        lines.append(line)
    whole = meaning(assembled(hear(adapter, transcript, transcript.bytes)), usage=False)
    assert meaning(assembled(hear(adapter, transcript, *lines)), usage=False) == whole


@every_error
def test_an_error_is_told_in_its_own_words(adapter: Backend, path: Path) -> None:
    status = int(path.name.split(".")[-2])
    error = adapter.open().error(status, path.read_bytes())
    assert isinstance(error, ErrorObject)
    assert error.status >= 400
    assert any(text in error.message for text in texts_of(json.loads(path.read_bytes())) if len(text) > 9)


def texts_of(value: Any) -> list[str]:
    """All texts of a JSON value."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts_of(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts_of(inner)]
    return [value] if isinstance(value, str) else []


def test_each_adapter_has_transcripts() -> None:
    for name, adapter in BACKENDS.items():
        assert transcripts(adapter, "answer.json") or transcripts(adapter, "stream"), name
        assert not adapter.streams or transcripts(adapter, "stream"), name
