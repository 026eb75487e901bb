"""The LiteLLM SDK as a backend: `litellm://provider/model` is asked in a task of this process.

Owns the exchange (abort, pause, what is reported), the way to the package, and the guard against a circle of
gateways. It refuses the SDK's words (`litellm_words`) and everything about HTTP: the SDK has connections of its own.
Made by `gateway.upstreams` for each backend with litellm endpoints.

The package costs 4 to 14 s and 160 MB to import, so a worker does that at its first call, in a thread. It is an extra
(`pip install 'headrace[litellm]'`): it pins openai<3 and httpx<1.

Its answers are what it makes of a provider's: where that one breaks off a stream without an error, the SDK may end it
with finish_reason "stop", and nobody behind it can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import os
import re
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
import orjson

from gateway.call import Attempt, Call
from gateway.errors import Fault, Kind, Retry, Side
from gateway.upstream.litellm_words import (
    FUNCTIONS,
    Failure,
    Unserved,
    read_chunk,
    read_failure,
    read_fields,
    write_answer,
)
from protocols.http1.response import ResponseHead, own_head
from protocols.openai.body import decode_fields
from protocols.openai.errors import error_body
from protocols.sse import data_event

PACKAGE: Final = "litellm"
MISSING: Final = "protocol litellm needs the extra: pip install 'headrace[litellm]'"
#: What it reads from the environment while it is imported: no price list from the network, no .env file, no chatter.
_ENVIRONMENT: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "CRITICAL",
}

#: How many litellm backends a call has come through. An SDK whose provider is this gateway again would go round.
HOPS: Final = "x-headrace-hops"
HOPS_LIMIT: Final = 4
_HOPS: Final = re.compile(rb"(?im)^x-headrace-hops:[ \t]*([0-9]{1,4})[ \t]*\r?$")

_JSON: Final = b"application/json"
_EVENTS: Final = b"text/event-stream"


class LitellmEndpoint(msgspec.Struct, frozen=True):
    """What a `litellm://` address says: the SDK's name of a model, and where it is, if not where the SDK finds it."""

    model: str
    api_base: str = ""


def read_endpoint(url: str) -> LitellmEndpoint:
    """Read `litellm://provider/model[?api_base=URL]`. Raises `ValueError`, which says what is wrong."""
    parts = urlsplit(url)
    model = url.partition("://")[2].partition("?")[0].strip("/")
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "api_base" or name in options:
            raise ValueError(f"'{name}' is no option of a litellm address, expected api_base once")
        options[name] = value
    base = options.get("api_base", "")
    if base and not base.startswith(("http://", "https://")):
        raise ValueError("the option 'api_base' is no http:// or https:// URL")
    return LitellmEndpoint(model, base)


def is_installed() -> bool:
    """Whether the package can be found; it is not imported."""
    return importlib.util.find_spec(PACKAGE) is not None


