"""Request bodies: top-level keys to raw values, and back, every value byte-identical.

Owns the decoding of a JSON body to its top level and the changes that the gateway makes there (the model's name,
`stream_options`). It refuses to look deeper. A key that came twice leaves once, with its last value, so that no
backend can see another model than the one that was admitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from protocols.openai.wide import decode_wide

Fields = dict[str, msgspec.Raw]

#: Bodies up to this size cannot hold enough keys to hurt, and skip the counting.
_UNCOUNTED: Final = 16 << 10

TRUE: Final = msgspec.Raw(b"true")
_USAGE_WANTED: Final = msgspec.Raw(b'{"include_usage":true}')


class BodyError(ValueError):
    """The body is not a JSON object that can be served; the text says what is wrong, and where if known."""


_decode: Final = msgspec.json.Decoder(Fields).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


def decode_fields(body: bytes) -> Fields:
    """The top-level keys of *body* with their values as they stand. Raises `BodyError`."""
    try:
        if not body.isascii():
            body.decode()  # the decoder looks into keys only; RFC 8259 wants all of it to be UTF-8
        if len(body) <= _UNCOUNTED:
            return _decode(body)
        return decode_wide(body)
    except RecursionError:
        raise BodyError("the JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise BodyError(f"not UTF-8 (byte {error.start})") from None
    except msgspec.MsgspecError as error:
        raise BodyError(_explain(str(error))) from None


def _explain(text: str) -> str:
    if text.startswith("Expected `object`"):
        return "the body must be a JSON object"
    return text.partition(" - at ")[0]


#: The JSON object that fields stand for.
join_fields: Final[Callable[[Fields], bytes]] = msgspec.json.Encoder().encode


def model_of(fields: Fields) -> str:
    """The model that the request names; empty where it names none. Raises `BodyError` for another type."""
    value = fields.get("model")
    if value is None:
        return ""
    try:
        return _decode_text(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BodyError("'model' must be a string") from None


def wants_stream(fields: Fields) -> bool:
    """Whether `stream` is true; false and null are False. Raises `BodyError` for another type."""
    text = bytes(fields["stream"]) if "stream" in fields else b"false"
    if text == b"true":
        return True
    if text in (b"false", b"null"):
        return False
    raise BodyError("'stream' must be true or false")


def ask_for_usage(fields: Fields) -> bool:
    """Set `stream_options.include_usage`; False where the client had set it already, or set nonsense."""
    options = fields.get("stream_options")
    if options is None or bytes(options) == b"null":
        fields["stream_options"] = _USAGE_WANTED
        return True
    if len(bytes(options)) > _UNCOUNTED:
        return False  # no options that anybody means, and perhaps a wide bomb
    try:
        inner = _decode(options)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False  # not an object: the backend's own refusal is the best answer
    if bytes(inner.get("include_usage", b"")) == b"true":
        return False
    inner["include_usage"] = TRUE
    fields["stream_options"] = msgspec.Raw(join_fields(inner))
    return True
