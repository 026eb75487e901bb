"""Bodies that are large enough to hold more keys than anybody means.

Owns the decoder that counts. It refuses to explain what is wrong (`body`).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

#: Top-level keys of one body; the largest documented request has about 40.
KEYS_LIMIT: Final = 512


class _Key(str):
    """A key that is counted while the object is decoded: a wide bomb is refused before it is built."""

    __slots__ = ()


class _Counter:
    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = KEYS_LIMIT

    def key(self, type: type, text: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"more than {KEYS_LIMIT} keys in the top-level object")
        return _Key(text)


_counter: Final = _Counter()
_decoder: Final = msgspec.json.Decoder(dict[_Key, msgspec.Raw], dec_hook=_counter.key)


def decode_wide(body: bytes) -> dict[str, msgspec.Raw]:
    """The top level of *body*. Raises what msgspec does, for too many keys too."""
    _counter.left = KEYS_LIMIT
    return {str(key): value for key, value in _decoder.decode(body).items()}
