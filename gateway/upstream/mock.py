"""The backend that runs inside the gateway: `mock://` answers every inference endpoint with no server
behind it.

Owns the options of a mock address, the pace at which an answer comes, and the failures that it is told to
have. It refuses the answers themselves (`protocols.openai.samples`) and the list of models (configuration).
Made by `gateway.upstreams` for each backend with mock endpoints.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from gateway.call import Attempt, Call
from gateway.errors import RETRY_AFTER, Fault, Kind, Retry, Side
from protocols.http1.response import ResponseHead, own_head
from protocols.openai.body import decode_fields
from protocols.openai.errors import error_body
from protocols.openai.samples.answer import sample
from protocols.openai.samples.shapes import EVENTS, JSON, Asked, Refused, Stream, Whole

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}

Pause = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Status = Annotated[int, msgspec.Meta(ge=400, le=599)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Length = Annotated[int, msgspec.Meta(ge=1, le=4096)]


class MockOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one mock peer behaves: the query of `mock://local?text=Hello&delay=50ms`.

    text: what the model says; empty: an echo of the request.
    delay: seconds ("50ms", "2s", "1m" or a bare number) before the answer's head.
    tokens_per_second: pace of a stream, one event for a token; a whole answer waits as long; 0: at once.
    error: the status (400 to 599) that calls fail with.
    error_rate: the share of calls that fail; with `error` alone 1, without `error` they fail with 500.
    seed: of the dice, so that the same calls fail in every run.
    cut_after: streams break off after so many events.
    embedding_size: length of a vector where the request asks for none.
    models: names, parted by commas, that the peer lists where its backend's models are "auto".
    """

    text: str = ""
    delay: Pause = 0.0
    tokens_per_second: Rate = 0.0
    error: Status | None = None
    error_rate: Share | None = None
    seed: int = 0
    cut_after: Count | None = None
    embedding_size: Length = 8
    models: tuple[str, ...] = ()

    @property
    def failing_share(self) -> float:
        """The share of calls that fail, 0 to 1."""
        if self.error_rate is not None:
            return self.error_rate
        return 0.0 if self.error is None else 1.0


