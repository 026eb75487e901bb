"""The workers as their parent sees them: started, restarted, replaced, buried.

Owns the children and when the next one is due. It refuses to decide what they serve and when all leave
(`gateway.supervisor`, which makes one), and to fork by itself (`gateway.forks`).
"""

from __future__ import annotations

import enum
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from gateway.channel import Adopt, Channel, Leave, Message
from gateway.forks import Forks
from gateway.observe.counters import Restart
from gateway.observe.shared import bury, count_restart
from gateway.page import BEAT, PID, Page, PageError, Row
from gateway.vigil import Vigil, told_of

#: Seconds until a dead worker is replaced: doubled with each death in a row, up to the limit.
BACK_OFF: Final = 0.05
BACK_OFF_LIMIT: Final = 2.0
#: A worker that lived so many seconds was not ill from birth.
WELL_AFTER: Final = 5.0
#: Seconds in which a worker must get ready.
START_TIME: Final = 30.0
#: Seconds in which a child must do what takes it milliseconds, and end beyond the time that it was given.
PATIENCE: Final = 10.0


class Tell(Protocol):
    """The log of the supervisor."""

    def info(self, text: str, /, **fields: object) -> None: ...
    def warning(self, text: str, /, **fields: object) -> None: ...


class Life(enum.Enum):
    STARTING = enum.auto()
    SERVING = enum.auto()
    #: It was told to leave.
    LEAVING = enum.auto()
    #: It accepts no connection any more.
    CLOSED = enum.auto()


#: From -> to. A missing pair is a bug, unless a worker says it (`Child.hears`).
MOVES: Final[dict[Life, frozenset[Life]]] = {
    Life.STARTING: frozenset({Life.SERVING, Life.LEAVING}),
    Life.SERVING: frozenset({Life.LEAVING}),
    Life.LEAVING: frozenset({Life.CLOSED}),
    Life.CLOSED: frozenset(),
}


class Note(msgspec.Struct):
    """A child, written down for the next supervisor. *channel* is a descriptor; times are monotonic seconds."""

    pid: int
    number: int
    row: int
    generation: int
    life: str
    drain: float
    deadline: float | None
    channel: int
    unread: bytes
    unsent: bytes


class Child:
    """One worker, as its parent sees it."""

    __slots__ = (
        *("at_start", "channel", "deadline", "drain", "generation", "hung", "life", "number", "pid", "replaced", "row"),
    )

    def __init__(self, number: int, pid: int, row: Row | None, channel: Channel, generation: int, drain: float) -> None:
        self.number = number
        self.pid = pid
        #: None where a former version's page was laid out in another way.
        self.row = row
        self.channel = channel
        self.at_start = time.monotonic()
        #: What it has acknowledged, and how many seconds calls may take there once it was told to leave.
        self.generation = generation
        self.drain = drain
        self.life = Life.STARTING
        #: Its successor is started, or will be.
        self.replaced = False
        #: It did not turn any more, and was killed.
        self.hung = False
        #: When it is killed if it still starts, or lives on though it was told to leave, monotonic seconds.
        self.deadline = self.at_start + START_TIME

    def move(self, life: Life) -> None:
        assert life in MOVES[self.life], f"{self.life} to {life}"
        self.life = life

    def hears(self, life: Life) -> None:
        """The worker says what it does; what it does not, since it was told otherwise meanwhile, changes nothing."""
        if life in MOVES[self.life]:
            self.life = life
            if life is Life.SERVING:
                self.deadline = math.inf

    def noted(self) -> Note:
        """What the next supervisor needs to know."""
        row = self.row.number if self.row is not None else 0
        deadline = self.deadline if self.deadline < math.inf else None
        unread, unsent = self.channel.rest
        told = (float(self.drain), deadline, self.channel.fileno(), unread, unsent)
        return Note(self.pid, self.number, row, self.generation, self.life.name, *told)

    def __repr__(self) -> str:
        return f"<Child {self.number} pid={self.pid} {self.life.name.lower()}>"


