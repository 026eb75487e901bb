"""Content of a hub message, part by part, as blocks of the Messages API.

Owns texts, images and files. It refuses messages as a whole and calls of tools (`backend_messages`).
Sources: https://platform.claude.com/docs/en/build-with-claude/vision (kinds of images, base64 and url sources),
https://platform.claude.com/docs/en/build-with-claude/pdf-support (documents), `ContentBlockParam` of Anthropic's
Python SDK 2.12.
"""

from __future__ import annotations

import re
from typing import Any, Final

from protocols.anthropic.backend_fields import list_of, object_of, text_of
from protocols.dialect import Dropped, JsonObject, Unmappable

#: Images that the API reads, and names by which clients call them.
_IMAGES: Final = {
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/png": "image/png",
    "image/gif": "image/gif",
    "image/webp": "image/webp",
}
_PDF: Final = "application/pdf"
#: RFC 2397; parameters before the coding mean nothing to images.
_DATA_URL: Final = re.compile(r"data:([^;,]*)(?:;[^;,]+)*;base64,", re.IGNORECASE)
_HTTP: Final = re.compile(r"https?://", re.IGNORECASE)


def text_block(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def blocks_of(content: Any, param: str, dropped: Dropped) -> list[JsonObject]:
    """The blocks that a user's or a tool's *content* becomes; texts of spaces alone are none, as the API refuses them.

    Raises `Unmappable`.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [] if not content or content.isspace() else [text_block(content)]
    blocks = []
    for at, part in enumerate(list_of(content, param)):
        block = _block_of(object_of(part, f"{param}[{at}]"), f"{param}[{at}]", dropped)
        if block is not None:
            blocks.append(block)
    return blocks


def texts_of(content: Any, param: str) -> list[str]:
    """The texts of *content* where nothing else may be: instructions, and what an assistant said.

    Texts of spaces alone are left out. Raises `Unmappable`.
    """
    if content is None:
        return []
    if isinstance(content, str):
        texts = [content]
    else:
        texts = [_said(part, f"{param}[{at}]") for at, part in enumerate(list_of(content, param))]
    return [text for text in texts if text and not text.isspace()]


def _said(part: Any, param: str) -> str:
    fields = object_of(part, param)
    kind = text_of(fields.get("type"), f"{param}.type")
    if kind not in ("text", "refusal"):
        raise Unmappable(f"'{param}.type' must be a text here", f"{param}.type")
    return text_of(fields.get(kind), f"{param}.{kind}")


def _block_of(part: JsonObject, param: str, dropped: Dropped) -> JsonObject | None:
    kind = text_of(part.get("type"), f"{param}.type")
    if kind == "text":
        text = text_of(part.get("text"), f"{param}.text")
        return None if not text or text.isspace() else text_block(text)
    if kind == "image_url":
        return _image(part.get("image_url"), f"{param}.image_url", dropped)
    if kind == "file":
        return _document(object_of(part.get("file"), f"{param}.file"), f"{param}.file", dropped)
    dropped.leave_out(f"{param}.type", "is a kind of content that Anthropic's API does not take")
    return None


def _image(value: Any, param: str, dropped: Dropped) -> JsonObject | None:
    """An image; its `detail` is a hint and left out. Some clients put the URL where OpenAI has an object around it."""
    if isinstance(value, str):
        url = value
    else:
        param = f"{param}.url"
        url = text_of(object_of(value, param).get("url"), param)
    if _HTTP.match(url):
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, data = _unpack(url, param)
    if kind not in _IMAGES:
        dropped.leave_out(
            param, "is a kind of image that Anthropic's API does not take (JPEG, PNG, GIF and WebP it does)"
        )
        return None
    return {"type": "image", "source": {"type": "base64", "media_type": _IMAGES[kind], "data": data}}


def _document(file: JsonObject, param: str, dropped: Dropped) -> JsonObject | None:
    """A PDF that comes with the request: the API reads no other files, and OpenAI's store of files is not its own."""
    if file.get("file_id") is not None:
        dropped.leave_out(f"{param}.file_id", "names a file that is stored elsewhere")
        return None
    kind, data = _unpack(text_of(file.get("file_data"), f"{param}.file_data"), f"{param}.file_data")
    if kind != _PDF:
        dropped.leave_out(f"{param}.file_data", "is a kind of file that Anthropic's API does not take (PDF it does)")
        return None
    block: JsonObject = {"type": "document", "source": {"type": "base64", "media_type": _PDF, "data": data}}
    if file.get("filename"):
        block["title"] = text_of(file["filename"], f"{param}.filename")
    return block


def _unpack(url: str, param: str) -> tuple[str, str]:
    """Kind and base64 text of a data URL."""
    head = _DATA_URL.match(url)
    if head is None:
        raise Unmappable(f"'{param}' must be an http URL, or a data URL in base64", param)
    return head[1].strip().lower(), url[head.end() :]
