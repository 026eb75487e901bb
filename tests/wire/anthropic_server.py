"""A scripted model server that speaks Anthropic's API: messages whole and streamed, their tokens counted, models.

Owns the scenarios, one for each model, or for a last word of a user's text such as `scenario:tools`. It refuses sockets
and records (`upstream`, whose ledger has every request) and the judgement of requests (`anthropic_rules`). Made by
`stage.upstream(anthropic_server.serve)`. Source: Anthropic's API reference; test_anthropic_server.py drives it with
the vendor's own SDK.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.wire import answers
from tests.wire.anthropic_rules import SIGNATURE, Refusal, check_body, check_head
from tests.wire.upstream import Exchange

#: What a backend of this server needs.
AUTH = {"type": "header", "header_name": "x-api-key", "token": "sk-ant-scripted"}
REQUEST_ID = "req_011CSHoEeqs5C35K2UUqR7Fy"
#: What the scripted model thinks and what nobody may read of it.
THOUGHT = "The user wants something. Grüße!"
HIDDEN = "EmwKAhgBEgy3va3pzix"
#: What it answers to somebody who has a schema.
SCHEMED = '{"name":"Ada","age":36}'
ARGUMENTS = {"city": "Zürich", "days": 2}
RATE_HEADERS = (
    ("retry-after", "7"),
    ("anthropic-ratelimit-requests-limit", "50"),
    ("anthropic-ratelimit-requests-remaining", "0"),
    ("anthropic-ratelimit-requests-reset", "2026-11-22T12:00:00Z"),
)


class Said(NamedTuple):
    """What the scripted model says."""

    blocks: list[dict[str, Any]]
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    #: How a stream of it ends: by its last event, an error event, in the middle, or never.
    end: str = "whole"


Fields = dict[str, Any]


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def call(number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number:02}", "name": name, "input": arguments}


def heard(fields: Fields) -> str:
    """All texts of the last message, results of tools among them."""
    content = fields["messages"][-1]["content"]
    blocks = [text(content)] if isinstance(content, str) else content
    said = []
    for block in blocks:
        inner = block.get("text") or block.get("content") or []
        said += [inner] if isinstance(inner, str) else [one.get("text", "") for one in inner]
    return " ".join(said)


def _echo(fields: Fields) -> Said:
    if "format" in fields.get("output_config", {}):
        return Said([text(SCHEMED)])
    return Said([text(f"You said: {heard(fields)}")])


def _tools(fields: Fields) -> Said:
    """Call the first tool, or the one that was chosen; with a result in hand, say it."""
    content = fields["messages"][-1]["content"]
    if not isinstance(content, str) and any(block["type"] == "tool_result" for block in content):
        return _echo(fields)
    names = [tool["name"] for tool in fields.get("tools", [])]
    choice = fields.get("tool_choice", {})
    if not names or choice.get("type") == "none":
        return _echo(fields)
    return Said([text("Let me look."), call(1, choice.get("name") or names[0], ARGUMENTS)], "tool_use")


def _parallel(fields: Fields) -> Said:
    """Call all tools, the last one without arguments; only the first where calls may not be parallel."""
    names = [tool["name"] for tool in fields.get("tools", [])]
    if fields.get("tool_choice", {}).get("disable_parallel_tool_use") or len(names) < 2:
        return _tools(fields)
    calls = [call(at, name, ARGUMENTS if at < len(names) else {}) for at, name in enumerate(names, 1)]
    return Said(calls, "tool_use")


def _thinking(fields: Fields) -> Said:
    thought = {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}
    then = _tools(fields)
    return then._replace(blocks=[thought, {"type": "redacted_thinking", "data": HIDDEN}, *then.blocks])


def _stop(fields: Fields) -> Said:
    return Said([text("One, two")], "stop_sequence", fields["stop_sequences"][0])


def _refuse(message: str, type: str, status: int) -> Callable[[Fields], Said]:
    def scenario(fields: Fields) -> Said:
        raise Refusal(message, type, status)

    return scenario


SCENARIOS: dict[str, Callable[[Fields], Said]] = {
    "echo": _echo,
    "tools": _tools,
    "parallel": _parallel,
    "thinking": _thinking,
    "stop": _stop,
    "length": lambda fields: Said([text("Once upon a")], "max_tokens"),
    "refusal": lambda fields: Said([text("I")], "refusal"),
    "broken": lambda fields: Said([text("Hello, world")], end="error"),
    "cut": lambda fields: Said([text("Hello, world")], end="cut"),
    "stall": lambda fields: Said([text("Hello, world")], end="stall"),
    "overloaded": _refuse("Overloaded", "overloaded_error", 529),
    "limited": _refuse("This request would exceed your rate limit", "rate_limit_error", 429),
    "failing": _refuse("Internal server error", "api_error", 500),
    "forbidden": _refuse("Your API key does not have permission", "permission_error", 403),
    "huge": _refuse("Request exceeds the maximum allowed number of bytes", "request_too_large", 413),
    "long": _refuse("prompt is too long: 200001 tokens > 200000 maximum", "invalid_request_error", 400),
}
#: The scenario `tools` is the model `claude-tools`.
MODELS = [f"claude-{name}" for name in SCENARIOS]


def serve(x: Exchange) -> None:
    """Answer one request as the API would."""
    target = urlsplit(x.request.target)
    try:
        version = check_head(dict(x.request.headers))
        if (x.request.method, target.path) == ("POST", "/v1/messages"):
            return _message(x, version)
        if (x.request.method, target.path) == ("POST", "/v1/messages/count_tokens"):
            fields = _fields(x)
            check_body(fields, version, counted=True)
            return _whole(x, 200, {"input_tokens": tokens(fields)})
        if x.request.method == "GET" and target.path.startswith("/v1/models"):
            return _whole(x, 200, _models(target.path.removeprefix("/v1/models").strip("/"), target.query))
        raise Refusal("Not found", "not_found_error", 404)
    except Refusal as refusal:
        error = {"type": refusal.type, "message": refusal.message}
        more = RATE_HEADERS if refusal.status == 429 else ()
        _whole(x, refusal.status, {"type": "error", "error": error, "request_id": REQUEST_ID}, *more)


def _fields(x: Exchange) -> Any:
    try:
        return json.loads(x.request.body)
    except ValueError:
        raise Refusal("The request body is not valid JSON") from None


def _message(x: Exchange, version: str) -> None:
    fields = _fields(x)
    check_body(fields, version)
    model = fields["model"]
    word = heard(fields).rpartition("scenario:")[2] if "scenario:" in heard(fields) else model.removeprefix("claude-")
    if model not in MODELS or word not in SCENARIOS:
        raise Refusal(f"model: {model}", "not_found_error", 404)
    said = SCENARIOS[word](fields)
    if not fields.get("stream"):
        if said.end == "stall":
            x.await_abort()
        return _whole(x, 200, whole_message(model, said, fields))
    x.send(answers.head(200, answers.SSE_TYPE, ("request-id", REQUEST_ID), ("transfer-encoding", "chunked")))
    for event in events(model, said, fields):
        x.sleep(0.001)
        x.send(answers.chunk(event))
    if said.end == "stall":
        x.await_abort()
    elif said.end == "cut":
        x.close()
    else:
        x.send(answers.LAST_CHUNK)


def _whole(x: Exchange, status: int, value: Any, *headers: tuple[str, str]) -> None:
    answers.whole(status, answers.json_body(value), ("request-id", REQUEST_ID), *headers)(x)


def tokens(fields: Fields) -> int:
    """The tokens of a request: words stand for them."""
    return len(json.dumps([fields.get("system", ""), fields["messages"], fields.get("tools", [])]).split())


def usage(said: Said, fields: Fields) -> dict[str, Any]:
    """All kinds of counts; a cache has 100 tokens in it and takes 10 more."""
    thought = sum(10 for block in said.blocks if block["type"] == "thinking")
    return {
        "input_tokens": tokens(fields),
        "cache_creation_input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 5 * len(said.blocks) + thought,
        "output_tokens_details": {"thinking_tokens": thought},
        "service_tier": "standard",
    }


def _empty(model: str) -> dict[str, Any]:
    ids = {"id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant", "model": model}
    return {**ids, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}


def whole_message(model: str, said: Said, fields: Fields) -> dict[str, Any]:
    ending = {"stop_reason": said.stop_reason, "stop_sequence": said.stop_sequence}
    return {**_empty(model), "content": said.blocks, **ending, "usage": usage(said, fields)}


def event(type: str, **fields: Any) -> bytes:
    data = json.dumps({"type": type, **fields}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {type}\ndata: {data}\n\n".encode()


def events(model: str, said: Said, fields: Fields) -> Iterator[bytes]:
    """A stream of what the model says, as far as its end lets it come."""
    counts = usage(said, fields)
    yield event("message_start", message={**_empty(model), "usage": {**counts, "output_tokens": 1}})
    for index, block in enumerate(said.blocks):
        start, deltas = _pieces(block)
        yield event("content_block_start", index=index, content_block=start)
        if not index:
            yield event("ping")
        for at, delta in enumerate(deltas):
            if at == 1 and said.end != "whole":
                if said.end == "error":
                    yield event("error", error={"type": "overloaded_error", "message": "Overloaded"})
                return
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    ending = {"stop_reason": said.stop_reason, "stop_sequence": said.stop_sequence}
    yield event(
        "message_delta",
        delta=ending,
        usage={"output_tokens": counts["output_tokens"], "output_tokens_details": counts["output_tokens_details"]},
    )
    yield event("message_stop")


def _pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How *block* begins, and its deltas."""
    if block["type"] == "text":
        return text(""), [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signed]
    if block["type"] == "tool_use":
        told = json.dumps(block["input"], ensure_ascii=False) if block["input"] else ""
        pieces = ["", *cut(told)] if told else []
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block, []


def cut(said: str, size: int = 7) -> list[str]:
    return [said[at : at + size] for at in range(0, len(said), size)]


def _models(name: str, query: str) -> dict[str, Any]:
    entries = [
        {
            "type": "model",
            "id": one,
            "display_name": one.title(),
            "created_at": "2026-02-04T00:00:00Z",
            "lifecycle": "active",
            "max_input_tokens": 200000,
            "max_tokens": 64000,
        }
        for one in MODELS
    ]
    if name:
        found = [entry for entry in entries if entry["id"] == name]
        if not found:
            raise Refusal(f"model: {name}", "not_found_error", 404)
        return found[0]
    asked = {key: values[-1] for key, values in parse_qs(query).items()}
    first = MODELS.index(asked["after_id"]) + 1 if "after_id" in asked else 0
    page = entries[first : first + int(asked.get("limit", 20))]
    more = first + len(page) < len(entries)
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"data": page, "has_more": more, **ends}
