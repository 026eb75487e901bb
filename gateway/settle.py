"""Settling: what is counted and written when a call or an attempt is over, exactly once each.

Owns the access line and the counters of calls and attempts. It refuses to decide anything about the call
(`gateway.proxy` did). One Settler is made per worker by `gateway.build`.
"""

from __future__ import annotations

from gateway.call import Attempt, Call, Phase
from gateway.clock import monotonic
from gateway.errors import Fault
from gateway.observe.access import AccessLog
from gateway.observe.counters import Counter, Histogram, Measures
from gateway.observe.logs import Stamp
from gateway.routing.endpoints import Endpoint
from gateway.routing.peer import Peer

#: Methods that get a label of their own; clients choose the others.
_METHODS = {method.encode("ascii"): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}


class _UpstreamCells:
    """The counters of one backend, looked up once."""

    __slots__ = ("chunks", "first_token", "latency", "name", "statuses")

    def __init__(self, measures: Measures, name: str) -> None:
        self.name = name
        self.latency = measures.upstream_latency.child(name)
        self.first_token = measures.time_to_first_token.child(name)
        self.chunks = measures.stream_chunks.child(name)
        self.statuses: dict[int, Counter] = {}


class Settler:
    """Counts attempts and calls. *access* is None where access lines are not written."""

    __slots__ = ("_access", "_by_door", "_endings", "_measures", "_stamp", "_tokens", "_upstreams")

    def __init__(self, measures: Measures, access: AccessLog | None, stamp: Stamp) -> None:
        self._measures = measures
        self._access = access
        self._stamp = stamp
        # Children that were looked up before; bounded, because doors, statuses, models and backends are.
        self._by_door: dict[tuple[Endpoint, bytes, int], tuple[Counter, Histogram]] = {}
        self._tokens: dict[str, tuple[Counter, Counter, Counter]] = {}
        self._upstreams: dict[str, _UpstreamCells] = {}
        self._endings: dict[str, Counter] = {}

    def retried(self, peer: Peer, fault: Fault) -> None:
        """A call goes on after *fault* at *peer*."""
        self._measures.retries.child(peer.backend.name, fault.retry.name.lower()).value += 1

    def attempted(self, attempt: Attempt) -> None:
        """One attempt is over, however it ended."""
        cells = self._cells(attempt.peer.backend.name)
        status = attempt.response.status if attempt.response is not None else 0
        counter = cells.statuses.get(status)
        if counter is None:
            counter = self._measures.upstream_requests.child(cells.name, str(status) if status else "none")
            cells.statuses[status] = counter
        counter.value += 1
        cells.latency.observe(monotonic() - attempt.at_begin)

    def settle(self, call: Call) -> None:
        """The call is over: count it and write its line. A second time is a bug and raises (`Call.move`)."""
        now = monotonic()
        ending = call.ending
        call.move(Phase.SETTLED)
        request = call.request
        key = (call.endpoint, request.method, call.status)
        cells = self._by_door.get(key)
        if cells is None:
            cells = self._by_door[key] = self._look_up(key)
        cells[0].value += 1
        cells[1].observe(now - (call.at_begin or call.at_start))
        counter = self._endings.get(ending)
        if counter is None:
            counter = self._endings[ending] = self._measures.endings.child(ending)
        counter.value += 1
        if call.peer is not None:
            self._count_upstream(call, now)
        if self._access is not None:
            self._access.record(self._line(call, ending, now))

    def _count_upstream(self, call: Call, now: float) -> None:
        assert call.peer is not None
        cells = self._cells(call.peer.backend.name)
        if call.events:
            cells.chunks.value += call.events
            cells.first_token.observe(call.at_first - call.at_begin)
        if call.at_first:
            self._measures.overhead.observe(call.overhead)
        usage = call.usage
        if usage is not None and call.route is not None:
            label = call.route.label
            tokens = self._tokens.get(label)
            if tokens is None:
                child = self._measures.tokens.child
                tokens = (child(label, "prompt"), child(label, "completion"), child(label, "cached"))
                self._tokens[label] = tokens
            tokens[0].value += usage.prompt
            tokens[1].value += usage.completion
            tokens[2].value += usage.cached

    def _cells(self, name: str) -> _UpstreamCells:
        cells = self._upstreams.get(name)
        if cells is None:
            cells = self._upstreams[name] = _UpstreamCells(self._measures, name)
        return cells

    def _look_up(self, key: tuple[Endpoint, bytes, int]) -> tuple[Counter, Histogram]:
        endpoint, raw, status = key
        method = _METHODS.get(raw, "other")
        counter = self._measures.requests.child(method, endpoint.path, str(status))
        return counter, self._measures.request_latency.child(method, endpoint.path)

    def _line(self, call: Call, ending: str, now: float) -> dict[str, object]:
        """The access line. Durations are seconds, -1 where a phase was never reached."""
        usage = call.usage
        fault = call.fault
        peer = call.peer
        request = call.request
        begin, attempt, sent, head, first = (
            call.at_begin,
            call.at_attempt,
            call.at_sent,
            call.at_head,
            call.at_first,
        )
        return {
            "ts": self._stamp(),
            "level": "info",
            "msg": "call",
            "request_id": call.id.decode("ascii"),
            "trace_id": call.trace.decode("ascii"),
            "client": call.client.address,
            "key": call.principal.name if call.principal is not None else None,
            "method": _METHODS.get(request.method, "other"),
            "path": call.endpoint.path,
            "model": call.model,
            "upstream": peer.backend.name if peer is not None else None,
            "endpoint": peer.url if peer is not None else None,
            "status": call.status,
            "ending": ending,
            "fault": fault.kind.code if fault is not None else None,
            "stream": call.stream,
            "tries": call.tries,
            "bytes_in": call.bytes_in,
            "bytes_out": call.bytes_out,
            "events": call.events,
            "prompt_tokens": usage.prompt if usage is not None else None,
            "completion_tokens": usage.completion if usage is not None else None,
            "cached_tokens": usage.cached if usage is not None else None,
            "t_read": round(begin - call.at_start, 6) if begin else -1,
            "t_admit": round(attempt - begin, 6) if attempt else -1,
            "t_queue": -1,
            "t_connect": round(sent - attempt, 6) if sent else -1,
            "t_head": round(head - sent, 6) if head else -1,
            "t_first": round(first - head, 6) if first else -1,
            "t_body": round(now - first, 6) if first else -1,
            "t_total": round(now - call.at_start, 6),
        }
