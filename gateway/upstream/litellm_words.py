"""What is said to the LiteLLM SDK and what it says: arguments, answers, chunks and exceptions.

Owns the fields that are handed to it, by name, since it takes much more than OpenAI's API does (addresses, keys, files,
callbacks) and a client must not reach any of that; and what of its words clients see. It refuses to call it
(`litellm`). All of it is read by attributes: the package need not be there.
Source: litellm 1.106 (main.py, exceptions.py, types/utils.py).
"""

from __future__ import annotations

import base64
import os
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from protocols.openai.body import Fields
from protocols.openai.errors import error_body

#: Path -> the SDK's function.
FUNCTIONS: Final = {
    "/v1/chat/completions": "acompletion",
    "/v1/completions": "atext_completion",
    "/v1/embeddings": "aembedding",
}
_SAMPLING: Final = frozenset(
    {
        *("stream", "stream_options", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "logit_bias"),
        *("frequency_penalty", "presence_penalty", "logprobs", "top_k", "min_p", "repetition_penalty"),
    }
)
_FIELDS: Final = {
    "/v1/chat/completions": _SAMPLING
    | {
        *("messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls"),
        *("response_format", "reasoning_effort", "verbosity", "modalities", "audio", "functions", "function_call"),
        "web_search_options",
    },
    "/v1/completions": _SAMPLING | {"prompt", "suffix", "echo", "best_of"},
    "/v1/embeddings": frozenset({"input", "dimensions"}),
}
#: Labels and hints, which most providers refuse: nothing in the answer's meaning hangs on them. `encoding_format` is
#: ours to see to.
_LEFT_OUT: Final = frozenset(
    {
        *("model", "user", "metadata", "store", "service_tier", "safety_identifier", "encoding_format", "prediction"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
    }
)
#: The SDK's own, in answers.
_EXTRAS: Final = frozenset({"provider_specific_fields", "_hidden_params", "citations"})

_NAMED_CODES: Final = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_policy_violation",
    "UnsupportedParamsError": "unsupported_parameter",
}
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable",
}
_PREFIX: Final = re.compile(r"^(?:litellm\.)?(?:\w+(?:Error|Timeout): )+(?:\w+Exception - )?")
_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
_KEY_LIKE: Final = re.compile(r"\b(?:sk|gsk|pk|xai|hf)[-_][A-Za-z0-9_*.-]{6,}|(?i:bearer)\s+\S+")
_ADDRESS: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+")
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,3})?")
_SHOWN: Final = 500


class Unserved(ValueError):
    """A request that the SDK cannot be asked; `param` is the field."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


class Failure(NamedTuple):
    """An exception of the SDK as an answer. *retry_after*: as it says it, or empty; *unsent*: nobody was reached."""

    status: int
    body: bytes
    retry_after: str
    unsent: bool


def read_fields(path: str, fields: Fields) -> dict[str, Any]:
    """The arguments that *fields* of a request to *path* are. Raises `Unserved`."""
    known = _FIELDS[path]
    arguments: dict[str, Any] = {}
    for name, raw in fields.items():
        if name in _LEFT_OUT or bytes(raw) == b"null":
            continue
        if name not in known:
            raise Unserved(f"'{name}' is not supported by this backend.", name)
        try:
            arguments[name] = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Unserved(f"'{name}' cannot be read.", name) from None
    return arguments


def write_answer(path: str, answer: Any, fields: Fields) -> bytes:
    """A whole answer of the SDK as OpenAI writes it."""
    told = _tidy(answer.model_dump(exclude_none=True))
    if path == "/v1/embeddings":
        if bytes(fields.get("encoding_format", b"")) == b'"base64"':
            for one in told["data"]:
                one["embedding"] = _base64(one["embedding"])
        counts = told.get("usage", {}).get("prompt_tokens", 0)
        told["usage"] = {"prompt_tokens": counts, "total_tokens": counts}
        return orjson.dumps(told)
    for choice in told["choices"]:
        choice.setdefault("logprobs", None)
        message = choice.get("message")
        if message is not None:
            message.setdefault("content", None)
            message.setdefault("refusal", None)
    return orjson.dumps(told)


def read_chunk(chunk: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A chunk of a stream as OpenAI's, without the usage, and the usage where it has one.

    With the usage the SDK sends a choice that says nothing; OpenAI sends none.
    """
    told = _tidy(chunk.model_dump(exclude_none=True))
    usage = told.pop("usage", None)
    if usage is not None and not usage.get("total_tokens"):
        usage = None  # of a text's stream every chunk has one, of zeros
    choices = told.get("choices", [])
    if usage is not None:
        choices = [
            one for one in choices if any(one.get("delta", {}).values()) or one.get("text") or "finish_reason" in one
        ]
    for choice in choices:
        choice.setdefault("finish_reason", None)
        choice.setdefault("logprobs", None)
        if "delta" not in choice:
            choice.setdefault("text", "")
    told["choices"] = choices
    return told, usage


def _tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tidy(one) for name, one in value.items() if name not in _EXTRAS}
    if isinstance(value, list):
        return [_tidy(one) for one in value]
    return value


def _base64(vector: Any) -> Any:
    if not isinstance(vector, list):
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def read_failure(error: Exception, secret: str) -> Failure:
    """What *error* is to a client; *secret* is the backend's own key, never to be told."""
    said = getattr(error, "status_code", None)
    status = said if isinstance(said, int) and 400 <= said <= 599 else 502
    name = type(error).__name__
    causes = {type(one).__name__ for one in _causes(error)}
    unsent = bool(causes & {"ConnectError", "ConnectTimeout", "ClientConnectorError"})
    if name == "Timeout":
        status = 504  # 408 would be the client's own slowness
    elif unsent or "APIConnectionError" in causes:
        status = 502
    kind = _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    param = getattr(error, "param", None)
    message = "The upstream could not be reached." if unsent else _message(error, secret, status)
    body = error_body(message, kind, _NAMED_CODES.get(name), param if isinstance(param, str) else None)
    return Failure(status, body, _retry_after(error), unsent)


def _retry_after(error: Exception) -> str:
    """Its provider's wait in seconds; the exception itself often has lost it, and one behind it has it still."""
    for one in _causes(error):
        for holder in (getattr(one, "response", None), one):
            headers = getattr(holder, "headers", None)
            wait = str(headers.get("retry-after", "")) if isinstance(headers, Mapping) else ""
            if _SECONDS.fullmatch(wait):
                return wait
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _message(error: Exception, secret: str, status: int) -> str:
    """Its words in one line, without names of its classes, addresses, keys, or a traceback."""
    said = getattr(error, "message", None)
    text = said if isinstance(said, str) else ""
    text = text.partition("Traceback")[0].partition("\nReceived Model Group")[0]
    text = " ".join(_PREFIX.sub("", text).split())
    for one in (secret, *_environment()):
        if one:
            text = text.replace(one, "***")
    text = _ADDRESS.sub("***", _KEY_LIKE.sub("***", text))[:_SHOWN]
    return text or f"The upstream answered {status}."


def _environment() -> list[str]:
    return [value for name, value in os.environ.items() if len(value) >= 8 and _SECRET_NAME.search(name.upper())]