class LitellmBackend:
    """A backend whose peers are models of the SDK."""

    def __init__(self, name: str, urls: list[str], key: str) -> None:
        """*urls* are `litellm://` addresses; *key* is the provider's, empty where the SDK finds it in the environment.

        Raises `ValueError` as `read_endpoint` does.
        """
        # process: one generation
        self.name = name
        self._endpoints = {url: read_endpoint(url) for url in urls}
        self._key = key
        self._package: asyncio.Future[Any] | None = None
        # process: the tasks of running exchanges; the loop itself holds them weakly
        self._running: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<LitellmBackend {self.name} running={len(self._running)}>"

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the addresses name, each once."""
        return tuple(dict.fromkeys(endpoint.model for endpoint in self._endpoints.values()))

    def begin(self, call: Call, attempt: Attempt) -> None:
        """Start asking for *call* in a task of its own."""
        exchange = LitellmExchange(self, attempt, self._endpoints[attempt.peer.url])
        attempt.exchange = exchange
        task = asyncio.get_running_loop().create_task(exchange.run(call))
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

    @property
    def key(self) -> str:
        return self._key

    async def package(self) -> Any:
        """The imported package. Raises `ImportError` and whatever else an import may raise."""
        loading = self._package
        if loading is None or (loading.done() and loading.exception() is not None):
            loop = asyncio.get_running_loop()
            self._package = loading = loop.create_future()
            threading.Thread(target=_load, args=(loop, loading), name="import-litellm", daemon=True).start()
        return await asyncio.shield(loading)  # who leaves does not end it for the others


def _load(loop: asyncio.AbstractEventLoop, loading: asyncio.Future[Any]) -> None:
    """Import the package, in a thread that keeps nobody (see `lookup`), and tell the loop."""
    package: Any = None
    failure: Exception | None = None
    try:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        package = importlib.import_module(PACKAGE)
        package.telemetry = False
        package.suppress_debug_info = True
        # Its usual transport keeps a connection whose stream is closed open for half a minute.
        package.disable_aiohttp_transport = True
    except Exception as error:
        failure = error

    def tell() -> None:
        if failure is not None:
            loading.set_exception(failure)
        else:
            loading.set_result(package)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
        loop.call_soon_threadsafe(tell)


class LitellmExchange:
    """One answer being asked for. Made by `LitellmBackend.begin`."""

    __slots__ = ("_attempt", "_backend", "_begun", "_endpoint", "_flowing", "task")

    def __init__(self, backend: LitellmBackend, attempt: Attempt, endpoint: LitellmEndpoint) -> None:
        self._backend = backend
        self._endpoint = endpoint
        # exchange: who is told; None once there is nothing more to tell
        self._attempt: Attempt | None = attempt
        self._begun = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.task: asyncio.Task[None] | None = None

    def abort(self) -> None:
        """Report nothing more, and close what the SDK has open."""
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

    async def run(self, call: Call) -> None:
        """Answer *call*; an exception of any step ends this call and no other."""
        try:
            await self._answer(call)
        except Exception as error:
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "a call to a litellm backend broke", "exception": error})
            self._fail(Fault(Side.GATEWAY, Kind.INTERNAL, "The gateway failed to answer this request."))

    async def _answer(self, call: Call) -> None:
        path, fields = call.endpoint.path, call.fields
        if call.translation is not None:
            asked = call.translation.ask(self._endpoint.model)
            path, fields = asked.path.decode("ascii"), decode_fields(asked.body)
        hops = read_hops(call.request.forward)
        if hops >= HOPS_LIMIT:
            said = "This call came through this gateway's litellm backends too often: they lead back to it."
            await self._deliver(508, error_body(said, "invalid_request_error", "loop_detected"))
            return
        if path not in FUNCTIONS or fields is None:
            said = "The LiteLLM SDK is not asked for this."
            await self._deliver(404, error_body(said, "invalid_request_error", "unknown_url"))
            return
        try:
            arguments = read_fields(path, fields)
        except Unserved as refusal:
            body = error_body(str(refusal), "invalid_request_error", "unsupported_parameter", refusal.param)
            await self._deliver(400, body)
            return
        try:
            package = await self._backend.package()
        except Exception as error:
            text = f"The litellm package cannot be imported ({type(error).__name__})."
            self._fail(Fault(Side.GATEWAY, Kind.INTERNAL, text))
            return
        try:
            answer = await getattr(package, FUNCTIONS[path])(**arguments, **self._terms(hops))
        except Exception as error:
            await self._refuse(read_failure(error, self._backend.key))
            return
        if call.stream:
            await self._stream(answer)
        else:
            await self._deliver(200, write_answer(path, answer, fields))

    def _terms(self, hops: int) -> dict[str, Any]:
        """The arguments that are ours: one try, of which the gateway makes more where it wants to."""
        terms: dict[str, Any] = {
            "model": self._endpoint.model,
            "num_retries": 0,
            "max_retries": 0,
            "extra_headers": {HOPS: str(hops + 1)},
        }
        if self._backend.key:
            terms["api_key"] = self._backend.key
        if self._endpoint.api_base:
            terms["api_base"] = self._endpoint.api_base
        return terms

    async def _stream(self, answer: Any) -> None:
        try:
            try:
                await self._relay(answer)
            except Exception as error:
                await self._break(read_failure(error, self._backend.key))
        finally:
            await _close(answer)

    async def _relay(self, answer: Any) -> None:
        usage: dict[str, Any] | None = None
        last: dict[str, Any] = {}
        async for chunk in answer:
            told, said = read_chunk(chunk)
            usage = said or usage
            last = told
            if told["choices"]:
                await self._send(data_event(orjson.dumps(told)))
            if self._attempt is None:
                return
        if not self._begun:
            text = "The upstream's stream did not begin with an answer."
            self._fail(Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE))
            return
        end = b"data: [DONE]\n\n"
        if usage is not None:
            end = data_event(orjson.dumps({**last, "choices": [], "usage": usage})) + end
        await self._send(end)
        self._end()

    async def _send(self, payload: bytes) -> None:
        if not self._begun:
            self._begun = True
            self._head(own_head(200, _EVENTS, None))
        await self._flowing.wait()
        self._feed(payload)

    async def _refuse(self, failure: Failure) -> None:
        """Nothing came: what the provider says is the answer."""
        if failure.unsent:
            text = "The upstream could not be reached."
            self._fail(Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, text, Retry.UNSENT))
            return
        lines = {"retry-after": failure.retry_after} if failure.retry_after else {}
        await self._deliver(failure.status, failure.body, lines)

    async def _break(self, failure: Failure) -> None:
        """The stream broke: before it began as an answer, then as an error in it."""
        if not self._begun:
            await self._refuse(failure)
            return
        await self._flowing.wait()
        text = "The upstream broke off its answer."
        self._fail(Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, text, Retry.NEVER, body=failure.body))

    async def _deliver(self, status: int, body: bytes, lines: Mapping[str, str] | None = None) -> None:
        head = own_head(status, _JSON, len(body))
        for name, value in (lines or {}).items():
            head.lines.append(f"{name}: {value}\r\n".encode("ascii"))
        self._head(head)
        await self._flowing.wait()
        self._feed(body)
        self._end()

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


def read_hops(lines: list[bytes]) -> int:
    """The number of litellm backends that a request with these lines came through."""
    found = _HOPS.search(b"".join(lines))
    return int(found[1]) if found is not None else 0


async def _close(answer: Any) -> None:
    """Close a stream of the SDK, which may be wrapped: else its connection stays open until the collector comes."""
    for one in (answer, getattr(answer, "completion_stream", None)):
        close = getattr(one, "aclose", None)
        if close is not None:
            with contextlib.suppress(Exception):
                await close()
            return