class Crew:
    """*count* workers, each of which *be*s one in a process of its own, handed its number, row and channel."""

    def __init__(
        self,
        count: int,
        page: Page,
        forks: Forks,
        selector: selectors.BaseSelector,
        be: Callable[[int, Row, Channel], int],
        log: Tell,
    ) -> None:
        # given
        self.count = count
        self._page = page
        self._forks = forks
        self._selector = selector
        self._be = be
        self._log = log
        # while it runs
        self.children: dict[int, Child] = {}
        #: Worker's number -> when it is started again, monotonic seconds.
        self.due: dict[int, float] = {}
        self._deaths = [0] * count
        self._vigil = Vigil()
        #: The dead whose sums could not be moved, since a process that hangs held the page's lock.
        self._unburied: list[Row] = []

    @property
    def complete(self) -> bool:
        """Whether every number's worker serves."""
        serving = {one.number for one in self.present if one.life is Life.SERVING}
        return len(serving) == self.count

    @property
    def present(self) -> list[Child]:
        """Those that nobody replaces."""
        return [child for child in self.children.values() if not child.replaced]

    @property
    def channels(self) -> list[Channel]:
        return [child.channel for child in self.children.values()]

    # Births.

    def call_all(self) -> None:
        """Every number's worker is due."""
        self.due = dict.fromkeys(range(self.count), 0.0)

    def take(self, notes: Sequence[Note], *, same_page: bool) -> None:
        """Be the parent of a former supervisor's children; all of them are to be replaced."""
        for note in notes:
            row = self._page.rows[note.row] if same_page and note.row else None
            channel = Channel(socket.socket(fileno=note.channel), note.unread, note.unsent)
            child = Child(note.number, note.pid, row, channel, note.generation, note.drain)
            child.life = Life[note.life]
            child.replaced = True
            child.deadline = note.deadline if note.deadline is not None else math.inf
            self._add(child)
        if same_page:
            taken = {note.row for note in notes}
            self._unburied = [row for row in self._page.rows[1:] if row.cells[PID] and row.number not in taken]

    def restart(self, generation: int, drain: float) -> None:
        """Start those that are due. They serve *generation*, in which a drain takes *drain* seconds at most."""
        now = time.monotonic()
        for number in [number for number, due in self.due.items() if now >= due]:
            try:
                self._start(number, generation, drain)
            except (OSError, PageError) as error:  # no process, descriptor or row to be had: a reason to wait
                self.due[number] = now + BACK_OFF_LIMIT
                self._log.warning("a worker cannot be started", worker=number, reason=str(error))
            else:
                del self.due[number]

    def _start(self, number: int, generation: int, drain: float) -> None:
        row = self._page.free()
        pid, ours = self._forks.start(lambda control: self._be(number, row, control))
        row.cells[PID] = pid
        self._add(Child(number, pid, row, ours, generation, drain))

    def _add(self, child: Child) -> None:
        self.children[child.pid] = child
        self._selector.register(child.channel, selectors.EVENT_READ, child)
        self._watch(child)

    # What is said.

    def send(self, child: Child, message: Adopt | Leave) -> None:
        child.channel.send(message)
        self._watch(child)

    def _watch(self, child: Child) -> None:
        """Read from *child*; and write, while it has not taken all that it was told."""
        if child.channel in self._selector.get_map():  # not once it closed its end
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.channel.has_unsent else 0)
            self._selector.modify(child.channel, wanted, child)

    def attend(self, child: Child, events: int) -> list[Message]:
        """Act on what the selector found; returns what *child* says."""
        if self.children.get(child.pid) is not child:
            return []  # it was buried a moment ago
        if events & selectors.EVENT_WRITE:
            child.channel.flush()
            self._watch(child)
        return self.listen(child) if events & selectors.EVENT_READ else []

    def listen(self, child: Child) -> list[Message]:
        """What *child* says."""
        if child.channel not in self._selector.get_map():
            return []
        messages = child.channel.receive()
        if messages is None:
            self._selector.unregister(child.channel)  # it ends; SIGCHLD tells when it has
        return messages or []

    # Ends.

    def replace(self, child: Child) -> None:
        """Start a successor; *child* is told to leave once all serve."""
        if not child.replaced:
            child.replaced = True
            self.due[child.number] = 0.0
            self._count(Restart.RELOAD)

    def hand_over(self) -> None:
        """Tell those that are replaced to leave."""
        for child in self.children.values():
            if child.replaced and child.life in (Life.STARTING, Life.SERVING):
                child.move(Life.LEAVING)
                child.deadline = time.monotonic() + child.drain + PATIENCE
                self.send(child, Leave(replaced=True))

    def dismiss(self, *, pre_stop: float | None, quick: bool) -> None:
        """Tell all to leave, with *pre_stop* seconds in which they still accept, and start nobody any more."""
        self.due.clear()
        for child in self.children.values():
            given = 0.0 if quick else (pre_stop or 0.0) + child.drain
            child.deadline = time.monotonic() + given + PATIENCE
            if child.life in (Life.STARTING, Life.SERVING):
                child.move(Life.LEAVING)
            self.send(child, Leave(pre_stop=pre_stop is not None))

    def bury(self, child: Child) -> int:
        """*child* is dead: nothing is left of it but its sums. Returns how many died in a row, as young as it."""
        del self.children[child.pid]
        if child.channel in self._selector.get_map():
            self._selector.unregister(child.channel)
        child.channel.close()
        if child.row is not None:
            self._move_sums(child.row)
        if child.replaced or child.life in (Life.LEAVING, Life.CLOSED):
            return 0
        has_started = child.life is not Life.STARTING
        self._count(Restart.HUNG if child.hung else Restart.DIED if has_started else Restart.START)
        was_well = has_started and time.monotonic() - child.at_start > WELL_AFTER
        deaths = 0 if was_well else self._deaths[child.number] + 1
        self._deaths[child.number] = deaths
        return deaths

    def call_again(self, number: int, deaths: int) -> float:
        """Start *number*'s worker anew. Returns in how many seconds."""
        wait = min(BACK_OFF_LIMIT, BACK_OFF * 2.0 ** min(deaths, 10))
        self.due[number] = time.monotonic() + wait
        return wait

    def _move_sums(self, row: Row) -> None:
        try:
            bury(self._page, row)
        except PageError as error:
            self._unburied.append(row)
            self._log.warning("a dead worker's counts wait", reason=str(error))

    def _count(self, why: Restart) -> None:
        with suppress(PageError):  # a process that hangs held the lock before any worker had swept
            count_restart(self._page, why)

    # Time.

    def dates(self) -> Iterator[float]:
        """When something is due, monotonic seconds."""
        yield from self.due.values()
        yield from (child.deadline for child in self.children.values())
        if self._watched:
            yield self._vigil.due
        if self._unburied:
            yield time.monotonic() + BACK_OFF_LIMIT

    def look_at_the_clock(self) -> None:
        """End what hangs, and bury whom it kept from it."""
        now = time.monotonic()
        for child in self.children.values():
            if now >= child.deadline:
                child.deadline = math.inf
                what = "get ready" if child.life is Life.STARTING else "end"
                self._log.warning(f"a worker does not {what} and is killed", worker=child.number, pid=child.pid)
                os.kill(child.pid, signal.SIGKILL)
        if now >= self._vigil.due:
            self._look_who_hangs(now)
        unburied, self._unburied = self._unburied, []
        for row in unburied:
            self._move_sums(row)

    @property
    def _watched(self) -> dict[int, Row]:
        """Whose loops are to turn, by pid: those that turned once, and were not killed."""
        return {
            child.pid: child.row
            for child in self.children.values()
            if child.row is not None and child.row.cells[BEAT] and not child.hung
        }

    def _look_who_hangs(self, now: float) -> None:
        """Kill who has not turned for too long; its death brings its successor."""
        beats = {pid: row.cells[BEAT] for pid, row in self._watched.items()}
        for pid, seconds in self._vigil.look(beats, now).items():
            child = self.children[pid]
            child.hung = True
            told = {"worker": child.number, "pid": pid, "seconds": round(seconds), "state": told_of(pid).get("State")}
            self._log.warning("a worker hangs and is killed", **told)
            os.kill(pid, signal.SIGKILL)