def read_options(url: str) -> MockOptions:
    """Read the options in the query of a `mock://` address. Raises `ValueError`, which names the option."""
    values: dict[str, Any] = {}
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in MockOptions.__struct_fields__:
            close = difflib.get_close_matches(name, MockOptions.__struct_fields__, 1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ValueError(f"'{name}' is no option of a mock address{hint}")
        if name in values:
            raise ValueError(f"the option '{name}' is given twice")
        values[name] = value
    if "delay" in values:
        values["delay"] = _seconds(values["delay"])
    if "models" in values:
        values["models"] = [model.strip() for model in values["models"].split(",") if model.strip()]
    try:
        return msgspec.convert(values, MockOptions, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        raise ValueError(f"the option '{place.rstrip('`')}': {problem}") from None


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"the option 'delay': '{text}' is no duration such as 50ms or 2s")
    return float(found[1]) * _UNITS[found[2]]


class MockBackend:
    """A backend whose peers are played by tasks of this process."""

    def __init__(self, name: str, urls: Sequence[str]) -> None:
        """*urls* are the `mock://` addresses of its peers. Raises `ValueError` as `read_options` does."""
        # process: one generation
        self.name = name
        self._options = {url: read_options(url) for url in urls}
        self._dice = {url: random.Random(options.seed) for url, options in self._options.items()}
        # process: the tasks of running exchanges; the loop itself holds them weakly
        self._running: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<MockBackend {self.name} running={len(self._running)}>"

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the addresses list, each once, in their order."""
        return tuple(dict.fromkeys(model for options in self._options.values() for model in options.models))

    def begin(self, call: Call, attempt: Attempt) -> None:
        """Start answering *call* in a task of its own, which has it whole at once."""
        url = attempt.peer.url
        options = self._options[url]
        fails = self._dice[url].random() < options.failing_share
        exchange = MockExchange(attempt, options)
        attempt.exchange = exchange
        task = asyncio.get_running_loop().create_task(exchange.run(call, fails))
        exchange.task = task
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        attempt.sent()

    @property
    def busy(self) -> bool:
        """Whether an answer is being given."""
        return bool(self._running)

    async def close(self) -> None:
        """End what still runs, reporting nothing, and wait until it has."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class MockExchange:
    """One answer being given. Made by `MockBackend.begin`."""

    __slots__ = ("_attempt", "_flowing", "_options", "task")

    def __init__(self, attempt: Attempt, options: MockOptions) -> None:
        # exchange: who is told; None once there is nothing more to tell
        self._attempt: Attempt | None = attempt
        self._options = options
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.task: asyncio.Task[None] | None = None

    def abort(self) -> None:
        self._attempt = None
        if self.task is not None:
            self.task.cancel()

    def leave(self) -> None:
        """Report nothing more; what is left to do ends by itself."""
        self._attempt = None
        self._flowing.set()

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    async def run(self, call: Call, fails: bool) -> None:
        """Answer *call*; an exception of any step ends this call and no other."""
        try:
            await self._answer(call, fails)
        except Exception as error:
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "a call to a mock backend broke", "exception": error})
            self._fail(Fault(Side.GATEWAY, Kind.INTERNAL, "The gateway failed to answer this request."))

    async def _answer(self, call: Call, fails: bool) -> None:
        options = self._options
        await asyncio.sleep(options.delay)
        if fails:
            status = options.error or 500
            await self._deliver(status, _failure(status))
            return
        try:
            answer = sample(self._asked(call))
        except Refused as refusal:
            body = error_body(refusal.message, "invalid_request_error", None, refusal.param)
            await self._deliver(400, Whole(body))
            return
        if answer is None:
            body = error_body("The mock backend has no such path.", "invalid_request_error", "unknown_url")
            await self._deliver(404, Whole(body))
        elif isinstance(answer, Whole):
            if options.tokens_per_second:
                await asyncio.sleep(answer.tokens / options.tokens_per_second)
            await self._deliver(200, answer)
        else:
            await self._stream(answer)

    def _asked(self, call: Call) -> Asked:
        path, fields, body = call.endpoint.path, call.fields, call.body
        if call.translation is not None:
            asked = call.translation.ask(self._model(call))
            path, fields, body = asked.path.decode("ascii"), decode_fields(asked.body), asked.body
        return Asked(
            path=path,
            model=self._model(call),
            stream=call.stream,
            fields=fields,
            body=body,
            id=os.urandom(12).hex(),
            created=int(time.time()),
            text=self._options.text,
            embedding_size=self._options.embedding_size,
        )

    def _model(self, call: Call) -> str:
        """The model's name here, which may be another than the client's."""
        attempt, route = self._attempt, call.route
        if attempt is None or route is None or route.renames is None:
            return call.model
        return route.renames.get(attempt.peer.backend.name, call.model)

    async def _deliver(self, status: int, answer: Whole) -> None:
        head = own_head(status, answer.content_type, len(answer.body))
        if status in (429, 503):
            head.lines.append(b"retry-after: %d\r\n" % RETRY_AFTER)
        self._head(head)
        await self._flowing.wait()
        self._feed(answer.body)
        self._end()

    async def _stream(self, answer: Stream) -> None:
        limit = self._options.cut_after
        self._head(own_head(200, EVENTS, None))
        clock = asyncio.get_running_loop().time
        due = clock()
        for sent, (event, wait) in enumerate(self._paced(answer)):
            if wait:
                due += wait
                await asyncio.sleep(due - clock())
            await self._flowing.wait()
            if sent == limit:
                self._fail(_cut())
            if self._attempt is None:
                return
            self._feed(event)
        self._end()

    def _paced(self, answer: Stream) -> Iterator[tuple[bytes, float]]:
        """Each event with the seconds to wait before it: only tokens take time to generate."""
        pace = self._options.tokens_per_second
        gap = 1 / pace if pace else 0.0
        for event in answer.opening:
            yield event, 0.0
        for event in answer.tokens:
            yield event, gap
        for event in answer.closing:
            yield event, 0.0

    # Reports. Each of them may make the attempt abort this exchange, and then the next ones are not made.

    def _head(self, head: ResponseHead) -> None:
        if self._attempt is not None:
            self._attempt.head(head)

    def _feed(self, payload: bytes) -> None:
        if self._attempt is not None and payload:
            self._attempt.feed(payload)

    def _end(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.end()

    def _fail(self, fault: Fault) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.fail(fault)


def _failure(status: int) -> Whole:
    """The error that OpenAI's API would send with *status*."""
    message = "The mock backend was told to fail."
    if status == 429:
        return Whole(error_body(message, "requests", "rate_limit_exceeded"), JSON)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return Whole(error_body(message, kind, None), JSON)


def _cut() -> Fault:
    """The fault of a stream that breaks off."""
    return Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, "The upstream broke off its answer.", Retry.REPEATABLE)
