"""Whatever is said to a side, it answers within its rules: what is wrong has one name, and memory stays bounded."""

from __future__ import annotations

import copy
import json
import re
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.dialect import Broken, Dropped, ErrorObject, JsonObject, Terms, Unmappable
from protocols.pieces import Malformed
from tests.unit import drawn
from tests.unit.configuring import STEADY
from tests.unit.conforming import (
    BACKENDS,
    CLIENTS,
    CREATED,
    ID,
    Backend,
    Client,
    Transcript,
    each,
    every_backend,
    every_streaming_backend,
    every_streaming_client,
    hub_of,
)
from tests.unit.meanings import assembled, heard, said

#: There are many transcripts.
SOME = settings(STEADY, max_examples=8)
STREAMING = {name: backend for name, backend in BACKENDS.items() if backend.streams}
CALLING = {name: backend for name, backend in STREAMING.items() if backend.endless}
every_request = each("request.json", CLIENTS)
every_answer = each("answer.json", BACKENDS)
every_stream = each("stream", STREAMING)


@every_request
def test_a_request_that_was_spoiled_is_served_or_refused(adapter: Client, transcript: Transcript) -> None:
    """By its own side, and by each side that a backend may have."""
    fields = transcript.json

    @SOME
    @given(drawn.spoiled(fields), st.booleans())
    def holds(spoiled: Any, lenient: bool) -> None:
        if isinstance(spoiled, dict):
            ask_everywhere(adapter, orjson.loads(json.dumps(spoiled)), lenient)

    holds()


def ask_everywhere(adapter: Client, fields: JsonObject, lenient: bool) -> None:
    try:
        side = adapter.open(fields, adapter.streams, lenient)
    except Unmappable:
        return
    hub = side.hub
    before = copy.deepcopy(hub)
    for backend in (one for one in BACKENDS.values() if one.task is side.task):
        try:
            ask = backend.side(hub, backend.streams, ID, CREATED, Terms(), Dropped(lenient)).ask("big")
        except Unmappable:
            continue
        finally:
            assert hub == before, "nobody changes the hub's request"
        assert ask.path.startswith(b"/")
        orjson.loads(ask.body)


@every_answer
def test_an_answer_that_was_spoiled_is_understood_or_malformed(adapter: Backend, transcript: Transcript) -> None:
    """And what is understood can be told to the clients of each dialect."""
    hub = hub_of(adapter, transcript)
    for spoiled in drawn.each_spoiled(transcript.json):
        try:
            answer = adapter.open(hub, stream=False).answer(json.dumps(spoiled).encode())
        except Malformed:
            continue
        for client in clients_of(adapter):
            with suppress(Malformed):
                assert orjson.loads(client.open(stream=False).answer(answer))


@every_stream
def test_a_stream_with_one_spoiled_value_is_understood_malformed_or_broken(
    adapter: Backend, transcript: Transcript
) -> None:
    parts, hub = adapter.written.split(transcript.bytes), hub_of(adapter, transcript)
    seen = set()
    for at, part in enumerate(parts):
        before, value, after = json_in(part)
        shape = repr(re.sub(rb'"(?:[^"\\]|\\.)*"(?!:)|[-0-9.]+', b"", part))
        if value is None or shape in seen:
            continue
        seen.add(shape)
        for spoiled in drawn.each_spoiled(value):
            part = before + json.dumps(spoiled).encode() + after
            tell_everybody(adapter, understood(adapter, hub, [*parts[:at], part, *parts[at + 1 :]]))


@every_stream
def test_a_stream_that_was_spoiled_is_understood_malformed_or_broken(adapter: Backend, transcript: Transcript) -> None:
    parts, hub = adapter.written.split(transcript.bytes), hub_of(adapter, transcript)

    @SOME
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(parts) - 1))
        told = [*parts[:at], *data.draw(st.sampled_from(SPOILS))(data, parts[at]), *parts[at + 1 :]]
        tell_everybody(adapter, understood(adapter, hub, told))

    holds()


def tell_everybody(adapter: Backend, chunks: list[JsonObject]) -> None:
    """What was understood keeps the hub's order, and can be told to the clients of each dialect."""
    assembled(chunks, ended=False)
    for client in clients_of(adapter):
        with suppress(Malformed):
            said(client.open(), chunks)


