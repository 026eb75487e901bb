"""POST /api/chat for Ollama's clients: its request in the hub's words, the hub's answers in its own.

Owns the body, and the answer and lines that go back. It refuses bytes of the request (the gateway decoded them) and
whether the answer is streamed (`stream.STREAM_DEFAULT`). Made by the gateway for a call on a translated route.
Source: docs/api.md and `api.ChatRequest`, `api.ChatResponse` of the server v0.33.

What happens to fields: `messages`, `tools`, `format`, `think`, `options` (see `options`), `logprobs` and `top_logprobs`
are translated; `keep_alive`, `truncate` and `shift` are hints and left out. Answers differ from a real server's in that
all durations are 0, every line has the same `created_at` and tool calls come at the end of a stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from protocols.dialect import Dropped, ErrorObject, JsonObject, Task, Unmappable
from protocols.ollama import fields, history, hub, options, request
from protocols.ollama.errors import error_line
from protocols.ollama.json_text import encode, encode_line, one_line
from protocols.ollama.moments import rfc3339
from protocols.pieces import Malformed

_KNOWN: Final = request.COMMON | {"messages", "tools", "_debug_render_only"}
_TOOL: Final = frozenset({"type", "function"})
#: With `strict`, which the server does not read and OpenAI's backends do.
_FUNCTION: Final = frozenset({"name", "description", "parameters", "strict"})
#: A message is one message of the hub, with its images among the parts of its content.
_NAMES: Final[Mapping[str, str]] = {
    **options.NAMES,
    "messages[].content[]": "messages[].images",
    "messages[].reasoning_content": "messages[].thinking",
}


def _tools(value: Any, dropped: Dropped) -> list[JsonObject]:
    """The hub's tools; Ollama knows functions only."""
    tools = []
    for at, entry in enumerate(fields.array(value, "tools")):
        param = f"tools[{at}]"
        tool = fields.json_object(entry, param)
        if fields.optional_text(tool.get("type"), f"{param}.type") not in ("", "function"):
            dropped.leave_out(f"{param}.type", "must be 'function'")
            continue
        function = fields.json_object(tool.get("function"), f"{param}.function")
        if not fields.text(function.get("name"), f"{param}.function.name"):
            raise Unmappable(f"'{param}.function.name' must not be empty", f"{param}.function.name")
        for inner, known, within in ((tool, _TOOL, param), (function, _FUNCTION, f"{param}.function")):
            fields.refuse_rest(inner, known, dropped, "is no field that can be translated", f"{within}.")
        given = {key: value for key, value in function.items() if key in _FUNCTION and value is not None}
        tools.append({"type": "function", "function": given})
    return tools


class ChatClient:
    """A `ClientSide` for /api/chat."""

    names = _NAMES
    repeats_text = True

    def __init__(self, given: JsonObject, stream: bool, id: str, created: int, dropped: Dropped) -> None:
        self.task = Task.CHAT
        self.hub = self._translate(given, stream, dropped)
        self._model: str = self.hub["model"]
        self._created_at = rfc3339(created)
        self._begin = encode({"model": self._model, "created_at": self._created_at})[:-1] + b',"message":'
        self._calls = hub.ToolCalls(id)
        self._ending = hub.Ending()

    def _translate(self, given: JsonObject, stream: bool, dropped: Dropped) -> JsonObject:
        asked = request.begin(given, stream, _KNOWN, dropped)
        asked["messages"] = history.to_hub(given.get("messages"), dropped)
        fields.refuse_set(given, {"_debug_render_only": False}, dropped, "is only for a server of Ollama itself")
        tools = _tools(given.get("tools"), dropped)
        if tools:
            asked["tools"] = tools
        asked |= options.to_hub(given.get("options"), "max_completion_tokens", dropped)
        form = request.response_format(given.get("format"))
        if form is not None:
            asked["response_format"] = form
        effort = request.reasoning_effort(given.get("think"))
        if effort is not None:
            asked["reasoning_effort"] = effort
        return asked | request.logprobs(given)

    def answer(self, answer: JsonObject) -> bytes:
        """A whole answer's body. Raises `Malformed`."""
        choice = self._ending.note(answer)
        if choice is None:
            raise Malformed("an answer has no choice")
        message = hub.inner(choice, "message")
        told: JsonObject = {
            "role": "assistant",
            "content": hub.content(message),
        }
        thinking = hub.text(message, "reasoning_content")
        if thinking:
            told["thinking"] = thinking
        if message.get("tool_calls"):
            self._calls.add(message["tool_calls"])
            told["tool_calls"] = self._calls.take()
        body = {"model": self._model, "created_at": self._created_at, "message": told} | self._ending.members()
        logprobs = hub.logprobs(choice)
        return encode(body if logprobs is None else body | {"logprobs": logprobs})

    def feed(self, chunk: JsonObject) -> bytes:
        """The lines that *chunk* becomes. Raises `Malformed`, for tool calls when the last of them is known."""
        choice = self._ending.note(chunk)
        if choice is None:
            return b""
        delta = hub.inner(choice, "delta")
        content = hub.content(delta)
        thinking = hub.text(delta, "reasoning_content")
        logprobs = hub.logprobs(choice)
        told = b""
        if content or thinking or logprobs is not None:
            told = self._line(content, thinking, logprobs)
        if delta.get("tool_calls"):
            self._calls.add(delta["tool_calls"])
        return told + self._told_calls() if self._ending.finish and self._calls else told

    def _line(self, content: str, thinking: str, logprobs: list[Any] | None) -> bytes:
        parts = [self._begin, b'{"role":"assistant","content":', encode(content)]
        if thinking:
            parts += (b',"thinking":', encode(thinking))
        parts.append(b'},"done":false')
        if logprobs is not None:
            parts += (b',"logprobs":', encode(logprobs))
        parts.append(b"}\n")
        return one_line(b"".join(parts))

    def _told_calls(self) -> bytes:
        message = {"role": "assistant", "content": "", "tool_calls": self._calls.take()}
        return one_line(self._begin + encode(message) + b',"done":false}\n')

    def end(self) -> bytes:
        """The last line. Raises `Malformed`."""
        told = self._told_calls() if self._calls else b""
        message = {"role": "assistant", "content": ""}
        last = {"model": self._model, "created_at": self._created_at, "message": message}
        return told + encode_line(last | self._ending.members())

    def fail(self, error: ErrorObject) -> bytes:
        """The line of an error: the status was sent, so this is how Ollama says it."""
        return error_line(error)
