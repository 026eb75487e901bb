"""The parent: it keeps the listeners and the page, starts workers, restarts the dead, and passes signals on.

Owns the processes. It serves no traffic, runs no loop of asyncio's and no thread, so that it may fork at any time. It
refuses to know what a worker does (`gateway.worker`). Called by `gateway.cli.serve`.

A listener is opened once and kept to the end: closing one resets what it had not accepted. Worker k and its successor
inherit listener k, so what waits there while a worker is dead is served by the next one.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from gateway.channel import Adopt, Adopted, Channel, Closing, Failed, Judged, Leave, Ready
from gateway.config.schema import Config
from gateway.forks import Forks
from gateway.observe.shared import bury
from gateway.page import PID, Page, PageError, Row, Seat

#: Seconds until a dead worker is replaced: doubled with each death in a row, up to the limit.
BACK_OFF: Final = 0.05
BACK_OFF_LIMIT: Final = 2.0
#: A worker that lived so many seconds was not ill from birth.
WELL_AFTER: Final = 5.0
#: Deaths in a row of a worker that never served: then the gateway cannot start.
STILLBIRTHS_LIMIT: Final = 3
#: Seconds in which a configuration must be read and tried, and a worker end beyond the time that it was given.
PATIENCE: Final = 10.0


class Serve(Protocol):
    """What a worker is, as its process sees it: it returns its exit status."""

    def __call__(self, number: int, generation: int, config: Config, seat: Seat, control: Channel) -> int: ...


class Reading(Protocol):
    """How a configuration is read again."""

    def read(self) -> Config:
        """Read and try it; whatever is raised says why it cannot be served. Called in a process of its own."""

    def accept(self, old: Config, new: Config) -> tuple[Config, dict[str, object]]:
        """What of *new* can be served beside *old*, and what the log is to say of the change."""


class Tell(Protocol):
    """The log of the supervisor."""

    def info(self, text: str, /, **fields: object) -> None: ...
    def warning(self, text: str, /, **fields: object) -> None: ...


class Child:
    """One worker, as its parent sees it."""

    __slots__ = ("at_start", "channel", "generation", "number", "pid", "ready", "replaced", "row")

    def __init__(self, number: int, pid: int, row: Row, channel: Channel, generation: int) -> None:
        self.number = number
        #: What it has acknowledged.
        self.generation = generation
        self.pid = pid
        self.row = row
        self.channel = channel
        self.at_start = time.monotonic()
        self.ready = False
        #: Its successor is started already.
        self.replaced = False

    def __repr__(self) -> str:
        return f"<Child {self.number} pid={self.pid} {'ready' if self.ready else 'starting'}>"


class Judge(NamedTuple):
    """The process that reads the configuration again."""

    pid: int
    channel: Channel
    #: Monotonic seconds at which it must be done.
    deadline: float


class Supervisor:
    """Runs *count* workers under *config* until a signal ends them."""

    def __init__(
        self,
        count: int,
        config: Config,
        page: Page,
        serve: Serve,
        reading: Reading,
        *,
        on_ready: Callable[[], None],
        log: Tell,
    ) -> None:
        # given
        self._reading = reading
        self._count = count
        self._page = page
        self._serve = serve
        self._on_ready = on_ready
        self._log = log
        #: Closes every listener, from the first worker's last accept on; harmless when done before.
        self.stop_listening: Callable[[], None] = _nothing
        # by the present generation
        self._config = config
        self._generation = 1
        # while a configuration is read again
        self._judge: Judge | None = None
        self._read_again = False
        #: What the log is to say once every worker has taken the new generation over; None: it is said.
        self._news: dict[str, object] | None = None
        # while it runs
        self._selector = selectors.DefaultSelector()
        self._forks = Forks(self._selector, self._channels)
        self._children: dict[int, Child] = {}
        #: Worker's number -> when it is started again, monotonic seconds.
        self._due: dict[int, float] = {}
        self._deaths = [0] * count
        self._told_ready = False
        #: How often all were told to leave, and when those that stay are killed, monotonic seconds.
        self._leaving = 0
        self._killing_at = math.inf
        #: The dead whose sums could not be moved, since a process that hangs held the page's lock.
        self._unburied: list[Row] = []
        #: Why no worker could start.
        self.failure = ""

    def run(self) -> int:
        """Start the workers and keep them running. Returns the exit status once all have ended."""
        self._forks.listen()
        for number in range(self._count):
            self._due[number] = 0.0
        self._restart()
        while self._children or self._due:
            for key, events in self._selector.select(self._patience()):
                self._attend(key, events)
            self._restart()
            self._look_at_the_clock()
        self._forks.close()
        self._selector.close()
        return 2 if self.failure else 0

    def _channels(self) -> list[Channel]:
        judging = [self._judge.channel] if self._judge is not None else []
        return [child.channel for child in self._children.values()] + judging

    def _attend(self, key: selectors.SelectorKey, events: int) -> None:
        if isinstance(key.data, Judge):
            self._hear_judge(key.data)
        elif not isinstance(key.data, Child):
            for sent in self._forks.signals():
                self._signalled(sent)
        elif key.data.pid in self._children:  # it may have been buried a moment ago
            if events & selectors.EVENT_WRITE:
                key.data.channel.flush()
                self._watch(key.data)
            if events & selectors.EVENT_READ:
                self._hear(key.data)

    def _patience(self) -> float | None:
        """Seconds until something is due; None where nothing is."""
        judging = self._judge.deadline if self._judge is not None else math.inf
        burying = time.monotonic() + BACK_OFF_LIMIT if self._unburied else math.inf
        first = min([self._killing_at, judging, burying, *self._due.values()])
        return max(0.0, first - time.monotonic()) if first < math.inf else None

    def _look_at_the_clock(self) -> None:
        """End what hangs, and bury whom it kept from it."""
        now = time.monotonic()
        if now >= self._killing_at:
            self._killing_at = math.inf
            for pid in self._children:
                self._log.warning("a worker does not end and is killed", pid=pid)
                os.kill(pid, signal.SIGKILL)
        if self._judge is not None and now >= self._judge.deadline:
            os.kill(self._judge.pid, signal.SIGKILL)
            self._judged(Judged(None, f"it could not be read within {PATIENCE:.0f} s"))
        unburied, self._unburied = self._unburied, []
        for row in unburied:
            self._move_sums(row)

    # Workers' lives.

    def _start(self, number: int) -> None:
        row = next(row for row in self._page.rows[1:] if not row.cells[PID])
        pid, ours = self._forks.start(lambda control: self._be_worker(number, row, control))
        row.cells[PID] = pid
        child = self._children[pid] = Child(number, pid, row, ours, self._generation)
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _be_worker(self, number: int, row: Row, control: Channel) -> int:
        page = Page(self._page.fd)
        seat = Seat(page, page.rows[row.number], self._count)
        return self._serve(number, self._generation, self._config, seat, control)

    def _send(self, child: Child, message: Adopt | Leave) -> None:
        child.channel.send(message)
        self._watch(child)

    def _watch(self, child: Child) -> None:
        """Read from *child*; and write, while it has not taken all that it was told."""
        if child.channel in self._selector.get_map():  # not once it closed its end
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.channel.has_unsent else 0)
            self._selector.modify(child.channel, wanted, child)

    def _hear(self, child: Child) -> None:
        messages = child.channel.receive()
        if messages is None:
            self._selector.unregister(child.channel)  # it ends; SIGCHLD tells when it has
            return
        for message in messages:
            match message:
                case Ready():
                    child.ready = True
                    if not self._told_ready and sum(one.ready for one in self._children.values()) == self._count:
                        self._told_ready = True
                        self._on_ready()
                case Failed(text) if not self._told_ready:
                    self.failure = text
                    self._leave()
                case Failed(text):
                    self._log.warning("a worker cannot start", worker=child.number, reason=text)
                case Closing() if self._leaving:
                    self.stop_listening()
                case Closing():
                    # It drains by itself: what comes to its listener meanwhile is its successor's.
                    child.replaced = True
                    self._due[child.number] = 0.0
                case Adopted(generation, refusal):
                    self._adopted(child, generation, refusal)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self._judge is not None and pid == self._judge.pid:
                self._hear_judge(self._judge)
            child = self._children.pop(pid, None)
            if child is not None:
                self._bury(child, os.waitstatus_to_exitcode(status))

    def _bury(self, child: Child, status: int) -> None:
        if child.channel in self._selector.get_map():
            self._hear(child)  # its last words
        if child.channel in self._selector.get_map():
            self._selector.unregister(child.channel)
        child.channel.close()
        self._move_sums(child.row)
        if self._leaving or child.replaced:
            self._tell_news()
            return
        lived = time.monotonic() - child.at_start
        deaths = self._deaths[child.number] = 0 if lived > WELL_AFTER else self._deaths[child.number] + 1
        if not self._told_ready and deaths >= STILLBIRTHS_LIMIT:
            self.failure = self.failure or f"a worker cannot start (exit status {status})"
            self._leave()
            return
        wait = min(BACK_OFF_LIMIT, BACK_OFF * 2.0 ** min(deaths, 10))
        self._due[child.number] = time.monotonic() + wait
        self._tell_news()
        self._log.warning("a worker ended", worker=child.number, pid=child.pid, status=status, again_in=wait)

    def _move_sums(self, row: Row) -> None:
        try:
            bury(self._page, row)
        except PageError as error:
            self._unburied.append(row)
            self._log.warning("a dead worker's counts wait", reason=str(error))

    def _restart(self) -> None:
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if now >= due]:
            try:
                self._start(number)
            except OSError as error:  # no process or descriptor to be had: a reason to wait, not to die
                self._due[number] = now + BACK_OFF_LIMIT
                self._log.warning("a worker cannot be started", worker=number, reason=str(error))
            else:
                del self._due[number]

    # Another configuration.

    def _read(self) -> None:
        """Have the configuration read and tried in a process of its own: nothing may hold the supervisor up."""
        if self._judge is not None:
            self._read_again = True
            return
        try:
            pid, ours = self._forks.start(self._be_judge)
        except OSError as error:
            self._log.warning("the configuration cannot be read, the former one stays", reason=str(error))
            return
        self._judge = Judge(pid, ours, time.monotonic() + PATIENCE)
        self._selector.register(ours, selectors.EVENT_READ, self._judge)

    def _be_judge(self, control: Channel) -> int:
        try:
            judged = Judged(self._reading.read())
        except Exception as error:  # whatever it is: the running configuration stays
            judged = Judged(None, str(error) or repr(error))
        control.sock.setblocking(True)
        control.send(judged)
        return 0

    def _hear_judge(self, judge: Judge) -> None:
        if judge is not self._judge:
            return
        messages = judge.channel.receive()
        if messages == []:
            return
        judged = messages[0] if messages else None
        self._judged(judged if isinstance(judged, Judged) else Judged(None, "it could not be read to its end"))

    def _judged(self, judged: Judged) -> None:
        judge, self._judge = self._judge, None
        assert judge is not None
        self._selector.unregister(judge.channel)
        judge.channel.close()
        if self._leaving:
            return
        if judged.config is None:
            self._log.warning("the configuration is refused, the former one stays", reason=judged.refusal)
        else:
            self._adopt(judged.config)
        if self._read_again:
            self._read_again = False
            self._read()

    def _adopt(self, config: Config) -> None:
        self._config, self._news = self._reading.accept(self._config, config)
        self._generation += 1
        for child in self._children.values():
            self._send(child, Adopt(self._generation, self._config))
        self._tell_news()

    def _adopted(self, child: Child, generation: int, refusal: str) -> None:
        if refusal:
            # It was tried, and the other workers took it: one that cannot is started anew with it.
            self._log.warning("a worker cannot take the configuration over", worker=child.number, reason=refusal)
            self._send(child, Leave())
            return
        child.generation = generation
        self._tell_news()

    def _tell_news(self) -> None:
        if self._news is not None and all(
            one.generation == self._generation or one.replaced for one in self._children.values()
        ):
            self._log.info("reloaded", generation=self._generation, **self._news)
            self._news = None

    # Signals.

    def _signalled(self, number: signal.Signals) -> None:
        if number is signal.SIGCHLD:
            self._reap()
        elif number is signal.SIGHUP:
            if not self._leaving:
                self._read()
        else:
            self._log.info("draining", signal=number.name, again=bool(self._leaving))
            self._leave(pre_stop=number is signal.SIGTERM)

    def _leave(self, *, pre_stop: bool = False) -> None:
        self._leaving += 1
        self._page.leave()
        self._due.clear()
        server = self._config.server
        given = server.pre_stop + server.drain_timeout if self._leaving == 1 else 0.0
        self._killing_at = time.monotonic() + given + PATIENCE
        for child in self._children.values():
            self._send(child, Leave(pre_stop=pre_stop))


def _nothing() -> None:
    """There is nothing to close."""
