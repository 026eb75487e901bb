"""Names of upstreams and their addresses: asked in the background, again and again, and never waited for twice.

Owns `Resolver` and `Name`. It refuses the lookup itself (`lookup`), connections (`dial`) and what a change means for
peers (`gateway.upstreams` is told). One Resolver is made per worker by `gateway.estate.Estate` and swept by the
clock; only names that are configured are asked, each by one lookup at a time.

The system's resolver does not tell how long an answer holds, so a name is asked again at an interval of ours. What a
failed lookup leaves is the last answer, for as long as it takes: an outage of the DNS must not become one of the peers.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from gateway.clock import NEVER, Clock
from gateway.observe.counters import Counter, Family
from gateway.observe.logs import Log
from gateway.upstream.lookup import Answer, LookUp

#: Seconds after which a lookup counts as failed; its answer is taken all the same, should it come.
LOOKUP_TIME: Final = 5.0
#: Seconds until a name whose lookup failed is asked again, doubled up to its interval.
FIRST_WAIT: Final = 0.5
#: Gateways and workers that were started together should not ask together.
JITTER: Final = (0.9, 1.1)
#: Addresses of one name: each may become a peer, with a label of its own.
ADDRESSES_LIMIT: Final = 64

#: What a lookup comes to, as metrics tell it. "not_found": the name or its addresses do not exist.
ANSWERED, NOT_FOUND, FAILED, TIMEOUT = RESULTS = ("answered", "not_found", "failed", "timeout")
_FORGOTTEN: Final = socket.gaierror(socket.EAI_AGAIN, "the name is no longer configured")
_ABSENT: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class Name:
    """A host's name. `addresses` are those of the last answer, textual; empty before the first one."""

    __slots__ = (
        *("addresses", "asked", "capped", "due", "failures", "fault"),
        *("host", "known", "overdue", "refresh", "untold"),
    )

    def __init__(self, host: str) -> None:
        # configuration
        self.host = host
        #: Seconds between two lookups.
        self.refresh = NEVER
        # what is known
        self.addresses: tuple[str, ...] = ()
        #: Why the last lookup told nothing; None where it did.
        self.fault: socket.gaierror | None = None
        #: Set for ever once the first lookup has ended, however it did.
        self.known = asyncio.Event()
        #: Whether the last answer had too many addresses.
        self.capped = False
        #: Whether somebody has yet to act on the last change.
        self.untold = False
        # lookup
        #: Whether one runs, and the monotonic seconds at which it counts as failed: never, where it did already.
        self.asked = False
        self.overdue = NEVER
        #: Monotonic seconds of the next one.
        self.due = 0.0
        self.failures = 0

    async def resolved(self) -> tuple[str, ...]:
        """The addresses; waits for the first answer only. Raises socket.gaierror where there is none."""
        if not self.addresses:
            await self.known.wait()
        if not self.addresses:
            # Another one each time: a raised error keeps its frames alive.
            raise socket.gaierror(*(self.fault or _FORGOTTEN).args)
        return self.addresses

    def __repr__(self) -> str:
        return f"<Name {self.host} {' '.join(self.addresses)}>"


class Resolver:
    """*on_change* is called with a Name whose set of addresses is another one, before anybody is woken by it."""

    def __init__(
        self,
        look_up: LookUp,
        lookups: Family[Counter],
        clock: Clock,
        log: Log,
        on_change: Callable[[Name], None],
    ) -> None:
        # process
        self._look_up = look_up
        self._counts = {result: lookups.child(result) for result in RESULTS}
        self._clock = clock
        self._log = log
        self._on_change = on_change
        # by the present configuration
        self._names: dict[str, Name] = {}

    def name(self, host: str) -> Name:
        """The Name of *host*: the one that is kept up to date, or else a new one, which nobody asks before `keep`."""
        return self._names.get(host) or Name(host)

    def keep(self, names: Mapping[str, Name], refresh: Mapping[str, float]) -> None:
        """*names* are configured from now on, each with its interval; all others are forgotten."""
        for host, name in self._names.items():
            if host not in names:
                name.known.set()
        self._names = dict(names)
        for host, name in names.items():
            # A shorter interval counts at once, and what was put off after a failure stays put off no longer.
            name.due = min(name.due, self._clock.now + refresh[host])
            name.refresh = refresh[host]

    def sweep(self, now: float) -> None:
        """Ask the names whose time has come; give lookups up whose time is over."""
        for name in self._names.values():
            if name.asked:
                if now >= name.overdue:
                    name.overdue = NEVER
                    self._failed(name, TIMEOUT, socket.gaierror(socket.EAI_AGAIN, "no answer in time"))
            elif now >= name.due:
                name.asked = True
                name.overdue = now + LOOKUP_TIME
                self._look_up(name.host, partial(self._end, name))

    def _end(self, name: Name, answer: Answer) -> None:
        """A lookup has ended, in time or not."""
        in_time = name.overdue is not NEVER
        name.asked = False
        name.overdue = NEVER
        if self._names.get(name.host) is not name:
            return
        if isinstance(answer, socket.gaierror):
            if in_time:
                self._failed(name, NOT_FOUND if answer.errno in _ABSENT else FAILED, answer)
            else:
                self._put_off(name)
            return
        if in_time:
            self._counts[ANSWERED].inc()
        try:
            self._learn(name, answer)
        except Exception as error:  # a bug of ours: this runs in the loop, and the next answer tries again
            self._log.raised("a change of addresses could not be acted on", error, host=name.host)

    def _failed(self, name: Name, result: str, fault: socket.gaierror) -> None:
        self._counts[result].inc()
        if name.fault is None:
            kept = len(name.addresses)
            self._log.warning("a name is not resolved", host=name.host, reason=fault.strerror, addresses_kept=kept)
        name.fault = fault
        name.failures += 1
        self._put_off(name)
        name.known.set()

    def _put_off(self, name: Name) -> None:
        wait = min(name.refresh, FIRST_WAIT * 2.0 ** min(name.failures - 1, 16))
        name.due = self._clock.now + wait * random.uniform(*JITTER)

    def _learn(self, name: Name, found: tuple[str, ...]) -> None:
        if name.fault is not None:
            self._log.info("a name is resolved again", host=name.host)
        name.fault = None
        name.failures = 0
        name.due = self._clock.now + name.refresh * random.uniform(*JITTER)
        former = name.addresses
        name.addresses = now = self._bounded(name, found)
        added, removed = set(now) - set(former), set(former) - set(now)
        if added or removed:
            if former:
                news = {"added": ", ".join(sorted(added)), "removed": ", ".join(sorted(removed))}
                self._log.info("addresses changed", host=name.host, **news)
            name.untold = True
        try:
            if name.untold:
                self._on_change(name)
                name.untold = False
        finally:
            name.known.set()  # there are addresses: nobody waits on

    def _bounded(self, name: Name, found: tuple[str, ...]) -> tuple[str, ...]:
        """*found* with the addresses that stay in front, in the order in which they were: it means nothing else."""
        kept = [address for address in name.addresses if address in found]
        fresh = [address for address in found if address not in name.addresses]
        capped = len(found) > ADDRESSES_LIMIT
        if capped:
            fresh.sort()  # answers are shuffled: other workers should choose the same ones
            if not name.capped:
                self._log.warning("a name has too many addresses", host=name.host, used=ADDRESSES_LIMIT, of=len(found))
        name.capped = capped
        return tuple((kept + fresh)[:ADDRESSES_LIMIT])
