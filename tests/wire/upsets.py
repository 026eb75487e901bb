"""What goes wrong with a backend, in each protocol's own bytes, and what a client's dialect says then.

Owns these bytes, and the reading of errors at each door. It refuses sockets (`upstream`) and expectations (the tests).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.wire import answers, anthropic_server
from tests.wire.accepted import Gate
from tests.wire.client import Response
from tests.wire.ollama_server import CREATED_AT, NDJSON
from tests.wire.upstream import Exchange, Script

#: Backends by their protocol, and the doors of clients that are in another dialect or the same.
PROTOCOLS = ("openai", "anthropic", "ollama", "tgi")
DOORS = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat")
#: The doors that each protocol's backend answers itself; of OpenAI's API only the chat.
NATIVE: dict[str, list[str]] = {
    "openai": ["/v1/chat/completions"],
    "anthropic": ["/v1/messages"],
    "ollama": ["/api/chat"],
    "tgi": [],
}
TRANSLATED = [(door, protocol) for protocol in PROTOCOLS for door in DOORS if door not in NATIVE[protocol]]


def data(value: Any) -> bytes:
    return b"data: " + answers.json_body(value) + b"\n\n"


def line(**fields: Any) -> bytes:
    return answers.json_body({"model": "m", "created_at": CREATED_AT, **fields}) + b"\n"


def tgi_chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": finish}
    base = {"object": "chat.completion.chunk", "id": "", "created": 1, "model": "m", "system_fingerprint": "3"}
    return data({**base, "choices": [choice], "usage": None})


_ANTHROPIC_USAGE = {"input_tokens": 3, "output_tokens": 1}
_START = anthropic_server.event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _ANTHROPIC_USAGE,
    },
)
_BLOCK = anthropic_server.event("content_block_start", index=0, content_block={"type": "text", "text": ""})
_TOOL = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}


def anthropic_text(text: str) -> bytes:
    return anthropic_server.event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


class Words(NamedTuple):
    """A protocol's bytes: *begin* says "Hi", *end* ends it well, *error* is an error within a stream."""

    type: tuple[str, str]
    begin: bytes
    end: bytes
    error: bytes
    #: An event or line that is no JSON, one that stands in the wrong place, and how a long one begins.
    junk: bytes
    disorder: bytes
    long: bytes
    #: A whole answer, and the body of an error.
    whole: bytes
    refusal: bytes
    #: A call whose arguments begin, and more of them.
    call: tuple[bytes, bytes] | None = None


def _call_delta(**call: Any) -> bytes:
    return answers.event({"tool_calls": [{"index": 0, **call}]})


_ARGUMENTS = "x" * 4000
WORDS = {
    "openai": Words(
        answers.SSE_TYPE,
        answers.event({"role": "assistant", "content": ""}) + answers.event({"content": "Hi"}),
        answers.event({}, finish="stop") + answers.usage_event() + answers.DONE,
        data({"error": {"message": "It broke.", "type": "server_error", "param": None, "code": None}}),
        b"data: {nonsense\n\n",
        data({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 7, "function": {"arguments": "{"}}]}}]}),
        b'data: {"choices":"',
        answers.chat_body("Hi"),
        answers.error_body("It broke."),
        (
            _call_delta(id="c1", type="function", function={"name": "weather", "arguments": '{"city":"'}),
            _call_delta(function={"arguments": _ARGUMENTS}),
        ),
    ),
    "anthropic": Words(
        answers.SSE_TYPE,
        _START + _BLOCK + anthropic_text("Hi"),
        anthropic_server.event("content_block_stop", index=0)
        + anthropic_server.event(
            "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 2}
        )
        + anthropic_server.event("message_stop"),
        anthropic_server.event("error", error={"type": "overloaded_error", "message": "It broke."}),
        b"event: content_block_delta\ndata: {nonsense\n\n",
        anthropic_server.event("content_block_stop", index=5),
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":"',
        answers.json_body(
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": [{"type": "text", "text": "Hi"}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": _ANTHROPIC_USAGE,
            }
        ),
        answers.json_body({"type": "error", "error": {"type": "api_error", "message": "It broke."}}),
        (
            _START + anthropic_server.event("content_block_start", index=0, content_block=_TOOL),
            anthropic_server.event(
                "content_block_delta",
                index=0,
                delta={"type": "input_json_delta", "partial_json": '{"a":"' + _ARGUMENTS},
            ),
        ),
    ),
    "ollama": Words(
        NDJSON,
        line(message={"role": "assistant", "content": "Hi"}, done=False),
        line(message={"role": "assistant", "content": ""}, done=True, done_reason="stop", eval_count=2),
        b'{"error":"It broke."}\n',
        b"{nonsense\n",
        line(done=False),
        b'{"model":"m","message":{"role":"assistant","content":"',
        line(message={"role": "assistant", "content": "Hi"}, done=True, done_reason="stop"),
        b'{"error":"It broke."}',
    ),
    "tgi": Words(
        answers.SSE_TYPE,
        tgi_chunk("Hi"),
        tgi_chunk("", "stop") + data("[DONE]").replace(b'"', b""),
        data({"error": {"message": "It broke.", "http_status_code": 424, "type": "generation"}}),
        b"data: {nonsense\n\n",
        data({"choices": []}) + answers.DONE,
        b'data: {"choices":"',
        answers.chat_body("Hi"),
        answers.json_body({"error": "It broke."}),
    ),
}

HUGE = 50 << 20
_CHUNKED = ("transfer-encoding", "chunked")


