"""OpenAI's chat over TGI's own /v1/chat/completions, with the edges of that door mended.

Owns both directions: the request's fields that TGI reads otherwise, and in answers the finish reasons, stop sequences,
ids, roles and tool calls that OpenAI's clients would trip over. It refuses the native API (`completion`). A
ChatBackend is made by the gateway for each attempt.
Source: ChatRequest, ChatCompletionChunk, chat_completions (router/src/lib.rs, server.rs), ChatState (chat.rs).
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.dialect import Ask, Broken, Dropped, ErrorObject, JsonObject, Terms, are_tokens
from protocols.pieces import Malformed
from protocols.tgi import errors
from protocols.tgi.fields import Count, encode, flag, integer, leave_out_rest, number, seed, stops
from protocols.tgi.messages import read_choice, read_format, read_messages, read_tools
from protocols.tgi.stops import StopText, cut
from protocols.tgi.stream import EventStream

_KNOWN: Final = frozenset(
    {
        *("messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop"),
        *("frequency_penalty", "logprobs", "top_logprobs", "tools", "tool_choice", "response_format"),
        "parallel_tool_calls",
    }
)
#: It writes eos_token as stop, and leaves stop_sequence as it is; an older one leaves both.
_FINISHES: Final = {"stop": "stop", "eos_token": "stop", "stop_sequence": "stop", "length": "length"}


class _Function(msgspec.Struct):
    name: str | None = None
    #: A text since 3.2; an object before.
    arguments: msgspec.Raw = msgspec.Raw(b"null")


class _Call(msgspec.Struct):
    function: _Function
    id: str | int | None = None
    index: int = 0


class _Logprob(msgspec.Struct):
    token: str
    logprob: float | None = None
    top_logprobs: list[_Logprob] = []


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


class _Message(msgspec.Struct):
    """A whole message, or a delta."""

    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    delta: _Message | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Count
    completion_tokens: Count


class _Error(msgspec.Struct):
    message: str


class _Body(msgspec.Struct):
    """A whole answer, or a chunk."""

    choices: list[_Choice] = []
    model: str | None = None
    system_fingerprint: str | None = None
    usage: _Usage | None = None
    #: In a chunk's place; a text where the native API's error came.
    error: _Error | str | None = None


_decode_body: Final = msgspec.json.Decoder(_Body).decode
_decode_text: Final = msgspec.json.Decoder(str | None).decode


class ChatBackend(EventStream):
    """One attempt at /v1/chat/completions of TGI. A BackendSide."""

    repeats_text = False

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        # the request
        self._stops = stops(hub)
        self._fields = encode(self._read_fields(hub, stream, dropped))[1:]
        leave_out_rest(hub, _KNOWN, dropped)
        # every chunk's, and the whole answer's
        self._id = id
        self._base: JsonObject = {
            "id": f"chatcmpl-{id}",
            "object": "chat.completion.chunk" if stream else "chat.completion",
            "created": created,
            "model": "",
        }
        # the stream's progress
        super().__init__()
        self._held = StopText(self._stops) if self._stops else None
        self._begun = self._called = self._finished = False

    def _read_fields(self, hub: JsonObject, stream: bool, dropped: Dropped) -> JsonObject:
        temperature, top_p = number(hub, "temperature", 0), number(hub, "top_p", 0, 1)
        if top_p == 0:  # the likeliest token alone; TGI takes a 0 for the temperature only
            temperature, top_p = 0, None
        limit = integer(hub, "max_completion_tokens", 1)
        logprobs = flag(hub, "logprobs")
        flag(hub, "parallel_tool_calls")  # it makes one call at most, whatever is allowed
        tools = read_tools(hub)
        told: JsonObject = {
            "messages": read_messages(hub, dropped),
            "max_tokens": limit or integer(hub, "max_tokens", 1),
            "temperature": temperature,
            "top_p": top_p if top_p != 1 else None,
            "seed": seed(hub),
            "stop": self._stops or None,
            "frequency_penalty": number(hub, "frequency_penalty", -2, 2),
            "logprobs": logprobs or None,
            "top_logprobs": integer(hub, "top_logprobs", 0, 20) if logprobs else None,
            "tools": tools,
            "tool_choice": read_choice(hub, dropped) if tools else None,
            "response_format": read_format(hub, dropped),
            "stream": True if stream else None,
            "stream_options": {"include_usage": True} if stream else None,
        }
        return {name: value for name, value in told.items() if value is not None}

    def ask(self, model: str) -> Ask:
        """The request. TGI takes *model* for an adapter's name; one that it does not know is the model itself."""
        self._base["model"] = model
        return Ask(b"/v1/chat/completions", b'{"model":%s,%s' % (encode(model), self._fields))

    def forget(self) -> None:
        self._fields = b""

    def answer(self, body: bytes) -> JsonObject:
        """A whole answer. Raises `Malformed`."""
        try:
            found = _decode_body(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Malformed("the answer is none of /v1/chat/completions") from None
        choice = found.choices[0] if len(found.choices) == 1 else None
        if choice is None or choice.message is None:
            raise Malformed("the answer has not one choice with a message")
        content, finish, stop = choice.message.content, choice.finish_reason, None
        if finish == "stop_sequence" and content is not None:
            content, stop = cut(content, self._stops)
        message: JsonObject = {"role": "assistant", "content": content, "refusal": None}
        calls = choice.message.tool_calls
        if calls:
            message["tool_calls"] = [self._whole_call(call, at) for at, call in enumerate(calls)]
        told: JsonObject = {"index": 0, "message": message, "logprobs": _logprobs(choice.logprobs)}
        told["finish_reason"] = _finish(finish, bool(calls))
        if stop is not None:
            told["stop_reason"] = stop
        answer = {**self._base, "choices": [told]}
        _add_rest(answer, found)
        return answer

    def error(self, status: int, body: bytes) -> ErrorObject:
        return errors.read_error(status, body)

    def _close(self) -> None:
        if not self._ended:
            raise Malformed("the stream ended before [DONE]")

    def _read(self, data: bytes, chunks: list[JsonObject]) -> None:
        if data == b"[DONE]":
            self._done(chunks)
            return
        try:
            found = _decode_body(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Malformed("an event is none of /v1/chat/completions") from None
        if found.error is not None:
            error = found.error
            raise Broken(errors.event_error(error if isinstance(error, str) else error.message))
        if self._ended:
            raise Malformed("an event follows [DONE]")
        if found.choices:
            self._read_choice(found, chunks)
        elif found.usage is not None:
            self._finish_call(chunks)
            chunk = {**self._base, "choices": []}
            _add_rest(chunk, found)
            chunks.append(chunk)

    def _read_choice(self, found: _Body, chunks: list[JsonObject]) -> None:
        choice = found.choices[0]
        delta = choice.delta
        if delta is None or self._finished or len(found.choices) != 1:
            raise Malformed("a choice follows the last one" if self._finished else "an event has not one delta")
        told: JsonObject = {}
        if not self._begun:  # TGI says it in every delta, and SDKs join what they hear
            told["role"] = "assistant"
        stop = None
        if delta.tool_calls:
            told["tool_calls"] = [self._call_delta(call) for call in delta.tool_calls]
        else:
            text = delta.content or ""
            if self._held is not None:
                text = self._held.feed(text)
                if choice.finish_reason is not None:
                    rest, stop = self._held.end(choice.finish_reason == "stop_sequence")
                    text += rest
            if text or not self._begun:
                told["content"] = text
        if told or choice.finish_reason is not None or choice.logprobs is not None:
            chunk = self._chunk(told, choice, found)
            if stop is not None:
                chunk["choices"][0]["stop_reason"] = stop
            chunks.append(chunk)
            self._begun = True

    def _chunk(self, delta: JsonObject, choice: _Choice, found: _Body) -> JsonObject:
        finish = None
        if choice.finish_reason is not None:
            finish = _finish(choice.finish_reason, self._called)
            self._finished = True
        logprobs = None if choice.logprobs is None else _logprobs(choice.logprobs)
        told = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        chunk = {**self._base, "choices": [told]}
        if found.model is not None or found.system_fingerprint is not None:
            _add_rest(chunk, found)
        return chunk

    def _call_delta(self, call: _Call) -> JsonObject:
        """A piece of the one call that there may be; TGI repeats id and type with each, OpenAI does not."""
        function: JsonObject = {"arguments": _arguments(call.function.arguments)}
        if self._called:
            return {"index": 0, "function": function}
        if not call.function.name or call.index != 0:
            raise Malformed("a tool call begins without a name")
        self._called = True
        function["name"] = call.function.name
        return {"index": 0, "id": self._call_id(call, 0), "type": "function", "function": function}

    def _whole_call(self, call: _Call, at: int) -> JsonObject:
        if not call.function.name:
            raise Malformed("a tool call has no name")
        function = {"name": call.function.name, "arguments": _arguments(call.function.arguments)}
        return {"id": self._call_id(call, at), "type": "function", "function": function}

    def _call_id(self, call: _Call, at: int) -> str:
        """Its own id where it is unique: TGI counts from 0 in each answer."""
        own = str(call.id or "")
        return f"call_{self._id}_{at}" if not own or own.isdigit() else own

    def _finish_call(self, chunks: list[JsonObject]) -> None:
        """Say that a call is over: TGI swallows the token that carries a stream's finish_reason behind a call."""
        if self._called and not self._finished:
            chunks.append(self._chunk({}, _Choice(finish_reason="stop"), _Body()))

    def _done(self, chunks: list[JsonObject]) -> None:
        self._finish_call(chunks)
        if not self._finished:
            raise Malformed("the stream says [DONE] before a finish_reason")
        self._ended = True


def _finish(reason: str | None, called: bool) -> str:
    """OpenAI's reason; a call is one to it, and to TGI a text that ended well."""
    finish = _FINISHES.get(reason or "")
    if finish is None:
        raise Malformed("the finish_reason is none of Text Generation Inference's")
    return "tool_calls" if called and finish == "stop" else finish


def _arguments(value: msgspec.Raw) -> str:
    text = bytes(value)
    try:
        return _decode_text(text) or "" if text[:1] in (b'"', b"n") else text.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Malformed("a tool call's arguments are no text") from None


def _add_rest(answer: JsonObject, found: _Body) -> None:
    if found.model is not None:
        answer["model"] = found.model
    if found.system_fingerprint is not None:
        answer["system_fingerprint"] = found.system_fingerprint
    if found.usage is not None:
        prompt, completion = found.usage.prompt_tokens, found.usage.completion_tokens
        if are_tokens(prompt, completion):
            total = prompt + completion
            answer["usage"] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def _logprobs(found: _Logprobs | None) -> JsonObject | None:
    """With the `bytes` that OpenAI's schema wants, and TGI does not tell."""
    if found is None or found.content is None:
        return None
    return {"content": [_logprob(one) | {"top_logprobs": [*map(_logprob, one.top_logprobs)]} for one in found.content]}


def _logprob(one: _Logprob) -> JsonObject:
    return {"token": one.token, "logprob": one.logprob, "bytes": None}
