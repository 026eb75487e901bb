"""A run of text is said as if each of its chunks had been taken apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.presets import PRESETS
from gateway.routing.endpoints import INFERENCE
from protocols.dialect import BackendSide, ClientSide, Dropped, Terms, TextFeeder
from protocols.text_run import TextRun
from tests.unit.configuring import STEADY

DOORS = {door.path: door for door in INFERENCE}
MESSAGES = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": MESSAGES, "stream": True},
    "/v1/messages": {"model": "m", "max_tokens": 9, "messages": MESSAGES, "stream": True},
    "/v1/responses": {"model": "m", "input": "hi", "stream": True},
    "/api/chat": {"model": "m", "messages": MESSAGES},
    "/api/generate": {"model": "m", "prompt": "hi"},
}
pairs = pytest.mark.parametrize("backend", ["openai", "anthropic"])
doors = pytest.mark.parametrize("path", REQUESTS)
#: Among them quotes, escapes, what some readers take for the end of a line, and what stands elsewhere in a chunk.
TEXTS = st.lists(
    st.one_of(st.text(min_size=1, max_size=6), st.sampled_from(["m", "\u2028", "\x85", '"', "\\", "\n", "é"]))
)


def openai_chunk(text: str, ascii: bool) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk, ensure_ascii=ascii).encode("utf-8", "surrogatepass") + b"\n\n"


def anthropic_chunk(text: str, ascii: bool) -> bytes:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    data = json.dumps(event, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    return b"event: content_block_delta\ndata: " + data + b"\n\n"


CHUNKS = {"openai": openai_chunk, "anthropic": anthropic_chunk}
OPENING = {
    "openai": b"",
    "anthropic": (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":'
        b'"assistant","content":[],"model":"m","stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":2,"output_tokens":1}}}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
    ),
}


def sides(path: str, backend: str) -> tuple[ClientSide, BackendSide]:
    maker = DOORS[path].client
    assert maker is not None
    client = maker(dict(REQUESTS[path]), True, "ab12", 1, Dropped(False))
    side = PRESETS[backend].sides[client.task](client.hub, True, "ab12", 1, Terms(), Dropped(False))
    return client, side


class Relay:
    """A translated stream, as the gateway's sink relays it; it counts the reads that were not taken apart."""

    def __init__(self, path: str, backend: str, *, runs: bool) -> None:
        self.client, self.side = sides(path, backend)
        self.run = TextRun(says=self.client.repeats_text) if runs else None
        self.spared = 0

    def feed(self, payload: bytes) -> bytes:
        run = self.run
        text = run.text(payload) if run is not None else None
        if run is not None and text is not None:
            self.spared += 1
            if self.client.repeats_text:
                return run.say(text)
            assert isinstance(self.client, TextFeeder)
            return self.client.feed_text(text)
        heard = self.side.feed(payload)
        said = b"".join(map(self.client.feed, heard))
        if run is not None:
            run.learn(payload, heard, said)
        return said


def values(said: bytes) -> list[Any]:
    """The data of events or lines, decoded: a text may be escaped in two ways."""
    lines = said.split(b"\n")
    return [json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith((b"data: {", b"{"))]


@pairs
@doors
@STEADY
@given(texts=TEXTS, ascii=st.booleans())
def test_a_run_says_what_its_chunks_say(path: str, backend: str, texts: list[str], ascii: bool) -> None:
    spared, whole = Relay(path, backend, runs=True), Relay(path, backend, runs=False)
    for payload in (OPENING[backend], *(CHUNKS[backend](text, ascii) for text in texts)):
        if payload:
            assert values(spared.feed(payload)) == values(whole.feed(payload))


@pairs
@doors
def test_the_third_chunk_of_a_run_is_not_taken_apart(path: str, backend: str) -> None:
    relay = Relay(path, backend, runs=True)
    if OPENING[backend]:
        relay.feed(OPENING[backend])
    for text in ("one", "two", "three", "four", "five"):
        relay.feed(CHUNKS[backend](text, False))
    assert relay.spared >= 2


@pairs
def test_half_a_chunk_ends_the_run(backend: str) -> None:
    relay, whole = Relay("/v1/messages", backend, runs=True), Relay("/v1/messages", backend, runs=False)
    chunk = CHUNKS[backend]("text", False)
    for payload in (
        OPENING[backend] or chunk,
        chunk,
        chunk,
        chunk,
        chunk[:30],
        chunk[30:],
        chunk,
        chunk[:-1],
        b"\n",
        chunk,
    ):
        assert relay.feed(payload) == whole.feed(payload)


@pytest.mark.parametrize(
    "text", [b'""', b'"\\ud83d"', b'"\x1f"', b'"a"b"', b'"\xff"', b'"\xc2\x85"', b'"\xe2\x80\xa8"', b"1"]
)
def test_what_is_no_plain_text_goes_the_whole_way(text: bytes) -> None:
    run = TextRun(says=True)
    for word in (b'"one"', b'"two"'):
        heard = [{"choices": [{"index": 0, "delta": {"content": json.loads(word)}, "finish_reason": None}]}]
        run.learn(b'{"content":' + word + b"}\n", heard, b"<" + word + b">")
    assert run.text(b'{"content":"three"}\n') == b'"three"'
    assert run.text(b'{"content":' + text + b"}\n") is None
