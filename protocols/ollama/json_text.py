"""JSON as it is written here: one line, whatever a value is, and no line end that a client could see in a string.

Owns the encoding of bodies and lines. It refuses to know what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

#: Numbers of any size, unlike orjson. Raises what `UNWRITABLE` names.
encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode

#: A value that is too deep; text that is no Unicode. No decoder of JSON lets such text in.
UNWRITABLE: Final = (RecursionError, UnicodeEncodeError)

#: JSON allows these in a string as they are, but the official Python client cuts its lines where `str.splitlines`
#: does (httpx), and there they end one.
_LINE_ENDS: Final = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


def one_line(data: bytes) -> bytes:
    """*data*, encoded JSON, with every line end of Unicode escaped."""
    if data.isascii():
        return data
    for end, escaped in _LINE_ENDS:
        data = data.replace(end, escaped)
    return data


def encode_line(value: Any) -> bytes:
    """*value* as one line of a stream, its end included."""
    return one_line(encode(value)) + b"\n"
