"""Where the arguments of a tool call end, told from their fragments as they pass.

Owns that one question: arguments are one JSON object, so their end is where its braces close. Events of a message
stand block after block, so the next block may begin there, and not before. It refuses to check the JSON otherwise: its
reader will.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from protocols.pieces import Malformed

_OUTSIDE: Final = re.compile(r'[{}\[\]"]')
_INSIDE: Final = re.compile(r'["\\]')

_decode: Final = msgspec.json.Decoder(msgspec.Raw).decode


class Arguments:
    """How far the arguments of one call are. Holds no text."""

    __slots__ = ("_depth", "_escaped", "_in_text", "is_begun", "is_whole")

    def __init__(self) -> None:
        self.is_begun = False
        self.is_whole = False
        self._depth = 0
        self._in_text = False
        self._escaped = False

    def feed(self, fragment: str) -> str:
        """What of *fragment* is to be passed on: all, or nothing where it is blank or null.

        Raises `Malformed` for what cannot be of an object, or stands behind it.
        """
        if not self.is_begun:
            bare = fragment.lstrip()
            if not bare or (bare == "null" and not self.is_whole):
                self.is_whole = self.is_whole or bool(bare)
                return ""
            if self.is_whole or bare[0] != "{":
                raise Malformed("the arguments of a tool call are no JSON object")
            self.is_begun = True
            if bare[-1] == "}" and _is_json(bare):  # all of them at once, as most servers but OpenAI's tell them
                self.is_whole = True
                return fragment
        elif self.is_whole:
            if fragment.strip():
                raise Malformed("something follows the arguments of a tool call")
            return ""
        self._scan(fragment)
        return fragment

    def _scan(self, text: str) -> None:
        at = 0
        if self._escaped and text:
            self._escaped = False
            at = 1
        while True:
            found = (_INSIDE if self._in_text else _OUTSIDE).search(text, at)
            if found is None:
                return
            at = found.end()
            mark = found[0]
            if mark == '"':
                self._in_text = not self._in_text
            elif mark == "\\":
                self._escaped = at == len(text)
                at += 1
            elif mark in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    self._close(text[at:])
                    return

    def _close(self, rest: str) -> None:
        if rest.strip():
            raise Malformed("something follows the arguments of a tool call")
        self.is_whole = True


def _is_json(text: str) -> bool:
    try:
        _decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False
    return True
