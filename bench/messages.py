"""The bytes that the load generator and the scripted upstream agree on, made once.

Owns every request, answer and event of the benchmark, and where in them the changing digits stand. It refuses
sockets and time. Read by `upstream`, `calls` and `streams`; nothing here is made while a round runs.
"""

from __future__ import annotations

from typing import Final

import msgspec

#: The key that the load generator presents; bench/everything_on.toml holds its SHA-256.
KEY: Final = b"sk-bench-6f1f1b0f3c5a4e0f8a2d9c7b6e5d4c3b"

PATH: Final = b"/v1/chat/completions"

#: Width of the hexadecimal numbers that change: half a trace id, a span id, a stamp in nanoseconds.
DIGITS: Final = 16

JSON_MODEL: Final = "bench-json"


def stream_model(period_ms: int) -> str:
    """The model name that asks the upstream for one event per *period_ms*."""
    return f"bench-stream-{period_ms}ms"


def period_of(model: str) -> int:
    """Milliseconds between two events of *model*; ValueError where the name tells none."""
    if not (model.startswith("bench-stream-") and model.endswith("ms")):
        raise ValueError(f"no stream model: {model!r}")
    return int(model[len("bench-stream-") : -len("ms")])


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class Ask(msgspec.Struct, frozen=True):
    """What the upstream reads of a request for a stream: max_tokens is the number of events."""

    model: str
    max_tokens: int = 0
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()


SYSTEM: Final = (
    "You are a careful assistant for the operators of a water-power station. Answer in short sentences, name "
    "the unit of every figure, and say so where a figure is an estimate."
)
QUESTION: Final = (
    "The headrace carries 42 cubic metres per second at a slope of 0.4 per mille, and the wheel was rebuilt "
    "last spring with twelve new paddles. The gate is at 70 per cent. Which three readings would you check "
    "first if the power drops by a tenth overnight, in which order, and what would each of them tell us "
    "about the cause? Assume that no paddle is lost."
)


class Request:
    """One request, whole, in a buffer whose `traceparent` is rewritten before each send.

    The head is what openai-python sends through httpx, plus the `traceparent` of an instrumented client. It
    leaves in one send, where httpx needs two (head, then body): the better case for every proxy alike.
    """

    __slots__ = ("buffer", "slot")

    def __init__(self, port: int, body: bytes) -> None:
        trace = b"traceparent: 00-5d1c7a90e4b2f386"
        head = b"\r\n".join(
            (
                b"POST %s HTTP/1.1" % PATH,
                b"Host: 127.0.0.1:%d" % port,
                b"Accept-Encoding: gzip, deflate",
                b"Connection: keep-alive",
                b"authorization: Bearer %s" % KEY,
                b"accept: application/json",
                b"content-type: application/json",
                b"user-agent: OpenAI/Python 3.54.0",
                b"x-stainless-lang: python",
                b"x-stainless-package-version: 3.54.0",
                b"x-stainless-os: Linux",
                b"x-stainless-arch: x64",
                b"x-stainless-runtime: CPython",
                b"x-stainless-runtime-version: 3.11.7",
                b"x-stainless-async: false",
                b"x-stainless-retry-count: 0",
                b"x-stainless-read-timeout: 600",
                b"%s%s-%s-01" % (trace, b"0" * DIGITS, b"0" * DIGITS),
                b"Content-Length: %d" % len(body),
                b"",
                b"",
            )
        )
        start = head.index(trace) + len(trace)
        self.slot = slice(start, start + 2 * DIGITS + 1)
        self.buffer = bytearray(head + body)

    def number(self, n: int) -> bytearray:
        """The request with the digits of *n* in its trace id and span id."""
        self.buffer[self.slot] = b"%016x-%016x" % (n, n)
        return self.buffer


def call_body() -> bytes:
    """A chat body of about 700 bytes, keys in the order in which openai-python sends them."""
    return msgspec.json.encode(
        {
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}],
            "model": JSON_MODEL,
            "max_tokens": 256,
            "temperature": 0.2,
            "user": "operator-17",
        }
    )


def stream_body(period_ms: int, events: int) -> bytes:
    """A chat body for *events* events. It asks for no usage: the gateway does, and must hide it."""
    return msgspec.json.encode(
        {
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}],
            "model": stream_model(period_ms),
            "max_tokens": events,
            "stream": True,
            "temperature": 0.2,
        }
    )


USAGE: Final = b'{"prompt_tokens":128,"completion_tokens":64,"total_tokens":192}'


def _answer_body(size: int) -> bytes:
    start = (
        b'{"id":"chatcmpl-8c1b2f4e9d7a","object":"chat.completion","created":1790000000,"model":"bench-json",'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
    )
    end = b'"},"logprobs":null,"finish_reason":"stop"}],"usage":' + USAGE + b"}"
    text = b"Check the level, then the gate, then the paddles. " * 12
    return start + text[: size - len(start) - len(end)] + end


ANSWER_BODY: Final = _answer_body(600)
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 21 Sep 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-length: %d\r\ncontent-type: application/json\r\n\r\n" % len(ANSWER_BODY)
) + ANSWER_BODY

STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 21 Sep 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)

NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


def chunk(payload: bytes) -> bytes:
    """*payload* as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(payload), payload)


_FRAME: Final = b'data: {"id":"cmpl-8c1b","object":"chat.completion.chunk","created":1790000000,"model":"bench",'

#: An event is EVENT_START, sixteen hexadecimal digits of its send stamp, EVENT_END: 180 bytes.
EVENT_START: Final = _FRAME + b'"choices":[{"index":0,"delta":{"content":"'
EVENT_END: Final = b'"},"finish_reason":null}]}\n\n'
EVENT: Final = EVENT_START + b"0" * DIGITS + EVENT_END
EVENT_CHUNK: Final = chunk(EVENT)
#: Where the stamp stands in an event, and in the chunk that holds one event.
EVENT_STAMP: Final = slice(len(EVENT_START), len(EVENT_START) + DIGITS)
CHUNK_STAMP: Final = slice(EVENT_CHUNK.index(EVENT_START) + len(EVENT_START), EVENT_CHUNK.index(EVENT_END))
CHUNK_START: Final = EVENT_CHUNK[: CHUNK_STAMP.start]
CHUNK_END: Final = EVENT_CHUNK[CHUNK_STAMP.stop :]

FINISH_EVENT: Final = _FRAME + b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE_EVENT: Final = _FRAME + b'"choices":[],"usage":' + USAGE + b"}\n\n"
DONE_EVENT: Final = b"data: [DONE]\n\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
