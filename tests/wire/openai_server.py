"""A scripted model server that speaks OpenAI's chat as its kin do: reasoning, stop reasons, calls in turns.

Owns the scenarios, one for each model, and a judgement of what it is asked. It refuses sockets and records (`upstream`)
and events (`answers`). Made by `stage.upstream(openai_server.serve)`. Source: OpenAI's OpenAPI document 2.3.0;
reasoning_content and stop_reason as vLLM 0.32 has them. A server of chats alone: other paths are 404.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.wire import answers
from tests.wire.upstream import Exchange

THOUGHT = "The user greets."
SCHEMED = '{"name":"Ada","age":36}'
ARGUMENTS = {"city": "Zürich", "days": 2}
FIELDS = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "tools"),
        *("tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "temperature", "top_p", "n"),
        *("seed", "user", "safety_identifier", "logprobs", "top_logprobs", "metadata", "store", "top_k", "verbosity"),
    }
)

Fields = dict[str, Any]


class Refusal(Exception):
    """A request that OpenAI's API would not take."""


class Said(NamedTuple):
    """What the scripted model says."""

    text: str = ""
    calls: list[Fields] = []  # noqa: RUF012  # nobody changes it
    thought: str = ""
    finish: str = "stop"
    stop: str | None = None


def need(sound: bool, message: str) -> None:
    if not sound:
        raise Refusal(message)


def check(fields: Any) -> None:
    """Refuse what is no request for a chat: unknown fields, roles, and results that no call asked for."""
    need(isinstance(fields, dict) and isinstance(fields.get("messages"), list) and fields["messages"], "no messages")
    for name in fields:
        need(name in FIELDS, f"Unknown parameter: '{name}'.")
    need("stream_options" not in fields or fields.get("stream") is True, "stream_options without stream")
    open_calls: set[str] = set()
    for message in fields["messages"]:
        role = message.get("role")
        need(role in ("system", "developer", "user", "assistant", "tool"), f"role {role!r}")
        if role == "tool":
            need(message.get("tool_call_id") in open_calls, "a result without a call before it")
            open_calls.discard(message["tool_call_id"])
        else:
            need(not open_calls, "calls without results")
        for call in message.get("tool_calls") or ():
            need(isinstance(json.loads(call["function"]["arguments"]), dict), "arguments that are no object")
            open_calls.add(call["id"])
    need(not open_calls, "calls without results")
    for tool in fields.get("tools") or ():
        need(tool["type"] == "function" and bool(tool["function"]["name"]), "a tool that is no function")


def heard(message: Fields) -> str:
    """The text of *message*, and how many images it shows."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    texts = [part["text"] for part in content if part["type"] == "text"]
    images = [part for part in content if part["type"] == "image_url"]
    need(all(part["image_url"]["url"] for part in images), "an image without a URL")
    return " ".join([*texts, *(["(an image)"] * len(images))])


def call(number: int, name: str, arguments: Fields) -> Fields:
    told = json.dumps(arguments, ensure_ascii=False) if arguments else "{}"
    return {"id": f"call_{number:02}", "type": "function", "function": {"name": name, "arguments": told}}


def said(word: str, fields: Fields) -> Said:
    """What the model of the scenario *word* says to *fields*."""
    last = fields["messages"][-1]
    names = [tool["function"]["name"] for tool in fields.get("tools") or ()]
    if word in ("tools", "parallel") and names and last["role"] != "tool" and fields.get("tool_choice") != "none":
        if word == "tools":
            return Said("", [call(1, names[0], ARGUMENTS)], finish="tool_calls")
        calls = [call(at, name, ARGUMENTS if at < len(names) else {}) for at, name in enumerate(names, 1)]
        return Said("", calls, finish="tool_calls")
    if (fields.get("response_format") or {}).get("type") == "json_schema":
        return Said(SCHEMED)
    text = f"You said: {heard(last)}"
    if word == "thinking":
        return Said(text, thought=THOUGHT)
    if word == "stop":
        stops = fields["stop"]
        return Said("One, two", stop=stops if isinstance(stops, str) else stops[0])
    if word == "length":
        return Said("Once upon a", finish="length")
    if word == "refusal":
        return Said("I", finish="content_filter")
    return Said(text)


def serve(x: Exchange) -> None:
    """Answer one request."""
    path = x.request.target.partition("?")[0]
    if path != "/v1/chat/completions":
        return answers.error(404, f"Invalid URL (POST {path})")(x)
    try:
        fields = x.request.json()
        check(fields)
    except Refusal as refusal:
        return answers.error(400, str(refusal))(x)
    what = said(fields["model"], fields)
    if fields.get("stream"):
        return answers.stream(list(events(what, (fields.get("stream_options") or {}).get("include_usage") is True)))(x)
    message: Fields = {"role": "assistant", "content": what.text or None, "refusal": None}
    message |= {"tool_calls": what.calls} if what.calls else {}
    message |= {"reasoning_content": what.thought} if what.thought else {}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": what.finish, "stop_reason": what.stop}
    answers.whole(200, answers.chat_body(choices=[choice]))(x)


def events(what: Said, counts: bool) -> Iterator[bytes]:
    """A stream; the arguments of several calls come in turns, a few letters at a time."""
    yield answers.event({"role": "assistant", "content": ""})
    for at in range(0, len(what.thought), 7):
        yield answers.event({"reasoning_content": what.thought[at : at + 7]})
    for at in range(0, len(what.text), 3):
        yield answers.event({"content": what.text[at : at + 3]})
    for index, one in enumerate(what.calls):
        begun = {**one, "index": index, "function": {**one["function"], "arguments": ""}}
        yield answers.event({"tool_calls": [begun]})
    longest = max((len(one["function"]["arguments"]) for one in what.calls), default=0)
    for at in range(0, longest, 5):
        for index, one in enumerate(what.calls):
            piece = one["function"]["arguments"][at : at + 5]
            if piece:
                yield answers.event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    last = json.loads(answers.event({}, finish=what.finish)[6:])
    last["choices"][0]["stop_reason"] = what.stop
    yield b"data: " + answers.json_body(last) + b"\n\n"
    if counts:
        yield answers.usage_event()
    yield answers.DONE
