"""Answers of Ollama that pass untouched: whether a line is an error, whether one is the last, what was counted.

Owns these questions. It refuses to change bytes, and to translate (the sides do). A key is told from the same letters
inside a tool call's arguments by decoding the line, which happens once or twice a stream.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from protocols.dialect import Tokens, Usage, are_tokens
from protocols.ollama.errors import is_error
from protocols.openai.usage import USAGE_WINDOW

#: /api/chat and /api/generate stream where `stream` is absent or null. (/api/embed and /api/embeddings never do.)
STREAM_DEFAULT: Final = True

#: A line that may be the last one. Inside generated text the quotes would be escaped.
_LAST: Final = re.compile(rb'"done"\s{0,8}:\s{0,8}true|"error"\s{0,8}:')
_COUNTS: Final = {
    name: re.compile(rb'"%b"\s{0,8}:\s{0,8}([^\s,}]{1,32})' % name) for name in (b"prompt_eval_count", b"eval_count")
}


class _Line(msgspec.Struct, gc=False):
    done: bool = False
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Counts(msgspec.Struct, gc=False):
    """Apart: nonsense in them must not hide that a line is the last."""

    prompt_eval_count: Tokens | None = None
    eval_count: Tokens | None = None


_decode_line: Final = msgspec.json.Decoder(_Line).decode
_decode_counts: Final = msgspec.json.Decoder(_Counts).decode


def _decoded(line: bytes) -> _Line | None:
    try:
        return _decode_line(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def carries_error(line: bytes) -> bool:
    """Whether *line*, of a stream or a whole body, is an error that came in place of an answer."""
    if b'"error"' not in line:
        return False
    found = _decoded(line)
    return found is not None and is_error(found.error)


def says_end(lines: bytes) -> bool:
    """Whether one of *lines*, which are whole, is the last of its stream: done, or an error."""
    if _LAST.search(lines) is None:
        return False
    for line in lines.splitlines():
        if _LAST.search(line) is not None:
            found = _decoded(line)
            if found is not None and (found.done or is_error(found.error)):
                return True
    return False


def usage_of_line(line: bytes) -> Usage | None:
    """What *line* says was counted; None where it says nothing. A count that is left out is 0 (`omitempty`)."""
    if b'eval_count"' not in line:
        return None
    try:
        found = _decode_counts(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if found.prompt_eval_count is None and found.eval_count is None:
        return None
    return Usage(found.prompt_eval_count or 0, found.eval_count or 0)


def usage_of_answer(body: bytes) -> Usage | None:
    """What a whole answer says was counted, /api/embed's too.

    A large one is searched in its last part only: the counts follow the content.
    """
    if len(body) <= USAGE_WINDOW:
        return usage_of_line(body)
    window = body[-USAGE_WINDOW:]
    found = {name: pattern.findall(window) for name, pattern in _COUNTS.items()}
    if not any(found.values()):
        return None
    last = [counts[-1] if counts else b"0" for counts in found.values()]
    if not all(map(bytes.isdigit, last)):
        return None
    prompt, completion = map(int, last)
    return Usage(prompt, completion) if are_tokens(prompt, completion) else None
