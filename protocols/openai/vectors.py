"""Embeddings as numbers, and as the base64 that OpenAI's SDKs ask for.

Owns the two forms (`encoding_format`). It refuses everything around them.
Source: https://platform.openai.com/docs/api-reference/embeddings/create and openai-python 3.54, which reads base64 as
little-endian float32.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from math import isfinite

from protocols.pieces import Malformed


def write_vector(vector: list[float]) -> str:
    """Base64 of the numbers as little-endian float32, as OpenAI's `encoding_format` "base64" has it.

    Raises `Malformed` where one does not fit 32 bits.
    """
    numbers = array("f", vector)
    if not all(map(isfinite, numbers)):
        raise Malformed("an embedding has a number that is too large")
    return base64.b64encode(_little_endian(numbers).tobytes()).decode()


def read_vector(embedding: list[float] | str) -> list[float]:
    """The numbers, from base64 where they came so. Raises `Malformed`."""
    if isinstance(embedding, list):
        return embedding
    numbers = array("f")
    try:
        numbers.frombytes(base64.b64decode(embedding, validate=True))
    except (binascii.Error, ValueError):
        raise Malformed("an embedding is no base64 of numbers") from None
    vector = _little_endian(numbers).tolist()
    if not all(map(isfinite, vector)):
        raise Malformed("an embedding has a number that JSON has not")
    return vector


def _little_endian(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
