"""Every side of every dialect, their transcripts, and what two ways of saying the same must have in common.

Owns the table of adapters: a new one is one line in `BACKENDS` or `CLIENTS`. The rules are in test_conformance_*.py;
what hypothesis draws is in `drawn`. A transcript is a file of tests/data/DIALECT: NAME.request.json as a client sends
it, NAME.answer.json and NAME.stream as a backend answers, NAME.STATUS.json an error. NAME begins with the adapter's
prefix. An answer and a stream of one name say the same. A stream whose name ends with _broken ends with an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from protocols.dialect import BackendSide, ClientSide, Dropped, JsonObject, Task, Terms
from protocols.openai.backend import ChatBackend, CompletionBackend, EmbeddingsBackend
from protocols.openai.client import ChatClient, CompletionClient, EmbeddingsClient
from protocols.sse import split_events

DATA = Path(__file__).parents[1] / "data"
ID = "0123456789abcdef"
CREATED = 1_700_000_000

#: The least that each task is asked with, in the hub's words.
HUBS: dict[Task, JsonObject] = {
    Task.CHAT: {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    Task.COMPLETION: {"model": "m", "prompt": "Hi"},
    Task.EMBEDDINGS: {"model": "m", "input": "Hi"},
}


@dataclass(frozen=True)
class Has:
    """What of an answer a dialect can say, beyond text, calls, their arguments and the counts of tokens."""

    choices: bool = True
    reasoning: bool = True
    refusal: bool = True
    call_ids: bool = True
    cached: bool = True
    finishes: tuple[str, ...] = ("stop", "length", "content_filter")


@dataclass(frozen=True)
class Wire:
    """How a dialect's streams are written."""

    #: The stream cut at its own borders.
    split: Callable[[bytes], list[bytes]]
    #: An error in the middle of a stream.
    error: bytes
    #: Bytes of a tool call's arguments, and the pieces that go before: sent again and again they never end.
    arguments: tuple[bytes, bytes] | None
    #: What begins a part that does not end.
    begun: bytes
    #: What is only where a stream was complete.
    done: bytes


def _events(*payloads: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in payloads)


def _openai_call(**call: Any) -> JsonObject:
    return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}


PIECE = "x" * 4000

WIRES = {
    "openai": Wire(
        split_events,
        b'data: {"error":{"message":"Out of order.","type":"server_error","param":null,"code":null}}\n\n',
        (
            _events(_openai_call(id="c", function={"name": "f", "arguments": ""})),
            _events(_openai_call(function={"arguments": PIECE})),
        ),
        b'data: {"choices":[{"index":0,"delta":{"content":"',
        b"[DONE]",
    ),
}


@dataclass(frozen=True)
class Backend:
    """A `BackendSide`; `client` is the side of its own dialect's clients, where there is one."""

    side: Callable[..., BackendSide]
    task: Task
    dialect: str
    prefix: str
    client: Callable[..., ClientSide] | None = None
    #: The dialect of its streams, where that is another one's.
    wire: str = ""
    streams: bool = True

    def open(self, hub: JsonObject | None = None, stream: bool = True, lenient: bool = True) -> BackendSide:
        return self.side(hub or HUBS[self.task], stream, ID, CREATED, Terms(), Dropped(lenient))

    @property
    def written(self) -> Wire:
        return WIRES[self.wire or self.dialect]

    @property
    def tells_calls(self) -> bool:
        return self.task is Task.CHAT


@dataclass(frozen=True)
class Client:
    """A `ClientSide`; `backend` is the side that reads what it writes, where there is one."""

    side: Callable[..., ClientSide]
    task: Task
    dialect: str
    prefix: str
    #: The least that it is asked with.
    fields: JsonObject
    backend: Callable[..., BackendSide] | None = None
    has: Has = Has()
    streams: bool = True

    def open(self, fields: JsonObject | None = None, stream: bool = True, lenient: bool = True) -> ClientSide:
        return self.side(fields or self.fields, stream, ID, CREATED, Dropped(lenient))

    def reader(self, stream: bool = True) -> BackendSide:
        assert self.backend is not None
        return self.backend(HUBS[self.task], stream, ID, CREATED, Terms(), Dropped(lenient=True))

    @property
    def written(self) -> Wire:
        return WIRES[self.dialect]


BACKENDS = {
    "openai chat": Backend(ChatBackend, Task.CHAT, "openai", "chat", ChatClient),
    "openai completion": Backend(CompletionBackend, Task.COMPLETION, "openai", "completion", CompletionClient),
    "openai embeddings": Backend(
        EmbeddingsBackend, Task.EMBEDDINGS, "openai", "embeddings", EmbeddingsClient, streams=False
    ),
}

ASKED = {"stream_options": {"include_usage": True}}
CLIENTS = {
    "openai chat": Client(ChatClient, Task.CHAT, "openai", "chat", {**HUBS[Task.CHAT], **ASKED}, ChatBackend),
    "openai completion": Client(
        CompletionClient, Task.COMPLETION, "openai", "completion", {**HUBS[Task.COMPLETION], **ASKED}, CompletionBackend
    ),
    "openai embeddings": Client(
        EmbeddingsClient,
        Task.EMBEDDINGS,
        "openai",
        "embeddings",
        HUBS[Task.EMBEDDINGS],
        EmbeddingsBackend,
        streams=False,
    ),
}

every_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
every_streaming_backend = pytest.mark.parametrize(
    "backend",
    [one for one in BACKENDS.values() if one.streams],
    ids=[name for name, one in BACKENDS.items() if one.streams],
)
every_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
every_streaming_client = pytest.mark.parametrize(
    "client",
    [one for one in CLIENTS.values() if one.streams],
    ids=[name for name, one in CLIENTS.items() if one.streams],
)


