"""The answer's way to the client: sinks.

Owns the bytes between the commit point and the end of an answer. It refuses policy: `gateway.proxy` chooses the sink,
once, and decides what a failure means; and answers that are whole (`gateway.answers`). A sink is made for each
committed answer that does not come whole.

A sink's `feed` runs for every read from an upstream: no task, no queue, no parsing on the usual path.
"""

from __future__ import annotations

from typing import Final

from gateway.answers import answer_head, own_id
from gateway.call import Call
from gateway.clock import Clock
from gateway.errors import Fault, Kind, Side
from protocols import sse
from protocols.http1.framing import LAST_CHUNK, chunk
from protocols.http1.response import ResponseHead, own_head
from protocols.openai.ends import DONE, breaks_off, says_done
from protocols.openai.usage import USAGE_KEY, USAGE_NULL, USAGE_WINDOW, usage_of_chunk

#: A partial event is held back up to this size; past it the bytes flow, and a break can only be told by a cut.
PARTIAL_EVENT_LIMIT: Final = 256 << 10

_CHUNKED: Final = b"transfer-encoding: chunked\r\n"
#: What keeps a waiting stream's connection alive (WHATWG HTML, section 9.2.7).
COMMENT: Final = b": keep-alive\n\n"
#: Bytes at the end of a stream that are looked at for what ends it: a last chunk with its usage has some 600.
_REACH: Final = 4096


class BodySink:
    """A body whose content the gateway does not look into: its length is kept, or it is chunked again per read."""

    __slots__ = ("_call", "_chunked", "_client", "_clock", "_left", "_window", "at_last")

    is_stream = False
    is_over = False
    says_error = False

    def __init__(self, call: Call, clock: Clock) -> None:
        self._call = call
        self._client = call.client
        self._clock = clock
        self._chunked = False
        self._window = b""
        self.at_last = clock.now

    def start(self, head: ResponseHead, payload: bytes, more: bytes) -> None:
        """Send the head and the first payload in one write."""
        call = self._call
        if head.status in (204, 304):
            framing = b""
        elif head.length is not None:
            framing = b"content-length: %d\r\n" % head.length
        elif call.client.chunked:
            self._chunked = True
            framing = _CHUNKED
        else:
            call.client.reusable = False
            framing = b""
        start = answer_head(call, head, self._clock.date, framing, more)
        call.bytes_out += len(payload)
        self._window = payload[-USAGE_WINDOW:]
        self._client.begin(start + chunk(payload) if self._chunked and payload else start + payload)

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        if not payload:
            return
        self.at_last = self._clock.now
        self._call.bytes_out += len(payload)
        self._window = (self._window + payload if len(payload) < USAGE_WINDOW else payload)[-USAGE_WINDOW:]
        self._client.send((framed or chunk(payload)) if self._chunked else payload)

    def end(self) -> None:
        self._call.usage = self._call.endpoint.usage_of_answer(self._window)
        if self._chunked:
            self._client.send(LAST_CHUNK)

    def fail(self, fault: Fault) -> None:
        self._client.cut(told=False)

    def flaw(self) -> Fault | None:
        """Only its framing could tell."""
        return None

    def beat(self) -> None:
        """Nothing may stand between its bytes."""


class EarlyHead:
    """The head of a stream, sent before any upstream answered: from then on its status is said."""

    __slots__ = ("_call", "_chunked")

    def __init__(self, call: Call, clock: Clock) -> None:
        """Send it, and a comment."""
        self._call = call
        self._chunked = call.client.chunked
        head = own_head(200, call.endpoint.dialect.stream_type, None)
        call.status = 200
        more = own_id(call) + (call.translation.lines if call.translation is not None else b"")
        call.client.begin(stream_head(call, head, clock.date, more) + self._framed(COMMENT))

    def beat(self) -> None:
        self._call.client.send(self._framed(COMMENT))

    def fail(self, fault: Fault) -> None:
        """An error event, then FIN: no upstream ever answered."""
        self._call.client.send(self._framed(error_event(self._call, fault)))
        self._call.client.cut(told=True)

    def _framed(self, payload: bytes) -> bytes:
        return chunk(payload) if self._chunked else payload


