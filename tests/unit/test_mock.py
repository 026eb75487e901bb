"""The mock backend: its pace, its failures, and what it reports to an attempt."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import Fault, Kind, Retry, Side
from gateway.upstream.mock import MockBackend
from protocols.http1.response import ResponseHead
from protocols.openai.body import decode_fields

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}


class Recorder:
    """An attempt that writes down what it is told; `after` is called with each word of it."""

    def __init__(self, url: str) -> None:
        self.peer = SimpleNamespace(url=url)
        self.exchange: Any = None
        self.heard: list[str] = []
        self.heads: list[ResponseHead] = []
        self.payload = b""
        self.faults: list[Fault] = []
        self.over = asyncio.Event()
        self.after: Callable[[str], None] = lambda word: None

    def _hear(self, word: str) -> None:
        self.heard.append(word)
        if word in ("end", "fail"):
            self.over.set()
        self.after(word)

    def sent(self) -> None:
        assert self.exchange is not None
        self._hear("sent")

    def head(self, head: ResponseHead) -> None:
        self.heads.append(head)
        self._hear("head")

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        assert payload
        self.payload += payload
        self._hear("feed")

    def end(self) -> None:
        self._hear("end")

    def fail(self, fault: Fault) -> None:
        self.faults.append(fault)
        self._hear("fail")


def make_call(body: dict[str, Any], path: str = CHAT) -> Any:
    raw = json.dumps(body).encode()
    return SimpleNamespace(
        endpoint=SimpleNamespace(path=path),
        translation=None,
        model=body.get("model", ""),
        stream=bool(body.get("stream")),
        fields=decode_fields(raw),
        body=raw,
        route=None,
    )


async def ask(backend: MockBackend, url: str, body: dict[str, Any] = HELLO, path: str = CHAT, **after: Any) -> Recorder:
    """One call, to its end."""
    attempt = Recorder(url)
    attempt.after = after.get("after", attempt.after)
    backend.begin(make_call(body, path), attempt)
    await attempt.over.wait()
    return attempt


def answer(query: str, body: dict[str, Any] = HELLO, path: str = CHAT) -> Recorder:
    """One call to a mock with the options *query*, and its backend closed."""
    url = f"mock://local?{query}"

    async def run() -> Recorder:
        backend = MockBackend("mock", [url])
        attempt = await ask(backend, url, body, path)
        await backend.close()
        return attempt

    return asyncio.run(run())


# answers


def test_a_whole_answer_is_a_head_with_its_length_and_one_payload() -> None:
    attempt = answer("")
    assert attempt.heard == ["sent", "head", "feed", "end"]
    head = attempt.heads[0]
    assert (head.status, head.content_type, head.length) == (200, b"application/json", len(attempt.payload))
    assert "Hi" in json.loads(attempt.payload)["choices"][0]["message"]["content"]


def test_a_stream_is_a_head_without_length_and_a_payload_for_each_event() -> None:
    attempt = answer("text=one+two+three", HELLO | {"stream": True})
    assert attempt.heard == ["sent", "head", *["feed"] * 6, "end"]
    head = attempt.heads[0]
    assert (head.status, head.is_event_stream, head.length) == (200, True, None)
    assert attempt.payload.endswith(b"data: [DONE]\n\n")
    assert attempt.payload.count(b"\n\n") == 6


def test_the_configured_size_of_a_vector_holds_where_the_request_names_none() -> None:
    attempt = answer("embedding_size=3", {"model": "m", "input": "a"}, "/v1/embeddings")
    assert len(json.loads(attempt.payload)["data"][0]["embedding"]) == 3


def test_a_refused_request_is_answered_with_an_error_of_the_right_shape() -> None:
    attempt = answer("", {"model": "m"})
    assert attempt.heads[0].status == 400
    error = json.loads(attempt.payload)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", "messages")


def test_an_unknown_path_is_not_found() -> None:
    attempt = answer("", path="/v1/files")
    assert attempt.heads[0].status == 404


# pace


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer: waiting costs nothing and is measured exactly."""

    _now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        scheduled = self._scheduled
        if not self._ready and scheduled:
            self._now = max(self._now, scheduled[0].when())
        super()._run_once()


