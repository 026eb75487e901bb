"""The commit point: an answer is shown to the client, and from here on nothing is repeated.

Owns which sink an answer gets, and the deadline of what follows. It refuses the verdict on the answer
(`gateway.probation`), bytes (`gateway.relay`, `gateway.translation`) and what comes before and after (`gateway.proxy`,
which makes one).
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.answers import answer_whole, own_id, timing
from gateway.call import RELAYING, Attempt
from gateway.clock import Clock
from gateway.collector import Collector
from gateway.errors import Fault
from gateway.heartbeat import Heartbeats
from gateway.probation import is_stream
from gateway.relay import BodySink, EventSink
from gateway.translation import TranslatingSink, Translation
from protocols.dialect import JsonObject
from protocols.http1.advice import advice_lines
from protocols.http1.response import ResponseHead, own_head


class Commits:
    """One method for each kind of answer."""

    __slots__ = ("_beats", "_clock")

    def __init__(self, beats: Heartbeats, clock: Clock) -> None:
        self._beats = beats
        self._clock = clock

    def body(self, attempt: Attempt, head: ResponseHead, payload: bytes) -> None:
        """A body that is not looked into, from its first bytes on."""
        call = attempt.call
        self._commit(attempt, head)
        attempt.sink = sink = BodySink(call, self._clock)
        sink.start(head, payload, attempt.peer.answer_line + timing(call))

    def events(self, attempt: Attempt, head: ResponseHead, payload: bytes) -> None:
        """A stream in the client's own dialect."""
        call = attempt.call
        self._commit_stream(attempt, head)
        attempt.held = b""
        attempt.sink = sink = EventSink(call, self._clock)
        sink.start(head, payload, attempt.peer.answer_line, begun=self._beats.early(call) is not None)

    def translated(self, attempt: Attempt, translation: Translation, heard: Sequence[JsonObject]) -> None:
        """A stream in another dialect, of which *heard* came already."""
        head = attempt.response
        assert head is not None
        self._commit_stream(attempt, head)
        attempt.sink = sink = TranslatingSink(attempt, translation, heard, self._clock)
        sink.start(attempt.peer.answer_line, begun=self._beats.early(attempt.call) is not None)

    def whole(self, attempt: Attempt, head: ResponseHead, translation: Translation) -> Fault | None:
        """A whole answer in another dialect; why it cannot be said in the client's, if so."""
        call = attempt.call
        if not isinstance(attempt.sink, Collector):
            attempt.sink = Collector(attempt, self._clock)
        answer = translation.whole(call, head, attempt.sink.body)
        if isinstance(answer, Fault):
            return answer
        self._commit(attempt, head)
        call.usage = answer.usage
        told = own_head(answer.status, b"application/json", len(answer.body))
        told.lines += advice_lines(head.lines)
        more = attempt.peer.answer_line + translation.lines + own_id(call) + timing(call)
        answer_whole(call, told, answer.body, self._clock.date, more)
        return None

    def _commit_stream(self, attempt: Attempt, head: ResponseHead) -> None:
        self._commit(attempt, head)
        if not attempt.peer.state.heard:
            attempt.peer.state.served(attempt.at_begin, attempt.call)

    def _commit(self, attempt: Attempt, head: ResponseHead) -> None:
        """The client sees this answer. The request is not needed any more."""
        call = attempt.call
        call.move(RELAYING)
        call.status = head.status
        call.drop_body()
        route = call.route
        idle = route.policy.idle if route is not None and is_stream(head, call) else 0.0
        call.idle = idle
        call.deadline = min(call.total_deadline, self._clock.now + idle) if idle else call.total_deadline
