"""The program's own messages: start, listening, drain, peers set aside, errors. Few, and never one per call.

Owns `Log`, `Stamp` and `redact`. It refuses to write: its lines go into the same bounded `AccessLog` as the
calls', in the order of their making. Made by `build`, one per process. A message is a fixed text of ours;
what comes from outside is a field's value, never part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from math import floor
from time import gmtime, strftime, time
from types import TracebackType
from typing import Final, Protocol

from gateway.observe.access import REASON, REASON_LIMIT, TEXT_LIMIT

MASK: Final = "[redacted]"

#: Characters searched for secrets. What is shown of a value is far shorter.
SEARCHED: Final = 4096

#: What looks like a secret wherever it stands: a bearer token, a provider's or our own key, a signed token,
#: the credentials in a URL. Rather a harmless word too many than one key.
SECRET: Final = re.compile(
    r"\b(?i:bearer)\s+[^\s\"',;]+"
    r"|(?<![A-Za-z0-9])(?:sk-|hr_)[A-Za-z0-9_-]{4,}"
    r"|(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"
    r"|(?<=://)[^/\s@]+(?=@)"
)

#: Fields whose value is a secret whatever it looks like.
SECRET_FIELDS: Final = frozenset(
    {"authorization", "proxy_authorization", "cookie", "set_cookie"}
    | {"api_key", "x_api_key", "token", "password", "secret"}
)


#: The last digits of a stamp: looked up at half the price of formatting them.
MILLIS: Final = tuple(f"{milli:03}Z" for milli in range(1000))


class Level(IntEnum):
    """How much a message matters; a log drops those below its own."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Stamp:
    """The present as text: RFC 3339, UTC, milliseconds. All but the last digits are made once a second."""

    __slots__ = ("_clock", "_prefix", "_second")

    def __init__(self, clock: Callable[[], float] = time) -> None:
        # given
        self._clock = clock
        # for one second
        self._second = -1
        self._prefix = ""

    def __call__(self) -> str:
        return self.of(self._clock())

    def of(self, now: float) -> str:
        """*now*, seconds since 1970, as text; many in a row should be near to each other."""
        into = now - self._second
        # Below 0 where the clock was set back.
        if not 0.0 <= into < 1.0:
            self._second = floor(now)
            self._prefix = strftime("%Y-%m-%dT%H:%M:%S.", gmtime(self._second))
            into = now - self._second
        return self._prefix + MILLIS[int(into * 1000)]


class Lines(Protocol):
    """Where messages go: `AccessLog` in a worker, `DirectLines` in the supervisor."""

    def record(self, fields: Mapping[str, object]) -> None: ...


class Log:
    """Messages at or above *level*. A call costs some microseconds, never waits and never raises."""

    def __init__(self, lines: Lines, level: Level, stamp: Stamp) -> None:
        self._lines = lines
        self._level = level
        self._stamp = stamp

    def debug(self, text: str, /, **fields: object) -> None:
        self._log(Level.DEBUG, text, fields)

    def info(self, text: str, /, **fields: object) -> None:
        self._log(Level.INFO, text, fields)

    def warning(self, text: str, /, **fields: object) -> None:
        self._log(Level.WARNING, text, fields)

    def error(self, text: str, /, **fields: object) -> None:
        self._log(Level.ERROR, text, fields)

    def raised(self, text: str, error: BaseException, /, **fields: object) -> None:
        """Nobody expected *error*: which it is, and where in our code it came from.

        Not its repr: that of a UnicodeError shows all the bytes that were decoded, which are a client's.
        """
        try:
            told = f"{type(error).__name__}: {error}"
        except Exception:  # foreign exceptions may fail to tell what they are
            told = type(error).__name__
        self._log(Level.ERROR, text, {"error": told, "at": place_of(error), **fields})

    def _log(self, level: Level, text: str, fields: dict[str, object]) -> None:
        if level < self._level:
            return
        line: dict[str, object] = {"ts": self._stamp(), "level": level.name.lower(), "msg": redact(text)}
        for name, value in fields.items():
            limit = REASON_LIMIT if name == REASON else TEXT_LIMIT
            line.setdefault(name, MASK if name in SECRET_FIELDS else redact(value, limit))
        self._lines.record(line)


#: Whose frames are ours.
_OURS: Final = ("gateway", "protocols")


def place_of(error: BaseException) -> str:
    """Where *error* was in our code when it was raised, or what of ours had called those who raised it; of no code of
    ours, the innermost place at all: "gateway/relay.py:88 feed". Names and a line alone, of values nothing.

    A compiled module's frames tell the same names and lines; the file is made of the module's name, as it stands in the
    sources, since a compiled one was somewhere else when it was made.
    """
    ours = innermost = None
    trace = error.__traceback__
    while trace is not None:
        innermost = trace
        if _module(trace).partition(".")[0] in _OURS:
            ours = trace
        trace = trace.tb_next
    found = ours or innermost
    if found is None:
        return ""
    return f"{_module(found).replace('.', '/')}.py:{found.tb_lineno} {found.tb_frame.f_code.co_name}"[:TEXT_LIMIT]


def _module(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__"))


def redact(value: object, limit: int = TEXT_LIMIT) -> object:
    """*value* fit to be logged: a number as it is, all else as at most *limit* characters with secrets masked.

    What comes from outside and is logged otherwise than through `Log` should pass through here.
    """
    if value is None or isinstance(value, int | float):
        return value
    try:
        text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    except Exception:
        # Foreign exceptions may fail to tell what they are; the message about them matters more.
        text = f"<{type(value).__name__}>"
    # Masked before it is cut: the rest of a key that was cut in two would not look like one.
    return SECRET.sub(MASK, text[:SEARCHED])[:limit]
