"""What OpenAI's backends and their kin answer, read with types and brought into the hub's one way of saying it.

Owns the types of answers and chunks, and the habits of compatible servers: other names for reasoning and for finish
reasons, nulls, tool calls without index or id, usage in odd places. It refuses the stream's own order (`backend`) and
every field that the hub does not know: it is gone. Called by `backend`.
Sources: OpenAI's OpenAPI document 2.3.0; vLLM 0.32, llama.cpp (2026-10), transformers 5.19, groq-python and
together-python as of 2026.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Final, TypedDict, TypeVar

import msgspec

from protocols.dialect import Broken, ErrorObject, JsonObject, are_tokens
from protocols.openai.errors import carries_error, read_stream_error
from protocols.pieces import Malformed

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
#: OpenAI gives at most 128 choices.
ChoiceIndex = Annotated[int, msgspec.Meta(ge=0, lt=128)]
#: Calls of one message; more are no answer that anybody can use.
CALLS_LIMIT: Final = 256
CallIndex = Annotated[int, msgspec.Meta(ge=0, lt=CALLS_LIMIT)]
Byte = Annotated[int, msgspec.Meta(ge=0, lt=256)]

Body = TypeVar("Body", bound=msgspec.Struct)

_NULL: Final = msgspec.Raw(b"null")

#: What finish reasons of compatible servers mean in OpenAI's words. Any other one is a stop.
_FINISH: Final = {
    **{reason: reason for reason in ("stop", "length", "tool_calls", "content_filter", "function_call")},
    "max_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
}
#: A generation that the server gave up (OpenRouter and Mistral, vLLM).
_FAILED: Final = frozenset({"error", "abort"})


class _TopLogprob(TypedDict, total=False):
    token: str
    logprob: float
    bytes: list[Byte] | None


class _Logprob(_TopLogprob, total=False):
    top_logprobs: list[_TopLogprob] | None


class _Logprobs(TypedDict, total=False):
    """Chat's (content, refusal) and the older one of completions."""

    content: list[_Logprob] | None
    refusal: list[_Logprob] | None
    tokens: list[str] | None
    token_logprobs: list[float | None] | None
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[Count] | None


class _Function(TypedDict, total=False):
    name: str | None
    arguments: str | dict[str, Any] | None


class _ToolCall(TypedDict, total=False):
    index: CallIndex | None
    id: str | None
    type: str | None
    function: _Function | None


class _Message(TypedDict, total=False):
    """A message, and a delta."""

    role: str | None
    content: str | None
    refusal: str | None
    reasoning_content: str | None
    reasoning: str | None
    tool_calls: list[_ToolCall] | None


class _Choice(TypedDict, total=False):
    index: ChoiceIndex | None
    message: _Message | None
    delta: _Message | None
    text: str | None
    finish_reason: str | None
    stop_reason: str | int | None
    logprobs: _Logprobs | None


class _PromptDetails(TypedDict, total=False):
    cached_tokens: Count | None
    audio_tokens: Count | None
    cache_creation_tokens: Count | None


class _CompletionDetails(TypedDict, total=False):
    reasoning_tokens: Count | None
    audio_tokens: Count | None
    accepted_prediction_tokens: Count | None
    rejected_prediction_tokens: Count | None


class _Usage(TypedDict, total=False):
    prompt_tokens: Count | None
    completion_tokens: Count | None
    total_tokens: Count | None
    prompt_tokens_details: _PromptDetails | None
    completion_tokens_details: _CompletionDetails | None


class _XGroq(msgspec.Struct):
    usage: _Usage | None = None
    error: str | None = None


class Heard(msgspec.Struct):
    """A whole answer, or a chunk."""

    id: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    x_groq: _XGroq | None = None
    error: msgspec.Raw = _NULL


class _Embedding(msgspec.Struct):
    embedding: list[float] | str
    index: Count | None = None


class HeardEmbeddings(msgspec.Struct):
    """A whole answer of POST /v1/embeddings."""

    data: list[_Embedding]
    model: str | None = None
    usage: _Usage | None = None


_decode: Final = msgspec.json.Decoder(Heard).decode
_decode_embeddings: Final = msgspec.json.Decoder(HeardEmbeddings).decode


def read_chunk(data: bytes) -> Heard:
    """One event's data. Raises `Malformed`, and `Broken` where it is an error."""
    try:
        heard = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if carries_error(data):
            raise Broken(read_stream_error(data)) from None
        raise Malformed("an event of the stream is no chunk") from None
    if heard.error is not _NULL and carries_error(data):
        raise Broken(read_stream_error(data))
    if heard.x_groq is not None and heard.x_groq.error:
        raise Broken(ErrorObject(502, heard.x_groq.error))
    if heard.choices is None and heard.usage is None:
        if carries_error(data):
            raise Broken(read_stream_error(data))
        raise Malformed("an event of the stream has no choices")
    return heard


