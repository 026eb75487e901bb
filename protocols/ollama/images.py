"""Images in messages: Ollama's bare base64 to data URLs, and back.

Owns that. It refuses to fetch (nothing is fetched for a client) and to decode more than the first bytes, which tell
the format. Source: `ImageData` and `decodeImageURL` of the server v0.33.
"""

from __future__ import annotations

from binascii import Error, a2b_base64
from typing import Any, Final

from protocols.dialect import Unmappable
from protocols.ollama import fields

#: Base64 of that many bytes (a multiple of 4) holds every signature.
_SIGNATURE: Final = 16
_SPACE: Final = str.maketrans("", "", "\r\n")


def _format_of(image: str) -> str | None:
    """The media type that the first bytes of *image*, base64, tell; None where it is none of those that models see."""
    try:
        start = a2b_base64(image[:_SIGNATURE], strict_mode=True)
    except (Error, ValueError):
        return None
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "image/webp"
    return None


def to_parts(value: Any, param: str) -> list[dict[str, Any]]:
    """The hub's parts for an `images` array."""
    parts = []
    for at, image in enumerate(fields.texts(value, param)):
        if "\n" in image or "\r" in image:
            image = image.translate(_SPACE)  # Go's decoder takes them, others do not
        media = _format_of(image)
        if media is None:
            place = f"{param}[{at}]"
            raise Unmappable(f"'{place}' must be the base64 of a JPEG, PNG, GIF or WebP image", place)
        parts.append({"type": "image_url", "image_url": {"url": f"data:{media};base64,{image}"}})
    return parts


def from_url(url: str, param: str) -> str:
    """The base64 in a data URL. One that would have to be fetched is refused, as by Ollama's own /v1."""
    if url[:5].lower() != "data:":
        raise Unmappable(f"'{param}' must be a data URL: this model's backend takes no address of an image", param)
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise Unmappable(f"'{param}' must be a data URL in base64", param)
    return data
