"""POST /api/chat of a server of Ollama: the hub's chat asked there, its answers in the hub's words.

Owns one attempt. It refuses sockets and choosing a server. Made by the gateway for an attempt on a translated route.
Source: `FromChatRequest`, `ToChatCompletion`, `ToStreamChunks` of the server v0.33, which is its own /v1.

The native API takes what is not set (temperature, top_p, the number of tokens) from the model's Modelfile, and so it
stays here; its own /v1 sets temperature and top_p to 1 instead. What the two treat differently besides: a message
stays one message, and usage is told where the server counted.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.dialect import Ask, Dropped, ErrorObject, JsonObject, Terms, Unmappable
from protocols.ollama import conversation, fields, options
from protocols.ollama.errors import read_error
from protocols.ollama.json_text import encode
from protocols.ollama.replies import Message, Replies, Reply, arguments_of, finish_of, read_answer, usage_of
from protocols.pieces import Malformed

#: Labels, and hints about price, storage and speed.
LABELS: Final = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "safety_identifier", "prediction", "stream_options"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
    }
)
#: Fields that change the answer and have no equivalent, with the value at which they do not.
_ODD: Final[dict[str, Any]] = {
    "n": 1,
    "logit_bias": {},
    "verbosity": "medium",
    "modalities": ["text"],
    "audio": None,
    "web_search_options": None,
    "functions": [],
    "function_call": None,
    "moderation": None,
}
_KNOWN: Final = (
    frozenset({"model", "stream", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format"})
    | {"reasoning_effort", "logprobs", "top_logprobs"}
    | options.HUB_FIELDS
    | LABELS
    | _ODD.keys()
)

#: The efforts of OpenAI's scale, and Ollama's levels (`thinkFromReasoningEffort`); false means no thinking.
_EFFORTS: Final[dict[str, str | bool]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}

NO_EQUIVALENT: Final = "has no equivalent in Ollama"


def _format(value: Any) -> Any:
    """`format` for the hub's response_format; None where text is asked for."""
    if value is None:
        return None
    wanted = fields.json_object(value, "response_format")
    type = fields.text(wanted.get("type"), "response_format.type")
    if type == "text":
        return None
    if type == "json_object":
        return "json"
    if type != "json_schema":
        raise Unmappable("'response_format.type' must be text, json_object or json_schema", "response_format.type")
    schema = fields.json_object(wanted.get("json_schema"), "response_format.json_schema")
    return fields.optional_object(schema.get("schema"), "response_format.json_schema.schema") or "json"


def _think(value: Any) -> str | bool | None:
    effort = fields.optional_text(value, "reasoning_effort")
    if not effort:
        return None
    if effort not in _EFFORTS:
        raise Unmappable(f"'reasoning_effort' must be one of {', '.join(_EFFORTS)}", "reasoning_effort")
    return _EFFORTS[effort]


def _tools(hub: JsonObject, dropped: Dropped) -> list[JsonObject]:
    """The tools that may be called: none where tool_choice says so. That one must be called cannot be said."""
    tools = conversation.tools(hub.get("tools"), dropped)
    choice = hub.get("tool_choice")
    if choice == "none":
        return []
    if choice not in (None, "auto"):
        dropped.leave_out("tool_choice", "other than auto or none " + NO_EQUIVALENT)
    if tools and hub.get("parallel_tool_calls") not in (None, True):
        dropped.leave_out("parallel_tool_calls", "other than true " + NO_EQUIVALENT)
    return tools


def _request(hub: JsonObject, stream: bool, dropped: Dropped) -> JsonObject:
    """The body without its model."""
    fields.refuse_rest(hub, _KNOWN, dropped, "is no field that can be translated for Ollama")
    fields.refuse_set(hub, _ODD, dropped, NO_EQUIVALENT)
    body: JsonObject = {"messages": conversation.messages(hub.get("messages"), dropped), "stream": stream}
    told = {
        "tools": _tools(hub, dropped) or None,
        "format": _format(hub.get("response_format")),
        "options": options.from_hub(hub) or None,
        "think": _think(hub.get("reasoning_effort")),
    }
    body |= {name: value for name, value in told.items() if value is not None}
    if fields.flag(hub.get("logprobs"), "logprobs"):
        body["logprobs"] = True
        most = fields.integer(hub.get("top_logprobs") or 0, "top_logprobs")
        if most:
            body["top_logprobs"] = most
    return body


