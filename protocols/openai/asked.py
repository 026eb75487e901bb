"""Requests of the hub, looked at as deep as the sides of other dialects rely on them.

Owns the types of the fields that have an equivalent in another dialect, and how a wrong one is named to its client. It
refuses to judge what a value means (a backend does) and keeps no field: a request stays the object that it was.
Source: OpenAI's OpenAPI document 2.3.0, `CreateChatCompletionRequest`, `CreateCompletionRequest` and
`CreateEmbeddingRequest`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from protocols.dialect import JsonObject, Unmappable

#: Where msgspec says what is wrong: "... - at `$.messages[0].role`".
_WRONG_AT: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Object = dict[str, Any]

Fields = TypeVar("Fields", bound=msgspec.Struct)


class _ImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class _InputAudio(msgspec.Struct):
    data: str
    format: str


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: _ImageUrl | None = None
    input_audio: _InputAudio | None = None
    file: Object | None = None
    refusal: str | None = None

    def __post_init__(self) -> None:
        if self.type in _CARRIED and getattr(self, self.type) is None:
            raise ValueError(f"Object missing required field `{self.type}`")


#: Parts that carry what they are in a member of their type's name.
_CARRIED: Final = frozenset({"text", "image_url", "input_audio", "file", "refusal"})


class _CalledFunction(msgspec.Struct):
    name: str
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    id: str
    type: str = "function"
    function: _CalledFunction | None = None

    def __post_init__(self) -> None:
        _want_function(self.type, self.function)


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[Object] | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: str
    function: _Function | None = None

    def __post_init__(self) -> None:
        _want_function(self.type, self.function)


def _want_function(type: str, function: object) -> None:
    if type == "function" and function is None:
        raise ValueError("Object missing required field `function`")


class _ChosenFunction(msgspec.Struct):
    name: str


class _ToolChoice(msgspec.Struct):
    type: str
    function: _ChosenFunction | None = None

    def __post_init__(self) -> None:
        _want_function(self.type, self.function)


class _JsonSchema(msgspec.Struct):
    name: str | None = None
    description: str | None = None
    schema: Object | None = None
    strict: bool | None = None


class _ResponseFormat(msgspec.Struct):
    type: str
    json_schema: _JsonSchema | None = None

    def __post_init__(self) -> None:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("Object missing required field `json_schema`")


class StreamOptions(msgspec.Struct):
    """What a client wants of a stream beyond its text."""

    include_usage: bool | None = None


class _Common(msgspec.Struct, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    n: Count | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: Object | None = None
    user: str | None = None


class ChatFields(_Common, kw_only=True):
    """The fields of POST /v1/chat/completions that have an equivalent anywhere."""

    messages: list[_Message]
    max_completion_tokens: Count | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    metadata: Object | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    modalities: list[str] | None = None


class CompletionFields(_Common, kw_only=True):
    """The fields of POST /v1/completions that have an equivalent anywhere."""

    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    echo: bool | None = None
    best_of: Count | None = None
    logprobs: Count | None = None


class EmbeddingsFields(msgspec.Struct, kw_only=True):
    """The fields of POST /v1/embeddings."""

    model: str | None = None
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None


def check_chat(fields: JsonObject) -> ChatFields:
    """What of a chat request others rely on. Raises `Unmappable` naming the field that is wrong."""
    return _read(fields, ChatFields)


def check_completion(fields: JsonObject) -> CompletionFields:
    """What of a completion's request others rely on. Raises `Unmappable` naming the field that is wrong."""
    return _read(fields, CompletionFields)


def check_embeddings(fields: JsonObject) -> EmbeddingsFields:
    """What of a request for embeddings others rely on. Raises `Unmappable` naming the field that is wrong."""
    return _read(fields, EmbeddingsFields)


def _read(fields: JsonObject, type: type[Fields]) -> Fields:
    try:
        return msgspec.convert(fields, type)
    except msgspec.ValidationError as error:
        text = str(error)
    except RecursionError:
        raise Unmappable("the request is nested too deeply") from None
    at = _WRONG_AT.search(text)
    where = at[1] if at is not None else ""
    missing = _MISSING.match(text)
    if missing is not None:
        where = f"{where}.{missing[1]}" if where else missing[1]
        raise Unmappable(f"'{where}' is missing", where)
    what = _WRONG_AT.sub("", text)
    raise Unmappable(f"'{where}': {what[:1].lower()}{what[1:]}", where or None)
