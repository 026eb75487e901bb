"""The life of a call, step by step, in the order in which the steps happen.

Owns the sequence: route, pick, attempt, judge the head, commit, end or fail, and the call's deadlines. It refuses
sockets and bytes on the wire (backends and sinks), the retry law (`routing.retry`), statuses (`errors`) and
bookkeeping (`settle`). One Proxy is made per worker by `gateway.build`.

Every step is a plain function, called from a socket's callback, a connecting task or the sweep. A step may end the
attempt, so one that comes after another looks whether `call.attempt` is still its own, or runs last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.call import CONNECTING, PHASE_MOVES, PROBATION, RELAYING, SETTLED, Attempt, Call
from gateway.clock import Clock, monotonic_ns
from gateway.errors import Fault, Kind, Retry, Side
from gateway.peek import read_form, read_json
from gateway.relay import PARTIAL_EVENT_LIMIT, BodySink, EventSink, answer_fault, relay_whole
from gateway.routing.balance import eligible
from gateway.routing.endpoints import Body
from gateway.routing.peer import Peer, Standing
from gateway.routing.retry import may_retry
from gateway.routing.routes import Route, Routes
from gateway.settle import Settler
from protocols import sse
from protocols.http1.response import ResponseHead
from protocols.openai.body import ask_for_usage
from protocols.openai.errors import carries_error
from protocols.openai.usage import usage_of_answer

_JSON: Final = Body.JSON
#: Statuses that take a longer way: one is not passed on, two have no body.
_NOT_RELAYED_WHOLE: Final = frozenset({204, 304, 401})


class Proxy:
    """The steps. `begin` is called by the client's connection, the others by the attempt's backend."""

    __slots__ = ("_clock", "_settler", "_standing", "active", "routes")

    def __init__(self, routes: Routes, standing: Standing, settler: Settler, clock: Clock) -> None:
        self.routes = routes
        self._standing = standing
        self._settler = settler
        self._clock = clock
        #: Calls that were begun and are not settled.
        self.active: set[Call] = set()

    # From the client: a whole request.

    def begin(self, call: Call) -> None:
        """Admit *call* and make its first attempt; its body is complete."""
        self.active.add(call)
        fault = None
        if call.endpoint.body is _JSON:
            fault = read_json(call) or self._find_route(call)
        elif call.endpoint.body is Body.FORM:
            fault = read_form(call) or self._find_route(call)
        elif call.route is not None and call.route.policy.total:
            call.total_deadline = call.deadline = self._clock.now + call.route.policy.total
        if fault is None:
            self._attempt(call)
        else:
            self._refuse(call, fault)

    def _find_route(self, call: Call) -> Fault | None:
        model = call.model
        route = self.routes.exact.get(model) or self.routes.find(model)
        principal = call.principal
        if route is None or (principal is not None and not principal.may_use(model)):
            return self._judge_model(call, route)
        call.route = route
        policy = route.policy
        if policy.total:
            call.total_deadline = call.deadline = self._clock.now + policy.total
        if call.stream and call.fields is not None and policy.inject_usage and call.endpoint.streams_usage:
            call.usage_injected = ask_for_usage(call.fields)
        return None

    def _judge_model(self, call: Call, route: Route | None) -> Fault:
        """Why the model cannot be served."""
        model = call.model[:128]
        if not model:
            return Fault(Side.CLIENT, Kind.MISSING_MODEL, "The request names no model.", param="model")
        if route is not None:
            text = f"This key may not use the model '{model}'."
            return Fault(Side.CLIENT, Kind.MODEL_FORBIDDEN, text, param="model")
        if not self.routes.complete:
            text = "A backend has not yet told which models it serves; try again soon."
            return Fault(Side.GATEWAY, Kind.MODELS_UNKNOWN, text)
        return Fault(Side.CLIENT, Kind.UNKNOWN_MODEL, f"The model '{model}' does not exist.", param="model")

    # One attempt.

    def _attempt(self, call: Call) -> None:
        route = call.route
        assert route is not None
        coarse = self._clock.now
        peers: Sequence[Peer] = route.peers
        if call.tried or self._standing.doubtful:
            peers = eligible(peers, coarse, call.tried)
        peer = peers[0] if len(peers) == 1 else route.policy.balancer.pick(peers)
        now = monotonic_ns()
        if not call.at_attempt:
            call.at_attempt = now
        call.attempt = attempt = Attempt(call, peer, self, now, peer.state.begin(coarse))
        call.peer = peer
        call.tries += 1
        peer.backend.begin(call, attempt)

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
        attempt.exchange = None  # it is over, and its connection may be another call's already
        if head.is_event_stream or head.status in _NOT_RELAYED_WHOLE:
            self.head(attempt, head)
            if attempt.call.attempt is attempt:
                self.first(attempt, body)
            if attempt.call.attempt is attempt:
                self.end(attempt)
            return
        call = attempt.call
        call.at_head = call.at_first = monotonic_ns()
        attempt.response = head
        state = attempt.peer.state
        if not state.heard:
            state.answered()
        state.end()
        call.attempt = None
        call.phase = PHASE_MOVES[call.phase][RELAYING]
        call.usage = usage_of_answer(body)
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
        if head.status == 401:
            # The upstream's own words may echo our credentials, and the client can do nothing about them.
            text = "The upstream refused the gateway's credentials."
            self._abort(attempt, Fault(Side.UPSTREAM, Kind.UPSTREAM_UNAUTHORIZED, text))
        elif head.is_event_stream and not call.stream:
            self.sent(attempt)  # nobody could tell before that it is one

    def first(self, attempt: Attempt, payload: bytes) -> None:
        """Payload before the commit point: commit, or wait for a whole event, or fail."""
        head = attempt.response
        assert head is not None
        if not payload:
            return
        if not attempt.call.at_first:
            attempt.call.at_first = monotonic_ns()
        if not head.is_event_stream or head.status >= 300 or head.encoded:
            self._commit_body(attempt, head, payload)
            return
        payload = attempt.held + payload
        if attempt.call.endpoint.body is Body.ANY:
            self._commit_events(attempt, head, payload)  # passed through untouched, whatever it says
            return
        verdict = self._judge_first_event(payload)
        if verdict is None:
            attempt.held = payload
        elif isinstance(verdict, Fault):
            self._abort(attempt, verdict)
        else:
            self._commit_events(attempt, head, payload)

    def _judge_first_event(self, payload: bytes) -> Fault | bool | None:
        """True: sound, commit. None: no whole event with data yet. A fault: the stream failed before it began."""
        for event in sse.split_events(payload):
            data = sse.data_of(event)
            if data is None:
                continue
            if carries_error(data):
                text = "The upstream sent an error in place of an answer."
                return Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR_EVENT, text, Retry.REPEATABLE, body=data)
            if data[:1] not in (b"{", b"[") or data == b"[DONE]":
                text = "The upstream's stream did not begin with an answer."
                return Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE)
            return True
        return True if len(payload) > PARTIAL_EVENT_LIMIT else None

    # The commit point.

    def _commit_body(self, attempt: Attempt, head: ResponseHead, payload: bytes) -> None:
        call = attempt.call
        self._commit(attempt, head)
        attempt.sink = sink = BodySink(call, self._clock)
        sink.start(head, payload, attempt.peer.answer_line + _timing(call))

    def _commit_events(self, attempt: Attempt, head: ResponseHead, payload: bytes) -> None:
        call = attempt.call
        self._commit(attempt, head)
        attempt.held = b""
        attempt.sink = sink = EventSink(call, self._clock)
        sink.start(head, payload, attempt.peer.answer_line)

    def _commit(self, attempt: Attempt, head: ResponseHead) -> None:
        """From here on nothing is repeated: the client sees this answer. The request is not needed any more."""
        call = attempt.call
        call.move(RELAYING)
        call.status = head.status
        call.drop_body()
        route = call.route
        idle = route.policy.idle if route is not None and head.is_event_stream else 0.0
        call.idle = idle
        call.deadline = min(call.total_deadline, self._clock.now + idle) if idle else call.total_deadline

    # The end.

    def end(self, attempt: Attempt) -> None:
        """The upstream's answer is complete by its framing."""
        call = attempt.call
        head = attempt.response
        assert head is not None
        if call.phase is PROBATION:
            if head.is_event_stream and head.status < 300:
                text = "The upstream's stream ended before its first event."
                self.failed(attempt, Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE))
                return
            self._commit_body(attempt, head, b"")
        sink = attempt.sink
        assert sink is not None
        if isinstance(sink, EventSink) and sink.is_cut:
            text = "The upstream's stream ended without saying so."
            self.failed(attempt, Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, text))
            return
        sink.end()
        self._finish_attempt(attempt)
        self._settle(call)
        call.client.answered()

    def failed(self, attempt: Attempt, fault: Fault) -> None:
        """The attempt broke: make another, or tell the client."""
        call = attempt.call
        sink = attempt.sink
        if fault.kind is Kind.UPSTREAM_LOST and isinstance(sink, EventSink) and sink.is_over:
            self.end(attempt)
            return
        now = self._clock.now
        # A worn-out connection says nothing about its peer; one that refuses or loses a fresh call cools down.
        lost = fault.retry in (Retry.UNSENT, Retry.REPEATABLE) and call.phase < PROBATION
        if lost and attempt.peer.state.failed(now, attempt.trial):
            self._settler.cooled_down(attempt.peer)
        self._finish_attempt(attempt)
        if call.phase is RELAYING:
            assert attempt.sink is not None
            call.fault = fault
            attempt.sink.fail(fault)
            self._settle(call)
            return
        if now < call.total_deadline and may_retry(call, fault):
            self._try_again(call, attempt, fault)
            return
        self._refuse(call, fault)

    def _try_again(self, call: Call, attempt: Attempt, fault: Fault) -> None:
        if fault.retry is Retry.REUSED:
            call.lost_reused = True
        else:
            call.tried += (attempt.peer,)
        call.deadline = call.total_deadline
        self._settler.retried(attempt.peer, fault)
        self._attempt(call)

    def _abort(self, attempt: Attempt, fault: Fault) -> None:
        """Give the exchange up because of what the upstream said."""
        if attempt.exchange is not None:
            attempt.exchange.abort()
        self.failed(attempt, fault)

    def _finish_attempt(self, attempt: Attempt) -> None:
        """Count the attempt out of its peer, exactly once, and untie it from its exchange."""
        attempt.peer.state.end()
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
        if attempt is None:
            return
        if attempt.exchange is not None:
            attempt.exchange.abort()
        self.failed(attempt, fault)

    def stop_stalled(self, call: Call) -> None:
        """End *call*, whose client does not take its answer."""
        text = "The client stopped reading."
        self.stop(call, Fault(Side.CLIENT, Kind.CLIENT_STALLED, text, timed_out=True))

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
                self._expire(call, now)
            except Exception:  # a bug of ours ends its own call, and no other
                self.crashed(call)

    def _expire(self, call: Call, now: float) -> None:
        attempt = call.attempt
        if now >= call.total_deadline and call.client.untaken:
            self.stop_stalled(call)
            return
        if now >= call.total_deadline:
            text = "The call took longer than its total time."
        elif attempt is not None and attempt.sink is not None:
            quiet_until = attempt.sink.at_last + call.idle
            if now < quiet_until:  # bytes came since the deadline was set: it is only moved when it is reached
                call.deadline = min(call.total_deadline, quiet_until)
                return
            text = "The upstream's stream stalled."
        else:
            text = "The upstream did not begin to answer in time."
        self.stop(call, Fault(Side.UPSTREAM, Kind.UPSTREAM_SLOW, text, Retry.NEVER, timed_out=True))

    # Faults to the client.

    def _refuse(self, call: Call, fault: Fault) -> None:
        """Answer *fault*: nothing of another answer was sent."""
        answer_fault(call, fault, self._clock.date)
        self._settle(call)
        call.client.answered()

    def _settle(self, call: Call) -> None:
        self.active.discard(call)
        if call.budget_held:
            call.drop_body()
        self._settler.settle(call)


def _timing(call: Call) -> bytes:
    """Milliseconds of the gateway until its first attempt, and of the upstream until its first payload."""
    ours = (call.at_attempt - call.at_begin) * 1e-6
    theirs = ((call.at_first or call.at_head) - call.at_sent) * 1e-6
    return b"server-timing: gw;dur=%.3f, up;dur=%.3f\r\n" % (ours, theirs)