def timed(query: str, body: dict[str, Any]) -> tuple[list[tuple[str, float]], Recorder]:
    """What was heard and when, in seconds of the loop's own time."""
    url = f"mock://local?{query}"
    times: list[tuple[str, float]] = []

    async def run() -> Recorder:
        loop = asyncio.get_running_loop()
        backend = MockBackend("mock", [url])
        return await ask(backend, url, body, after=lambda word: times.append((word, round(loop.time(), 6))))

    with asyncio.Runner(loop_factory=Clock) as runner:
        return times, runner.run(run())


def test_the_head_waits_for_the_delay() -> None:
    times, _ = timed("delay=50ms", HELLO)
    assert times == [("sent", 0.0), ("head", 0.05), ("feed", 0.05), ("end", 0.05)]


def test_the_tokens_of_a_stream_come_at_their_pace_and_the_rest_at_once() -> None:
    times, _ = timed("text=one+two+three&tokens_per_second=20&delay=1s", HELLO | {"stream": True})
    feeds = [at for word, at in times if word == "feed"]
    assert times[1] == ("head", 1.0)
    assert feeds == [1.0, 1.05, 1.1, 1.15, 1.15, 1.15]


def test_a_whole_answer_takes_as_long_as_its_tokens() -> None:
    times, _ = timed("text=one+two+three&tokens_per_second=20", HELLO)
    assert times[1] == ("head", 0.15)


def test_nothing_waits_where_no_pace_is_set() -> None:
    times, _ = timed("", HELLO | {"stream": True})
    assert {at for _, at in times} == {0.0}


# failures


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_mock_that_is_told_to_fail_answers_with_the_status(status: int) -> None:
    attempt = answer(f"error={status}", HELLO | {"stream": True})
    head = attempt.heads[0]
    assert head.status == status
    assert head.content_type == b"application/json"
    assert set(json.loads(attempt.payload)["error"]) == {"message", "type", "param", "code"}
    assert (b"retry-after: 1\r\n" in head.lines) == (status in (429, 503))


def test_the_share_of_failing_calls_is_drawn_alike_in_every_run() -> None:
    url = "mock://local?error_rate=0.3&seed=7"

    async def run() -> list[int]:
        backend = MockBackend("mock", [url])
        return [(await ask(backend, url)).heads[0].status for _ in range(200)]

    first, second = asyncio.run(run()), asyncio.run(run())
    assert first == second
    assert set(first) == {200, 500}
    assert 40 <= first.count(500) <= 80


def test_each_peer_of_a_backend_has_options_of_its_own() -> None:
    urls = ["mock://a?error=500", "mock://b"]

    async def run() -> list[int]:
        backend = MockBackend("mock", urls)
        return [(await ask(backend, url)).heads[0].status for url in urls]

    assert asyncio.run(run()) == [500, 200]


@pytest.mark.parametrize("events", [0, 1, 3])
def test_a_stream_breaks_off_after_the_configured_number_of_events(events: int) -> None:
    attempt = answer(f"cut_after={events}", HELLO | {"stream": True})
    assert attempt.heard == ["sent", "head", *["feed"] * events, "fail"]
    fault = attempt.faults[0]
    assert (fault.side, fault.kind) == (Side.UPSTREAM, Kind.UPSTREAM_LOST)
    assert fault.retry is Retry.REPEATABLE


def test_a_stream_shorter_than_the_cut_is_whole() -> None:
    attempt = answer("cut_after=100&text=one", HELLO | {"stream": True})
    assert attempt.heard[-1] == "end"


# what an attempt may do


