"""What the gateway counts: plain cells that cost a fraction of a microsecond, in families of bounded size.

Owns `Counter`, `Gauge`, `Histogram`, `Family`, `Registry` and `Measures`, the gateway's own families. It
refuses to write text (`exposition`) and to decide when something is counted. A `Measures` is made once per
process by `build`; callers keep the children that they need, so that no label is looked up on the hot path.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, Generic, TypeVar

#: Label sets per family. Prometheus itself suffers long before; the paths, models and upstreams of a large
#: installation make a few hundred, so whatever passes this was made by clients.
FAMILY_LIMIT: Final = 1000

#: The value of every label of the child that takes what no longer has a child of its own.
OTHER: Final = "other"

# Names that every scraper takes, and label names that are not the format's own.
NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
RESERVED: Final = frozenset({"le", "quantile"})

#: Seconds. A cached embedding takes a millisecond, a long reasoning stream ten minutes.
LATENCY_BOUNDS: Final[tuple[float, ...]] = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)

#: Seconds. The gateway's own share of a call: tens of microseconds when all is well, a second when it is ill.
OVERHEAD_BOUNDS: Final[tuple[float, ...]] = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)

#: Seconds. 2 ms is a bound of its own because the promise about the loop is made at 2 ms.
LAG_BOUNDS: Final[tuple[float, ...]] = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)


#: Counted by the supervisor, which has none of what is below.
RESTARTS: Final = "gateway_worker_restarts_total"


class Type(Enum):
    """What a family's children are; the value is Prometheus's word for it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Restart(Enum):
    """Why a worker was started anew, outside of an upgrade."""

    #: It ended by itself, or somebody ended it.
    DIED = "died"
    #: It did not get ready.
    START = "start"
    #: Its loop did not turn any more.
    HUNG = "hung"
    #: It did not take a configuration over.
    RELOAD = "reload"


