"""Ready-made answers of a model server, as scripts for `upstream`.

Owns the bodies and the ways to send them. It refuses sockets (an `Exchange` is given). Made: a Script by each
function.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from tests.wire.accepted import Gate
from tests.wire.upstream import Exchange, Script

Framing = Literal["chunked", "close", "length"]
Pieces = Literal["events", "whole", "bytes"] | Sequence[int]

REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests"}
JSON_TYPE = ("content-type", "application/json")
SSE_TYPE = ("content-type", "text/event-stream; charset=utf-8")
DONE = b"data: [DONE]\n\n"


def head(status: int, *headers: tuple[str, str]) -> bytes:
    """A response head. A server says who it is and when, so this one does too."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Whatever')}", "server: scripted"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)


LAST_CHUNK = b"0\r\n\r\n"


def whole(status: int, body: bytes, *headers: tuple[str, str], type: str = "application/json") -> Script:
    """A complete answer with a content-length, in one write (no body follows a HEAD)."""

    def script(x: Exchange) -> None:
        lines = (("content-type", type), ("content-length", str(len(body))), *headers)
        x.send(head(status, *lines) + (b"" if x.request.method == "HEAD" else body))

    return script


def raw(data: bytes, *, then: Literal["", "fin", "rst", "close"] = "") -> Script:
    """Exactly these bytes, and what to do after them."""

    def script(x: Exchange) -> None:
        x.send(data)
        if then:
            getattr(x, then)()

    return script


def no_content(*headers: tuple[str, str]) -> Script:
    return raw(head(204, *headers))


def numbers(size: int) -> bytes:
    """*size* bytes, a multiple of four, of which no four aligned ones are like others: none can be lost unseen."""
    return struct.pack(f">{size // 4}I", *range(size // 4))


def json_body(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def usage(prompt: int = 7, completion: int = 5) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def chat_body(text: str = "Hello", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text, "refusal": None}
    return json_body(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": usage(),
            **more,
        }
    )


def chat(text: str = "Hello", *headers: tuple[str, str]) -> Script:
    return whole(200, chat_body(text), *headers)


def models_body(*names: str) -> bytes:
    data = [{"id": name, "object": "model", "created": 1, "owned_by": "scripted"} for name in names]
    return json_body({"object": "list", "data": data})


def models(*names: str) -> Script:
    return whole(200, models_body(*names))


def metrics(*lines: str) -> Script:
    """What a server tells Prometheus: *lines* among others."""
    body = "\n".join(("# TYPE process_open_fds gauge", "process_open_fds 12.0", *lines, "")).encode()
    return whole(200, body, type="text/plain; version=0.0.4; charset=utf-8")


def embeddings() -> Script:
    item = {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}
    numbers = {"prompt_tokens": 2, "total_tokens": 2}
    return whole(200, json_body({"object": "list", "data": [item], "model": "m", "usage": numbers}))


def error_body(message: str, type: str = "server_error", code: str | None = None) -> bytes:
    return json_body({"error": {"message": message, "type": type, "param": None, "code": code}})


def error(status: int, message: str = "the upstream says no", *headers: tuple[str, str]) -> Script:
    return whole(status, error_body(message), *headers)


def event(delta: dict[str, Any], *, finish: str | None = None, **more: Any) -> bytes:
    """One chat chunk as a whole SSE event."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    fields = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json_body({**fields, "choices": [choice], **more}) + b"\n\n"


def usage_event() -> bytes:
    """The extra chunk that carries the totals, as OpenAI sends it."""
    fields = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json_body({**fields, "choices": [], "usage": usage()}) + b"\n\n"


def chat_events(count: int = 3, *, with_usage: bool = False, done: bool = True) -> list[bytes]:
    """*count* content events after the role, a finish, the usage if wanted, and [DONE]."""
    events = [event({"role": "assistant", "content": ""})]
    events += [event({"content": f"word{number} "}) for number in range(count)]
    events.append(event({}, finish="stop"))
    if with_usage:
        events.append(usage_event())
    if done:
        events.append(DONE)
    return events


def sse_head(framing: Framing = "chunked", length: int = 0) -> bytes:
    more = {
        "chunked": ("transfer-encoding", "chunked"),
        "close": ("connection", "close"),
        "length": ("content-length", str(length)),
    }[framing]
    return head(200, SSE_TYPE, ("cache-control", "no-cache"), more)


def stream(events: Iterable[bytes] | None = None, framing: Framing = "chunked", pieces: Pieces = "events") -> Script:
    """An SSE answer, written event by event, whole, byte by byte, or cut at the indices in *pieces*."""
    listed = list(chat_events() if events is None else events)
    payload = b"".join(listed)
    first = sse_head(framing, len(payload))
    parts = [chunk(one) if framing == "chunked" else one for one in listed]
    if framing == "chunked":
        parts.append(LAST_CHUNK)

    def script(x: Exchange) -> None:
        if pieces == "events":
            x.send(first)
            for part in parts:
                x.sleep(0.001)
                x.send(part)
        elif pieces == "whole":
            x.send(first + b"".join(parts))
        elif pieces == "bytes":
            x.dribble(first + b"".join(parts))
        else:
            x.split(first + b"".join(parts), *pieces)
        if framing == "close":
            x.fin()

    return script


def stalled_stream(gate: Gate, before: Sequence[bytes], after: Sequence[bytes] = ()) -> Script:
    """A chunked stream that sends *before*, waits at *gate*, then sends *after* and ends well."""

    def script(x: Exchange) -> None:
        x.send(sse_head())
        for one in before:
            x.send(chunk(one))
        x.stall(gate)
        for one in after:
            x.send(chunk(one))
        x.send(LAST_CHUNK)

    return script


def stalled(gate: Gate, then: Script | None = None) -> Script:
    """Say nothing until *gate* opens, then answer."""

    def script(x: Exchange) -> None:
        x.stall(gate)
        (then or chat())(x)

    return script


def await_abort(x: Exchange) -> None:
    """Say nothing; the peer has to leave."""
    x.await_abort()


def model_server(x: Exchange) -> None:
    """What a sound model server answers: by path, streamed where asked."""
    path = x.request.target.partition("?")[0]
    if path.endswith("/models"):
        return models("m", "other")(x)
    if path.endswith("/embeddings"):
        return embeddings()(x)
    asked = x.request.json() if x.request.body.startswith(b"{") else {}
    if asked.get("stream") is True:
        options = asked.get("stream_options") or {}
        return stream(chat_events(with_usage=options.get("include_usage") is True))(x)
    return chat()(x)
