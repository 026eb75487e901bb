"""What is wrong with a message, as a value. Owns nothing else; raised and recorded by the parsers beside it."""

from __future__ import annotations

from enum import Enum


class Wrong(Enum):
    """The kinds of fault a message can have; whoever holds the socket decides the status."""

    BAD_FRAMING = "bad framing"
    BAD_HEAD = "bad head"
    BAD_HOST = "bad host"
    BAD_METHOD = "bad method"
    BAD_VERSION = "bad version"
    BAD_TRANSFER_CODING = "bad transfer coding"
    BAD_EXPECTATION = "bad expectation"
    DUPLICATE_FIELD = "duplicate field"
    HEAD_TOO_LARGE = "head too large"
    TARGET_TOO_LONG = "target too long"


class WireError(Exception):
    """A message that must not be trusted. `kind` says which rule it broke, the text says how."""

    def __init__(self, kind: Wrong, text: str) -> None:
        super().__init__(text)
        self.kind = kind