@pytest.mark.parametrize("word", ["sent", "head", "feed"])
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_reported_after_an_abort_from_within_a_report(word: str, stream: bool) -> None:
    url = "mock://local"

    async def run() -> list[str]:
        backend = MockBackend("mock", [url])
        attempt = Recorder(url)
        attempt.after = lambda heard: attempt.exchange.abort() if heard == word else None
        backend.begin(make_call(HELLO | {"stream": stream}), attempt)
        await asyncio.wait([attempt.exchange.task])
        return attempt.heard

    order = ["sent", "head", "feed"]
    assert asyncio.run(run()) == order[: order.index(word) + 1]


@pytest.mark.parametrize("query", ["delay=1m", "tokens_per_second=0.01"])
def test_an_abort_ends_a_waiting_exchange_at_once(query: str) -> None:
    url = f"mock://local?{query}"

    async def run() -> list[str]:
        backend = MockBackend("mock", [url])
        attempt = Recorder(url)
        backend.begin(make_call(HELLO | {"stream": True}), attempt)
        task = attempt.exchange.task
        for _ in range(5):
            await asyncio.sleep(0)
        heard = list(attempt.heard)
        attempt.exchange.abort()
        attempt.exchange.abort()
        await asyncio.wait([task])
        assert task.cancelled()
        assert repr(backend) == "<MockBackend mock running=0>"
        assert attempt.heard == heard
        return heard

    assert "end" not in asyncio.run(run())


def test_a_paused_exchange_delivers_nothing_until_it_is_resumed() -> None:
    url = "mock://local?text=one+two"

    async def run() -> None:
        backend = MockBackend("mock", [url])
        attempt = Recorder(url)
        attempt.after = lambda word: attempt.exchange.pause() if word == "feed" else None
        backend.begin(make_call(HELLO | {"stream": True}), attempt)
        for heard in range(1, 5):
            for _ in range(5):
                await asyncio.sleep(0)
            assert attempt.heard == ["sent", "head", *["feed"] * heard]
            attempt.exchange.resume()
        await attempt.over.wait()
        assert attempt.heard == ["sent", "head", *["feed"] * 5, "end"]

    asyncio.run(run())


def test_a_backend_that_is_closed_ends_its_tasks_and_reports_nothing() -> None:
    url = "mock://local?delay=1m"

    async def run() -> list[str]:
        backend = MockBackend("mock", [url])
        attempts = [Recorder(url) for _ in range(3)]
        for attempt in attempts:
            backend.begin(make_call(HELLO), attempt)
        await asyncio.sleep(0)
        await backend.close()
        assert len(asyncio.all_tasks()) == 1
        return [word for attempt in attempts for word in attempt.heard]

    assert asyncio.run(run()) == ["sent"] * 3


def test_an_exception_of_a_step_fails_its_own_call_only() -> None:
    url = "mock://local"

    async def run() -> tuple[list[str], Recorder, list[Any]]:
        reports: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, report: reports.append(report))
        backend = MockBackend("mock", [url])

        def break_at_head(word: str) -> None:
            if word == "head":
                raise RuntimeError("a bug in a step")

        broken = await ask(backend, url, after=break_at_head)
        sound = await ask(backend, url)
        return sound.heard, broken, reports

    heard, broken, reports = asyncio.run(run())
    assert heard[-1] == "end"
    assert broken.heard == ["sent", "head", "fail"]
    assert (broken.faults[0].side, broken.faults[0].kind) == (Side.GATEWAY, Kind.INTERNAL)
    assert [str(report["exception"]) for report in reports] == ["a bug in a step"]


def test_a_finished_exchange_is_freed_by_reference_counting_alone() -> None:
    url = "mock://local"

    async def run() -> int:
        backend = MockBackend("mock", [url])
        attempt = await ask(backend, url, HELLO | {"stream": True})
        exchange = weakref.ref(attempt.exchange.task)
        await asyncio.sleep(0)
        attempt.exchange = None
        await asyncio.sleep(0)
        assert exchange() is None
        return 0

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()