def read_answer(body: bytes) -> Heard:
    """A whole answer; it has a choice. Raises `Malformed`."""
    heard = _read_body(body, _decode)
    if not heard.choices:
        raise Malformed("the answer has no choices")
    return heard


def read_embeddings(body: bytes) -> HeardEmbeddings:
    """A whole answer of embeddings. Raises `Malformed`."""
    return _read_body(body, _decode_embeddings)


def _read_body(body: bytes, decode: Callable[[bytes], Body]) -> Body:
    heard = None
    try:
        heard = decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    if carries_error(body):
        raise Malformed("an error came in place of an answer, with a status of success")
    if heard is None:
        raise Malformed("the answer is none of OpenAI's")
    return heard


def finish_of(reason: str, calls: bool) -> str:
    """A finish reason in OpenAI's words; *calls* says whether the choice has a tool call. Raises `Broken`."""
    if reason in _FAILED:
        raise Broken(ErrorObject(502, "the upstream gave up in the middle of its answer"))
    known = _FINISH.get(reason, "stop")
    # OpenAI itself and vLLM say "stop" where a call was forced by tool_choice.
    return "tool_calls" if calls and known == "stop" else known


def usage_of(heard: Heard) -> JsonObject | None:
    """The usage of an answer or a chunk, wherever it sits; None where it has none, or nonsense."""
    usage = heard.usage
    if usage is None and heard.x_groq is not None:
        usage = heard.x_groq.usage
    if usage is None:
        return None
    prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    if not are_tokens(prompt, completion):
        return None
    total = usage.get("total_tokens") or prompt + completion
    tidy: JsonObject = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    details: tuple[tuple[str, Any], ...] = (
        ("prompt_tokens_details", usage.get("prompt_tokens_details")),
        ("completion_tokens_details", usage.get("completion_tokens_details")),
    )
    for name, counts in details:
        known = {key: count for key, count in counts.items() if count is not None} if counts else None
        if known:
            tidy[name] = known
    return tidy


def tidy_message(message: JsonObject) -> JsonObject:
    """A message or a delta without its nulls, its reasoning under the hub's name; its tool calls as they came."""
    reasoning = message.pop("reasoning", None)
    if None in message.values():
        message = {name: value for name, value in message.items() if value is not None}
    if reasoning and not message.get("reasoning_content"):
        message["reasoning_content"] = reasoning
    return message


def arguments_of(function: Any) -> str:
    """The text of a call's arguments; some servers give the object itself. Raises `Malformed`."""
    arguments = function.get("arguments")
    if arguments is None:
        return ""
    if isinstance(arguments, str):
        return arguments
    try:
        return json.dumps(
            arguments, ensure_ascii=False, separators=(",", ":")
        )  # orjson refuses numbers that JSON allows
    except RecursionError:
        raise Malformed("the arguments of a tool call are nested too deeply") from None


def opened_call(index: int | None, call: Any, id: str) -> JsonObject:
    """A call as it is told first, or whole (*index* None); *id* is for one that has none. Raises `Malformed`."""
    function = call.get("function") or {}
    if not function.get("name"):
        raise Malformed("a tool call has no name")
    place = {} if index is None else {"index": index}
    named = {"name": function["name"], "arguments": arguments_of(function)}
    return {**place, "id": call.get("id") or id, "type": "function", "function": named}


class Calls:
    """The tool calls of one choice of a stream, numbered in the order in which they open.

    Some servers give no index, the same index to each, or the id and the name again with each piece.
    """

    __slots__ = ("_id", "_last", "_opened", "_places")

    def __init__(self, id: str) -> None:
        #: What the ids of calls that have none are made of.
        self._id = id
        #: By the server's index: the hub's, and the id it was opened with.
        self._places: dict[int, tuple[int, str | None]] = {}
        self._opened = 0
        #: The server's index of the latest piece.
        self._last = 0

    def read(self, call: Any) -> JsonObject:
        """A piece of a call in the hub's words. Raises `Malformed`."""
        id = call.get("id") or None
        index = call.get("index")
        if index is None:
            index = self._last if id is None else self._index_of(id)
        known = self._places.get(index)
        if known is None or (id is not None and known[1] is not None and id != known[1]):
            return self._open(index, id, call)
        self._last = index
        return {"index": known[0], "function": {"arguments": arguments_of(call.get("function") or {})}}

    def _index_of(self, id: str) -> int:
        for index, (_, known) in self._places.items():
            if known == id:
                return index
        return len(self._places)

    def _open(self, index: int, id: str | None, call: Any) -> JsonObject:
        place = self._opened
        if place >= CALLS_LIMIT:
            raise Malformed(f"an answer has more than {CALLS_LIMIT} tool calls")
        opened = opened_call(place, call, f"call_{self._id}_{place}")
        self._opened += 1
        self._places[index] = (place, id)
        self._last = index
        return opened