class ChatBackend:
    """A `BackendSide` for /api/chat."""

    repeats_text = False

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        self._body = fields.written(_request(hub, stream, dropped))
        self._id = id
        self._model = fields.optional_text(hub.get("model"), "model")
        self._created = created
        self._replies = Replies(self._chunks)
        self._begun = False
        self._calls = 0

    def ask(self, model: str) -> Ask:
        return Ask(b"/api/chat", b'{"model":' + encode(model) + b"," + self._body[1:])

    def forget(self) -> None:
        self._body = b""

    def error(self, status: int, body: bytes) -> ErrorObject:
        return read_error(status, body)

    def answer(self, body: bytes) -> JsonObject:
        reply = read_answer(body)
        found = _message(reply)
        message: JsonObject = {"role": "assistant", "content": found.content or "", "refusal": None}
        if found.thinking:
            message["reasoning_content"] = found.thinking
        if found.tool_calls:
            message["content"] = found.content or None
            message["tool_calls"] = self._tool_calls(found, indexed=False)
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": reply.logprobs, "refusal": None} if reply.logprobs else None,
            "finish_reason": finish_of(reply, self._calls > 0),
        }
        answer = self._envelope("chat.completion", [choice])
        usage = usage_of(reply)
        return answer if usage is None else answer | {"usage": usage}

    def feed(self, payload: bytes) -> list[JsonObject]:
        return self._replies.feed(payload)

    @property
    def is_over(self) -> bool:
        return self._replies.is_over

    def end(self) -> list[JsonObject]:
        return self._replies.end()

    def _envelope(self, object: str, choices: list[JsonObject]) -> JsonObject:
        return {
            "id": f"chatcmpl-{self._id}",
            "object": object,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }

    def _tool_calls(self, message: Message, indexed: bool) -> list[JsonObject]:
        """The hub's calls; where the server gave none an id, one is made of the answer's."""
        told: list[JsonObject] = []
        for call in message.tool_calls or ():
            entry: JsonObject = {"index": self._calls} if indexed else {}
            entry["id"] = call.id or f"call_{self._id}_{self._calls}"
            entry["type"] = "function"
            entry["function"] = {"name": call.function.name, "arguments": arguments_of(call)}
            told.append(entry)
            self._calls += 1
        return told

    def _chunks(self, reply: Reply) -> list[JsonObject]:
        """The chunks of one line: reasoning, then the rest, then the end and the usage, each its own."""
        message = _message(reply)
        chunks: list[JsonObject] = []
        if message.thinking:
            chunks.append(self._chunk({"reasoning_content": message.thinking}))
        if message.content or message.tool_calls or reply.logprobs:
            delta: JsonObject = {"content": message.content} if message.content else {}
            if message.tool_calls:
                delta["tool_calls"] = self._tool_calls(message, indexed=True)
            chunks.append(self._chunk(delta))
            if reply.logprobs:
                chunks[-1]["choices"][0]["logprobs"] = {"content": reply.logprobs, "refusal": None}
        if reply.done:
            chunks.append(self._chunk({}, finish_of(reply, self._calls > 0)))
            usage = usage_of(reply)
            if usage is not None:
                chunks.append(self._envelope("chat.completion.chunk", []) | {"usage": usage})
        return chunks

    def _chunk(self, delta: JsonObject, finish: str | None = None) -> JsonObject:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", "content": ""} | delta
        return self._envelope("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": finish}])


def _message(reply: Reply) -> Message:
    if reply.message is None:
        raise Malformed("an answer has no message")
    return reply.message
