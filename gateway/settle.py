"""Settling: what is counted and written when a call or an attempt is over, exactly once each.

Owns the access line and the counters of calls and attempts. Calls that are over wait here to be counted together, at
most `BATCH` of them and no longer than to the next sweep. It refuses to decide anything about the call (`gateway.proxy`
did). One Settler is made per worker by `gateway.build`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import time_ns
from typing import Final

import msgspec

from gateway.admission.keys import Principal
from gateway.call import TO_SETTLED, Attempt, Call
from gateway.clock import monotonic_ns
from gateway.errors import Fault
from gateway.observe.access import AccessLog
from gateway.observe.counters import OTHER, Counter, Measures
from gateway.observe.logs import Stamp, redact
from gateway.routing.endpoints import Endpoint
from gateway.routing.peer import Peer
from gateway.routing.retry import cause_of
from gateway.routing.route import Route

#: Methods that get a label of their own; clients choose the others.
_METHODS: Final = {
    method.encode("ascii"): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_SECONDS: Final = 1e-9
#: Calls counted at once: so many that the code runs warm, so few that what is left of them stays in the cache.
BATCH: Final = 64
#: Characters of a model's name that are logged where the name is the client's text.
_MODEL_LIMIT: Final = 256
#: Kinds of calls remembered. Bounded, because clients choose the models in them.
KINDS_LIMIT: Final = 1024


#: A call that is over, its last attempt if that is not yet counted, its ending, and when it was over.
_Over = tuple[Call, Attempt | None, str, int]
#: What calls of one kind have in common.
_Key = tuple[Endpoint, bytes, int, str, str | None, Peer | None, Route | None, Principal | None, str, str, bool]


class AccessLine(msgspec.Struct, gc=False):
    """The line that every call leaves. Durations are whole microseconds, -1 where a phase was never reached.

    t_read: from the first byte of the request to the last. t_admit: until the first attempt. t_connect: until the
    request was sent, 0 on a reused connection, failed attempts included. t_head: until the answer's head. t_first:
    until its first payload. t_body: until the end. t_total: from first byte to end.

    Two members stand for several, whose text is made once for many lines: *ts* begins with `Moment`'s, *client* with
    `Description`'s.
    """

    ts: msgspec.Raw
    request_id: str
    trace_id: str
    client: msgspec.Raw
    tries: int
    bytes_in: int
    bytes_out: int
    chunks: int
    t_total: int
    t_read: int
    t_admit: int
    t_queue: int
    t_connect: int
    t_head: int
    t_first: int
    t_body: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None


class Moment(msgspec.Struct):
    """How a line begins: the same for calls that ended within one millisecond."""

    ts: str
    level: str = "info"
    msg: str = "call"


class Description(msgspec.Struct):
    """A line's middle: the same for all calls of one kind."""

    client: str
    key: str | None
    method: str
    path: str
    model: str
    fallback: str | None
    upstream: str | None
    endpoint: str | None
    status: int
    ending: str
    fault: str | None
    stream: bool
    #: "anthropic>openai": the client's dialect and the backend's, of a call that was asked for in another than its own.
    translated: str | None


_encode: Final = msgspec.json.Encoder().encode


def _members(of: Moment | Description) -> msgspec.Raw:
    """The members *of* a struct as JSON without the first one's name, to be put where that one's value belongs."""
    text = _encode(of)
    return msgspec.Raw(text[text.index(b":") + 1 : -1])


class _Cells:
    """The counters of one backend, looked up once."""

    __slots__ = ("chunks", "first_token", "latency", "statuses")

    def __init__(self, measures: Measures, name: str) -> None:
        self.latency = measures.upstream_latency.child(name)
        self.first_token = measures.time_to_first_token.child(name)
        self.chunks = measures.stream_chunks.child(name)
        self.statuses: dict[int, Counter] = {}


class _Kind:
    """Calls that differ in ids, sizes and times only: their counters, looked up once, and what their lines share."""

    __slots__ = ("attempts", "ending", "line", "observe", "requests", "tokens")

    def __init__(self, measures: Measures, call: Call, ending: str) -> None:
        method = _METHODS.get(call.request.method, "other")
        path = call.endpoint.path
        self.requests = measures.requests.child(method, path, str(call.status))
        self.observe = measures.request_latency.child(method, path).observe
        self.ending = measures.endings.child(ending)
        self.line = _members(_describe(call, ending))
        # Made when there is something to count: a child is shown once it is made.
        self.attempts: tuple[Counter, Callable[[float], None]] | None = None
        self.tokens: tuple[Counter, Counter, Counter] | None = None


