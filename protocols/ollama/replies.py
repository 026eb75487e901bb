"""Answers of a server of Ollama, read: whole ones, and streams line by line.

Owns their types, the order of a stream (nothing follows the line that is done, and there is one) and its errors. It
refuses the hub's words (`chat_backend`, `completion_backend`). Source: `api.ChatResponse`, `api.GenerateResponse`,
`streamResponse` of the server v0.33.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, TypedDict

import msgspec
from msgspec import UNSET

from protocols.dialect import Broken, JsonObject, are_tokens
from protocols.ndjson import LineReader
from protocols.ollama.errors import is_error, read_error
from protocols.pieces import Malformed

#: Larger ones are counted by nobody, and some writers of JSON refuse them.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Byte = Annotated[int, msgspec.Meta(ge=0, lt=256)]


class _Token(TypedDict, total=False):
    token: str
    logprob: float
    bytes: list[_Byte] | None


class _Logprob(_Token, total=False):
    top_logprobs: list[_Token] | None


class Function(msgspec.Struct, gc=False):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class ToolCall(msgspec.Struct, gc=False):
    function: Function
    id: str | None = None


class Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCall] | None = None


class Reply(msgspec.Struct, gc=False):
    """An answer of /api/chat or /api/generate, or one line of it."""

    message: Message | None = None
    response: str | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: _Count | None = None
    eval_count: _Count | None = None
    logprobs: list[_Logprob] | None = None
    error: msgspec.Raw | msgspec.UnsetType = UNSET


_decode: Final = msgspec.json.Decoder(Reply).decode


def _read(data: bytes) -> Reply:
    try:
        return _decode(data)
    except msgspec.ValidationError:
        raise Malformed("a value of an answer has another type than Ollama's") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Malformed("an answer is no JSON") from None


def read_answer(body: bytes) -> Reply:
    """A whole answer. Raises `Malformed`, also for one that is not done or is an error with a good status."""
    reply = _read(body)
    if reply.error is not UNSET and is_error(reply.error):
        raise Malformed("an answer is an error although its status says otherwise")
    if not reply.done:
        raise Malformed("an answer does not say that it is done")
    return reply


def arguments_of(call: ToolCall) -> str:
    """The arguments as the hub has them: the text of a JSON object."""
    data = bytes(call.function.arguments)
    if data == b"null":
        return "{}"
    if data[:1] != b"{":
        raise Malformed("the arguments of a tool call are no JSON object")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("the arguments of a tool call are no UTF-8") from None


def usage_of(reply: Reply) -> JsonObject | None:
    """The hub's usage. A count that is left out is 0 (`omitempty`); where both are, nothing was counted."""
    if reply.prompt_eval_count is None and reply.eval_count is None:
        return None
    prompt, completion = reply.prompt_eval_count or 0, reply.eval_count or 0
    if not are_tokens(prompt, completion):
        return None
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def finish_of(reply: Reply, called: bool = False) -> str:
    """The hub's finish_reason. Ollama says "stop" before a tool call too, as its own /v1 corrects."""
    if reply.done_reason == "length":
        return "length"
    return "tool_calls" if called else "stop"


class Replies:
    """The lines of one stream, turned into chunks by *tell*, which may raise `Malformed`."""

    def __init__(self, tell: Callable[[Reply], list[JsonObject]]) -> None:
        self._tell = tell
        self._reader = LineReader()
        self._done = False

    def feed(self, payload: bytes) -> list[JsonObject]:
        """The chunks in *payload*. Raises `Malformed` and `Broken`."""
        return self._chunks(self._reader.feed(payload))

    @property
    def is_over(self) -> bool:
        """Whether its last line came."""
        return self._done

    def end(self) -> list[JsonObject]:
        """The chunks of a last line without an end. Raises `Malformed` where the stream was not done, and `Broken`."""
        chunks = self._chunks(self._reader.end())
        if not self._done:
            raise Malformed("a stream ended before it was done")
        return chunks

    def _chunks(self, lines: list[bytes]) -> list[JsonObject]:
        chunks: list[JsonObject] = []
        try:
            for line in lines:
                chunks += self._line(line)
        except (Malformed, Broken) as fault:
            fault.before = chunks
            raise
        return chunks

    def _line(self, line: bytes) -> list[JsonObject]:
        if self._done:
            raise Malformed("a stream goes on after it was done")
        reply = _read(line)
        if reply.error is not UNSET and is_error(reply.error):
            raise Broken(read_error(500, line))
        self._done = reply.done
        return self._tell(reply)
