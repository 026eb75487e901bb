"""The composition root: a `Config` made into live objects, and another one in its place.

Owns the wiring, and nothing that happens afterwards. Called by `gateway.worker`.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from gateway import __version__
from gateway.admission.budget import ByteBudget
from gateway.arrival import Arrivals
from gateway.clients import Clients
from gateway.clock import Clock, monotonic_ns
from gateway.config import schema
from gateway.estate import Estate
from gateway.generation import Generation
from gateway.memory import Resident, allowed
from gateway.observe.access import AccessLog, outlet
from gateway.observe.counters import Measures
from gateway.observe.exposition import collectors
from gateway.observe.logs import Level, Log, Stamp
from gateway.observe.processes import HostProcesses
from gateway.observe.rows import HostPeers, HostRows
from gateway.observe.shared import SharedCounts
from gateway.overload import Bounds, Overload
from gateway.page import BEAT, CONNECTIONS, GENERATION, LAG, LEAVING, MEMORY, PID, STATE, Seat, alone
from gateway.proxy import Proxy
from gateway.pulse import told_apart
from gateway.settle import Settler
from gateway.upstream.discovery import Discovery
from gateway.upstream.pool import Pool

#: A worker sheds connections above this multiple of the mean, and never below so many.
SKEW: Final = 1.5
SKEW_FLOOR: Final = 16
#: Sweeps in a row that have to find it so: each worker tells its number once a sweep, so of a burst of new connections
#: the first to tell seems to have them all.
SKEW_SWEEPS: Final = 10


class Gateway:
    """The live objects of one worker, as `gateway.worker` starts and ends them."""

    def __init__(self, config: schema.Config, seat: Seat | None = None, generation: int = 1) -> None:
        # process
        self.seat = seat = seat or alone()
        self.measures = Measures(__version__)
        self.shared = SharedCounts(seat, self.measures.registry, lambda: Measures(__version__).registry)
        peers = HostPeers(lambda: self.estate.healthy(), lambda: self.estate.told())
        self.system = collectors(HostProcesses(self._pids), HostRows(seat), peers)
        self.clock = Clock()
        #: Sweeps in a row that found far more connections here than elsewhere.
        self._skewed = 0
        self.lines = _lines(config.logging, self.measures)
        stamp = Stamp()
        level = Level[config.logging.level.upper()]
        self.log = Log(self.lines, level, stamp)
        self.budget = ByteBudget(config.server.body_budget)
        self.estate = Estate(self.measures, self.clock, self.log, seat)
        self.settler = Settler(self.measures, self.lines if level <= Level.INFO else None, stamp)
        self.estate.on_reroute = self.settler.forget_doors
        # generation
        self.generation = now = Generation(generation, config, self, None)
        routes = now.upstreams.routes
        self.proxy = Proxy(routes, self.estate.standing, self.settler, self.clock, self.estate.crashed)
        self.clients = Clients(now.front, self.proxy, now.limits, self.budget, now.fields, self.clock, self.log)
        self.arrivals = Arrivals(self.clients, self.measures.connections_failed, now.terms)
        self.overload = Overload(self.clients, self.clock, Resident(), self.measures.shed, self.log)
        self._begin(now)
        self._watch()

    def adopt(self, number: int, config: schema.Config) -> list[Discovery]:
        """Serve new calls under *config*; running ones keep what they began with.

        Returns the discoveries that have ended with the former configuration; the caller starts the new ones
        (`discoveries`). Raises OSError or ValueError where *config* cannot be served: then nothing has changed. What is
        raised from the first change on is a bug of ours; whoever calls has this worker replaced.
        """
        former = self.generation
        try:
            now = Generation(number, config, self, former.upstreams.routes)
        except Exception:
            self.estate.recount()
            raise
        self.settler.forget_doors()
        self.budget.limit = config.server.body_budget
        self.proxy.router.routes = now.upstreams.routes
        self.clients.adopt(now.front, now.limits, now.fields)
        self.arrivals.terms = now.terms
        self._begin(now)
        return former.upstreams.discoveries

    def _begin(self, generation: Generation) -> None:
        self.generation = generation
        self.seat.row.cells[GENERATION] = generation.number
        self.overload.bounds = _bounds(generation.config.overload, self.seat.workers)
        self.estate.take_over(generation.upstreams)

    def retire(self) -> None:
        """Others take the new connections; each client that is here is answered once more."""
        self.seat.row.cells[STATE] = LEAVING
        self.clients.wear_out()

    def accept(self) -> asyncio.Protocol:
        """The protocol of a socket that was accepted."""
        return self.arrivals.connection() if self.arrivals.terms.asked else self.clients.connection()

    def descriptors(self, entering: int) -> int:
        """File descriptors that connections take or may take; *entering* clients may not be among the open ones yet.

        Each client may send a request, which may take a connection to an upstream that none of the idle ones leads to.
        """
        clients = entering + len(self.clients.open) + len(self.arrivals.open)
        idle = sum(len(pool.idle) for pool in self.pools)
        return clients + max(clients, sum(len(pool.all) for pool in self.pools) - idle) + idle

    def make_room(self, wanted: int) -> None:
        """Close some *wanted* connections that are idle: those to upstreams, and where there are none, clients'."""
        dropped = 0
        for pool in self.pools:
            dropped += pool.drop_idle(wanted - dropped)
        if not dropped:
            self.clients.make_room(wanted)

    def _pids(self) -> list[int]:
        """The supervisor's and every worker's; this process's alone where there is no supervisor."""
        page, row, _ = self.seat
        if not row.cells[PID]:
            return [os.getpid()]
        return [os.getppid(), row.cells[PID], *(other.cells[PID] for other in page.neighbours(row))]

    @property
    def pools(self) -> list[Pool]:
        """Every one that may have a connection, of former configurations too."""
        return self.estate.pools

    @property
    def discoveries(self) -> list[Discovery]:
        return self.generation.upstreams.discoveries

    def _watch(self) -> None:
        """Let gauges and sweeps see the live objects."""
        measures, clock = self.measures, self.clock
        measures.in_flight.watch(lambda: len(self.proxy.active))
        measures.client_connections.watch(lambda: len(self.clients.open) + len(self.arrivals.open))
        measures.unshared_peers.watch(lambda: self.estate.unshared)
        measures.body_budget.watch(lambda: self.budget.used)
        self.shared.on_full = lambda family: self.log.warning(
            'the shared page is full: further label sets are counted as "other"', family=family
        )
        self.settler.on_error = lambda error: self.log.raised("a call could not be counted", error)
        clock.on_error = lambda error: self.log.raised("a sweep raised", error)
        clock.on_lag = measures.loop_lag.observe
        clock.every_sweep(self.proxy.sweep)
        clock.every_sweep(self.clients.sweep)
        clock.every_sweep(self.arrivals.sweep)
        clock.every_sweep(self.estate.sweep)
        clock.every_sweep(self.estate.resolver.sweep)
        clock.every_sweep(lambda now: self.publish())
        clock.every_sweep(lambda now: self.lines.flush())
        clock.every_sweep(self.estate.loads.sweep)
        clock.every_sweep(self.estate.host.sweep)
        clock.every_sweep(self.overload.sweep)
        clock.every_sweep(self._report)
        clock.every_sweep(self.estate.prober.sweep)
        clock.every_sweep(self.estate.scraper.sweep)
        clock.every_sweep(self._even_out)

    def publish(self) -> None:
        """Let the page have all that was counted: at each sweep, and at the end, or that of the last one were lost."""
        self.settler.count()
        self.measures.registry.fold()
        self.shared.publish()

    def _report(self, now: float) -> None:
        """Tell the others that the loop turns, how late, and what memory is used."""
        cells = self.seat.row.cells
        cells[LAG] = int(self.clock.lag * 1e9)
        cells[BEAT] = monotonic_ns()
        cells[MEMORY] = self.overload.used

    def _even_out(self, now: float) -> None:
        """Tell the others how many connections this worker has, and shed some where it has far more than they."""
        row = self.seat.row
        row.cells[CONNECTIONS] = own = len(self.clients.open)
        if self.seat.workers == 1 or own <= SKEW_FLOOR:
            self._skewed = 0
            return
        turning, _ = told_apart(self.seat)  # clients that come back must not come to one that hangs
        others = [one.cells[CONNECTIONS] for one in turning if one.number != row.number]
        fair = (own + sum(others)) / (1 + len(others))
        self._skewed = self._skewed + 1 if own > SKEW * fair else 0
        if self._skewed >= SKEW_SWEEPS:
            self.clients.shed(int(own - fair))


def _bounds(overload: schema.Overload, workers: int) -> Bounds:
    return Bounds(overload.memory_limit or allowed() // workers, overload.max_lag)


def _lines(logging: schema.Logging, measures: Measures) -> AccessLog:
    outlets = [outlet(name) for name in logging.output]
    return AccessLog(outlets, logging.buffer, logging.format, measures.access_dropped)
