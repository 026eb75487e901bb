"""Sample answers of /v1/images/* and /v1/audio/*: a real PNG, a real WAV, text for what nobody listened to.

Owns their request fields and the two file formats. It refuses streams of images and other formats than it
can write: better a plain 400 than bytes with a wrong name. Called through `answer.sample`.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
import zlib
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson

from protocols.openai.samples.shapes import Asked, Refused, Whole, read, words

#: Pixels of a side. OpenAI's largest is 1792; the bound keeps a mock from becoming a way to burn the
#: processor.
SIDE_LIMIT: Final = 2048
_SIZE: Final = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})")
_TILE: Final = 32
_SAMPLE_RATE: Final = 24_000  # Hz, OpenAI's for pcm

Prompt = Annotated[str, msgspec.Meta(min_length=1)]
Images = Annotated[int, msgspec.Meta(ge=1, le=10)]


class ImageFields(msgspec.Struct):
    prompt: Prompt | None = None
    image: object = None
    n: Images | None = None
    size: str | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png"] | None = None


class SpeechFields(msgspec.Struct):
    input: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    voice: object
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    speed: Annotated[float, msgspec.Meta(ge=0.25, le=4)] | None = None


class TranscriptFields(msgspec.Struct):
    file: bytes
    response_format: Literal["json", "text"] | None = None


def generations(asked: Asked) -> Whole:
    """Answer /v1/images/generations. Raises `Refused`."""
    fields = read(asked, ImageFields)
    if fields.prompt is None:
        raise Refused("Missing required parameter: 'prompt'.", "prompt")
    return _images(asked, fields)


def edits(asked: Asked) -> Whole:
    """Answer /v1/images/edits. Raises `Refused`."""
    fields = read(asked, ImageFields)
    if fields.prompt is None:
        raise Refused("Missing required parameter: 'prompt'.", "prompt")
    return variations(asked)


def variations(asked: Asked) -> Whole:
    """Answer /v1/images/variations. Raises `Refused`."""
    fields = read(asked, ImageFields)
    if asked.fields is None and not isinstance(fields.image, bytes):
        raise Refused("Missing required parameter: 'image'.", "image")
    return _images(asked, fields)


def _images(asked: Asked, fields: ImageFields) -> Whole:
    _refuse_stream(asked)
    width, height = _sides(fields.size)
    seed = (fields.prompt or "").encode()
    # gpt-image models always answer in base64, the others with an address unless asked.
    inline = fields.response_format == "b64_json" or asked.model.startswith("gpt-image")
    rows: list[dict[str, Any]] = []
    for index in range(fields.n or 1):
        colour = hashlib.sha256(seed + bytes([index])).digest()[:3]
        encoded = base64.b64encode(png(width, height, colour)).decode("ascii")
        rows.append({"b64_json": encoded} if inline else {"url": f"data:image/png;base64,{encoded}"})
    said = len(words(fields.prompt or ""))
    usage = {
        "input_tokens": said,
        "input_tokens_details": {"text_tokens": said, "image_tokens": 0},
        "output_tokens": len(rows),
        "total_tokens": said + len(rows),
    }
    body = {"created": asked.created, "output_format": "png", "data": rows, "usage": usage}
    return Whole(orjson.dumps(body), tokens=len(rows))


def _refuse_stream(asked: Asked) -> None:
    if asked.stream:
        raise Refused("The mock backend does not stream images or audio.", "stream")


def _sides(size: str | None) -> tuple[int, int]:
    if size is None or size == "auto":
        return 1024, 1024
    sides = _SIZE.fullmatch(size)
    if sides is None:
        raise Refused(f"Invalid size '{size}': expected WIDTHxHEIGHT or 'auto'.", "size")
    width, height = int(sides[1]), int(sides[2])
    if max(width, height) > SIDE_LIMIT:
        raise Refused(f"Invalid size '{size}': a side has at most {SIDE_LIMIT} pixels.", "size")
    return width, height


def png(width: int, height: int, colour: bytes) -> bytes:
    """A chequered picture of *colour* (red, green, blue) and white, one bit for each pixel."""
    header = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", b"\xff\xff\xff" + colour), (b"IDAT", _chequers(width, height))]
    chunks = [_chunk(kind, content) for kind, content in [*parts, (b"IEND", b"")]]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@lru_cache(maxsize=4)
def _chequers(width: int, height: int) -> bytes:
    row_bytes = (width + 7) // 8
    light = (b"\x00" * (_TILE // 8) + b"\xff" * (_TILE // 8)) * (row_bytes // (_TILE // 4) + 1)
    dark = light[_TILE // 8 :] + light[: _TILE // 8]
    # Each row begins with its filter type: none.
    rows = [b"\x00" + (dark if (y // _TILE) % 2 else light)[:row_bytes] for y in range(height)]
    return zlib.compress(b"".join(rows), 1)


def speech(asked: Asked) -> Whole:
    """Answer /v1/audio/speech: a short tone as WAV, as bare samples for `pcm`. Raises `Refused`."""
    fields = read(asked, SpeechFields)
    _refuse_stream(asked)
    if fields.response_format == "pcm":
        return Whole(_tone(), b"audio/pcm", 1)
    # Whatever else is asked for, this is a WAV, and the content type says so.
    return Whole(wav(_tone()), b"audio/wav", 1)


@lru_cache(maxsize=1)
def _tone() -> bytes:
    """A quarter of a second of 440 Hz, as 16-bit little-endian samples."""
    count = _SAMPLE_RATE // 4
    return struct.pack(
        f"<{count}h", *(int(6000 * math.sin(2 * math.pi * 440 * i / _SAMPLE_RATE)) for i in range(count))
    )


def wav(samples: bytes) -> bytes:
    """Put a RIFF header before 16-bit mono *samples*."""
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _SAMPLE_RATE, 2 * _SAMPLE_RATE, 2, 16)
    content = b"WAVE" + layout + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(content)) + content


def transcriptions(asked: Asked) -> Whole:
    """Answer /v1/audio/transcriptions. Raises `Refused`."""
    return _transcript(asked, {"usage": {"type": "duration", "seconds": 0}})


def translations(asked: Asked) -> Whole:
    """Answer /v1/audio/translations. Raises `Refused`."""
    return _transcript(asked, {})


def _transcript(asked: Asked, rest: dict[str, Any]) -> Whole:
    fields = read(asked, TranscriptFields)
    _refuse_stream(asked)
    text = asked.text or f"This is the mock backend: it was sent {len(fields.file)} bytes of sound and heard none."
    tokens = len(words(text))
    if fields.response_format == "text":
        return Whole(text.encode() + b"\n", b"text/plain; charset=utf-8", tokens)
    return Whole(orjson.dumps({"text": text, **rest}), tokens=tokens)
