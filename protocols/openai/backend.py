"""OpenAI's backends and their kin (vLLM, llama.cpp, SGLang, Together, Groq, ...) in a translated call.

Owns the request as they are asked, and the order of a stream: where its usage sits and how it ends. It refuses to judge
fields of answers (`heard`) and to translate: the other side does. The gateway makes one for each attempt of a call
whose client speaks another dialect.
What comes out is the same whoever answered: chunks with choices first, then one with `choices: []` and the usage.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from protocols.dialect import Ask, Broken, Dropped, ErrorObject, JsonObject, Task, Terms, Unmappable
from protocols.openai.errors import read_error, read_stream_error
from protocols.openai.heard import (
    Calls,
    Heard,
    finish_of,
    opened_call,
    read_answer,
    read_chunk,
    read_embeddings,
    tidy_message,
    usage_of,
)
from protocols.openai.vectors import read_vector
from protocols.pieces import Malformed
from protocols.sse import EventReader


class _TextBackend:
    """What chat and completions have in common: the request, and how a stream of chunks goes on and ends."""

    repeats_text = True

    _path: bytes

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        body = {name: value for name, value in hub.items() if name not in ("model", "stream", "stream_options")}
        body["stream"] = stream
        if stream:  # OpenAI allows stream_options for streams only
            body["stream_options"] = {**(hub.get("stream_options") or {}), "include_usage": True}
        self._body = _write(body)
        self._id = id
        self._created = created
        self._reader = EventReader()
        self._done = False
        self._usage: JsonObject | None = None
        #: What all chunks of the stream have in common; told by the first.
        self._head: JsonObject = {}
        #: By a choice's index whether it has its finish reason.
        self._finished: dict[int, bool] = {}

    def ask(self, model: str) -> Ask:
        """See `BackendSide`."""
        return Ask(self._path, _asked(model, self._body))

    def forget(self) -> None:
        """See `BackendSide`."""
        self._body = b""

    def answer(self, body: bytes) -> JsonObject:
        """See `BackendSide`."""
        heard = read_answer(body)
        try:
            choices = [self._whole(place, choice) for place, choice in enumerate(heard.choices or ())]
        except Broken as broken:
            raise Malformed(broken.error.message) from None
        answer = {**self._told(heard), "choices": choices}
        usage = usage_of(heard)
        if usage is not None:
            answer["usage"] = usage
        return answer

    def error(self, status: int, body: bytes) -> ErrorObject:
        """See `BackendSide`."""
        return read_error(status, body)

    def feed(self, payload: bytes) -> list[JsonObject]:
        """See `BackendSide`."""
        chunks: list[JsonObject] = []
        try:
            for name, data in self._reader.feed(payload):
                self._read(name, data, chunks)
        except (Malformed, Broken) as fault:
            fault.before = chunks
            raise
        return chunks

    @property
    def is_over(self) -> bool:
        """See `BackendSide`."""
        return self._done

    def end(self) -> list[JsonObject]:
        """See `BackendSide`."""
        chunks: list[JsonObject] = []
        for name, data in self._reader.end():
            self._read(name, data, chunks)
        if not self._done:
            if not self._finished or not all(self._finished.values()):
                raise Malformed("the stream ended before it said so")
            self._close(chunks)
        return chunks

    def _read(self, name: bytes, data: bytes, chunks: list[JsonObject]) -> None:
        if self._done or not data:
            return
        if name == b"error":
            raise Broken(read_stream_error(data))
        if data.startswith(b"[DONE]"):
            self._close(chunks)
            return
        heard = read_chunk(data)
        if heard.usage is not None or heard.x_groq is not None:
            self._usage = usage_of(heard) or self._usage
        if heard.choices:
            if not self._head:
                self._head = self._told(heard)
            finished = self._finished
            # A choice that has its reason is over, whatever a server says after it.
            pieces = [self._piece_of(one) for one in heard.choices if not finished.get(one.get("index") or 0)]
            if pieces:
                chunks.append({**self._head, "choices": pieces})

    def _close(self, chunks: list[JsonObject]) -> None:
        """What is missing behind the last chunk: finish reasons, and the usage, wherever it was said."""
        if not self._finished:
            raise Malformed("the stream brought no choice")
        self._done = True
        for index, finished in self._finished.items():
            if not finished:
                chunks.append({**self._head, "choices": [self._piece_of({"index": index, "finish_reason": "stop"})]})
        if self._usage is not None:
            chunks.append({**self._head, "choices": [], "usage": self._usage})

    def _told(self, heard: Heard) -> JsonObject:
        told: JsonObject = {"id": heard.id or self._id, "created": self._created}
        if heard.model:
            told["model"] = heard.model
        if heard.system_fingerprint:
            told["system_fingerprint"] = heard.system_fingerprint
        return told

    def _piece_of(self, choice: Any) -> JsonObject:
        """One choice of a chunk, in the hub's words."""
        index = choice.get("index") or 0
        reason = choice.get("finish_reason") or None
        self._finished[index] = reason is not None
        piece: JsonObject = {"index": index}
        self._say(index, choice, piece)
        piece["finish_reason"] = finish_of(reason, self._has_calls(index)) if reason is not None else None
        _keep_extras(choice, piece)
        return piece

    def _say(self, index: int, choice: Any, piece: JsonObject) -> None:
        raise NotImplementedError

    def _has_calls(self, index: int) -> bool:
        return False

    def _whole(self, place: int, choice: Any) -> JsonObject:
        raise NotImplementedError


def _keep_extras(choice: Any, piece: JsonObject) -> None:
    stop_reason = choice.get("stop_reason")
    if isinstance(stop_reason, str):  # vLLM's; a number is a token's id
        piece["stop_reason"] = stop_reason
    logprobs = choice.get("logprobs")
    if logprobs is not None:
        piece["logprobs"] = logprobs


