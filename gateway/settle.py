"""Settling: what is counted and written when a call or an attempt is over, exactly once each.

Owns the access line and the counters of calls and attempts. Calls that are over wait here to be counted together, at
most `BATCH` of them and no longer than to the next sweep. It refuses to decide anything about the call (`gateway.proxy`
did). One Settler is made per worker by `gateway.build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import time_ns
from typing import Final

import msgspec

from gateway.call import PHASE_MOVES, SETTLED, Attempt, Call
from gateway.clock import monotonic_ns
from gateway.errors import Fault
from gateway.observe.access import AccessLog
from gateway.observe.counters import OTHER, Counter, Histogram, Measures
from gateway.observe.logs import Stamp, redact
from gateway.routing.endpoints import Endpoint
from gateway.routing.peer import Peer
from gateway.routing.retry import cause_of
from gateway.routing.route import Route
from protocols.openai.usage import Usage

#: Methods that get a label of their own; clients choose the others.
_METHODS: Final = {
    method.encode("ascii"): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_SECONDS: Final = 1e-9
#: Calls counted at once: so many that the code runs warm, so few that what is left of them stays in the cache.
BATCH: Final = 64
#: Characters of a model's name that are logged where the name is the client's text.
_MODEL_LIMIT: Final = 256


#: A call that is over, its last attempt if that is not yet counted, its ending, and when it was over.
_Over = tuple[Call, Attempt | None, str, int]


class AccessLine(msgspec.Struct):
    """The line that every call leaves. Durations are whole microseconds, -1 where a phase was never reached.

    t_read: from the first byte of the request to the last. t_admit: until the first attempt. t_connect: until the
    request was sent, 0 on a reused connection, failed attempts included. t_head: until the answer's head. t_first:
    until its first payload. t_body: until the end. t_total: from first byte to end.
    """

    ts: str
    level: str
    msg: str
    request_id: str
    trace_id: str
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


class _Cells:
    """The counters of one backend, looked up once."""

    __slots__ = ("chunks", "first_token", "latency", "statuses")

    def __init__(self, measures: Measures, name: str) -> None:
        self.latency = measures.upstream_latency.child(name)
        self.first_token = measures.time_to_first_token.child(name)
        self.chunks = measures.stream_chunks.child(name)
        self.statuses: dict[int, Counter] = {}


class Settler:
    """Counts attempts and calls. *access* is None where access lines are not written."""

    __slots__ = (
        "_access",
        "_by_door",
        "_endings",
        "_measures",
        "_over",
        "_overhead",
        "_stamp",
        "_tokens",
        "_upstreams",
    )

    def __init__(self, measures: Measures, access: AccessLog | None, stamp: Stamp) -> None:
        self._measures = measures
        self._access = access
        self._stamp = stamp
        self._overhead = measures.overhead
        #: Not yet counted.
        self._over: list[_Over] = []
        if access is not None:
            access.gather = self.count
        # Children that were looked up before; bounded, because doors, statuses, models and backends are.
        self._by_door: dict[tuple[Endpoint, bytes, int], tuple[Counter, Histogram]] = {}
        self._tokens: dict[str, tuple[Counter, Counter, Counter]] = {}
        self._upstreams: dict[str, _Cells] = {}
        self._endings = {"--": measures.endings.child("--")}

    def forget_doors(self) -> None:
        """Doors are another configuration's from now on."""
        self.count()
        self._by_door.clear()

    def retried(self, peer: Peer, fault: Fault) -> None:
        """A call goes on after *fault* at *peer*."""
        self._measures.retries.child(peer.backend.name, str(cause_of(fault))).value += 1

    def fell_back(self, former: Route, fallback: Route) -> None:
        """A call goes on under *fallback*."""
        self._measures.fallback_used.child(former.label, fallback.serves).value += 1

    def cooled_down(self, peer: Peer) -> None:
        """*peer* is set aside for a while."""
        self._measures.peer_cooldowns.child(peer.backend.name, peer.url).value += 1

    def attempted(self, attempt: Attempt, now: int = 0) -> None:
        """One attempt is over, however it ended."""
        name = attempt.peer.backend.name
        cells = self._upstreams.get(name) or self._open_cells(name)
        response = attempt.response
        status = response.status if response is not None else 0
        counter = cells.statuses.get(status)
        if counter is None:
            counter = self._measures.upstream_requests.child(name, str(status) if status else "none")
            cells.statuses[status] = counter
        counter.value += 1
        cells.latency.observe(((now or monotonic_ns()) - attempt.at_begin) * _SECONDS)

    def settle(self, call: Call, attempt: Attempt | None = None) -> None:
        """The call is over, with its last *attempt* if that is not counted yet. A second time is a bug and raises.

        It is counted, and its line written, together with others: soon (`count`), and at a lower price than alone.
        """
        ending = "--" if call.fault is None else call.ending
        call.phase = PHASE_MOVES[call.phase][SETTLED]
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
        for call, attempt, ending, now in over:
            if attempt is not None:
                self.attempted(attempt, now)
            (self._endings.get(ending) or self._open_ending(ending)).value += 1
            key = (call.endpoint, call.request.method, call.status)
            counter, latency = self._by_door.get(key) or self._open_door(key)
            counter.value += 1
            latency.observe((now - (call.at_begin or call.at_start)) * _SECONDS)
            if call.at_first:
                self._overhead.observe((call.at_attempt - call.at_begin) * _SECONDS)
                if call.chunks:
                    self._count_stream(call)
                if call.usage is not None:
                    self._count_tokens(call, call.usage)
        if self._access is not None:
            self._access.add(self._lines(over))

    def _lines(self, over: Sequence[_Over]) -> list[AccessLine]:
        """The lines of calls that are over; those that ended in the same millisecond share its text."""
        epoch = time_ns() - monotonic_ns()
        last, stamp = -1, ""
        lines = []
        for call, _, ending, now in over:
            milli = (now + epoch) // 1_000_000
            if milli != last:
                last = milli
                stamp = self._stamp.of((milli + 0.5) / 1000)  # its middle: no rounding leads out of it
            lines.append(_line(call, ending, now, stamp))
        return lines

    def _count_stream(self, call: Call) -> None:
        if call.peer is not None:
            cells = self._upstreams[call.peer.backend.name]
            cells.chunks.value += call.chunks
            cells.first_token.observe((call.at_first - call.at_begin) * _SECONDS)

    def _count_tokens(self, call: Call, usage: Usage) -> None:
        label = call.route.label if call.route is not None else OTHER
        prompt, completion, cached = self._tokens.get(label) or self._open_tokens(label)
        prompt.value += usage.prompt
        completion.value += usage.completion
        cached.value += usage.cached

    # Children of families, looked up once.

    def _open_cells(self, name: str) -> _Cells:
        cells = self._upstreams[name] = _Cells(self._measures, name)
        return cells

    def _open_ending(self, ending: str) -> Counter:
        counter = self._endings[ending] = self._measures.endings.child(ending)
        return counter

    def _open_tokens(self, label: str) -> tuple[Counter, Counter, Counter]:
        child = self._measures.tokens.child
        tokens = (child(label, "prompt"), child(label, "completion"), child(label, "cached"))
        self._tokens[label] = tokens
        return tokens

    def _open_door(self, key: tuple[Endpoint, bytes, int]) -> tuple[Counter, Histogram]:
        endpoint, raw, status = key
        method = _METHODS.get(raw, "other")
        counter = self._measures.requests.child(method, endpoint.path, str(status))
        cells = self._by_door[key] = (counter, self._measures.request_latency.child(method, endpoint.path))
        return cells


def _line(call: Call, ending: str, now: int, stamp: str) -> AccessLine:
    """*now*: when the call was over; *stamp*: the same as text."""
    peer, principal, fault, usage = call.peer, call.principal, call.fault, call.usage
    start, begin, attempt, sent = call.at_start, call.at_begin, call.at_attempt, call.at_sent
    head, first = call.at_head, call.at_first
    return AccessLine(
        stamp,
        "info",
        "call",
        call.id.decode("ascii"),
        call.trace.decode("ascii"),
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


def _shown_model(call: Call) -> str:
    """A model that is named in the configuration as it is; any other is the client's text."""
    model = call.model
    if call.route is not None and call.route.label == model:
        return model
    return str(redact(model[:_MODEL_LIMIT]))
