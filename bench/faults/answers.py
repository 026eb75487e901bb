"""An answer as the evil clients read it, and the word for what it was.

Owns the reading, through h11, and the words. It refuses sockets (`connection` hands bytes over) and expectations
(`matrix`): a word says what came, `judge` whether it may.
"""

from __future__ import annotations

import re
from typing import Final

import h11

from bench.faults import speech
from bench.faults.speech import Ask

#: A whole event that is none.
_COMMENT: Final = re.compile(rb"(?:\A|(?<=\n\n)): [a-z-]+\n\n")

#: The call's own answer, all of it.
FINE: Final = "fine"
#: Begun, and ended so that nobody takes it for whole: a stream with an error event, a body short of its framing.
BROKEN: Final = "broken"
#: Begun, and ended without a word, though it was a stream: a killed worker looks like this.
CUT: Final = "cut"
#: Looks whole, and is not.
SHORT: Final = "short"
#: Bytes that are not the call's own.
MIXED: Final = "mixed"
#: h11 refuses it.
GARBLED: Final = "garbled"
#: The connection ended before an answer.
NOTHING: Final = "nothing"
#: The client left of its own will.
LEFT: Final = "left"
#: Nothing came in time.
LATE: Final = "late"


class Answer:
    """One answer being read. `feed` bytes, then "" or the words "fin" or "rst" with the connection's end."""

    def __init__(self, rest: bytes = b"", method: str = "POST") -> None:
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        self._parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self._parser.send(h11.EndOfMessage())
        self.status = 0
        self.interim: list[int] = []
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        #: complete by its framing
        self.complete = False
        self.garbled = ""
        self.ended = ""
        #: bytes behind it
        self.rest = b""
        if rest:
            self.feed(rest)

    @property
    def done(self) -> bool:
        """Whether nothing more is to be read for it."""
        return self.complete or bool(self.ended or self.garbled)

    @property
    def reusable(self) -> bool:
        return self.complete and not self.ended and self.headers.get("connection") != "close"

    def feed(self, data: bytes) -> None:
        """Take bytes; none of them: the connection was ended by FIN."""
        if not data:
            self.ended = "fin"
        try:
            self._parser.receive_data(data)
            while self._take(self._parser.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            # h11's word for an end in the middle, too.
            if not self.ended:
                self.garbled = str(error)

    def reset(self) -> None:
        self.ended = "rst"

    def _take(self, event: object) -> bool:
        if isinstance(event, h11.Data):
            self.body += event.data
        elif isinstance(event, h11.Response):
            self.status = event.status_code
            self.headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.InformationalResponse):
            self.interim.append(event.status_code)
        elif isinstance(event, h11.EndOfMessage):
            self.complete = True
            self.rest = self._parser.trailing_data[0]
            return False
        else:  # NEED_DATA, PAUSED, ConnectionClosed
            return False
        return True

    def __str__(self) -> str:
        shown = bytes(self.body[-200:])
        end = "complete" if self.complete else f"incomplete, {self.ended or 'open'}"
        return f"{self.status}, {len(self.body)} bytes, {end}{', ' + self.garbled if self.garbled else ''}: {shown!r}"


def word_of(answer: Answer, ask: Ask) -> str:
    """What came for *ask*; a status other than 200 is its own word, once it is complete."""
    if answer.garbled:
        return GARBLED
    if not answer.status:
        return NOTHING if answer.ended else LATE
    if not answer.done:
        return LATE
    if answer.headers.get("x-request-id") != ask.id:
        return MIXED
    if answer.status != 200:
        return _refusal(answer)
    sound = speech.stream(ask) if ask.stream else speech.whole(ask)
    body = events_of(answer) if ask.stream else bytes(answer.body)
    if body == sound:
        return FINE if answer.complete else CUT if ask.stream else BROKEN
    if sound.startswith(body):
        return SHORT if answer.complete else CUT if ask.stream else BROKEN
    return _told(body, sound, answer) if ask.stream else MIXED


def events_of(answer: Answer) -> bytes:
    """A stream without the comments between its events, which kept it alive."""
    return _COMMENT.sub(b"", bytes(answer.body))


def word_of_nameless(answer: Answer) -> str:
    """What came for a request that could not tell its id."""
    if answer.garbled:
        return GARBLED
    if not answer.done:
        return LATE
    return _refusal(answer) if answer.status else NOTHING


def word_of_flood(answer: Answer, ask: Ask) -> str:
    """What came of a stream without end: its one event, again and again, and at most a word about the end."""
    if answer.garbled or not answer.done:
        return GARBLED if answer.garbled else LATE
    if not answer.status:
        return NOTHING
    if answer.complete:
        return SHORT
    event, body = speech.event(ask, 1), bytes(answer.body)
    whole = body.count(event)
    rest = body[whole * len(event) :]
    if not body.startswith(event * whole):
        return MIXED
    return BROKEN if rest.startswith(b'data: {"error":') else CUT if event.startswith(rest) else MIXED


def _refusal(answer: Answer) -> str:
    if not answer.complete:
        return CUT
    return str(answer.status) if answer.body.startswith(b'{"error":{') else GARBLED


def _told(body: bytes, sound: bytes, answer: Answer) -> str:
    """A stream that has more than its events: whole ones and then an error event, if it is honest."""
    at = body.rfind(b"\n\n", 0, -2) + 2 if b"\n\n" in body[:-2] else 0
    events, last = body[:at], body[at:]
    if not (sound.startswith(events) and last.startswith(b'data: {"error":') and last.endswith(b"\n\n")):
        return MIXED
    return SHORT if answer.complete else BROKEN
