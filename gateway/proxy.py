"""The life of a call, step by step, in the order in which the steps happen.

Owns the sequence: route (`router`), pick, attempt, judge the head, commit, end or fail, and the call's deadlines. It
refuses sockets and bytes on the wire (backends and sinks), the retry law (`routing.retry`), statuses (`errors`) and
bookkeeping (`settle`). One Proxy is made per worker by `gateway.build`.

Every step is a plain function, called from a socket's callback, a connecting task or the sweep. A step may end the
attempt, so one that comes after another looks whether `call.attempt` is still its own, or runs last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.answers import answer_fault, answer_whole, relay_whole
from gateway.call import CONNECTING, PROBATION, RELAYING, SETTLED, TO_RELAYING, Answer, Attempt, Call
from gateway.clock import Clock, monotonic_ns
from gateway.collector import Collector
from gateway.commit import Commits
from gateway.deadlines import judge_overdue
from gateway.errors import Fault, Kind, Retry, Side
from gateway.heartbeat import Heartbeats
from gateway.pauses import Pauses
from gateway.probation import UNAUTHORIZED, is_stream, is_usable, judge_first_event, judge_status, no_stream
from gateway.router import Router
from gateway.routing.balance import eligible
from gateway.routing.ejection import no_peer
from gateway.routing.endpoints import Body
from gateway.routing.peer import Peer, Standing
from gateway.routing.retry import Again, judge
from gateway.routing.route import Route
from gateway.routing.routes import Routes
from gateway.settle import Settler
from gateway.translation import Translation
from protocols.http1.response import ResponseHead, own_head


class Proxy:
    """The steps. `begin` is called by the client's connection, the others by the attempt's backend."""

    __slots__ = ("_beats", "_clock", "_commits", "_on_error", "_pauses", "_settler", "_standing", "active", "router")

    def __init__(
        self, routes: Routes, standing: Standing, settler: Settler, clock: Clock, on_error: Callable[[Exception], None]
    ) -> None:
        #: Told what a step raised that a deadline, a pause's end or a heartbeat began.
        self._on_error = on_error
        self._standing = standing
        self._settler = settler
        self._clock = clock
        #: Calls that were begun and are not settled.
        self.active: set[Call] = set()
        self._beats = Heartbeats(clock)
        self.router = Router(routes, self._beats, settler, clock)
        self._commits = Commits(self._beats, clock)
        #: Those of `active` that wait for their next attempt.
        self._pauses = Pauses(self._attempt, self._raised)

    # From the client: a whole request.

    def begin(self, call: Call) -> None:
        """Admit *call* and make its first attempt; its body is complete."""
        self.active.add(call)
        verdict = self.router.route(call)
        if verdict is None:
            self._attempt(call)
        elif isinstance(verdict, Fault):
            self._refuse(call, verdict)
        else:
            self._answer(call, verdict)

    # One attempt.

    def _attempt(self, call: Call) -> None:
        route = call.route
        assert route is not None
        coarse = self._clock.now
        peers: Sequence[Peer] = route.peers
        if call.tried or self._standing.doubtful:
            peers = eligible(peers, coarse, call.tried, call)
            if not peers:
                self._find_none(call, route)
                return
        peer = peers[0] if len(peers) == 1 else route.policy.balancer.pick(peers)
        now = monotonic_ns()
        if not call.at_attempt:
            call.at_attempt = now
        call.attempt = attempt = Attempt(call, peer, self, now, peer.state.begin(coarse))
        call.peer = peer
        call.tries += 1
        peer.backend.begin(call, attempt)

    def _find_none(self, call: Call, route: Route) -> None:
        """Every peer's circuit is open: go on under a fallback at once, or refuse."""
        call.move(CONNECTING)
        fault = no_peer(route.peers)
        again = judge(call, fault, self._clock.now, len(self.active))
        if again is None:
            self._refuse(call, fault)
        else:
            self._go_on(call, route.peers[0], fault, again)

    def connecting(self, attempt: Attempt) -> None:
        """The attempt has no connection yet."""
        attempt.call.move(CONNECTING)

    def sent(self, attempt: Attempt) -> None:
        """A stream's request left: its first byte is waited for from now on."""
        call = attempt.call
        if call.route is not None and call.route.policy.first_byte:
            call.deadline = min(call.total_deadline, self._clock.now + call.route.policy.first_byte)

    def whole(self, attempt: Attempt, head: ResponseHead, body: bytes) -> None:
        """The usual answer that is no stream: head and body came in one read, and leave in one write."""
        call = attempt.call
        if head.status != 200 or head.is_event_stream or call.stream or call.translation is not None:
            attempt.exchange = None  # it is over, and its connection may be another call's already
            self.head(attempt, head)
            if call.attempt is attempt:
                attempt.feed(body)
            if call.attempt is attempt:
                self.end(attempt)
            return
        call.at_head = call.at_first = monotonic_ns()
        call.attempt = None  # it is over: nobody may reach its connection, which may be another call's already
        state = attempt.peer.state
        if not state.heard:
            state.served(attempt.at_begin, call)
        state.end()
        call.phase = TO_RELAYING[call.phase]
        call.usage = call.endpoint.usage_of_answer(body)
        relay_whole(call, attempt, head, body, self._clock.date)
        self.active.discard(call)
        call.drop_body()
        self._settler.settle(call, attempt)

    def head(self, attempt: Attempt, head: ResponseHead) -> None:
        """The upstream's verdict. Nothing is told to the client before the first body bytes are sound."""
        call = attempt.call
        call.move(PROBATION)
        call.at_head = monotonic_ns()
        attempt.response = head
        attempt.peer.state.answered()
        assert call.route is not None
        if head.status >= 400 and (fault := judge_status(head, call.route.policy.on)) is not None:
            self._refused(attempt, fault)
        elif head.is_event_stream and not call.stream and is_stream(head, call):
            self.sent(attempt)  # nobody could tell before that it is one

    def _refused(self, attempt: Attempt, fault: Fault) -> None:
        """The upstream says that it failed: ask again, or show what it says."""
        call = attempt.call
        attempt.peer.state.blamed(fault, attempt.at_begin, call)
        again = judge(call, fault, self._clock.now, len(self.active))
        if again is None and fault.answered != UNAUTHORIZED:
            return
        if attempt.exchange is not None:
            attempt.exchange.abort()
        self._finish_attempt(attempt)
        if again is None:
            self._refuse(call, fault)
        else:
            self._go_on(call, attempt.peer, fault, again)

    def first(self, attempt: Attempt, payload: bytes) -> None:
        """Payload before the commit point: commit, or wait for a whole event, or fail."""
        head = attempt.response
        assert head is not None
        if not payload:
            return
        call = attempt.call
        if not call.at_first:
            call.at_first = monotonic_ns()
        streams = is_stream(head, call) and head.status < 300 and not head.encoded
        if call.translation is not None:
            self._first_translated(attempt, call.translation, payload, streams=streams)
        elif not streams:
            if call.status:
                self.spoiled(attempt, no_stream(head, payload, call.endpoint.dialect))
            else:
                self._commits.body(attempt, head, payload)
        elif call.endpoint.body is Body.ANY:
            self._commits.events(attempt, head, attempt.held + payload)  # passed through untouched, whatever it says
        else:
            payload = attempt.held + payload
            verdict = judge_first_event(payload, call.endpoint.dialect)
            if verdict is None:
                attempt.held = payload
            elif isinstance(verdict, Fault):
                self.spoiled(attempt, verdict)
            else:
                self._commits.events(attempt, head, payload)

    def _first_translated(self, attempt: Attempt, translation: Translation, payload: bytes, *, streams: bool) -> None:
        """Commit a stream with its first chunk; whatever is none is collected first."""
        if not streams or not attempt.call.stream:
            attempt.sink = collector = Collector(attempt, self._clock)
            collector.feed(payload)
            return
        heard, fault = translation.hear(payload)
        if fault is not None:
            self.spoiled(attempt, fault)
        elif heard:
            self._commits.translated(attempt, translation, heard)

    # The end.

    def end(self, attempt: Attempt) -> None:
        """The upstream's answer is complete by its framing."""
        call = attempt.call
        head = attempt.response
        assert head is not None
        if call.phase is PROBATION and not self._end_on_probation(attempt, head):
            return
        sink = attempt.sink
        assert sink is not None
        flaw = sink.flaw()
        if flaw is not None:
            self.failed(attempt, flaw)
            return
        if not attempt.peer.state.heard and not sink.is_stream and is_usable(head.status):
            attempt.peer.state.served(attempt.at_begin, call)
        if sink.says_error:
            call.fault = Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, "The upstream's stream ended with an error.")
        sink.end()
        self._finish_attempt(attempt)
        self._settle(call)
        call.client.answered()

    def _end_on_probation(self, attempt: Attempt, head: ResponseHead) -> bool:
        """Commit an answer that is complete and was not begun; False where it failed."""
        call = attempt.call
        fault: Fault | None = None
        if not isinstance(attempt.sink, Collector) and is_stream(head, call) and head.status < 300:
            text = "The upstream's stream ended before its first event."
            fault = Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE)
        elif call.translation is not None:
            fault = self._commits.whole(attempt, head, call.translation)
        elif call.status:
            fault = no_stream(head, b"", call.endpoint.dialect)
        else:
            self._commits.body(attempt, head, b"")
        if fault is not None:
            self.failed(attempt, fault)
        return fault is None

    def failed(self, attempt: Attempt, fault: Fault) -> None:
        """The attempt broke: make another, or tell the client."""
        call = attempt.call
        sink = attempt.sink
        over = fault.kind in (Kind.UPSTREAM_LOST, Kind.UPSTREAM_SLOW) and fault.retry is not Retry.NEVER
        if over and sink is not None and sink.is_over:
            self.end(attempt)
            return
        now = self._clock.now
        # A worn-out connection says nothing about its peer; one that refuses or loses a fresh call cools down.
        lost = fault.retry in (Retry.UNSENT, Retry.REPEATABLE) and call.phase < PROBATION and not _is_slow(fault)
        if lost and attempt.peer.state.failed(now, attempt.trial, fault.retry is Retry.UNSENT):
            self._settler.cooled_down(attempt.peer)
        if call.phase is not RELAYING or now < call.total_deadline:
            attempt.peer.state.blamed(fault, attempt.at_begin, call)
        self._finish_attempt(attempt)
        if call.phase is RELAYING:
            assert attempt.sink is not None
            call.fault = fault
            attempt.sink.fail(fault)
            self._settle(call)
            return
        again = judge(call, fault, now, len(self.active))
        if again is None:
            self._refuse(call, fault)
        else:
            self._go_on(call, attempt.peer, fault, again)

    def _go_on(self, call: Call, peer: Peer, fault: Fault, again: Again) -> None:
        """Attempt *call* anew, after *fault* at *peer*, as *again* says."""
        call.deadline = call.total_deadline
        call.at_head = call.at_first = 0
        if again.fallback is not None:
            verdict = self.router.fall_back(call, again.fallback)
            if not isinstance(verdict, bool):
                self._answer(call, verdict)
                return
            if not verdict:
                self._refuse(call, fault)
                return
        else:
            self._settler.retried(peer, fault)
            if fault.retry is Retry.REUSED:
                call.lost_reused = True
            else:
                call.tried += (peer,)
        if again.wait:
            self._pauses.begin(call, again.wait)
        else:
            self._attempt(call)

    def spoiled(self, attempt: Attempt, fault: Fault) -> None:
        """What the upstream says is of no use: give the exchange up."""
        if attempt.exchange is not None:
            attempt.exchange.abort()
        self.failed(attempt, fault)

    def _finish_attempt(self, attempt: Attempt) -> None:
        """Count the attempt out of its peer, exactly once, and untie it from its exchange."""
        state = attempt.peer.state
        state.end()
        if state.out:
            state.circuit.over(attempt.call)
        if isinstance(attempt.sink, Collector):
            attempt.sink.release()
        attempt.call.attempt = None
        attempt.exchange = None
        self._settler.attempted(attempt)

    # From the client's connection.

    def gone(self, call: Call) -> None:
        """The client left: stop the upstream at once. Nobody upstream is blamed."""
        self._stop(call, Fault(Side.CLIENT, Kind.CLIENT_GONE, "The client closed the connection."))

    def stop(self, call: Call, fault: Fault) -> None:
        """End *call* with *fault* in whatever phase it is, and tell the client."""
        attempt = call.attempt
        if attempt is not None:
            self.spoiled(attempt, fault)
        elif self._pauses.end(call):
            self._refuse(call, fault)

    def pause(self, call: Call) -> None:
        """The client reads slowly: the upstream waits, and is not blamed for being silent."""
        attempt = call.attempt
        if attempt is not None and attempt.exchange is not None:
            attempt.exchange.pause()
            call.deadline = call.total_deadline

    def resume(self, call: Call) -> None:
        attempt = call.attempt
        if attempt is not None and attempt.exchange is not None:
            call.deadline = min(call.total_deadline, self._clock.now + call.idle) if call.idle else call.total_deadline
            attempt.exchange.resume()

    def _stop(self, call: Call, fault: Fault) -> None:
        attempt = call.attempt
        if attempt is not None:
            if attempt.exchange is not None:
                attempt.exchange.abort()
            self._finish_attempt(attempt)
        self._pauses.end(call)
        call.fault = fault
        call.status = call.status or fault.status
        self._settle(call)

    def crashed(self, call: Call) -> None:
        """A step of *call* raised: a bug of ours, which must not leave anything behind."""
        if call.phase is not SETTLED:
            self._stop(call, Fault(Side.GATEWAY, Kind.INTERNAL, "The gateway failed to serve the call."))
        call.client.crashed()

    # Deadlines.

    def sweep(self, now: float) -> None:
        """End the calls whose deadline is past."""
        due = [call for call in self.active if now >= call.deadline]
        for call in due:
            try:
                fault = judge_overdue(call, now)
                if fault is not None:
                    self.stop(call, fault)
            except Exception as error:  # a bug of ours ends its own call, and no other
                self._raised(call, error)
        if self._beats:
            self._beats.sweep(now, self._raised)

    def _raised(self, call: Call, error: Exception) -> None:
        self._on_error(error)
        self.crashed(call)

    # Faults to the client.

    def _refuse(self, call: Call, fault: Fault) -> None:
        """Answer *fault*: nothing of another answer was sent, but for heartbeats."""
        early = self._beats.early(call)
        if early is not None:
            call.fault = fault
            early.fail(fault)
            self._settle(call)
            return
        answer_fault(call, fault, self._clock.date)
        self._settle(call)
        call.client.answered()

    def _answer(self, call: Call, answer: Answer) -> None:
        """Answer what no backend is needed for."""
        head = own_head(answer.status, answer.content_type, len(answer.body))
        answer_whole(call, head, answer.body, self._clock.date, answer.lines)
        self._settle(call)
        call.client.answered()

    def _settle(self, call: Call) -> None:
        self.active.discard(call)
        if self._beats:
            self._beats.end(call)
        if call.budget_held:
            call.drop_body()
        self._settler.settle(call)


def _is_slow(fault: Fault) -> bool:
    """Whether the peer took the request and only did not answer in time: that may be the request's doing."""
    return fault.timed_out and fault.kind is Kind.UPSTREAM_SLOW