@dataclass(frozen=True)
class Transcript:
    """One file of a dialect's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name.partition(".")[0]

    @property
    def bytes(self) -> bytes:
        return self.path.read_bytes()

    @property
    def json(self) -> Any:
        return json.loads(self.bytes)

    @property
    def broken(self) -> bool:
        return self.name.endswith("_broken")

    def sibling(self, kind: str) -> Transcript | None:
        path = self.path.with_name(f"{self.name}.{kind}")
        return Transcript(path) if path.exists() else None


def transcripts(adapter: Backend | Client, kind: str) -> list[Transcript]:
    """What *adapter* has of *kind*: "request.json", "answer.json", "stream"."""
    return [Transcript(path) for path in sorted((DATA / adapter.dialect).glob(f"{adapter.prefix}_*.{kind}"))]


def each(
    kind: str, adapters: dict[str, Any], want: Callable[[Transcript], bool] = lambda _: True
) -> pytest.MarkDecorator:
    """Parametrize a test by `adapter` and `transcript`: every one of *kind* that *want* takes."""
    pairs = [
        pytest.param(adapter, one, id=f"{name}-{one.name}")
        for name, adapter in adapters.items()
        for one in transcripts(adapter, kind)
        if want(one)
    ]
    return pytest.mark.parametrize(("adapter", "transcript"), pairs)


def hub_of(backend: Backend, transcript: Transcript) -> JsonObject:
    """The hub's request that *transcript* answers: told with it, or made from its dialect's request."""
    told = transcript.sibling("hub.json")
    if told is not None:
        hub: JsonObject = told.json
        return hub
    request = transcript.sibling("request.json")
    if request is None or backend.client is None:
        return HUBS[backend.task]
    return backend.client(request.json, False, ID, CREATED, Dropped(lenient=True)).hub


def heard(side: BackendSide, pieces: Iterable[bytes]) -> list[JsonObject]:
    """All chunks of the stream that *pieces* are, its end included."""
    return [chunk for piece in pieces for chunk in side.feed(piece)] + side.end()


def said(side: ClientSide, chunks: Iterable[JsonObject]) -> bytes:
    """The whole stream that *chunks* become."""
    return b"".join(side.feed(chunk) for chunk in chunks) + side.end()


def assembled(chunks: Iterable[JsonObject], ended: bool = True) -> JsonObject:
    """The whole answer that *chunks* tell. Asserts what every reader of the hub's streams relies on."""
    choices: dict[int, JsonObject] = {}
    answer: JsonObject = {}
    for chunk in chunks:
        assert isinstance(chunk["choices"], list)
        if chunk.get("usage") is not None:
            answer["usage"] = chunk["usage"]
        for piece in chunk["choices"]:
            choice = choices.setdefault(piece.get("index", 0), {"message": {}, "text": "", "finish_reason": None})
            assert choice["finish_reason"] is None, "nothing follows a finish reason"
            _add(choice, piece)
    if ended:
        assert all(choice["finish_reason"] is not None for choice in choices.values()), "a choice without an end"
    answer["choices"] = [{**choices[index], "index": index} for index in sorted(choices)]
    return answer


def _add(choice: JsonObject, piece: JsonObject) -> None:
    message = choice["message"]
    delta = piece.get("delta", {})
    for name in ("content", "reasoning_content", "refusal"):
        if delta.get(name):
            message[name] = message.get(name, "") + delta[name]
    message.setdefault("thinking_blocks", []).extend(delta.get("thinking_blocks") or ())
    calls = message.setdefault("tool_calls", [])
    for call in delta.get("tool_calls") or ():
        assert 0 <= call["index"] <= len(calls), "calls open in the order of their indexes"
        if call["index"] == len(calls):
            assert call["id"] and call["function"]["name"], "a call opens with its id and its name"
            calls.append({"id": call["id"], "function": {"name": call["function"]["name"], "arguments": ""}})
        calls[call["index"]]["function"]["arguments"] += call["function"].get("arguments") or ""
    choice["text"] += piece.get("text") or ""
    for name in ("finish_reason", "stop_reason"):
        if piece.get(name) is not None:
            choice[name] = piece[name]


def meaning(answer: JsonObject, has: Has | None = None, usage: bool = True) -> JsonObject:
    """What of *answer* no way through a dialect may change."""
    has = has or Has()
    return {
        "choices": [_meaning_of_choice(choice, has) for choice in answer["choices"]],
        "usage": _meaning_of_usage(answer.get("usage"), has) if usage else None,
    }


def _meaning_of_choice(choice: JsonObject, has: Has) -> JsonObject:
    message = choice.get("message") or {}
    calls = message.get("tool_calls") or ()
    return {
        "text": choice.get("text") or "",
        "content": message.get("content") or "",
        "reasoning": (message.get("reasoning_content") or "") if has.reasoning else "",
        "refusal": (message.get("refusal") or "") if has.refusal else "",
        "calls": [
            (call["id"] if has.call_ids else "", call["function"]["name"], _parsed(call["function"]["arguments"]))
            for call in calls
        ],
        "finish": choice["finish_reason"],
    }


def _parsed(arguments: str) -> Any:
    return json.loads(arguments or "{}")


def _meaning_of_usage(usage: JsonObject | None, has: Has) -> JsonObject | None:
    if usage is None:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "prompt": usage.get("prompt_tokens", 0),
        "completion": usage.get("completion_tokens", 0),
        "cached": cached if has.cached else 0,
    }