class Counter:
    """A sum that never falls. The hot path may write `counter.value += 1`: one thread only, the loop's."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, n: int = 1) -> None:
        self.value += n


class Gauge:
    """A level: set in `value`, or read from live objects at each scrape. With both, their sum is shown."""

    __slots__ = ("_reads", "value")

    def __init__(self) -> None:
        self.value: float = 0.0
        self._reads: tuple[Callable[[], float], ...] = ()

    def watch(self, read: Callable[[], float]) -> None:
        """Add what *read* returns at each scrape to the level. Called again, it adds another."""
        self._reads = (*self._reads, read)

    def read(self) -> float:
        return self.value + sum(read() for read in self._reads)


class Histogram:
    """How many values fell where: `hits[i]` are those above bounds[i - 1] and up to bounds[i].

    `observe(value)` only keeps the value; `fold` sorts what was kept into the buckets, at every sweep and scrape, so
    that the hot path pays for one append and the sorting runs for many values at once. `total` is the sum of all.
    """

    __slots__ = ("_count", "_hits", "_samples", "_total", "bounds", "observe")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._hits = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._count = 0
        self._samples: list[float] = []
        self.observe = self._samples.append

    def fold(self) -> None:
        """Sort the values kept since the last time into the buckets."""
        samples = self._samples
        if samples:
            hits = self._hits
            samples.sort()  # in one go, which costs a tenth of a search for each value
            begin = 0
            for at, bound in enumerate(self.bounds):
                end = bisect_right(samples, bound, begin)
                hits[at] += end - begin
                begin = end
                if end == len(samples):
                    break
            else:
                hits[-1] += len(samples) - begin
            self._total += sum(samples)
            self._count += len(samples)
            samples.clear()

    def add(self, hits: list[int], total: float) -> None:
        """Add what was counted elsewhere."""
        self._hits = [mine + theirs for mine, theirs in zip(self._hits, hits, strict=True)]
        self._total += total
        self._count += sum(hits)

    @property
    def hits(self) -> list[int]:
        self.fold()
        return self._hits

    @property
    def total(self) -> float:
        self.fold()
        return self._total

    @property
    def count(self) -> int:
        self.fold()
        return self._count


Child = TypeVar("Child", bound="Counter | Gauge | Histogram")


class Family(Generic[Child]):
    """One metric: its name and labels, and a child for each set of label values, at most *limit* of them."""

    def __init__(
        self,
        name: str,
        help: str,
        type: Type,
        labels: tuple[str, ...],
        make: Callable[[], Child],
        folded: Counter | None = None,
        limit: int = FAMILY_LIMIT,
        shared: bool = True,
    ) -> None:
        # given
        #: Whether the workers' values are added up; if not, each shows its own, which is the same for all.
        self.shared = shared
        self.name = name
        self.help = help
        self.type = type
        self.labels = labels
        self._make = make
        self._folded = folded
        self._limit = limit
        # grows while the process lives
        self.children: dict[tuple[str, ...], Child] = {}

    def child(self, *labels: str) -> Child:
        """The child for these label values, made on first use; past the limit, the one called "other".

        A wrong number of labels raises ValueError.
        """
        found = self.children.get(labels)
        return found if found is not None else self._admit(labels)

    def watch(self: Family[Gauge], labels: tuple[str, ...], read: Callable[[], float]) -> None:
        """Let the gauge for *labels* show what *read* returns at each scrape (see `Gauge.watch`)."""
        self.child(*labels).watch(read)

    def _admit(self, labels: tuple[str, ...]) -> Child:
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(labels)} of them")
        other = (OTHER,) * len(self.labels)
        # The last place is kept for "other", so the limit holds with it.
        if labels != other and len(self.children) >= self._limit - (other not in self.children):
            if self._folded is not None:
                self._folded.value += 1
            return self.child(*other)
        made = self.children[labels] = self._make()
        return made

    def __repr__(self) -> str:
        return f"<Family {self.type.value} {self.name} {len(self.children)}/{self._limit}>"


AnyFamily = Family[Counter] | Family[Gauge] | Family[Histogram]


class Registry:
    """The families of one process, in the order shown. A bad or repeated name raises ValueError."""

    def __init__(self, limit: int = FAMILY_LIMIT) -> None:
        self._limit = limit
        self._families: dict[str, AnyFamily] = {}
        self._histograms: list[Family[Histogram]] = []
        self._folded = self.counter(
            "gateway_metrics_folded_total", 'Label sets that were counted as "other": too many.', ("family",)
        )

    @property
    def families(self) -> Iterable[AnyFamily]:
        return self._families.values()

    def folded(self, family: str) -> None:
        """Count a label set of *family* that found no place of its own."""
        self._folded.child(family).value += 1

    def fold(self) -> None:
        """Fold every histogram; called at each sweep, so that what they keep is bounded by its interval."""
        for family in self._histograms:
            for histogram in family.children.values():
                histogram.fold()

    def counter(self, name: str, help: str, labels: tuple[str, ...] = ()) -> Family[Counter]:
        if not name.endswith("_total"):
            raise ValueError(f"{name}: a counter's name ends in _total")
        family = Family(name, help, Type.COUNTER, labels, Counter, self._fold(name, labels), self._limit)
        self._add(family)
        return family

    def gauge(self, name: str, help: str, labels: tuple[str, ...] = (), *, shared: bool = True) -> Family[Gauge]:
        family = Family(name, help, Type.GAUGE, labels, Gauge, self._fold(name, labels), self._limit, shared)
        self._add(family)
        return family

    def histogram(
        self, name: str, help: str, bounds: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Family[Histogram]:
        """*bounds* rise, and +Inf is not among them: it is always there."""
        if not bounds or list(bounds) != sorted({*bounds} - {math.inf}):
            raise ValueError(f"{name}: bounds must rise and be finite")
        folded = self._fold(name, labels)
        family = Family(name, help, Type.HISTOGRAM, labels, lambda: Histogram(bounds), folded, self._limit)
        self._add(family)
        self._histograms.append(family)
        return family

    def _fold(self, name: str, labels: tuple[str, ...]) -> Counter | None:
        # The family that counts foldings has one label set per family and needs no such counter itself.
        return self._folded.child(name) if labels and self._families else None

    def _add(self, family: AnyFamily) -> None:
        for word in (family.name, *family.labels):
            if NAME.fullmatch(word) is None:
                raise ValueError(f"{word!r} is no name for a metric or a label")
        for label in family.labels:
            if label in RESERVED or label.startswith("__"):
                raise ValueError(f"{label!r} is a label of Prometheus's own")
        if family.name in self._families:
            raise ValueError(f"{family.name} is counted twice")
        self._families[family.name] = family


class Measures:
    """Everything that the gateway counts: families where there are labels, else the one child itself.

    Gauges over live objects are watched, not set: `upstream_connections.watch((name, "idle"), read)`.
    """

    def __init__(self, version: str) -> None:
        self.registry = registry = Registry()
        self._clients(registry)
        self._upstreams(registry)
        self._house(registry)
        build = registry.gauge(
            "gateway_build_info", "Always 1; its label tells the version.", ("version",), shared=False
        )
        build.child(version).value = 1.0

    def _clients(self, registry: Registry) -> None:
        self.requests = registry.counter(
            "gateway_requests_total", "Answered client requests.", ("method", "path", "status")
        )
        self.request_latency = registry.histogram(
            "gateway_request_latency_seconds",
            "From the last byte of a request to the last byte of its answer.",
            LATENCY_BOUNDS,
            ("method", "path"),
        )
        self.in_flight = registry.gauge("gateway_in_flight_requests", "Requests now being served.").child()
        self.client_connections = registry.gauge("gateway_client_connections", "Open client connections.").child()
        self.connections_failed = registry.counter(
            "gateway_client_connections_failed_total",
            "Connections that ended before a request could be read: in the PROXY header or the TLS handshake.",
            ("reason",),
        )
        self.tokens = registry.counter(
            "gateway_tokens_total", "Tokens that upstreams reported as used.", ("model", "kind")
        )
        self.endings = registry.counter(
            "gateway_endings_total", "Calls by how they ended: who ended them, in which phase.", ("ending",)
        )

    def _upstreams(self, registry: Registry) -> None:
        self.upstream_requests = registry.counter(
            "gateway_upstream_requests_total", "Attempts at upstreams.", ("upstream", "status")
        )
        self.upstream_latency = registry.histogram(
            "gateway_upstream_latency_seconds",
            "From the start of an attempt to the last byte of its answer.",
            LATENCY_BOUNDS,
            ("upstream",),
        )
        self.time_to_first_token = registry.histogram(
            "gateway_time_to_first_token_seconds",
            "From the last byte of a request to the first event of a streamed answer.",
            LATENCY_BOUNDS,
            ("upstream",),
        )
        self.stream_chunks = registry.counter(
            "gateway_stream_chunks_total", "Pieces of streamed answers relayed.", ("upstream",)
        )
        self.upstream_connections = registry.gauge(
            "gateway_upstream_connections",
            "Upstream connections: idle, busy or connecting.",
            ("upstream", "state"),
        )
        self.retries = registry.counter(
            "gateway_retries_total", "Attempts after the first of a call.", ("upstream", "reason")
        )
        self.fallback_used = registry.counter(
            "gateway_fallback_used_total", "Calls that went on under a fallback.", ("from_model", "to_model")
        )
        self.peer_cooldowns = registry.counter(
            "gateway_peer_cooldowns_total",
            "Times a peer was set aside after a failure.",
            ("upstream", "endpoint"),
        )
        self.circuit_open = registry.counter(
            "gateway_circuit_open_total", "Times a peer's circuit opened.", ("upstream",)
        )
        self.unshared_peers = registry.gauge(
            "gateway_unshared_peers",
            "Peers that a worker balances and judges alone, of all workers: there was no room on the shared page.",
        ).child()
        self.dns_lookups = registry.counter(
            "gateway_dns_lookups_total", "Lookups of upstreams' names, by what came of them.", ("result",)
        )

    def _house(self, registry: Registry) -> None:
        self.overhead = registry.histogram(
            "gateway_overhead_seconds", "The gateway's own part of a call's time.", OVERHEAD_BOUNDS
        ).child()
        self.loop_lag = registry.histogram(
            "gateway_loop_lag_seconds", "How late the event loop woke up for a timer.", LAG_BOUNDS
        ).child()
        self.body_budget = registry.gauge(
            "gateway_body_budget_bytes", "Bytes of request bodies now held in memory."
        ).child()
        self.shed = registry.counter(
            "gateway_shed_total",
            "Calls refused for want of memory or for the loop's lag, and the largest, ended for want of memory.",
            ("reason",),
        )
        self.worker_restarts = registry.counter(
            RESTARTS, "Workers that were started anew, outside of an upgrade, and why.", ("reason",)
        )
        for why in Restart:
            self.worker_restarts.child(why.value)  # shown before it happens, and counted by the supervisor
        self.accept_pauses = registry.counter(
            "gateway_accept_pauses_total", "Times that accepting paused since too few file descriptors were left."
        ).child()
        self.access_dropped = registry.counter(
            "gateway_access_dropped_total",
            "Log lines lost: too many were waiting, or they could not be written.",
        ).child()