def json_in(part: bytes) -> tuple[bytes, Any, bytes]:
    """The JSON object in an event or a line (None: there is none), and what stands around it."""
    start, end = part.find(b"{"), part.rfind(b"}") + 1
    return (part[:start], json.loads(part[start:end]), part[end:]) if start >= 0 else (part, None, b"")


def understood(adapter: Backend, hub: JsonObject, told: list[bytes]) -> list[JsonObject]:
    """The chunks of a stream until it is refused."""
    side = adapter.open(hub)
    chunks: list[JsonObject] = []
    try:
        for part in told:
            chunks += side.feed(part)
        chunks += side.end()
    except (Malformed, Broken):
        pass
    return chunks


def _spoil_json(data: st.DataObject, part: bytes) -> list[bytes]:
    before, value, after = json_in(part)
    return [before + json.dumps(data.draw(drawn.spoiled(value))).encode() + after] if value is not None else [part]


def _spoil_bytes(data: st.DataObject, part: bytes) -> list[bytes]:
    at = data.draw(st.integers(0, len(part)))
    return [part[:at] + data.draw(st.binary(max_size=8)) + part[at + data.draw(st.integers(0, 8)) :]]


def _repeat(data: st.DataObject, part: bytes) -> list[bytes]:
    return [part] * data.draw(st.sampled_from([0, 2, 300]))


SPOILS = [_spoil_json, _spoil_json, _spoil_json, _spoil_bytes, _repeat]


def clients_of(backend: Backend) -> list[Client]:
    return [client for client in CLIENTS.values() if client.task is backend.task]


BYTES = st.lists(
    st.binary(max_size=20)
    | st.sampled_from(
        [b"data: ", b"event: error\n", b"{", b"}", b'"', b"[DONE]", b"\n\n", b"\xff", b"null", b"1e999", b"{}\n"]
    )
).map(b"".join)


@every_backend
@STEADY
@given(BYTES, st.integers(400, 599))
def test_any_bytes_are_an_error_an_answer_or_malformed(backend: Backend, body: bytes, status: int) -> None:
    side = backend.open(stream=False)
    error = side.error(status, body)
    assert isinstance(error, ErrorObject) and error.status >= 400 and error.message
    with pytest.raises(Malformed):
        side.answer(body)


@every_streaming_backend
@STEADY
@given(BYTES)
def test_any_bytes_are_no_stream(backend: Backend, body: bytes) -> None:
    side = backend.open()
    with pytest.raises((Malformed, Broken)):
        heard(side, [body])


@every_backend
@pytest.mark.parametrize(
    "body", [b"[" * 1_000_000, b'{"a":' * 1_000_000, b'{"choices":' + b"[" * 100_000, b'"' + b"\\" * 99]
)
def test_bombs_are_malformed(backend: Backend, body: bytes) -> None:
    side = backend.open(stream=False)
    assert side.error(500, body).status == 500
    with pytest.raises(Malformed):
        side.answer(body)


MIB = 1 << 20


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Asserts that no more than *size* bytes were held at any time within."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < size


@every_streaming_backend
def test_a_part_of_fifty_megabytes_is_refused_with_memory_bounded(backend: Backend) -> None:
    piece = b"x" * (64 << 10)
    endless = chain([backend.written.begun], repeat(piece, 50 * MIB // len(piece)))
    with at_most(4 * MIB), pytest.raises(Malformed):
        heard(backend.open(), endless)


@pytest.mark.parametrize("backend", CALLING.values(), ids=CALLING)
def test_arguments_that_never_end_are_not_collected_without_end(backend: Backend) -> None:
    opening, piece = backend.endless or (b"", b"")
    hold_bounded(backend.open().feed, [opening], piece)


@every_streaming_client
def test_calls_that_interleave_without_end_are_not_collected_without_end(client: Client) -> None:
    def call(index: int, **call: Any) -> JsonObject:
        delta = {"tool_calls": [{"index": index, **call}]}
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    opened = [call(at, id=f"c{at}", type="function", function={"name": "f", "arguments": ""}) for at in range(2)]
    hold_bounded(client.open().feed, opened, call(1, function={"arguments": "x" * 4000}))


def hold_bounded(feed: Callable[[Any], object], opening: list[Any], piece: Any) -> None:
    """Feed 16 MiB; Malformed is fine, holding it is not."""
    with at_most(4 * MIB):
        try:
            for part in opening:
                feed(part)
            for _ in range(16 * MIB // 4000):
                feed(piece)
        except Malformed:
            pass
