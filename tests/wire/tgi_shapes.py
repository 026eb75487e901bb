"""What a scripted Text Generation Inference takes: the shapes of requests, and what is refused of them.

Owns the first half of the real server's way with a request. It refuses answers (`tgi_server`, who calls this).
Source: router/src/{lib,validation}.rs of text-generation-inference 3.3.7. Tokens are words here.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec

from tests.wire.ledger import Request

Unsigned = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
MAX_STOPS, MAX_TOP, MAX_INPUT, MAX_TOTAL = 4, 5, 1024, 2048


class Parameters(msgspec.Struct):
    best_of: Unsigned | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: Unsigned | None = None
    return_full_text: bool | None = None
    stop: list[str] = []
    truncate: Unsigned | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = None
    top_n_tokens: Unsigned | None = None
    grammar: dict[str, Any] | None = None
    adapter_id: str | None = None


class Generate(msgspec.Struct):
    inputs: str
    parameters: Parameters = msgspec.field(default_factory=lambda: Parameters(do_sample=True))
    #: of the compatible route alone
    stream: bool = False


class Function(msgspec.Struct):
    name: str
    description: str | None = None
    arguments: Any = msgspec.UNSET
    parameters: Any = msgspec.UNSET


class Tool(msgspec.Struct):
    type: str
    function: Function


class Call(Tool):
    id: str


class Part(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: dict[str, Any] | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[Call] | None = None
    name: str | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Common(msgspec.Struct, kw_only=True):
    model: str | None = None
    max_tokens: Unsigned | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    stream: bool = False


class Chat(Common, kw_only=True):
    messages: list[Message]
    max_completion_tokens: Unsigned | None = None
    logit_bias: list[float] | None = None
    logprobs: bool | None = None
    top_logprobs: Unsigned | None = None
    n: Unsigned | None = None
    presence_penalty: float | None = None
    tools: list[Tool] | None = None
    tool_prompt: str | None = None
    tool_choice: str | Tool | None = None
    response_format: dict[str, Any] | None = None
    stream_options: StreamOptions = msgspec.field(default_factory=StreamOptions)


class Completion(Common, kw_only=True):
    prompt: str | list[str]
    repetition_penalty: float | None = None
    suffix: str | None = None


class Refused(Exception):
    """An answer in place of the asked one; *type* is empty where it is plain text (Axum's own)."""

    def __init__(self, status: int, message: str, type: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.type = status, message, type


def read(request: Request, kind: type[Any]) -> Any:
    """The body of *request*, as serde and Axum would read it."""
    if (request.header("content-type") or "").partition(";")[0] != "application/json":
        raise Refused(415, "Expected request with `Content-Type: application/json`")
    try:
        raw = json.loads(request.body)
    except ValueError as error:
        raise Refused(400, f"Failed to parse the request body as JSON: {error}") from None
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise Refused(422, f"Failed to deserialize the JSON body into the target type: {error}") from None


def validate(asked: Generate, streams: bool) -> None:
    """`generate_stream_internal` and `Validation::validate`, in their order."""
    p = asked.parameters
    best_of = 1 if p.best_of is None else p.best_of
    sampled = any(one is not None for one in (p.temperature, p.top_k, p.top_p, p.typical_p))
    stops, top, count = len(p.stop), p.top_n_tokens or 0, prompt_tokens(asked.inputs)
    limit = MAX_TOTAL - count if p.max_new_tokens is None else p.max_new_tokens
    rules = [
        (streams and best_of != 1, "`best_of` != 1 is not supported when streaming tokens"),
        (
            streams and p.decoder_input_details,
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
        (best_of > 2 or best_of == 0, f"`best_of` must be > 0 and <= 2. Given: {best_of}"),
        (best_of > 1 and not (p.do_sample or sampled), "you must use sampling when `best_of` is > 1"),
        (out(p.temperature, 0), "`temperature` must be strictly positive"),
        (out(p.repetition_penalty, 0), "`repetition_penalty` must be strictly positive"),
        (abs(p.frequency_penalty or 0) > 2, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        (out(p.top_p, 0, 1), "`top_p` must be > 0.0 and < 1.0"),
        (out(p.typical_p, 0, 1), "`typical_p` must be > 0.0 and < 1.0"),
        (out(p.top_k, 0), "`top_k` must be strictly positive"),
        (p.max_new_tokens == 0, "`max_new_tokens` must be strictly positive"),
        (stops > MAX_STOPS, f"`stop` supports up to {MAX_STOPS} stop sequences. Given: {stops}"),
        (best_of > 1 and p.seed is not None, "`seed` must not be set when `best_of` > 1"),
        (top > MAX_TOP, f"`top_n_tokens` must be >= 0 and <= {MAX_TOP}. Given: {top}"),
        (not asked.inputs, "`inputs` cannot be empty"),
        (
            count + limit > MAX_TOTAL,
            f"`inputs` tokens + `max_new_tokens` must be <= {MAX_TOTAL}. "
            f"Given: {count} `inputs` tokens and {limit} `max_new_tokens`",
        ),
        (count > MAX_INPUT, f"`inputs` must have less than {MAX_INPUT} tokens. Given: {count}"),
    ]
    for broken, said in rules:
        if broken:
            raise Refused(422, f"Input validation error: {said}", "validation")
    if p.seed is not None and not 0 <= p.seed < 2**64:
        raise Refused(422, "Failed to deserialize the JSON body into the target type: parameters.seed")


def check_chat(asked: Chat) -> None:
    """What serde would refuse, and no Struct of ours does."""
    wrong = [message.role for message in asked.messages if message.content is None and message.tool_calls is None]
    parts = [part for message in asked.messages if isinstance(message.content, list) for part in message.content]
    wrong += [part.type for part in parts if part.type not in ("text", "image_url")]
    given = [*(asked.tools or []), *(call for message in asked.messages for call in message.tool_calls or [])]
    unset = msgspec.UNSET
    wrong += [
        one.function.name for one in given if one.function.arguments is unset and one.function.parameters is unset
    ]
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        wrong.append("duplicate field `max_tokens`")
    form = asked.response_format
    if form is not None and (form.get("type") not in ("json", "json_object", "json_schema") or "value" not in form):
        wrong.append("response_format")
    if wrong:
        raise Refused(422, f"Failed to deserialize the JSON body into the target type: {wrong}")
    asked.max_tokens = asked.max_tokens if asked.max_tokens is not None else asked.max_completion_tokens
    if form is not None and asked.tools is not None:
        raise Refused(422, "Tool error: Grammar and tools are mutually exclusive", "tool_error")


def out(value: float | None, low: float, high: float | None = None) -> bool:
    """Whether *value* is given and not strictly between *low* and *high*."""
    return value is not None and (value <= low or (high is not None and value >= high))


def prompt_tokens(text: str) -> int:
    return len(text.split()) + 1