def _write(body: JsonObject) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # its way to say that the nesting is too deep, or a number too large
        raise Unmappable("the request is nested too deeply") from None


def _asked(model: str, body: bytes) -> bytes:
    """*body*, which was written when there was still time to refuse it, with the *model*'s name."""
    return b'{"model":%b%b%b' % (orjson.dumps(model), b"," if body != b"{}" else b"", body[1:])


#: OpenAI's models that refuse `max_tokens`, behind whatever proxy they stand: o1 to o4, gpt-5 and later ones.
_NEW_WORD: Final = re.compile(r"(?:.*/)?(?:o[1-9]|gpt-(?:[5-9]|[1-9][0-9]))(?:$|[^0-9a-z])")


def _takes_new_word(model: Any) -> bool:
    return isinstance(model, str) and _NEW_WORD.match(model) is not None


class ChatBackend(_TextBackend):
    """A backend with POST /v1/chat/completions; a `BackendSide`."""

    _path = Task.CHAT.value.encode()

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        asked = {**hub, "messages": [_plain(message) for message in hub["messages"]]}
        if terms.says_max_tokens and "max_completion_tokens" in asked and not _takes_new_word(asked.get("model")):
            asked["max_tokens"] = asked.pop("max_completion_tokens")
        super().__init__(asked, stream, id, created, terms, dropped)
        self._calls: dict[int, Calls] = {}

    def _piece_of(self, choice: Any) -> JsonObject:
        delta = choice.get("delta")
        get = choice.get
        is_text = delta and len(delta) == 1 and delta.get("content") is not None  # the usual chunk
        if is_text and get("finish_reason") is None and get("logprobs") is None and get("stop_reason") is None:
            index = get("index") or 0
            self._finished[index] = False
            return {"index": index, "delta": delta, "finish_reason": None}
        return super()._piece_of(choice)

    def _say(self, index: int, choice: Any, piece: JsonObject) -> None:
        delta = tidy_message(choice.get("delta") or {})
        calls = delta.get("tool_calls")
        if calls:
            known = self._calls.get(index)
            if known is None:
                known = self._calls[index] = Calls(f"{self._id}_{index}")
            delta["tool_calls"] = [known.read(call) for call in calls]
        elif calls is not None:
            del delta["tool_calls"]
        piece["delta"] = delta

    def _has_calls(self, index: int) -> bool:
        return index in self._calls

    def _whole(self, place: int, choice: Any) -> JsonObject:
        message = choice.get("message")
        if message is None:
            raise Malformed("a choice of the answer has no message")
        message = {"role": "assistant", "content": None, **tidy_message(message)}
        calls = message.pop("tool_calls", None)
        if calls:
            message["tool_calls"] = [
                opened_call(None, call, f"call_{self._id}_{place}_{number}") for number, call in enumerate(calls)
            ]
        whole = {"index": place, "message": message}
        whole["finish_reason"] = finish_of(choice.get("finish_reason") or "stop", bool(calls))
        _keep_extras(choice, whole)
        return whole


#: What of a message only other dialects know. OpenAI, Groq and Mistral refuse it, so earlier reasoning is not told.
_UNTOLD: Final = ("thinking_blocks", "reasoning_content")


def _plain(message: JsonObject) -> JsonObject:
    return {name: value for name, value in message.items() if name not in _UNTOLD}


class CompletionBackend(_TextBackend):
    """A backend with POST /v1/completions; a `BackendSide`."""

    _path = Task.COMPLETION.value.encode()

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        if not terms.takes_no_limit and hub.get("max_tokens", 0) is None:
            hub = {**hub, "max_tokens": terms.max_tokens}
        super().__init__(hub, stream, id, created, terms, dropped)

    def _say(self, index: int, choice: Any, piece: JsonObject) -> None:
        piece["text"] = choice.get("text") or ""

    def _whole(self, place: int, choice: Any) -> JsonObject:
        text = choice.get("text")
        if text is None:
            raise Malformed("a choice of the answer has no text")
        whole = {"index": place, "text": text, "finish_reason": finish_of(choice.get("finish_reason") or "stop", False)}
        _keep_extras(choice, whole)
        return whole


class EmbeddingsBackend:
    """A backend with POST /v1/embeddings; a `BackendSide`. Asks for floats: not every server knows base64."""

    repeats_text = False
    is_over = False

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        self._body = _write({name: value for name, value in hub.items() if name not in ("model", "encoding_format")})

    def ask(self, model: str) -> Ask:
        """See `BackendSide`."""
        return Ask(Task.EMBEDDINGS.value.encode(), _asked(model, self._body))

    def forget(self) -> None:
        """See `BackendSide`."""
        self._body = b""

    def answer(self, body: bytes) -> JsonObject:
        """See `BackendSide`."""
        heard = read_embeddings(body)
        data = [
            {"object": "embedding", "index": place, "embedding": read_vector(one.embedding)}
            for place, one in enumerate(sorted(heard.data, key=lambda one: one.index or 0))
        ]
        answer: JsonObject = {"object": "list", "data": data}
        if heard.model:
            answer["model"] = heard.model
        usage = usage_of(Heard(usage=heard.usage))
        if usage is not None:
            answer["usage"] = {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["total_tokens"]}
        return answer

    def error(self, status: int, body: bytes) -> ErrorObject:
        """See `BackendSide`."""
        return read_error(status, body)

    def feed(self, payload: bytes) -> list[JsonObject]:
        """There is no stream of embeddings. Raises `Malformed`."""
        raise Malformed("embeddings came as a stream")

    def end(self) -> list[JsonObject]:
        """There is no stream of embeddings. Raises `Malformed`."""
        raise Malformed("embeddings came as a stream")
