"""Sample answers of /v1/chat/completions and /v1/completions.

Owns their request fields, the echo that the model says, and both shapes, whole and streamed. It refuses
tool calls: a sample never calls one. Called through `answer.sample`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import orjson

from protocols.openai.samples.shapes import (
    DONE,
    Asked,
    Refused,
    Stream,
    Whole,
    event,
    read,
    shorten,
    words,
)

#: Characters of the request that are said again: every word of an answer is an event, and a body has megabytes.
ECHO_LIMIT: Final = 1000
#: Choices of one answer; the most that OpenAI gives.
CHOICES_LIMIT: Final = 128

Choices = Annotated[int, msgspec.Meta(ge=1, le=CHOICES_LIMIT)]
Limit = Annotated[int, msgspec.Meta(ge=1)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Part(msgspec.Struct):
    type: str = ""
    text: str = ""


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """The words of the message; images and sounds have none."""
        if isinstance(self.content, list):
            return " ".join(part.text for part in self.content if part.text)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatFields(msgspec.Struct):
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    n: Choices | None = None
    max_completion_tokens: Limit | None = None
    max_tokens: Limit | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    stream_options: StreamOptions | None = None


class CompletionFields(msgspec.Struct):
    prompt: str | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1)]
    n: Choices | None = None
    max_tokens: Limit | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    stream_options: StreamOptions | None = None


def echo(said: str) -> str:
    """What the mock says where it was told nothing better: what it is, and that it has heard."""
    heard = said[:ECHO_LIMIT].strip()
    if not heard:
        return "This is the mock backend: no model is running here. You said nothing."
    more = "..." if len(said) > ECHO_LIMIT else ""
    return f'This is the mock backend: no model is running here. You said: "{heard}{more}"'


def chat(asked: Asked) -> Whole | Stream:
    """Answer /v1/chat/completions. Raises `Refused`."""
    fields = read(asked, ChatFields)
    last = next((message.text for message in reversed(fields.messages) if message.role == "user"), "")
    limit = fields.max_completion_tokens or fields.max_tokens
    tokens, cut = shorten(words(asked.text or echo(last)), limit)
    n = fields.n or 1
    prompt = sum(size(message.text) for message in fields.messages)
    usage = count(prompt, n * len(tokens))
    finish = "length" if cut else "stop"
    head = {"id": f"chatcmpl-{asked.id}", "object": "chat.completion", "created": asked.created}
    head |= {"model": asked.model, "service_tier": "default", "system_fingerprint": None}
    if asked.stream:
        head["object"] = "chat.completion.chunk"
        with_usage = bool(fields.stream_options and fields.stream_options.include_usage)
        return _chat_stream(head, tokens, n, finish, usage if with_usage else None)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(tokens),
        "refusal": None,
        "annotations": [],
    }
    choices = [{"index": index, "message": message, "logprobs": None, "finish_reason": finish} for index in range(n)]
    return Whole(orjson.dumps({**head, "choices": choices, "usage": usage}), tokens=n * len(tokens))


def _chat_stream(head: dict[str, Any], tokens: list[str], n: int, finish: str, usage: dict[str, Any] | None) -> Stream:
    def chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**head, "choices": [choice], **blank})

    # Where the totals are asked for, every chunk before them says that it has none.
    blank: dict[str, Any] = {} if usage is None else {"usage": None}
    opening = [chunk(index, {"role": "assistant", "content": "", "refusal": None}) for index in range(n)]
    contents = [chunk(index, {"content": token}) for token in tokens for index in range(n)]
    closing = [chunk(index, {}, finish) for index in range(n)]
    if usage is not None:
        closing.append(event({**head, "choices": [], "usage": usage}))
    return Stream(opening, contents, [*closing, DONE])


def completions(asked: Asked) -> Whole | Stream:
    """Answer /v1/completions: a choice for each prompt and each of `n`. Raises `Refused`."""
    fields = read(asked, CompletionFields)
    prompts = one_by_one(fields.prompt, "prompt")
    n = fields.n or 1
    if n * len(prompts) > CHOICES_LIMIT:
        raise Refused(f"The mock backend gives at most {CHOICES_LIMIT} choices.", "prompt")
    texts: list[list[str]] = []
    cut: list[bool] = []
    for prompt in prompts:
        tokens, short = shorten(words(asked.text or echo(said(prompt))), fields.max_tokens or 16)
        texts += [tokens] * n
        cut += [short] * n
    finishes = ["length" if short else "stop" for short in cut]
    usage = count(sum(map(size, prompts)), sum(map(len, texts)))
    head = {"id": f"cmpl-{asked.id}", "object": "text_completion", "created": asked.created}
    head |= {"model": asked.model, "system_fingerprint": None}
    if asked.stream:
        with_usage = bool(fields.stream_options and fields.stream_options.include_usage)
        return _completion_stream(head, texts, finishes, usage if with_usage else None)
    choices = [
        {"index": index, "text": "".join(tokens), "logprobs": None, "finish_reason": finish}
        for index, (tokens, finish) in enumerate(zip(texts, finishes, strict=True))
    ]
    body = {**head, "choices": choices, "usage": usage}
    return Whole(orjson.dumps(body), tokens=sum(map(len, texts)))


def _completion_stream(
    head: dict[str, Any], texts: list[list[str]], finishes: list[str], usage: dict[str, Any] | None
) -> Stream:
    def chunk(index: int, text: str, finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return event({**head, "choices": [choice], **blank})

    blank: dict[str, Any] = {} if usage is None else {"usage": None}
    contents = [chunk(index, token) for index, tokens in enumerate(texts) for token in tokens]
    closing = [chunk(index, "", finish) for index, finish in enumerate(finishes)]
    if usage is not None:
        closing.append(event({**head, "choices": [], "usage": usage}))
    return Stream([], contents, [*closing, DONE])


def one_by_one(given: str | list[str | int | list[int]], param: str) -> list[str | list[int]]:
    """Sort out the shapes of a prompt or an input: text, texts, tokens, token lists. Raises `Refused`."""
    if isinstance(given, str):
        return [given]
    numbers = [item for item in given if isinstance(item, int)]
    if len(numbers) == len(given):
        return [numbers]
    if numbers or len({type(item) for item in given}) > 1:
        raise Refused(f"'{param}' mixes text and tokens.", param)
    return [item for item in given if not isinstance(item, int)]


def said(prompt: str | list[int]) -> str:
    """What *prompt* says, as far as it can be told without a tokenizer."""
    return prompt if isinstance(prompt, str) else f"[{len(prompt)} tokens]"


def size(prompt: str | list[int]) -> int:
    """The tokens of *prompt*: words stand for them."""
    return len(prompt.split()) if isinstance(prompt, str) else len(prompt)


def count(prompt: int, completion: int) -> dict[str, Any]:
    """The usage object of chat and text completions, with all that OpenAI puts there."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
