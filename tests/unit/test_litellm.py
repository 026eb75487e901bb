"""The litellm backend over a package that is played: what it reports to an attempt, and when it stops."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import Kind, Retry
from gateway.upstream.litellm import LitellmBackend
from protocols.openai.body import decode_fields
from tests.unit.test_mock import CHAT, HELLO, Recorder

URL = "litellm://openai/big?api_base=http%3A%2F%2F127.0.0.1%3A1%2Fv1"
Play = Callable[[LitellmBackend], Awaitable[None]]


class Said:
    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told

    def model_dump(self, exclude_none: bool) -> dict[str, Any]:
        return json.loads(json.dumps(self._told))  # type: ignore[no-any-return]  # what it was


def chunk(text: str) -> Said:
    return Said({"id": "1", "choices": [{"index": 0, "delta": {"content": text}}]})


class Stream:
    """A stream of the SDK: *parts* are texts, or what it raises; then it waits for `more` where *stalls*."""

    def __init__(self, *parts: str | Exception, stalls: bool = False) -> None:
        self.parts = parts
        self.stalls = stalls
        self.asked = 0
        self.waiting = asyncio.Event()
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[Said]:
        for part in self.parts:
            self.asked += 1
            if isinstance(part, Exception):
                raise part
            yield chunk(part)
        if self.stalls:
            self.waiting.set()
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed = True


class Broken(Exception):
    status_code = 503
    message = "litellm.ServiceUnavailableError: busy"


def make_call(body: dict[str, Any], path: str = CHAT, lines: bytes = b"") -> Any:
    raw = json.dumps(body).encode()
    return SimpleNamespace(
        endpoint=SimpleNamespace(path=path),
        request=SimpleNamespace(forward=[lines]),
        stream=bool(body.get("stream")),
        fields=decode_fields(raw),
        translation=None,
    )


def join_imports() -> None:
    """The threads that import have nothing more to do, and may not have ended yet."""
    for thread in threading.enumerate():
        if thread.name == "import-litellm":
            thread.join(5)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Play], list[dict[str, Any]]]:
    """Run a play over a package whose answer is made by *answer*; returns what the package was asked."""

    def run(answer: Callable[[], Any], scene: Play) -> list[dict[str, Any]]:
        asked = []

        async def acompletion(**arguments: Any) -> Any:
            asked.append(arguments)
            return answer()

        package = SimpleNamespace(acompletion=acompletion)
        monkeypatch.setattr(importlib, "import_module", lambda name: package)

        async def main() -> None:
            backend = LitellmBackend("sdk", [URL], "secret")
            await scene(backend)
            await backend.close()
            assert not backend.busy

        asyncio.run(main())
        join_imports()
        return asked

    return run


async def ask(backend: LitellmBackend, body: dict[str, Any], **more: Any) -> Recorder:
    attempt = Recorder(URL)
    backend.begin(make_call(body, **more), attempt)
    await attempt.over.wait()
    return attempt


STREAM = HELLO | {"stream": True}


def test_a_stream_is_told_event_by_event_and_closed(play: Any) -> None:
    stream: list[Stream] = []

    def answer() -> Stream:
        stream.append(Stream("a", "b"))
        return stream[0]

    async def scene(backend: LitellmBackend) -> None:
        attempt = await ask(backend, STREAM)
        assert attempt.heard == ["sent", "head", "feed", "feed", "feed", "end"]
        assert attempt.payload.endswith(b"data: [DONE]\n\n")
        assert attempt.heads[0].is_event_stream

    asked = play(answer, scene)
    assert stream[0].closed
    assert asked[0]["model"] == "openai/big"
    assert (asked[0]["api_key"], asked[0]["api_base"]) == ("secret", "http://127.0.0.1:1/v1")
    assert (asked[0]["num_retries"], asked[0]["max_retries"]) == (0, 0)


def test_nothing_is_asked_for_while_it_is_paused(play: Any) -> None:
    streams: list[Stream] = []

    def answer() -> Stream:
        streams.append(Stream("a", "b", "c", "d"))
        return streams[0]

    async def scene(backend: LitellmBackend) -> None:
        attempt = Recorder(URL)

        def after(word: str) -> None:
            if word == "feed" and attempt.payload.count(b"\n\n") == 1:
                attempt.exchange.pause()

        attempt.after = after
        backend.begin(make_call(STREAM), attempt)
        while not attempt.payload:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (attempt.payload.count(b"\n\n"), streams[0].asked) == (1, 2)
        attempt.exchange.resume()
        await attempt.over.wait()
        assert attempt.payload.count(b"\n\n") == 5

    play(answer, scene)


def test_an_abort_reports_nothing_more_and_closes_the_stream(play: Any) -> None:
    streams: list[Stream] = []

    def answer() -> Stream:
        streams.append(Stream("a", stalls=True))
        return streams[0]

    async def scene(backend: LitellmBackend) -> None:
        attempt = Recorder(URL)
        backend.begin(make_call(STREAM), attempt)
        while not streams:
            await asyncio.sleep(0)
        await streams[0].waiting.wait()
        heard = list(attempt.heard)
        attempt.exchange.abort()
        while backend.busy:
            await asyncio.sleep(0)
        assert attempt.heard == heard == ["sent", "head", "feed"]
        assert streams[0].closed

    play(answer, scene)


def test_a_stream_that_breaks_fails_once_with_the_error_s_words(play: Any) -> None:
    async def scene(backend: LitellmBackend) -> None:
        attempt = await ask(backend, STREAM)
        assert attempt.heard == ["sent", "head", "feed", "fail"]
        [fault] = attempt.faults
        assert (fault.kind, fault.retry) == (Kind.UPSTREAM_ERROR, Retry.NEVER)
        assert json.loads(fault.body or b"")["error"]["message"] == "busy"

    play(lambda: Stream("a", Broken()), scene)


def test_a_stream_that_breaks_before_it_begins_is_an_answer_with_a_status(play: Any) -> None:
    async def scene(backend: LitellmBackend) -> None:
        attempt = await ask(backend, STREAM)
        assert (attempt.heard, attempt.heads[0].status) == (["sent", "head", "feed", "end"], 503)

    play(lambda: Stream(Broken()), scene)


def test_a_stream_without_a_chunk_is_broken(play: Any) -> None:
    async def scene(backend: LitellmBackend) -> None:
        attempt = await ask(backend, STREAM)
        assert attempt.faults[0].kind is Kind.UPSTREAM_BROKEN

    play(Stream, scene)


def test_the_fifth_backend_on_the_way_refuses(play: Any) -> None:
    async def scene(backend: LitellmBackend) -> None:
        attempt = await ask(backend, HELLO, lines=b"x-headrace-hops: 4\r\n")
        assert attempt.heads[0].status == 508
        await ask(backend, HELLO, lines=b"x-headrace-hops: 3\r\n")

    answer = {"id": "1", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}
    [asked] = play(lambda: Said(answer), scene)
    assert asked["extra_headers"] == {"x-headrace-hops": "4"}


def test_a_package_that_cannot_be_imported_is_our_fault_and_tried_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fail(name: str) -> Any:
        tries.append(name)
        raise ImportError("no")

    monkeypatch.setattr(importlib, "import_module", fail)

    async def main() -> None:
        backend = LitellmBackend("sdk", [URL], "")
        for _ in range(2):
            attempt = await ask(backend, HELLO)
            assert attempt.faults[0].kind is Kind.INTERNAL
        await backend.close()

    asyncio.run(main())
    join_imports()
    assert tries == ["litellm", "litellm"]


def test_other_paths_are_not_served(play: Any) -> None:
    async def scene(backend: LitellmBackend) -> None:
        attempt = await ask(backend, HELLO, path="/v1/images/generations")
        assert attempt.heads[0].status == 404

    assert play(lambda: None, scene) == []