def stream_head(call: Call, head: ResponseHead, date: bytes, more: bytes) -> bytes:
    """The head of a stream for *call*: *head*'s lines and *more*; its body is chunked, or ends with the connection."""
    if not call.client.chunked:
        call.client.reusable = False
    # Told to whatever proxies stand between us and the client (nginx, browsers): events must not be held back.
    more += b"x-accel-buffering: no\r\n"
    if not any(line.startswith(b"cache-control:") for line in head.lines):
        more += b"cache-control: no-cache\r\n"
    return answer_head(call, head, date, _CHUNKED if call.client.chunked else b"", more)


def error_event(call: Call, fault: Fault) -> bytes:
    """What a stream that *fault* broke ends with, in the client's dialect."""
    dialect = call.endpoint.dialect
    return dialect.frame_error(fault.body) if fault.body else dialect.error_event(fault.error)


class EventSink:
    """A stream of events, relayed whole: what is after the last blank line waits for its end.

    So a stream that breaks never leaves half an event before the error event, which is a JSON crash in the client.
    """

    __slots__ = (
        "_before",
        "_call",
        "_chunked",
        "_client",
        "_clock",
        "_dialect",
        "_form",
        "_last",
        "_open_ended",
        "_raw",
        "_said_end",
        "_tail",
        "_withhold",
        "at_last",
    )

    is_stream = True

    def __init__(self, call: Call, clock: Clock) -> None:
        self._call = call
        self._client = call.client
        self._clock = clock
        self._dialect = call.endpoint.dialect
        self._form = self._dialect.form
        self._chunked = call.client.chunked
        #: The usage event was asked for by us, not by the client.
        self._withhold = call.usage_injected
        #: The ends of what was relayed last and before that, in whole events but for their beginnings: what ends a
        #: stream and the usage behind it may come in two reads.
        self._before = b""
        self._last = b""
        #: Bytes after the last blank line.
        self._tail = b""
        #: Of a partial event that grew past its limit, whose bytes flow as they come: the last ones, already written.
        self._raw = b""
        #: The events said themselves that the stream is over: what counts where only the upstream's close ends it.
        self._said_end = True
        #: Only the connection's end tells the end of the body.
        self._open_ended = False
        self.at_last = clock.now

    def start(self, head: ResponseHead, payload: bytes, more: bytes, *, begun: bool) -> None:
        """Send the head and the first events in one write. *begun*: the head was sent early."""
        self._open_ended = not head.chunked and head.length is None
        self._said_end = not self._open_ended and not self._dialect.always_ends
        events = self._whole_events(payload)
        framed = self._framed(events) if events else b""
        if not begun:
            self._client.begin(stream_head(self._call, head, self._clock.date, more) + framed)
        elif framed:
            self._client.send(framed)

    def beat(self) -> None:
        """Send a comment between two events, so that nobody on the way takes the connection for dead."""
        if not self._raw and self._form is sse:
            self._client.send(self._framed(COMMENT))

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        """The usual read, exactly one chunk that ends with a blank line, is written as it came."""
        self.at_last = self._clock.now
        call = self._call
        if (
            framed is not None
            and payload.endswith(b"\n\n")
            and not self._tail
            and not self._raw
            and self._chunked
            and (USAGE_KEY not in payload or payload.count(USAGE_KEY) == payload.count(USAGE_NULL))
        ):
            call.chunks += 1
            call.bytes_out += len(payload)
            self._before = self._last
            self._last = payload if len(payload) <= _REACH else payload[-_REACH:]
            self._client.send(framed)
            return
        events = self._whole_events(payload)
        if events:
            self._client.send(self._framed(events))

    def end(self) -> None:
        if self._tail:  # no blank line after the last event: the upstream ended properly all the same
            self._call.bytes_out += len(self._tail)
            self._client.send(self._framed(self._tail))
            self._last += self._tail
            self._tail = b""
        if self._lacks_done():
            self._call.bytes_out += len(DONE)
            self._client.send(self._framed(DONE))
        if self._chunked:
            self._client.send(LAST_CHUNK)

    def _lacks_done(self) -> bool:
        """Whether the stream has all but the last event of OpenAI's: transformers' server never sends it."""
        if not self._call.endpoint.streams_usage or self._raw:
            return False
        last = self._before + self._last
        return not says_done(last) and self._dialect.says_end(last) and not self.says_error

    def fail(self, fault: Fault) -> None:
        """An error event, no [DONE], no last chunk, then FIN."""
        if not self._raw:
            self._client.send(self._framed(error_event(self._call, fault)))
        self._client.cut(told=not self._raw)

    def flaw(self) -> Fault | None:
        if self._is_cut():
            text = "The upstream's stream ended without saying so."
            return Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, text)
        return None

    def _is_cut(self) -> bool:
        """Whether the stream ended too early: within an event, or without saying its end.

        Where the connection's end is all that ended it, nobody could tell it from a cut. Where the framing is whole, it
        lacks what ends this peer's streams of text: so ends a stream whose generation broke behind some proxy.
        """
        data = self._form.data_of(self._tail) if self._tail else None
        if data is not None and breaks_off(data):
            return True
        if self._open_ended:
            return not self._said_end and not self._dialect.says_end(self._tail)
        peer = self._call.peer
        last = self._before + self._last + self._tail
        if self._dialect.always_ends:
            return not self._said_end and not self._dialect.says_end(last)
        if peer is None or not self._call.endpoint.streams_usage:
            return False
        if says_done(last):
            peer.state.says_done = True
        return peer.state.says_done and not self._dialect.says_end(last)

    @property
    def says_error(self) -> bool:
        """Whether the upstream said in its last events that it failed."""
        last = self._before + self._last + self._tail
        if b"error" not in last and b"failed" not in last:
            return False
        form, carries_error = self._form, self._dialect.carries_error
        events = form.split_events(last + b"\n\n")
        return any(carries_error(form.data_of(event) or b"") or form.names_error(event) for event in events)

    @property
    def is_over(self) -> bool:
        """Whether the events said that the stream is over, whatever becomes of its framing.

        Many servers end TLS by a bare FIN, some keep the connection silent behind the last event; what such a stream
        lacks is known from its events, not from that.
        """
        if self._open_ended:
            return self._said_end or self._dialect.says_end(self._tail)
        last = self._before + self._last + self._tail
        return (self._said_end or self._dialect.says_end(last)) if self._dialect.always_ends else says_done(last)

    def _framed(self, payload: bytes) -> bytes:
        return chunk(payload) if self._chunked else payload

    def _whole_events(self, payload: bytes) -> bytes:
        """What of the tail and *payload* may be written now."""
        if self._raw:
            return self._past_limit(payload)
        data = self._tail + payload if self._tail else payload
        border = self._form.last_border(data)
        if border == 0 and len(data) > PARTIAL_EVENT_LIMIT:
            self._raw = data[-2:]
            self._tail = b""
            self._call.bytes_out += len(data)
            return data
        self._tail = data[border:]
        events = data[:border]
        if not events:
            return b""
        if not self._said_end:
            self._said_end = self._dialect.says_end(events)
        if events.count(self._dialect.usage_key) > events.count(USAGE_NULL):
            events = self._look_for_usage(events)
        if events:
            self._before = self._last
            self._last = events[-_REACH:]
        self._call.chunks += 1
        self._call.bytes_out += len(events)
        return events

    def _past_limit(self, payload: bytes) -> bytes:
        """All of an event that is beyond its limit, and whole events again behind its end."""
        end = self._form.first_border(self._raw + payload) - len(self._raw)
        if end <= 0:
            self._raw = (self._raw + payload)[-2:]
            self._call.bytes_out += len(payload)
            return payload
        self._raw = b""
        self._call.bytes_out += end
        return payload[:end] + self._whole_events(payload[end:])

    def _look_for_usage(self, events: bytes) -> bytes:
        """Note the usage; return *events* without the one that only our asking brought."""
        call, form, dialect = self._call, self._form, self._dialect
        kept = []
        for event in form.split_events(events):
            data = form.data_of(event)
            if data is not None and dialect.usage_key in data:
                if self._withhold:
                    usage, alone = usage_of_chunk(data)
                    call.usage = usage or call.usage
                    if usage is not None and alone:
                        continue
                else:
                    call.usage = dialect.usage_of_event(data, call.usage)
            kept.append(event)
        return b"".join(kept)
