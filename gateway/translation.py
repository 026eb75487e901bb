"""A call whose client and backend speak different dialects.

Owns the pair of sides that a call has (`Translation`), and the sink of streams that uses it. It refuses the dialects
themselves (`protocols`), which pair it is (`gateway.router`), answers that are collected before they are said
(`gateway.collector`) and what a fault means for the call (`gateway.proxy`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from gateway.answers import own_id
from gateway.call import Attempt, Call
from gateway.clock import Clock
from gateway.errors import Fault, Kind, Retry, Side
from gateway.relay import COMMENT, stream_head
from protocols.dialect import (
    TOKENS_LIMIT,
    Ask,
    BackendSide,
    Broken,
    ClientSide,
    Dropped,
    HeadReader,
    JsonObject,
    TextFeeder,
    Unmappable,
    Usage,
    renamed,
)
from protocols.http1.framing import LAST_CHUNK, chunk
from protocols.http1.response import ResponseHead, own_head
from protocols.pieces import Malformed
from protocols.text_run import TextRun

if TYPE_CHECKING:
    from gateway.routing.endpoints import ClientMaker
    from gateway.routing.speech import Speech

#: What of a field's name may stand in a header, and how many bytes of names.
_NAMEABLE: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_NAMES_LIMIT: Final = 1024


#: Commas and brackets in a request that is decoded whole: each stands for an object in memory of some 60 bytes.
ELEMENTS_LIMIT: Final = 1 << 19

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def unsupported(call: Call) -> Fault:
    """The backends of the model that *call* names cannot do this at all."""
    text = f"The model '{call.model[:128]}' cannot be used at {call.endpoint.path}."
    return Fault(Side.CLIENT, Kind.UNSUPPORTED, text, param="model")


def read_body(call: Call) -> JsonObject:
    """The body of *call*, decoded whole. Raises `Unmappable`."""
    body = call.body
    if sum(map(body.count, (b",", b"[", b"{"))) > ELEMENTS_LIMIT:
        raise Unmappable(f"The request has more than {ELEMENTS_LIMIT} elements.")
    try:
        fields = _decode(body)
    except (msgspec.MsgspecError, RecursionError):
        raise Unmappable("The body is not JSON that can be read.") from None
    return fields


def translate(call: Call, make: ClientMaker, *, lenient: bool) -> Translation:
    """What *call* asks for in the hub's words. Raises `Unmappable`."""
    dropped = Dropped(lenient)
    created = int(time())
    client = make(read_body(call), call.stream, call.id.decode("ascii"), created, dropped)
    return Translation(client, call, created, dropped)


class Whole(NamedTuple):
    """An answer in the client's dialect."""

    status: int
    body: bytes
    usage: Usage | None


