"""Embeddings as numbers and as base64 of little-endian float32, which OpenAI's `encoding_format` chooses between.

Owns that one conversion. It refuses to judge lengths. Source: `EmbeddingsCreateParams` of the openai SDK.
"""

from __future__ import annotations

from array import array
from binascii import Error, a2b_base64, b2a_base64
from math import isfinite
from sys import byteorder
from typing import Final

from protocols.pieces import Malformed

_SWAP: Final = byteorder == "big"


def to_base64(vector: list[float]) -> str:
    """*vector* in base64. Raises `Malformed` where a number does not fit 32 bits."""
    numbers = array("f", vector)
    _check(numbers)
    if _SWAP:
        numbers.byteswap()
    return b2a_base64(numbers.tobytes(), newline=False).decode()


def from_base64(text: str) -> list[float]:
    """The numbers in *text*. Raises `Malformed`."""
    try:
        numbers = array("f", a2b_base64(text, strict_mode=True))
    except (Error, ValueError):
        raise Malformed("an embedding is no base64 of numbers") from None
    if _SWAP:
        numbers.byteswap()
    _check(numbers)
    return numbers.tolist()


def _check(numbers: array[float]) -> None:
    """JSON has no word for what is no finite number."""
    if not all(map(isfinite, numbers)):
        raise Malformed("an embedding has something else than numbers of 32 bits")
