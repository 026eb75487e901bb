"""The vendors' SDKs, each as four verbs: ask, ask again with the results of tools, embed, and listen to a stream.

Owns how each says a neutral question in its own words, and reads its own answer. It refuses to judge them
(`test_sdks`). Made by `test_sdks` for each test. They are told to try once only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import anthropic
import ollama
import openai

from tests.wire.client import KEY

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG_TEXT = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{PNG_TEXT}"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
NAMES = ("weather", "news")
Kinds = dict[int, type[Exception]]
LIMIT = 200


class Question(NamedTuple):
    """*image*: "" for none, or how it is given: "base64", or its URL."""

    model: str
    text: str
    stream: bool = False
    tools: bool = False
    schema: bool = False
    image: str = ""


@dataclass
class Said:
    """*finish*: "stop", "calls" or "length". *turn*: the answer as the client puts it into the history."""

    text: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    finish: str = ""
    read: int = 0
    written: int = 0
    turn: Any = None
    ids: list[str] = field(default_factory=list)


class Told(NamedTuple):
    """An error."""

    kind: type[Exception]
    status: int | None
    message: str
    request_id: str | None


class OpenAIChat:
    """openai's chat.completions."""

    path = "/v1/chat/completions"
    errors: tuple[type[Exception], ...] = (openai.APIError,)
    kinds: ClassVar[Kinds] = {400: openai.BadRequestError, 404: openai.NotFoundError, 429: openai.RateLimitError}
    server_error = openai.InternalServerError

    def __init__(self, address: str) -> None:
        self.sdk = openai.OpenAI(api_key=KEY, base_url=f"{address}/v1", max_retries=0, timeout=10)

    def close(self) -> None:
        self.sdk.close()

    def _user(self, q: Question) -> Any:
        if not q.image:
            return [{"role": "user", "content": q.text}]
        url = DATA_URL if q.image == "base64" else q.image
        parts = [{"type": "text", "text": q.text}, {"type": "image_url", "image_url": {"url": url}}]
        return [{"role": "user", "content": parts}]

    def ask(self, q: Question, history: Any = None) -> Said:
        more: Any = {"model": q.model, "messages": history or self._user(q), "max_tokens": LIMIT}
        if q.tools:
            more["tools"] = [{"type": "function", "function": {"name": n, "parameters": PARAMETERS}} for n in NAMES]
        if q.schema:
            form = {"name": "form", "strict": True, "schema": SCHEMA}
            more["response_format"] = {"type": "json_schema", "json_schema": form}
        if not q.stream:
            answer: Any = self.sdk.chat.completions.create(**more)
        else:
            with self.sdk.chat.completions.stream(**more, stream_options={"include_usage": True}) as stream:
                answer = stream.get_final_completion()
        message = answer.choices[0].message
        calls = message.tool_calls or []
        return Said(
            message.content or "",
            [(call.function.name, json.loads(call.function.arguments)) for call in calls],
            {"stop": "stop", "tool_calls": "calls", "length": "length"}[answer.choices[0].finish_reason],
            answer.usage.prompt_tokens,
            answer.usage.completion_tokens,
            {"role": "assistant", "content": message.content, "tool_calls": [_plain_call(call) for call in calls]},
            [call.id for call in calls],
        )

    def tell(self, q: Question, said: Said, result: str) -> Said:
        """The answer to *result* of each call in *said*."""
        results = [{"role": "tool", "tool_call_id": one, "content": result} for one in said.ids]
        return self.ask(q, [*self._user(q), said.turn, *results])

    def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        return [row.embedding for row in self.sdk.embeddings.create(model=model, input=texts).data]

    @contextmanager
    def listen(self, q: Question) -> Iterator[Iterator[str]]:
        """The texts of a stream as they come; leaving closes it."""
        with self.sdk.chat.completions.create(model=q.model, messages=self._user(q), stream=True) as stream:
            yield (chunk.choices[0].delta.content or "" for chunk in stream)

    def read(self, error: Any) -> Told:
        return Told(type(error), getattr(error, "status_code", None), error.message, getattr(error, "request_id", None))


def _plain_call(call: Any) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id, "type": "function", "function": function}


class OpenAIResponses(OpenAIChat):
    """openai's responses."""

    path = "/v1/responses"

    def _user(self, q: Question) -> Any:
        parts: list[Any] = [{"type": "input_text", "text": q.text}]
        if q.image:
            url = DATA_URL if q.image == "base64" else q.image
            parts.append({"type": "input_image", "image_url": url, "detail": "auto"})
        return [{"role": "user", "content": parts if q.image else q.text}]

    def ask(self, q: Question, history: Any = None) -> Said:
        more: Any = {"model": q.model, "input": history or self._user(q), "max_output_tokens": LIMIT}
        if q.tools:
            more["tools"] = [
                {"type": "function", "name": name, "parameters": PARAMETERS, "strict": False} for name in NAMES
            ]
        if q.schema:
            more["text"] = {"format": {"type": "json_schema", "name": "form", "strict": True, "schema": SCHEMA}}
        if not q.stream:
            answer: Any = self.sdk.responses.create(**more)
        else:
            with self.sdk.responses.stream(**more) as stream:
                answer = stream.get_final_response()
        assert answer.status == "completed"
        calls = [item for item in answer.output if item.type == "function_call"]
        return Said(
            answer.output_text,
            [(call.name, json.loads(call.arguments)) for call in calls],
            "calls" if calls else "stop",
            answer.usage.input_tokens,
            answer.usage.output_tokens,
            answer.output,
            [call.call_id for call in calls],
        )

    def tell(self, q: Question, said: Said, result: str) -> Said:
        results = [{"type": "function_call_output", "call_id": one, "output": result} for one in said.ids]
        return self.ask(q, [*self._user(q), *said.turn, *results])

    @contextmanager
    def listen(self, q: Question) -> Iterator[Iterator[str]]:
        with self.sdk.responses.create(model=q.model, input=self._user(q), stream=True) as stream:
            yield (_delta(event) for event in stream)