def stream(
    words: Words,
    *pieces: bytes,
    then: str = "end",
    headers: tuple[tuple[str, str], ...] = (),
    read: Gate | None = None,
) -> Script:
    """A stream of *pieces*, that ends by its framing, is cut, or stalls. *read*: opened when the client read the first.

    What comes in one read with the first words is no answer that was begun.
    """

    def script(x: Exchange) -> None:
        x.send(answers.head(200, words.type, _CHUNKED, *headers))
        for at, piece in enumerate(pieces):
            x.sleep(0.002)
            x.send(answers.chunk(piece))
            if read is not None and at == 0:
                x.stall(read)
        if then == "end":
            x.send(answers.LAST_CHUNK)
        elif then == "stall":
            x.await_abort()
        else:
            x.close()

    return script


def flood(words: Words, *pieces: bytes, more: bytes = b"x" * (1 << 16), size: int = HUGE) -> Script:
    """*pieces*, and then *more* again and again, as long as it is taken."""

    def script(x: Exchange) -> None:
        x.send(answers.head(200, words.type, _CHUNKED) + b"".join(map(answers.chunk, pieces)))
        for _ in range(size // len(more)):
            x.send(answers.chunk(more))
        x.send(answers.LAST_CHUNK)

    return script


def zipped(words: Words) -> Script:
    body = gzip.compress(words.begin + words.end)
    return answers.raw(
        answers.head(200, words.type, ("content-encoding", "gzip"), ("content-length", str(len(body)))) + body
    )


#: What a stream does before anything of it was told.
BEFORE: dict[str, Callable[[Words], Script]] = {
    "an error first": lambda words: stream(words, words.error),
    "empty": lambda words: stream(words),
    "closed": lambda words: answers.raw(b"", then="close"),
    "cut at once": lambda words: stream(words, then="cut"),
    "stalled": lambda words: stream(words, then="stall"),
    "nonsense": lambda words: stream(words, words.junk, then="stall"),
    "a long part": lambda words: flood(words, words.long),
    "compressed": zipped,
    "whole": lambda words: answers.whole(200, words.whole),
}
#: And after "Hi".
AFTER: dict[str, Callable[[Words, Gate], Script]] = {
    "an error": lambda words, read: stream(words, words.begin, words.error, read=read),
    "a cut": lambda words, read: stream(words, words.begin, then="cut", read=read),
    "an early end": lambda words, read: stream(words, words.begin, read=read),
    "a stall": lambda words, read: stream(words, words.begin, then="stall", read=read),
    "nonsense": lambda words, read: stream(words, words.begin, words.junk, then="stall", read=read),
    "disorder": lambda words, read: stream(words, words.begin, words.disorder, then="stall", read=read),
    "a long part": lambda words, read: flood(words, words.begin, words.long),
}


# --- what clients are told ---


def request(door: str, model: str, *, stream: bool, **more: Any) -> bytes:
    """A question at *door*."""
    fields: dict[str, Any] = {"model": model, "stream": stream}
    if door == "/v1/responses":
        fields |= {"input": "Hi", "store": False}
    else:
        fields["messages"] = [{"role": "user", "content": "Hi"}]
    if door == "/v1/messages":
        fields["max_tokens"] = 64
    return json.dumps(fields | more).encode()


def parts(door: str, body: bytes) -> list[dict[str, Any]]:
    """The data of a stream's events or lines; comments and [DONE] are none."""
    if door.startswith("/api/"):
        return [json.loads(one) for one in body.splitlines()]
    found = [one.partition(b"data: ")[2] for one in body.split(b"\n\n") if b"data: " in one]
    return [json.loads(one) for one in found if one != b"[DONE]"]


def is_error(door: str, part: dict[str, Any]) -> bool:
    return "error" in part if door in ("/v1/chat/completions", "/api/chat") else part.get("type") == "error"


def is_end(door: str, part: dict[str, Any]) -> bool:
    """Whether *part* is what ends a stream that is whole."""
    if door == "/v1/responses":
        return part.get("type") in ("response.completed", "response.incomplete")
    return part.get("type") == "message_stop" or part.get("done") is True


def text(door: str, found: list[dict[str, Any]]) -> str:
    """What the client was told before it ended."""
    said = ""
    for part in found:
        if door == "/v1/chat/completions":
            said += "".join(choice["delta"].get("content") or "" for choice in part.get("choices", ()))
        elif door == "/v1/responses":
            said += part["delta"] if part.get("type") == "response.output_text.delta" else ""
        elif door == "/v1/messages":
            said += part.get("delta", {}).get("text", "")
        else:
            said += part.get("message", {}).get("content", "")
    return said


def check_refusal(door: str, response: Response) -> str:
    """The message of an error that came in place of an answer, in the dialect of *door*."""
    assert response.complete and response.header("content-type") == "application/json", response
    said = response.json()
    if door == "/api/chat":
        assert set(said) == {"error"}
        return str(said["error"])
    if door == "/v1/messages":
        assert said["type"] == "error" and {"type", "message"} == set(said["error"])
    else:
        assert set(said["error"]) == {"message", "type", "param", "code"}
    return str(said["error"]["message"])


def check_broken(door: str, response: Response) -> None:
    """A stream that said "Hi", told one error, the last of all, and ended with its connection.

    Clients of responses are told both that there is an error, and that the response failed.
    """
    assert not response.complete and response.ended == "fin", response
    found = parts(door, response.body)
    if door == "/v1/responses":
        assert found.pop()["type"] == "response.failed"
    assert text(door, found) == "Hi", found
    errors = [at for at, part in enumerate(found) if is_error(door, part)]
    assert errors == [len(found) - 1], found
    assert not any(is_end(door, part) for part in found) and b"data: [DONE]" not in response.body
