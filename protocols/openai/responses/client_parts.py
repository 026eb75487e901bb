"""The parts of an input item's content, as the parts of a chat message.

Owns texts, images, files, sounds and refusals. It refuses what refers to files that OpenAI keeps, where chat cannot
say it. Called by `client_input`.
Source: openai-python 3.54, `ResponseInputContentParam` and `ChatCompletionContentPartParam`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.openai.responses.values import read

#: A message's content as chat has it; a text alone is a string, which every backend takes.
Content = str | list[JsonObject]


class _Breakpoint(msgspec.Struct, omit_defaults=True):
    mode: str
    ttl: str | None = None


class _Part(msgspec.Struct):
    type: str
    prompt_cache_breakpoint: _Breakpoint | None = None


class _Text(_Part, kw_only=True):
    text: str
    annotations: Any = None
    logprobs: Any = None


class _Refusal(_Part, kw_only=True):
    refusal: str


class _Image(_Part, kw_only=True):
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class _File(_Part, kw_only=True):
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    detail: str | None = None


class _Sound(msgspec.Struct):
    data: str
    format: str


class _Audio(_Part, kw_only=True):
    input_audio: _Sound


def read_content(given: str | list[JsonObject], role: str, path: str, dropped: Dropped) -> Content:
    """The content of a message by *role*. Raises `Unmappable`."""
    if isinstance(given, str):
        return given
    parts = _read_parts(given, _PARTS_OF[role], f"in a message by the {role}", path, dropped)
    return parts[0]["text"] if _is_text(parts) else parts


def read_output(given: str | list[JsonObject], path: str, dropped: Dropped) -> tuple[Content, list[JsonObject]]:
    """What a tool said, and what it showed: chat has only text in a tool's message. Raises `Unmappable`."""
    if isinstance(given, str):
        return given, []
    parts = _read_parts(given, _PARTS_OF["user"], "in what a tool gave", path, dropped)
    texts = [part for part in parts if part["type"] == "text"]
    seen = [part for part in parts if part["type"] != "text"]
    return (texts[0]["text"] if _is_text(texts) else texts or ""), seen


def _is_text(parts: list[JsonObject]) -> bool:
    return len(parts) == 1 and parts[0].keys() == {"type", "text"}


def _read_parts(
    given: list[JsonObject], known: frozenset[str], where: str, path: str, dropped: Dropped
) -> list[JsonObject]:
    parts = []
    for place, part in enumerate(given):
        at = f"{path}[{place}]"
        kind = part.get("type")
        if not isinstance(kind, str):
            raise Unmappable(f"'{at}.type' must be the name of a part's type", f"{at}.type")
        if kind not in known:
            dropped.leave_out(f"{at}.type", f"is {kind[:64]!r}, which chat has not {where}")
            continue
        parts += _READERS[kind](part, at, dropped)
    return parts


def _text(part: JsonObject, path: str, dropped: Dropped) -> list[JsonObject]:
    text = read(part, _Text, path, dropped)
    return [_marked({"type": "text", "text": text.text}, text)]


def _refusal(part: JsonObject, path: str, dropped: Dropped) -> list[JsonObject]:
    return [{"type": "refusal", "refusal": read(part, _Refusal, path, dropped).refusal}]


def _image(part: JsonObject, path: str, dropped: Dropped) -> list[JsonObject]:
    image = read(part, _Image, path, dropped)
    if image.image_url is None:
        if image.file_id is None:
            raise Unmappable(f"'{path}.image_url' is missing", f"{path}.image_url")
        dropped.leave_out(f"{path}.file_id", "is of a file that a chat cannot name: send the image as a data: URL")
        return []
    url = {"url": image.image_url}
    if image.detail not in (None, "auto"):
        url["detail"] = image.detail
    return [_marked({"type": "image_url", "image_url": url}, image)]


def _file(part: JsonObject, path: str, dropped: Dropped) -> list[JsonObject]:
    file = read(part, _File, path, dropped)
    if file.detail not in (None, "auto"):
        dropped.leave_out(f"{path}.detail", "cannot be said in a chat")
    said = {name: getattr(file, name) for name in ("file_data", "file_id", "filename")}
    said = {name: value for name, value in said.items() if value is not None}
    if not said.keys() - {"filename"}:
        if file.file_url is None:
            raise Unmappable(f"'{path}.file_data' is missing", f"{path}.file_data")
        dropped.leave_out(f"{path}.file_url", "cannot be said in a chat: send the file as 'file_data'")
        return []
    return [_marked({"type": "file", "file": said}, file)]


def _audio(part: JsonObject, path: str, dropped: Dropped) -> list[JsonObject]:
    sound = read(part, _Audio, path, dropped).input_audio
    return [{"type": "input_audio", "input_audio": {"data": sound.data, "format": sound.format}}]


def _marked(said: JsonObject, part: _Part) -> JsonObject:
    """*said*, with the mark that a cache may reach up to here; chat has it too."""
    if part.prompt_cache_breakpoint is not None:
        said["prompt_cache_breakpoint"] = msgspec.to_builtins(part.prompt_cache_breakpoint)
    return said


_READERS: Final[dict[str, Callable[[JsonObject, str, Dropped], list[JsonObject]]]] = {
    "input_text": _text,
    "output_text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}

_TEXTS: Final = frozenset({"input_text", "output_text"})
_PARTS_OF: Final = {
    "user": _TEXTS | {"input_image", "input_file", "input_audio"},
    "assistant": _TEXTS | {"refusal"},
    "system": _TEXTS,
    "developer": _TEXTS,
}