def _delta(event: Any) -> str:
    if event.type == "response.failed":
        raise openai.APIError(event.response.error.message, None, body=None)  # type: ignore[arg-type]  # no request here
    return event.delta if event.type == "response.output_text.delta" else ""


class Anthropic:
    """anthropic's messages."""

    path = "/v1/messages"
    errors: tuple[type[Exception], ...] = (anthropic.APIError,)
    kinds: ClassVar[Kinds] = {
        400: anthropic.BadRequestError,
        404: anthropic.NotFoundError,
        429: anthropic.RateLimitError,
    }
    server_error = anthropic.InternalServerError

    def __init__(self, address: str) -> None:
        self.sdk = anthropic.Anthropic(api_key=KEY, base_url=address, max_retries=0, timeout=10)

    def close(self) -> None:
        self.sdk.close()

    def _user(self, q: Question) -> Any:
        if not q.image:
            return [{"role": "user", "content": q.text}]
        source = {"type": "url", "url": q.image}
        if q.image == "base64":
            source = {"type": "base64", "media_type": "image/png", "data": PNG_TEXT}
        return [{"role": "user", "content": [{"type": "text", "text": q.text}, {"type": "image", "source": source}]}]

    def ask(self, q: Question, history: Any = None) -> Said:
        more: Any = {"model": q.model, "messages": history or self._user(q), "max_tokens": LIMIT}
        if q.tools:
            more["tools"] = [{"name": name, "input_schema": PARAMETERS} for name in NAMES]
        if q.schema:
            more["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
        if not q.stream:
            answer: Any = self.sdk.messages.create(**more)
        else:
            with self.sdk.messages.stream(**more) as stream:
                answer = stream.get_final_message()
        uses = [block for block in answer.content if block.type == "tool_use"]
        kept = (answer.usage.cache_read_input_tokens or 0) + (answer.usage.cache_creation_input_tokens or 0)
        return Said(
            "".join(block.text for block in answer.content if block.type == "text"),
            [(use.name, use.input) for use in uses],
            {"end_turn": "stop", "tool_use": "calls", "max_tokens": "length"}[answer.stop_reason],
            answer.usage.input_tokens + kept,
            answer.usage.output_tokens,
            answer.content,
            [use.id for use in uses],
        )

    def tell(self, q: Question, said: Said, result: str) -> Said:
        results = [{"type": "tool_result", "tool_use_id": one, "content": result} for one in said.ids]
        turns = [{"role": "assistant", "content": said.turn}, {"role": "user", "content": results}]
        return self.ask(q, [*self._user(q), *turns])

    @contextmanager
    def listen(self, q: Question) -> Iterator[Iterator[str]]:
        with self.sdk.messages.stream(model=q.model, messages=self._user(q), max_tokens=LIMIT) as stream:
            yield stream.text_stream

    def read(self, error: Any) -> Told:
        return Told(type(error), getattr(error, "status_code", None), error.message, getattr(error, "request_id", None))


class Ollama:
    """ollama's chat."""

    path = "/api/chat"
    errors: tuple[type[Exception], ...] = (ollama.ResponseError,)
    kinds: ClassVar[Kinds] = dict.fromkeys((400, 404, 429), ollama.ResponseError)
    server_error = ollama.ResponseError

    def __init__(self, address: str) -> None:
        self.sdk = ollama.Client(address, headers={"Authorization": f"Bearer {KEY}"}, timeout=10, trust_env=False)

    def close(self) -> None:
        self.sdk.close()

    def _user(self, q: Question) -> Any:
        return [{"role": "user", "content": q.text, **({"images": [PNG]} if q.image else {})}]

    def ask(self, q: Question, history: Any = None) -> Said:
        more: Any = {"model": q.model, "messages": history or self._user(q), "options": {"num_predict": LIMIT}}
        if q.tools:
            more["tools"] = [{"type": "function", "function": {"name": n, "parameters": PARAMETERS}} for n in NAMES]
        if q.schema:
            more["format"] = SCHEMA
        parts = list(self.sdk.chat(**more, stream=True)) if q.stream else [self.sdk.chat(**more)]
        text = "".join(part.message.content or "" for part in parts)
        calls = [call for part in parts for call in part.message.tool_calls or []]
        last = parts[-1]
        assert last.done
        return Said(
            text,
            [(call.function.name, dict(call.function.arguments)) for call in calls],
            "calls" if calls else last.done_reason or "",
            last.prompt_eval_count or 0,
            last.eval_count or 0,
            {"role": "assistant", "content": text, "tool_calls": [call.model_dump() for call in calls]},
            [call.function.name for call in calls],
        )

    def tell(self, q: Question, said: Said, result: str) -> Said:
        results = [{"role": "tool", "tool_name": name, "content": result} for name in said.ids]
        return self.ask(q, [*self._user(q), said.turn, *results])

    def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        return [list(vector) for vector in self.sdk.embed(model, texts).embeddings]

    def listen(self, q: Question) -> AbstractContextManager[Iterator[str]]:
        stream = self.sdk.chat(q.model, self._user(q), stream=True)
        return closing(part.message.content or "" for part in stream)

    def read(self, error: Any) -> Told:
        status = None if error.status_code == -1 else error.status_code
        return Told(type(error), status, error.error, None)


CLIENTS: dict[str, type[OpenAIChat] | type[Anthropic] | type[Ollama]] = {
    "openai": OpenAIChat,
    "responses": OpenAIResponses,
    "anthropic": Anthropic,
    "ollama": Ollama,
}
