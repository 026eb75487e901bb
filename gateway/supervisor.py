"""The parent: it keeps the listeners and the page, starts workers, restarts the dead, and passes signals on.

Owns the processes. It serves no traffic, runs no loop of asyncio's and no thread, so that it may fork at any time. It
refuses to know what a worker does (`gateway.worker`). Called by `gateway.cli.serve`.

A listener is opened once and kept to the end: closing one resets what it had not accepted. Worker k and its successor
inherit listener k, so what waits there while a worker is dead is served by the next one.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn, Protocol

from gateway import channel, deathsig
from gateway.channel import Adopt, Adopted, Channel, Closing, Failed, Judged, Leave, Ready
from gateway.config.schema import Config
from gateway.observe.shared import bury
from gateway.page import PID, Page, Row, Seat

#: Seconds until a dead worker is replaced: doubled with each death in a row, up to the limit.
BACK_OFF: Final = 0.05
BACK_OFF_LIMIT: Final = 2.0
#: A worker that lived so many seconds was not ill from birth.
WELL_AFTER: Final = 5.0

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


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

    __slots__ = ("at_start", "channel", "generation", "number", "pid", "ready", "row")

    def __init__(self, number: int, pid: int, row: Row, channel: Channel, generation: int) -> None:
        self.number = number
        #: What it has acknowledged.
        self.generation = generation
        self.pid = pid
        self.row = row
        self.channel = channel
        self.at_start = time.monotonic()
        self.ready = False

    def __repr__(self) -> str:
        return f"<Child {self.number} pid={self.pid} {'ready' if self.ready else 'starting'}>"


class Judge(NamedTuple):
    """The process that reads the configuration again."""

    pid: int
    channel: Channel


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
        #: Closes every listener; called once, when no worker accepts any more.
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
        self._children: dict[int, Child] = {}
        #: Worker's number -> when it is started again, monotonic seconds.
        self._due: dict[int, float] = {}
        self._deaths = [0] * count
        self._told_ready = False
        self._leaving = 0
        #: Why no worker could start.
        self.failure = ""

    def run(self) -> int:
        """Start the workers and keep them running. Returns the exit status once all have ended."""
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for one in _SIGNALS:
            signal.signal(one, _noted)
        signal.set_wakeup_fd(waker)
        self._selector.register(woken, selectors.EVENT_READ)
        for number in range(self._count):
            self._start(number)
        while self._children or self._due:
            for key, _ in self._selector.select(self._patience()):
                if isinstance(key.data, Judge):
                    self._hear_judge(key.data)
                elif isinstance(key.fileobj, Channel):
                    if key.data.pid in self._children:  # it may have been buried a moment ago
                        self._hear(key.data)
                else:
                    for sent in os.read(woken, 4096):
                        self._signalled(signal.Signals(sent))
            self._restart()
        signal.set_wakeup_fd(-1)
        self._selector.close()
        os.close(woken)
        os.close(waker)
        return 2 if self.failure else 0

    def _patience(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    # Workers' lives.

    def _start(self, number: int) -> None:
        row = next(row for row in self._page.rows[1:] if not row.cells[PID])
        ours, theirs = channel.pair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be(parent, ours, lambda: self._be_worker(number, row, theirs))
        theirs.close()
        row.cells[PID] = pid
        child = self._children[pid] = Child(number, pid, row, ours, self._generation)
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _be(self, parent: int, ours: Channel, live: Callable[[], int]) -> NoReturn:
        """In a new process: let go of what is the parent's, and *live*."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for one in _SIGNALS:
                signal.signal(one, signal.SIG_DFL)
            # Ctrl-C and a terminal's end reach the whole process group; the supervisor alone decides what they mean.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            deathsig.die_with(parent)
            self._selector.close()
            ours.close()
            for child in self._children.values():
                child.channel.close()
            status = live()
        finally:
            os._exit(status)

    def _be_worker(self, number: int, row: Row, control: Channel) -> int:
        page = Page(self._page.fd)
        seat = Seat(page, page.rows[row.number], self._count)
        return self._serve(number, self._generation, self._config, seat, control)

    def _hear(self, child: Child) -> None:
        messages = child.channel.receive()
        if messages is None:
            self._selector.unregister(child.channel)  # it ends; SIGCHLD tells when it has
            return
        for message in messages:
            match message:
                case Ready():
                    child.ready = True
                    if not self._told_ready and all(one.ready for one in self._children.values()):
                        self._told_ready = True
                        self._on_ready()
                case Failed(text) if not self._told_ready:
                    self.failure = text
                    self._leave()
                case Failed(text):
                    self._log.warning("a worker cannot start", worker=child.number, reason=text)
                case Closing() if self._leaving:
                    self.stop_listening()
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
        bury(self._page, child.row)
        if self._leaving:
            return
        lived = time.monotonic() - child.at_start
        deaths = self._deaths[child.number] = 0 if lived > WELL_AFTER else self._deaths[child.number] + 1
        wait = min(BACK_OFF_LIMIT, BACK_OFF * 2.0 ** min(deaths, 10))
        self._due[child.number] = time.monotonic() + wait
        self._tell_news()
        self._log.warning("a worker ended", worker=child.number, pid=child.pid, status=status, again_in=wait)

    def _restart(self) -> None:
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if now >= due]:
            del self._due[number]
            self._start(number)

    # Another configuration.

    def _read(self) -> None:
        """Have the configuration read and tried in a process of its own: nothing may hold the supervisor up."""
        if self._judge is not None:
            self._read_again = True
            return
        ours, theirs = channel.pair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be(parent, ours, lambda: self._be_judge(theirs))
        theirs.close()
        self._judge = Judge(pid, ours)
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
        judged = messages[0] if messages else Judged(None, "it could not be read to its end")
        self._selector.unregister(judge.channel)
        judge.channel.close()
        self._judge = None
        if self._leaving or not isinstance(judged, Judged):
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
            child.channel.send(Adopt(self._generation, self._config))
        self._tell_news()

    def _adopted(self, child: Child, generation: int, refusal: str) -> None:
        if refusal:
            # It was tried, and the other workers took it: one that cannot is started anew with it.
            self._log.warning("a worker cannot take the configuration over", worker=child.number, reason=refusal)
            child.channel.send(Leave(replaced=True))
            return
        child.generation = generation
        self._tell_news()

    def _tell_news(self) -> None:
        if self._news is not None and all(one.generation == self._generation for one in self._children.values()):
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
        self._due.clear()
        for child in self._children.values():
            child.channel.send(Leave(pre_stop=pre_stop))


def _noted(number: int, frame: object) -> None:
    """The wake-up descriptor tells; a handler must be there for it to be written."""


def _nothing() -> None:
    """There is nothing to close."""