class Translation:
    """What one call's client says in the hub's words, and the side of whichever backend is asked at present."""

    __slots__ = ("_created", "_dropped", "_id", "_is_fresh", "_lines", "_side", "_speech", "_stream", "client")

    def __init__(self, client: ClientSide, call: Call, created: int, dropped: Dropped) -> None:
        self.client = client
        self._id = call.id.decode("ascii")
        self._stream = call.stream
        self._created = created
        self._dropped = dropped
        # by route, anew for a fallback
        self._speech: Speech | None = None
        self._lines = b""
        # by attempt
        self._side: BackendSide | None = None
        self._is_fresh = False

    def turn_to(self, speech: Speech) -> None:
        """Ask backends that speak so from now on. Raises `Unmappable`."""
        self._speech = speech
        dropped = Dropped(self._dropped.lenient)
        names = self.client.names
        try:
            self._side = self._make_side(speech, dropped)
        except Unmappable as error:
            raise error.renamed(names) from None
        self._is_fresh = True
        self._lines = _dropped_line([*self._dropped.fields, *(renamed(name, names) for name in dropped.fields)])

    def ask(self, model: str) -> Ask:
        """The request of one attempt, for *model* as the backend calls it."""
        assert self._speech is not None
        if self._side is None or not self._is_fresh:
            self._side = self._make_side(self._speech, Dropped(self._dropped.lenient))
        self._is_fresh = False
        return self._side.ask(model)

    def _make_side(self, speech: Speech, dropped: Dropped) -> BackendSide:
        side = speech.sides[self.client.task]
        return side(self.client.hub, self._stream, self._id, self._created, speech.terms, dropped)

    def drop_request(self) -> None:
        """Nobody is asked any more: what the client asked need not be kept."""
        self.client.hub = {}
        if self._side is not None:
            self._side.forget()

    def run(self) -> tuple[TextRun | None, Callable[[bytes], bytes]]:
        """What spares taking each chunk of a run of text apart, where the sides allow it, and what says the text."""
        if self._side is not None and self._side.repeats_text:
            run = TextRun(says=self.client.repeats_text)
            if self.client.repeats_text:
                return run, run.say
            if isinstance(self.client, TextFeeder):
                return run, self.client.feed_text
        return None, _nothing

    @property
    def lines(self) -> bytes:
        """Lines for the answer's head: which fields were left out, if any."""
        return self._lines

    # What the backend says.

    def hear(self, payload: bytes) -> tuple[Sequence[JsonObject], Fault | None]:
        """The next bytes of a stream, in the hub's words; and what is wrong behind them."""
        assert self._side is not None
        try:
            return self._side.feed(payload), None
        except Malformed as error:
            return error.before, _malformed(error)
        except Broken as broken:
            return broken.before, _broken(broken)

    def hear_end(self) -> tuple[Sequence[JsonObject], Fault | None]:
        """The chunks that the stream's end brings; and what is wrong with it."""
        assert self._side is not None
        try:
            return self._side.end(), None
        except Malformed as error:
            return error.before, _malformed(error)
        except Broken as broken:
            return broken.before, _broken(broken)

    @property
    def is_over(self) -> bool:
        """Whether the backend said that its stream is over."""
        return self._side is not None and self._side.is_over

    def whole(self, call: Call, head: ResponseHead, body: bytes) -> Whole | Fault:
        """A whole answer in the client's words."""
        side = self._side
        assert side is not None
        if head.encoded:
            return Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, "The upstream's answer is compressed.", Retry.REPEATABLE)
        if 300 <= head.status < 400:  # nobody follows it, and what stands behind a 304 would be the next answer
            text = f"The upstream answered {head.status}."
            return Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE, is_final=True)
        if head.status >= 400:
            error = side.error(head.status, body)
            if call.status:  # a stream was promised already; an answer about the request would be no other elsewhere
                return Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, error.message, told=error, answered=head.status)
            return Whole(error.status, call.endpoint.dialect.error_body(error), None)
        if call.stream:
            text = "The upstream sent a whole answer in place of a stream."
            return Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE)
        try:
            answer = side.answer(body)
            if isinstance(side, HeadReader) and "usage" not in answer:
                usage = side.usage_of_head(head.lines)
                answer |= {"usage": usage} if usage is not None else {}
            return Whole(200, self.client.answer(answer), usage_of(answer))
        except Malformed as problem:
            return _malformed(problem)
        except Broken as broken:
            return _broken(broken)


def _dropped_line(fields: list[str]) -> bytes:
    names = ", ".join(field for field in dict.fromkeys(fields) if _NAMEABLE.fullmatch(field))[:_NAMES_LIMIT]
    return f"x-dropped-fields: {names}\r\n".encode("ascii") if fields else b""


def _malformed(error: Malformed) -> Fault:
    text = f"The upstream's answer is not valid: {error}."
    return Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE)


def _broken(broken: Broken) -> Fault:
    text = "The upstream sent an error in place of an answer."
    return Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, text, Retry.REPEATABLE, told=broken.error)


def usage_of(answer: JsonObject) -> Usage | None:
    """The usage in an answer or chunk of the hub."""
    usage = answer.get("usage")
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    return Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), _count(cached))


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value <= TOKENS_LIMIT else 0


def _nothing(text: bytes) -> bytes:
    """Never asked for."""
    return b""