class Settler:
    """Counts attempts and calls. *access* is None where access lines are not written."""

    __slots__ = ("_access", "_kinds", "_measures", "_observe_overhead", "_over", "_stamp", "_upstreams", "on_error")

    def __init__(self, measures: Measures, access: AccessLog | None, stamp: Stamp) -> None:
        self._measures = measures
        self._access = access
        self._stamp = stamp
        self._observe_overhead = measures.overhead.observe
        #: Not yet counted.
        self._over: list[_Over] = []
        if access is not None:
            access.gather = self.count
        #: Told what counting a call raised.
        self.on_error: Callable[[Exception], None] = _nothing
        # Looked up before.
        self._kinds: dict[_Key, _Kind] = {}
        self._upstreams: dict[str, _Cells] = {}

    def forget_doors(self) -> None:
        """Doors, routes or keys are others from now on: what calls had in common would keep the former ones alive."""
        self.count()
        self._kinds.clear()

    def retried(self, peer: Peer, fault: Fault) -> None:
        """A call goes on after *fault* at *peer*."""
        self._measures.retries.child(peer.backend.name, str(cause_of(fault))).value += 1

    def fell_back(self, former: Route, fallback: Route) -> None:
        """A call goes on under *fallback*."""
        self._measures.fallback_used.child(former.label, fallback.serves).value += 1

    def cooled_down(self, peer: Peer) -> None:
        """*peer* is set aside for a while."""
        self._measures.peer_cooldowns.child(peer.backend.name, peer.url).value += 1

    def attempted(self, attempt: Attempt) -> None:
        """One attempt is over, however it ended."""
        response = attempt.response
        status = response.status if response is not None else 0
        counter, observe = self._of_attempts(attempt.peer.backend.name, status)
        counter.value += 1
        observe((monotonic_ns() - attempt.at_begin) * _SECONDS)

    def settle(self, call: Call, attempt: Attempt | None = None) -> None:
        """The call is over. A second time is a bug and raises.

        *attempt*: its last one, if that is not counted yet; what it was answered with is the call's status.

        It is counted, and its line written, together with others: soon (`count`), and at a lower price than alone.
        """
        ending = "--" if call.fault is None else call.ending
        call.phase = TO_SETTLED[call.phase]
        over = self._over
        over.append((call, attempt, ending, monotonic_ns()))
        if len(over) >= BATCH:
            self.count()

    def count(self) -> None:
        """Count the calls that are over and write their lines: at each sweep, and before anybody looks."""
        over = self._over
        if not over:
            return
        self._over = []
        known = self._kinds
        observe_overhead = self._observe_overhead
        kinds: list[_Kind | None] = []
        for call, attempt, ending, now in over:
            try:
                fault = call.fault
                key = (
                    call.endpoint,
                    call.request.method,
                    call.status,
                    ending,
                    None if fault is None else fault.kind.code,
                    call.peer,
                    call.route,
                    call.principal,
                    call.model,
                    call.address,
                    call.stream,
                )
                kind = known.get(key) or self._open_kind(key, call, ending)
                kind.requests.value += 1
                kind.ending.value += 1
                observe = kind.observe
                observe((now - (call.at_begin or call.at_start)) * _SECONDS)
                if attempt is not None:
                    attempts, observe = kind.attempts or self._open_attempts(kind, attempt, call.status)
                    attempts.value += 1
                    observe((now - attempt.at_begin) * _SECONDS)
                if call.at_first:
                    observe_overhead((call.at_attempt - call.at_begin) * _SECONDS)
                    if call.chunks:
                        self._count_stream(call)
                    usage = call.usage
                    if usage is not None:
                        prompt, completion, cached = kind.tokens or self._open_tokens(kind, call.route)
                        prompt.value += usage.prompt
                        completion.value += usage.completion
                        cached.value += usage.cached
            except Exception as error:  # a bug of ours costs its own call's line, and no other
                self.on_error(error)
                kinds.append(None)
            else:
                kinds.append(kind)
        if self._access is None:
            return
        try:
            self._access.add(self._lines(over, kinds))
        except Exception as error:  # it costs these lines, and no call that is under way
            self.on_error(error)

    def _lines(self, over: Sequence[_Over], kinds: Sequence[_Kind | None]) -> list[AccessLine]:
        """The lines of calls that are over, which is in the order of their ends."""
        epoch = time_ns() - monotonic_ns()
        until = 0
        lines = []
        for (call, _, _, now), kind in zip(over, kinds, strict=True):
            if kind is None:
                continue
            if now >= until:  # a millisecond's text is shared
                milli = (now + epoch) // 1_000_000
                until = (milli + 1) * 1_000_000 - epoch
                moment = _members(Moment(self._stamp.of((milli + 0.5) / 1000)))  # its middle: no rounding leads out
            start, begin, attempt, sent = call.at_start, call.at_begin, call.at_attempt, call.at_sent
            head, first, usage = call.at_head, call.at_first, call.usage
            lines.append(
                AccessLine(
                    moment,
                    call.id.decode(),
                    call.trace.decode(),
                    kind.line,
                    call.tries,
                    call.bytes_in,
                    call.bytes_out,
                    call.chunks,
                    (now - start) // 1000,
                    (begin - start) // 1000 if begin else -1,
                    (attempt - begin) // 1000 if attempt else -1,
                    -1,
                    (sent - attempt) // 1000 if sent else -1,
                    (head - sent) // 1000 if head else -1,
                    (first - head) // 1000 if first else -1,
                    (now - first) // 1000 if first else -1,
                    usage.prompt if usage is not None else None,
                    usage.completion if usage is not None else None,
                    usage.cached if usage is not None else None,
                )
            )
        return lines

    def _count_stream(self, call: Call) -> None:
        if call.peer is not None:
            cells = self._upstreams[call.peer.backend.name]
            cells.chunks.value += call.chunks
            cells.first_token.observe((call.at_first - call.at_begin) * _SECONDS)

    # Children of families, looked up once.

    def _of_attempts(self, name: str, status: int) -> tuple[Counter, Callable[[float], None]]:
        """Where attempts at backend *name* are counted that were answered with *status*; 0: not at all."""
        cells = self._upstreams.get(name)
        if cells is None:
            cells = self._upstreams[name] = _Cells(self._measures, name)
        counter = cells.statuses.get(status)
        if counter is None:
            counter = self._measures.upstream_requests.child(name, str(status) if status else "none")
            cells.statuses[status] = counter
        return counter, cells.latency.observe

    def _open_kind(self, key: _Key, call: Call, ending: str) -> _Kind:
        kind = _Kind(self._measures, call, ending)
        if len(call.model) <= _MODEL_LIMIT:
            if len(self._kinds) >= KINDS_LIMIT:
                self._kinds.clear()
            self._kinds[key] = kind
        return kind

    def _open_attempts(self, kind: _Kind, attempt: Attempt, status: int) -> tuple[Counter, Callable[[float], None]]:
        kind.attempts = attempts = self._of_attempts(attempt.peer.backend.name, status)
        return attempts

    def _open_tokens(self, kind: _Kind, route: Route | None) -> tuple[Counter, Counter, Counter]:
        child = self._measures.tokens.child
        label = route.label if route is not None else OTHER
        kind.tokens = tokens = (child(label, "prompt"), child(label, "completion"), child(label, "cached"))
        return tokens


def _nothing(error: Exception) -> None:
    """Nobody is told."""


def _describe(call: Call, ending: str) -> Description:
    peer, principal, fault = call.peer, call.principal, call.fault
    return Description(
        call.address,
        principal.name if principal is not None else None,
        _METHODS.get(call.request.method, "other"),
        call.endpoint.path,
        _shown_model(call),
        call.route.serves or None if call.route is not None else None,
        peer.backend.name if peer is not None else None,
        peer.url if peer is not None else None,
        call.status,
        ending,
        fault.kind.code if fault is not None else None,
        call.stream,
        _translated(call),
    )


def _translated(call: Call) -> str | None:
    """Told from what calls of one kind share: what `router` made of this one may be a fallback's that was not asked."""
    endpoint, route = call.endpoint, call.route
    if route is None or call.peer is None or endpoint.client is None or endpoint in route.speech.native:
        return None
    return f"{endpoint.dialect.name}>{route.speech.family}"


def _shown_model(call: Call) -> str:
    """A model that is named in the configuration as it is; any other is the client's text."""
    model = call.model
    if call.route is not None and call.route.label == model:
        return model
    return str(redact(model[:_MODEL_LIMIT]))
