"""Stop sequences: TGI leaves the one that it stopped at in its text, OpenAI does not.

Owns what of a text is held back until it cannot be the beginning of one. It refuses to stop anything: TGI says that it
did (finish_reason stop_sequence). Made by the sides for each answer to a request with `stop`.
Source: StopSequenceCriteria (server/text_generation_server/utils/tokens.py), which looks at the end of the text after
each token, and before a line feed there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: TGI looks at no more of its text than this; a longer sequence stops nothing.
_LONGEST: Final = 300


class StopText:
    """Text on its way to a client, less what may yet turn out to be a stop sequence."""

    __slots__ = ("_held", "_longest", "_patterns", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        #: The longest first: it is cut where two end alike.
        self._stops = sorted((one for one in stops if len(one) <= _LONGEST), key=len, reverse=True)
        self._patterns = tuple(one + "\n" for one in self._stops)
        self._longest = max(map(len, self._patterns), default=0)
        self._held = ""

    def feed(self, text: str) -> str:
        """What is no part of a stop sequence, of all that came and was not given yet."""
        held = self._held + text
        for size in range(min(len(held), self._longest), 0, -1):
            tail = held[-size:]
            if any(pattern.startswith(tail) for pattern in self._patterns):
                self._held = tail
                return held[:-size]
        self._held = ""
        return held

    def end(self, stopped: bool) -> tuple[str, str | None]:
        """What is left at the text's end, and the sequence that was cut off; nothing is unless TGI *stopped* at one."""
        held, self._held = self._held, ""
        return cut(held, self._stops) if stopped else (held, None)


def cut(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """*text* without the stop sequence that it ends with, and which that was."""
    for stop in sorted(stops, key=len, reverse=True):
        for ending in (stop, stop + "\n"):
            if text.endswith(ending):
                return text[: -len(ending)], stop
    return text, None
