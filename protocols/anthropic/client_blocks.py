"""Content blocks of a request that say something to the model -> parts of the hub's messages.

Owns text, images, documents and search results. It refuses tools and thinking (`client_turns`): those belong to a turn.
What a block says about caching and citing is no part of what the model reads.

Source: `types/*_block_param.py` and `types/*_source_param.py` of the vendor's Python SDK 2.12.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocols.anthropic.client_fields import (
    NO_EQUIVALENT,
    join,
    leave_out_others,
    objects,
    optional,
    required,
    wrong,
)
from protocols.dialect import Dropped, JsonObject

#: What the vendor's API takes; others are refused there too.
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

_TEXT_FIELDS: Final = frozenset({"type", "text", "cache_control", "citations"})
_IMAGE_FIELDS: Final = frozenset({"type", "source", "cache_control"})
_DOCUMENT_FIELDS: Final = frozenset({"type", "source", "title", "context", "cache_control", "citations"})
_RESULT_FIELDS: Final = frozenset({"type", "source", "title", "content", "cache_control", "citations"})


def text_part(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def read_text(block: JsonObject, at: str, dropped: Dropped) -> str:
    """The text of a text block."""
    leave_out_others(block, _TEXT_FIELDS, dropped, at)
    return required(block, "text", str, at)


def read_texts(fields: JsonObject, key: str, at: str, dropped: Dropped) -> list[str]:
    """The texts of a field that is a string or text blocks; the empty ones are left out."""
    value = fields.get(key)
    if type(value) is str:
        return [value] if value else []
    if value is not None and type(value) is not list:
        raise wrong(join(at, key), "must be a string or an array of text blocks")
    texts = []
    for name, block in objects(value or [], join(at, key)):
        if required(block, "type", str, name) != "text":
            raise wrong(join(name, "type"), "must be 'text' here")
        texts.append(read_text(block, name, dropped))
    return [text for text in texts if text]


def read_part(kind: str, block: JsonObject, at: str, dropped: Dropped) -> list[JsonObject] | None:
    """The parts that *block* becomes; None where its *kind* is none of these."""
    reader = _READERS.get(kind)
    return None if reader is None else reader(block, at, dropped)


def _text(block: JsonObject, at: str, dropped: Dropped) -> list[JsonObject]:
    text = read_text(block, at, dropped)
    return [text_part(text)] if text else []


def _image(block: JsonObject, at: str, dropped: Dropped) -> list[JsonObject]:
    leave_out_others(block, _IMAGE_FIELDS, dropped, at)
    source, name = required(block, "source", dict, at), join(at, "source")
    kind = required(source, "type", str, name)
    if kind == "url":
        url = required(source, "url", str, name)
    elif kind == "base64":
        media = required(source, "media_type", str, name)
        if media not in _IMAGES:
            raise wrong(join(name, "media_type"), f"must be one of {', '.join(sorted(_IMAGES))}")
        url = f"data:{media};base64,{required(source, 'data', str, name)}"
    else:
        dropped.leave_out(join(name, "type"), f"{kind!r} {NO_EQUIVALENT}")
        return []
    return [{"type": "image_url", "image_url": {"url": url}}]


def _document(block: JsonObject, at: str, dropped: Dropped) -> list[JsonObject]:
    """A PDF becomes a file; a document of text becomes text, its title and context above it."""
    leave_out_others(block, _DOCUMENT_FIELDS, dropped, at)
    _refuse_citing(block, at, dropped)
    title, context = optional(block, "title", str, at), optional(block, "context", str, at)
    source, name = required(block, "source", dict, at), join(at, "source")
    kind = required(source, "type", str, name)
    above = [text_part(text) for text in (title, context) if text]
    if kind == "base64":
        if required(source, "media_type", str, name) != "application/pdf":
            raise wrong(join(name, "media_type"), "must be application/pdf")
        data = f"data:application/pdf;base64,{required(source, 'data', str, name)}"
        file = {"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}
        return [text_part(context), file] if context else [file]
    if kind == "text":
        data = required(source, "data", str, name)
        return [*above, text_part(data)] if data else above
    if kind == "content":
        return above + _contents(source, name, dropped)
    dropped.leave_out(join(name, "type"), f"{kind!r} {NO_EQUIVALENT}")
    return []


def _contents(source: JsonObject, at: str, dropped: Dropped) -> list[JsonObject]:
    """The content of a document that is a string, or text and images."""
    content = source.get("content")
    if type(content) is str:
        return [text_part(content)] if content else []
    parts: list[JsonObject] = []
    for name, block in objects(required(source, "content", list, at), join(at, "content")):
        kind = required(block, "type", str, name)
        if kind not in ("text", "image"):
            raise wrong(join(name, "type"), "must be 'text' or 'image' here")
        parts += _READERS[kind](block, name, dropped)
    return parts


def _search_result(block: JsonObject, at: str, dropped: Dropped) -> list[JsonObject]:
    """A result of a search becomes text: its title and source, then what was found."""
    leave_out_others(block, _RESULT_FIELDS, dropped, at)
    _refuse_citing(block, at, dropped)
    head = [required(block, "title", str, at), required(block, "source", str, at)]
    required(block, "content", list, at)
    return [text_part("\n".join([text for text in head if text] + read_texts(block, "content", at, dropped)))]


def _refuse_citing(block: JsonObject, at: str, dropped: Dropped) -> None:
    """An answer that cites is another answer."""
    citations = optional(block, "citations", dict, at)
    name = join(at, "citations")
    if citations and optional(citations, "enabled", bool, name):
        dropped.leave_out(join(name, "enabled"), NO_EQUIVALENT)


_READERS: Final[dict[str, Callable[[JsonObject, str, Dropped], list[JsonObject]]]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
}
