"""Token usage, found in the bytes that pass.

Owns the search for usage in answers and events. It refuses to parse anything else of them. The names of both
APIs are known: chat's prompt_tokens and the newer input_tokens (responses, images, audio).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from protocols.dialect import Usage
from protocols.openai.usage_wire import WireUsage, decode_answer, decode_chunk, decode_usage

#: The key as it stands in JSON. Inside generated text its quotes would be escaped, so this matches keys only.
USAGE_KEY: Final = b'"usage"'
#: What OpenAI puts into every chunk but the last, once usage was asked for.
USAGE_NULL: Final = b'"usage":null'
#: Answers larger than this are searched in their last part only: usage follows the content in every known backend.
USAGE_WINDOW: Final = 8 << 10


#: Keys of that name that are looked at, from the last one backwards: clients may have others echoed.
SEARCHES_LIMIT: Final = 8
#: A usage object: numbers, and at most one level of objects with numbers. Bounded, so that hostile bytes cost nothing.
_OBJECT: Final = re.compile(rb'"usage"\s{0,8}:\s{0,8}(\{[^{}]{0,1024}(?:\{[^{}]{0,512}\}[^{}]{0,512}){0,8}\})')


def usage_of_answer(body: bytes) -> Usage | None:
    """The usage of a whole answer; None where there is none, or the body is not what it seems."""
    if len(body) > USAGE_WINDOW or body[:1] != b"{":
        return find_usage(body[-USAGE_WINDOW:])
    # Usage comes last, or nearly so: from its key on the answer is decoded as an object of its own. Where that works,
    # just one brace was open before the key, so it is the answer's own.
    before, key, rest = body.rpartition(USAGE_KEY)
    if key and not before.endswith(b"\\"):
        try:
            wire = decode_answer(b'{"usage"' + rest).usage
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return None if wire is None else _from_wire(wire)
    try:
        wire = decode_answer(body).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if wire is None else _from_wire(wire)


def find_usage(window: bytes) -> Usage | None:
    """The last usage object in *window*, part of an answer's JSON; None where there is none or it is not sane."""
    at = len(window)
    for _ in range(SEARCHES_LIMIT):
        at = window.rfind(USAGE_KEY, 0, at)
        if at < 0:
            return None
        match = _OBJECT.match(window, at)
        if match is not None:
            return _decode_usage(match[1])
    return None


def _decode_usage(text: bytes) -> Usage | None:
    try:
        return _from_wire(decode_usage(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def usage_of_chunk(data: bytes) -> tuple[Usage | None, bool]:
    """The usage in one stream chunk's JSON, and whether the chunk carries nothing else (no choices)."""
    try:
        chunk = decode_chunk(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return find_usage(data), False
    if chunk.usage is None:
        # The responses API nests it: {"type": "response.completed", "response": {..., "usage": {...}}}
        return (find_usage(data) if chunk.choices is None else None), False
    return _from_wire(chunk.usage), chunk.choices == []


def _from_wire(wire: WireUsage) -> Usage:
    details = wire.prompt_tokens_details or wire.input_tokens_details
    cached = details.cached_tokens or 0 if details is not None else 0
    return Usage(wire.prompt_tokens or wire.input_tokens, wire.completion_tokens or wire.output_tokens, cached)
