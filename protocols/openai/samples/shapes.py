"""What the samples are made from and made of.

Owns `Asked`, `Whole`, `Stream`, `Refused`, the reading of a request's fields and the framing of events. It
refuses to know any endpoint (its neighbours do that). An Asked is made by `gateway.upstream.mock` for each
call.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec
import orjson

from protocols.openai.body import Fields, join_fields

JSON: Final = b"application/json"
EVENTS: Final = b"text/event-stream"
DONE: Final = b"data: [DONE]\n\n"

Body = TypeVar("Body", bound=msgspec.Struct)

#: Words with the white space after them, so that joining them gives the text back.
_WORDS: Final = re.compile(r"^\s+|\S+\s*")
#: Where msgspec says what is wrong: "... - at `$.messages[0].role`".
_WRONG_AT: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
_PART_NAME: Final = re.compile(rb'(?i)^content-disposition:[^\r\n]*?;\s*name="([^"]*)"', re.MULTILINE)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `id` is unique, `created` in Unix seconds; `fields` is None for a multipart form.

    `text` is what the model shall say (empty: an echo of the request), `embedding_size` the length of a
    vector.
    """

    path: str
    model: str
    stream: bool
    fields: Fields | None
    body: bytes
    id: str
    created: int
    text: str = ""
    embedding_size: int = 8


class Whole(msgspec.Struct, frozen=True):
    """An answer in one piece. `tokens` is how many a model would have generated for it."""

    body: bytes
    content_type: bytes = JSON
    tokens: int = 0


class Stream(msgspec.Struct, frozen=True):
    """An answer as whole events: what comes before the first token, one for each token, and what ends it."""

    opening: list[bytes]
    tokens: list[bytes]
    closing: list[bytes]


class Refused(Exception):
    """A request that a real server answers with 400. `param` names the field at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def read(asked: Asked, shape: type[Body]) -> Body:
    """Return the fields of *asked* that *shape* names. Raises `Refused`."""
    try:
        if asked.fields is None:
            return msgspec.convert(_form_values(asked.body), shape, strict=False)
        return msgspec.json.decode(join_fields(asked.fields), type=shape)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("The body is not JSON that can be read.") from None


def _explain(message: str) -> Refused:
    at = _WRONG_AT.search(message)
    missing = _MISSING.search(message)
    param = at[1] if at else ""
    if missing:
        param = f"{param}.{missing[1]}" if param else missing[1]
        return Refused(f"Missing required parameter: '{param}'.", param)
    return Refused(f"Invalid value for '{param}': {_WRONG_AT.sub('', message)}.", param)


def _form_values(body: bytes) -> dict[str, Any]:
    """Return the parts of a multipart form by name: files as bytes, text as str.

    The boundary is read from the body's first line; preambles, which no client sends, are not looked for.
    """
    boundary, _, rest = body.partition(b"\r\n")
    if not boundary.startswith(b"--"):
        raise Refused("The body is neither a JSON object nor a multipart form.")
    values: dict[str, Any] = {}
    for part in (b"\r\n" + rest).split(b"\r\n" + boundary):
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = _PART_NAME.search(head)
        if name is not None:
            key = name[1].decode("utf-8", "replace").removesuffix("[]")
            values[key] = content if b"filename" in head else content.decode("utf-8", "replace")
    return values


def event(value: dict[str, Any]) -> bytes:
    """Frame *value* as an event without a name."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def named_event(value: dict[str, Any]) -> bytes:
    """Frame *value* as an event that its "type" names."""
    return b"event: %s\n%s" % (str(value["type"]).encode("ascii"), event(value))


def words(text: str) -> list[str]:
    """Cut *text* into words, each with the white space that follows it."""
    found: list[str] = _WORDS.findall(text)
    return found


def shorten(tokens: list[str], limit: int | None) -> tuple[list[str], bool]:
    """Return the first *limit* tokens, and whether any had to be left out."""
    if limit is None or len(tokens) <= limit:
        return tokens, False
    return tokens[:limit], True