class TranslatingSink:
    """A stream, read in the backend's dialect and written in the client's: one write for each read."""

    __slots__ = (
        "_attempt",
        "_call",
        "_chunked",
        "_client",
        "_clock",
        "_end",
        "_heard",
        "_run",
        "_say_text",
        "_translation",
        "at_last",
    )

    is_stream = True
    says_error = False

    def __init__(self, attempt: Attempt, translation: Translation, heard: Sequence[JsonObject], clock: Clock) -> None:
        """*heard*: what came before the commit point."""
        self._attempt = attempt
        self._call = call = attempt.call
        self._client = call.client
        self._chunked = call.client.chunked
        self._translation = translation
        self._clock = clock
        self._heard = heard
        run, say_text = translation.run()
        self._run: TextRun | None = run
        self._say_text: Callable[[bytes], bytes] = say_text
        #: The last words to the client, once the stream's end was heard, or what is wrong with it.
        self._end: bytes | Fault | None = None
        self.at_last = clock.now

    def start(self, more: bytes, *, begun: bool) -> None:
        """Send the head and what was heard in one write. *begun*: the head was sent early."""
        call = self._call
        said, fault = self._say(self._heard)
        self._heard = ()
        framed = self._framed(said) if said else b""
        if not begun:
            head = own_head(200, call.endpoint.dialect.stream_type, None)
            self._client.begin(
                stream_head(call, head, self._clock.date, more + self._translation.lines + own_id(call)) + framed
            )
        elif framed:
            self._client.send(framed)
        if fault is not None:
            self._attempt.steps.spoiled(self._attempt, fault)
        elif self._translation.is_over:
            self._close()

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        self.at_last = self._clock.now
        run = self._run
        text = run.text(payload) if run is not None else None
        if text is not None:
            self._feed_text(text)
            return
        heard, wrong = self._translation.hear(payload)
        said, fault = self._say(heard)
        if said:
            self._client.send(self._framed(said))
        trouble = fault or wrong
        if trouble is not None:
            self._attempt.steps.spoiled(self._attempt, trouble)
        elif self._translation.is_over:
            self._close()
        elif run is not None:
            run.learn(payload, heard, said)

    def _close(self) -> None:
        """End the call: some upstreams keep the body of a stream open that said its end, and what its client waits for
        is the end in its own dialect, which it has not seen.
        """
        attempt = self._attempt
        if attempt.exchange is not None:
            attempt.exchange.leave()
        attempt.end()

    def _feed_text(self, text: bytes) -> None:
        """Relay a chunk of a run of text."""
        try:
            said = self._say_text(text)
        except Malformed as error:
            self._attempt.steps.spoiled(self._attempt, _malformed(error))
            return
        self._call.chunks += 1
        self._call.bytes_out += len(said)
        self._client.send(self._framed(said))

    def _say(self, chunks: Sequence[JsonObject]) -> tuple[bytes, Fault | None]:
        """*chunks* in the client's dialect, counted, as far as they can be said; and why no further."""
        call = self._call
        feed = self._translation.client.feed
        said = b""
        fault = None
        try:
            for piece in chunks:
                if "usage" in piece:
                    call.usage = usage_of(piece) or call.usage
                said += feed(piece)
        except Malformed as error:
            fault = _malformed(error)
        if said:
            call.chunks += 1
            call.bytes_out += len(said)
        return said, fault

    def flaw(self) -> Fault | None:
        """What is wrong with the stream's end, if it ended before it said so in its dialect."""
        if self._end is None:
            heard, wrong = self._translation.hear_end() if not self._translation.is_over else ((), None)
            said, fault = self._say(heard)
            self._end = fault or wrong or self._last_words(said)
            if said and isinstance(self._end, Fault):
                self._client.send(self._framed(said))
        return self._end if isinstance(self._end, Fault) else None

    def _last_words(self, said: bytes) -> bytes | Fault:
        try:
            end = self._translation.client.end()
        except Malformed as error:
            return _malformed(error)
        self._call.bytes_out += len(end)
        return said + end

    @property
    def is_over(self) -> bool:
        """Whether the stream said that it is over, however its connection ended."""
        return self.flaw() is None

    def end(self) -> None:
        assert isinstance(self._end, bytes), "nobody asked whether the stream is whole"
        if self._end:
            self._client.send(self._framed(self._end))
        if self._chunked:
            self._client.send(LAST_CHUNK)

    def fail(self, fault: Fault) -> None:
        """An error in the client's dialect, no end as of a complete stream, no last chunk, then FIN."""
        self._client.send(self._framed(self._translation.client.fail(fault.error)))
        self._client.cut(told=True)

    def beat(self) -> None:
        if self._call.endpoint.dialect.stream_type == b"text/event-stream":
            self._client.send(self._framed(COMMENT))

    def _framed(self, payload: bytes) -> bytes:
        return chunk(payload) if self._chunked else payload
