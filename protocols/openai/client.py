"""OpenAI's clients in a translated call: the hub's own words, brought to what its SDKs count on.

Owns the answers' required fields and the order of a stream as clients know it: one id, a role first, usage where it was
asked for, [DONE]. It refuses to judge fields of requests (`asked`) and to translate: the other side does. The gateway
makes one for each call whose backend speaks another dialect.
Sources: OpenAI's OpenAPI document 2.3.0; openai-python 3.54 for what clients read.
"""

from __future__ import annotations

from typing import Final

import orjson

from protocols.dialect import SAME_NAMES, Dropped, ErrorObject, JsonObject, Task, Unmappable
from protocols.openai.asked import check_chat, check_completion, check_embeddings
from protocols.openai.errors import error_body
from protocols.openai.thoughts import Thoughts
from protocols.openai.unknown import leave_out_unknown
from protocols.openai.vectors import write_vector
from protocols.sse import data_event

_DONE: Final = b"data: [DONE]\n\n"


class _TextClient:
    """What chat and completions have in common: a stream of chunks, usage where it was asked for, [DONE]."""

    names = SAME_NAMES
    repeats_text = True

    def __init__(self, fields: JsonObject, id: str, created: int, wants_usage: bool) -> None:
        self.hub = fields
        self._made = {"id": id, "object": "", "created": created, "model": fields.get("model") or ""}
        self._wants_usage = wants_usage
        self._usage: JsonObject | None = None
        #: What all chunks of the stream have in common; told by the first.
        self._head: JsonObject = {}
        self._begun: set[int] = set()

    def _whole(self, answer: JsonObject, object: str) -> bytes:
        choices = [self._whole_choice(choice) for choice in answer["choices"]]
        return orjson.dumps({**self._made, **answer, "object": object, "choices": choices})

    def _whole_choice(self, choice: JsonObject) -> JsonObject:
        raise NotImplementedError

    def _piece(self, choice: JsonObject) -> JsonObject:
        raise NotImplementedError

    def _chunk(self, chunk: JsonObject, object: str) -> bytes:
        usage = chunk.get("usage")
        if usage is not None:
            self._usage = usage
        choices = chunk["choices"]
        if not choices:
            return b""
        if not self._head:
            self._head = {**self._made, **chunk, "object": object}
            if self._wants_usage:
                self._head["usage"] = None
            else:
                self._head.pop("usage", None)
        return data_event(orjson.dumps({**self._head, "choices": [self._piece(choice) for choice in choices]}))

    def end(self) -> bytes:
        """See `ClientSide`."""
        if not self._wants_usage or self._usage is None:
            return _DONE
        return data_event(orjson.dumps({**self._head, "choices": [], "usage": self._usage})) + _DONE

    def fail(self, error: ErrorObject) -> bytes:
        """See `ClientSide`."""
        return data_event(error_body(error.message, error.type, error.code, error.param))


class ChatClient(_TextClient):
    """A client of POST /v1/chat/completions; a `ClientSide`."""

    task = Task.CHAT

    def __init__(self, fields: JsonObject, stream: bool, id: str, created: int, dropped: Dropped) -> None:
        options = check_chat(fields).stream_options
        leave_out_unknown(fields, dropped)
        wants_usage = options is not None and options.include_usage is True
        super().__init__(fields, f"chatcmpl-{id}", created, wants_usage)
        self._thoughts = Thoughts()

    def answer(self, answer: JsonObject) -> bytes:
        """See `ClientSide`."""
        return self._whole(answer, "chat.completion")

    def feed(self, chunk: JsonObject) -> bytes:
        """See `ClientSide`."""
        return self._chunk(chunk, "chat.completion.chunk")

    def _whole_choice(self, choice: JsonObject) -> JsonObject:
        message = {"role": "assistant", "content": None, "refusal": None, **choice["message"]}
        return {"index": 0, "logprobs": None, "finish_reason": "stop", **choice, "message": message}

    def _piece(self, choice: JsonObject) -> JsonObject:
        index = choice.get("index", 0)
        delta = choice["delta"]
        if "reasoning_content" in delta or "thinking_blocks" in delta:
            choice = {**choice, "delta": self._thoughts.read(delta)}
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", "content": "", **choice["delta"]}
            return {"index": 0, "logprobs": None, "finish_reason": None, **choice, "delta": delta}
        return {"index": 0, "logprobs": None, "finish_reason": None, **choice}


class CompletionClient(_TextClient):
    """A client of POST /v1/completions; a `ClientSide`."""

    task = Task.COMPLETION

    def __init__(self, fields: JsonObject, stream: bool, id: str, created: int, dropped: Dropped) -> None:
        options = check_completion(fields).stream_options
        if fields.get("max_tokens", 0) is None:  # to OpenAI the same as none; in the hub it would be no limit
            fields = {name: value for name, value in fields.items() if name != "max_tokens"}
        wants_usage = options is not None and options.include_usage is True
        super().__init__(fields, f"cmpl-{id}", created, wants_usage)

    def answer(self, answer: JsonObject) -> bytes:
        """See `ClientSide`."""
        return self._whole(answer, "text_completion")

    def feed(self, chunk: JsonObject) -> bytes:
        """See `ClientSide`."""
        return self._chunk(chunk, "text_completion")

    def _whole_choice(self, choice: JsonObject) -> JsonObject:
        return {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop", **choice}

    def _piece(self, choice: JsonObject) -> JsonObject:
        return {"index": 0, "text": "", "logprobs": None, "finish_reason": None, **choice}


class EmbeddingsClient:
    """A client of POST /v1/embeddings; a `ClientSide`. There is no stream of embeddings."""

    names = SAME_NAMES
    repeats_text = False

    task = Task.EMBEDDINGS

    def __init__(self, fields: JsonObject, stream: bool, id: str, created: int, dropped: Dropped) -> None:
        if stream:
            raise Unmappable("'stream' is not for embeddings", "stream")
        self.hub = fields
        self._base64 = check_embeddings(fields).encoding_format == "base64"

    def answer(self, answer: JsonObject) -> bytes:
        """See `ClientSide`."""
        data = [
            {"object": "embedding", "index": place, **one, "embedding": self._encode(one["embedding"])}
            for place, one in enumerate(answer["data"])
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0, **(answer.get("usage") or {})}
        model = answer.get("model") or self.hub.get("model") or ""
        return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})

    def _encode(self, embedding: list[float] | str) -> list[float] | str:
        """A backend may have heard that base64 was asked for."""
        return write_vector(embedding) if self._base64 and not isinstance(embedding, str) else embedding

    def feed(self, chunk: JsonObject) -> bytes:
        """Nothing: there are no chunks."""
        return b""

    def end(self) -> bytes:
        """Nothing: there is no stream to end."""
        return b""

    def fail(self, error: ErrorObject) -> bytes:
        """See `ClientSide`."""
        return data_event(error_body(error.message, error.type, error.code, error.param))
