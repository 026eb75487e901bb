"""How any bytes become a message and the places where it is cut.

Owns `cut`. The first byte tells how many cuts, two bytes each where; the rest is the message.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

CUTS_LIMIT = 4


def cut(data: bytes) -> tuple[list[int], bytes]:
    """The places, in order, and the message."""
    if not data:
        return [], b""
    count = data[0] % (CUTS_LIMIT + 1)
    places, message = data[1 : 1 + 2 * count], data[1 + 2 * count :]
    size = len(message) + 1
    return sorted(int.from_bytes(places[at : at + 2]) % size for at in range(0, len(places), 2)), message


def pieces(message: bytes, places: Iterable[int]) -> list[bytes]:
    """*message* cut at *places*; no piece is empty, as no read is."""
    return [message[start:end] for start, end in pairwise([0, *places, len(message)]) if start < end]


def uncut(message: bytes, *places: int) -> bytes:
    """The bytes that `cut` takes apart into *places* and *message*."""
    return bytes([len(places)]) + b"".join(place.to_bytes(2) for place in places) + message
