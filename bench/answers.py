"""The reading of answers, byte by byte where it must be: what arrived is what was scripted, or `Wrong` is
raised.

Pure: bytes in, stamps out. It refuses sockets and the clock. `calls` and `streams` compare whole reads with
what they expect first; only a read that looks different comes here.
"""

from __future__ import annotations

from typing import Final

from bench import messages

HEAD_LIMIT: Final = 16384
STATUS: Final = b"HTTP/1.1 200 "


class Wrong(Exception):
    """An answer is not the one that was scripted. The run is void."""


def _shown(data: bytes) -> str:
    return repr(data[:400])


def is_answer(data: bytes) -> bool:
    """Whether *data* is one whole 200 with the scripted body and nothing else."""
    return (
        data.startswith(STATUS)
        and data.endswith(messages.ANSWER_BODY)
        and data.find(b"\r\n\r\n") + 4 + len(messages.ANSWER_BODY) == len(data)
    )


def may_become_answer(data: bytes) -> bool:
    """Whether more bytes can make *data* the scripted answer."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return data[: len(STATUS)] == STATUS[: len(data)] and len(data) < HEAD_LIMIT
    body = data[end + 4 :]
    return data.startswith(STATUS) and len(body) < len(messages.ANSWER_BODY) and messages.ANSWER_BODY.startswith(body)


class StreamReader:
    """One streamed answer: head, chunks, events, the honest end."""

    __slots__ = ("_events", "_finished", "_headed", "_last", "_raw", "_terminated", "ended")

    def __init__(self) -> None:
        self._raw = b""
        self._events = b""
        self._headed = False
        self._finished = False
        self._terminated = False
        self._last = False
        #: The last chunk came, after [DONE], and nothing behind it.
        self.ended = False

    @property
    def clean(self) -> bool:
        """Whether the next byte begins a chunk and an event, with more events to come."""
        return self._headed and not (self._raw or self._events or self._finished)

    def feed(self, data: bytes) -> list[int]:
        """The stamps of the events that *data* completes; Wrong where it is not what was scripted."""
        self._raw += data
        if not self._headed and not self._head():
            return []
        while not self._last and self._chunk():
            pass
        stamps = self._stamps()
        if self._last:
            if self._raw or self._events or not self._terminated:
                raise Wrong(f"the stream ended early: {_shown(self._events + self._raw)}")
            self.ended = True
        return stamps

    def _head(self) -> bool:
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            if len(self._raw) > HEAD_LIMIT:
                raise Wrong(f"endless head: {_shown(self._raw)}")
            return False
        head, self._raw = self._raw[: end + 2].lower(), self._raw[end + 4 :]
        if not head.startswith(STATUS.lower()):
            raise Wrong(f"not a 200: {_shown(head)}")
        if b"\r\ntransfer-encoding: chunked\r\n" not in head or b"\r\ncontent-type: text/event-stream" not in head:
            raise Wrong(f"not a chunked event stream: {_shown(head)}")
        self._headed = True
        return True

    def _chunk(self) -> bool:
        """Move one whole chunk from the raw bytes to the events."""
        at = self._raw.find(b"\r\n")
        if at < 0:
            return False
        try:
            size = int(self._raw[:at], 16)
        except ValueError:
            raise Wrong(f"no chunk size: {_shown(self._raw)}") from None
        after = at + 2 + size
        if len(self._raw) < after + 2:
            return False
        if self._raw[after : after + 2] != b"\r\n":
            raise Wrong(f"a chunk without its end: {_shown(self._raw)}")
        self._events += self._raw[at + 2 : after]
        self._raw = self._raw[after + 2 :]
        self._last = size == 0
        return True

    def _stamps(self) -> list[int]:
        stamps = []
        while (end := self._events.find(b"\n\n")) >= 0:
            event, self._events = self._events[: end + 2], self._events[end + 2 :]
            if self._terminated:
                raise Wrong(f"an event after [DONE]: {_shown(event)}")
            if event == messages.DONE_EVENT and self._finished:
                self._terminated = True
            elif event == messages.FINISH_EVENT and not self._finished:
                self._finished = True
            elif self._finished or not is_event(event):
                raise Wrong(f"an unexpected event: {_shown(event)}")
            else:
                stamps.append(int(event[messages.EVENT_STAMP], 16))
        return stamps


def is_event(event: bytes) -> bool:
    """Whether *event* is a scripted one, whatever its stamp."""
    return (
        len(event) == len(messages.EVENT)
        and event.startswith(messages.EVENT_START)
        and event.endswith(messages.EVENT_END)
    )
