"""A run of text: chunks that differ in their text alone, said in another dialect without being taken apart.

Owns what two such chunks in a row have in common, before and after their translation, and the proof that the next one
is of the same kind. It refuses to translate: whatever is not proven goes the whole way (`protocols.dialect`). Made by
the gateway for each stream whose backend's side keeps nothing of a text (`BackendSide.repeats_text`); where the
client's side does (`ClientSide.repeats_text`), it is asked to say each text itself (`TextFeeder`).

Most of a stream is such chunks; taking each apart costs five times as much.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from protocols.dialect import JsonObject

#: A JSON string that is not empty and means the same in any dialect: no \\u, which may be half a character, and no
#: character that some readers take for the end of a line (U+0085, U+2028, U+2029).
_TEXT: Final = re.compile(rb'"(?:[^"\\\x00-\x1f\x7f\xc2\xe2]|\\["\\/bfnrt]|\xc2[^\x85"]|\xe2(?!\x80[\xa8\xa9])[^"])+"')
#: What stands before the text of a chunk, in every dialect whose chunks repeat.
_NAMED: Final = re.compile(rb'"(?:content|text)": ?\Z')

_encode: Final = msgspec.json.Encoder().encode


class _Frame(NamedTuple):
    """What stands around the text: in the chunk that came, and in what it became."""

    start: bytes
    end: bytes
    said_start: bytes
    said_end: bytes


class TextRun:
    """For each read: `text`, and `say` it; where there is none, translate it, and let `learn` know."""

    __slots__ = ("_frame", "_is_proven", "_says")

    def __init__(self, *, says: bool) -> None:
        """*says*: the client's side keeps nothing of a text either; else it says the text itself (`TextFeeder`)."""
        self._says = says
        self._frame: _Frame | None = None
        #: Two reads in a row had this frame: the first of a run may say more than its text.
        self._is_proven = False

    def text(self, payload: bytes) -> bytes | None:
        """The text of *payload* as a JSON string, if it differs from the last one in that alone."""
        if not self._is_proven:
            return None
        frame = self._frame
        assert frame is not None
        start, end = frame.start, frame.end
        if not (payload.startswith(start) and payload.endswith(end)):
            return None
        text = payload[len(start) : len(payload) - len(end)]
        return text if _TEXT.fullmatch(text) is not None and (text.isascii() or _is_utf8(text)) else None

    def say(self, text: bytes) -> bytes:
        """What a read with this *text* becomes."""
        assert self._frame is not None
        return self._frame.said_start + text + self._frame.said_end

    def learn(self, payload: bytes, heard: Sequence[JsonObject], said: bytes) -> None:
        """*payload* brought the chunks *heard*, which became *said*."""
        former, self._frame = self._frame, _frame_of(payload, heard, said if self._says else b"")
        self._is_proven = self._frame is not None and self._frame == former


def _frame_of(payload: bytes, heard: Sequence[JsonObject], said: bytes) -> _Frame | None:
    """What stands around the text, if it is one chunk of one choice that has text and nothing else."""
    if len(heard) != 1:
        return None
    choices = heard[0].get("choices")
    if not choices or len(choices) != 1 or "usage" in heard[0]:
        return None
    choice = choices[0]
    delta = choice.get("delta") or {}
    content = delta.get("content")
    if choice.get("index") or len(delta) != 1 or not content:
        return None
    if choice.get("finish_reason") is not None or choice.get("logprobs") is not None:
        return None
    text = _encode(content)
    if payload.count(text) != 1 or (said and said.count(text) != 1):
        return None  # written in another way, or in two places
    start, _, end = payload.partition(text)
    said_start, _, said_end = said.partition(text)
    return _Frame(start, end, said_start, said_end) if _NAMED.search(start) is not None else None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
