"""What the relay must know of a stream that passes untouched, and of answers: errors, ends, tokens.

Owns the reading of single events and whole answers for those questions. It refuses to change them, and to cut streams
into events (`protocols.sse`).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from protocols.dialect import Tokens, Usage, are_tokens

#: The key as it stands in JSON. Inside generated text its quotes would be escaped, so this matches keys only.
USAGE_KEY: Final = b'"usage"'

#: The last event, by its name or in its data. Inside generated text every quote would be escaped.
_END: Final = re.compile(
    rb'"type"\s{0,8}:\s{0,8}"(?:message_stop|error)"'
    rb"|(?:\A|[\r\n])event: ?(?:message_stop|error)(?=[\r\n])"
)


# None of these can be part of a cycle, so the collector need not know them.


class _Envelope(msgspec.Struct, gc=False):
    type: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class _WireUsage(msgspec.Struct, gc=False):
    input_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: _WireUsage | None = None


class _Event(msgspec.Struct, gc=False):
    message: _Answer | None = None
    usage: _WireUsage | None = None


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode
_decode_answer: Final = msgspec.json.Decoder(_Answer).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode


def _envelope(data: bytes) -> _Envelope | None:
    try:
        return _decode_envelope(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def carries_error(data: bytes) -> bool:
    """Whether *data*, the JSON of one event or body, is an error that came in place of an answer.

    One without a `type` counts too where it has an `error`: so speak the servers that only know OpenAI's errors.
    """
    if b'"error"' not in data:
        return False
    envelope = _envelope(data)
    if envelope is None:
        return False
    kind = bytes(envelope.type)
    return kind == b'"error"' or (kind == b"null" and bytes(envelope.error) not in (b"null", b'""', b"{}", b"false"))


def says_end(events: bytes) -> bool:
    """Whether one of *events* is the last of its stream: message_stop or an error."""
    return _END.search(events) is not None


def is_opening(data: bytes) -> bool:
    """Whether *data* is that of message_start, the first event that counts as an answer; a ping is none."""
    if b'"message_start"' not in data:
        return False
    envelope = _envelope(data)
    return envelope is not None and bytes(envelope.type) == b'"message_start"'


def usage_of_event(data: bytes, so_far: Usage | None) -> Usage | None:
    """The stream's usage after the event with *data*: message_start tells the prompt's, message_delta all of it.

    The numbers of a message_delta are totals and take the place of earlier ones; what it leaves out stays.
    """
    if USAGE_KEY not in data:
        return so_far
    try:
        event = _decode_event(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return so_far
    wire = event.usage or (event.message.usage if event.message is not None else None)
    return so_far if wire is None else _from_wire(wire, so_far)


def usage_of_answer(body: bytes) -> Usage | None:
    """The usage of a whole answer; None where there is none, or the body is not what it seems."""
    if USAGE_KEY not in body:
        return None
    try:
        wire = _decode_answer(body).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if wire is None else _from_wire(wire, None)


def _from_wire(wire: _WireUsage, so_far: Usage | None) -> Usage | None:
    """`input_tokens` are those that no cache had a part in; the prompt is all three together."""
    before = so_far or Usage(0, 0)
    completion = before.completion if wire.output_tokens is None else wire.output_tokens
    if wire.input_tokens is None:
        return Usage(before.prompt, completion, before.cached)
    cached = before.cached if wire.cache_read_input_tokens is None else wire.cache_read_input_tokens
    prompt = wire.input_tokens + (wire.cache_creation_input_tokens or 0) + cached
    return Usage(prompt, completion, cached) if are_tokens(prompt) else so_far
