"""The parent: it decides when workers live and leave, what they serve, and passes signals on.

Owns the decisions. It serves no traffic, runs no loop of asyncio's and no thread, so that it may fork at any time. It
refuses to know what a worker does (`gateway.worker`), to keep the children's books (`gateway.crew`) and to execute new
code (`gateway.upgrade`). Called by `gateway.host`.

A reload and an upgrade are changes, and there is one change at a time: a signal that comes meanwhile waits for its end.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from gateway import __version__
from gateway.channel import Adopt, Adopted, Channel, Closing, Failed, Judged, Message, Ready, packed, unpacked
from gateway.config.schema import Config
from gateway.crew import PATIENCE, Child, Crew, Life, Note, Tell
from gateway.forks import Forks
from gateway.page import Page, Row, Seat
from gateway.upgrade import Succession, last_word

#: Seconds in which new code must start, read the configuration and try it: on a machine that is busy, too.
TRIAL_TIME: Final = 30.0
#: Deaths in a row of a worker that never served: then the gateway cannot start.
STILLBIRTHS_LIMIT: Final = 3


class Serve(Protocol):
    """What a worker is, as its process sees it: it returns its exit status."""

    def __call__(self, number: int, generation: int, config: Config, seat: Seat, control: Channel) -> int: ...


class Reading(Protocol):
    """How a configuration is read again."""

    def read(self, old: Config) -> Config:
        """Read and try what is to follow *old*; whatever is raised says why it cannot be served.

        Called in a process of its own.
        """

    def accept(self, old: Config, new: Config) -> tuple[Config, dict[str, object]]:
        """What of *new* can be served beside *old*, and what the log is to say of the change."""

    def due(self, config: Config) -> float:
        """When to look whether its files have changed, monotonic seconds."""

    def has_changed(self, config: Config, now: float) -> bool:
        """Whether they have; said once of each change."""


class Listening(Protocol):
    """Where clients connect. All are harmless when done before."""

    def close(self) -> None: ...
    def let_go(self) -> None:
        """In a process that accepts nothing: nobody is to wait for it. Where clients connect stays as it is."""

    def close_former(self) -> None:
        """Close what former workers alone accept on."""


class Errand(NamedTuple):
    """A process that is to tell one thing: whether a configuration, or new code, can be served."""

    pid: int
    channel: Channel
    #: Seconds that it was given, and monotonic seconds at which it must be done.
    time: float
    deadline: float
    done: Callable[[Judged], None]


class Supervisor:
    """Runs *count* workers under *config* until a signal ends them, or new code takes over."""

    def __init__(
        self,
        count: int,
        config: Config,
        page: Page,
        serve: Serve,
        reading: Reading,
        succession: Succession,
        listening: Listening,
        *,
        on_ready: Callable[[], None],
        log: Tell,
        generation: int = 1,
    ) -> None:
        # given
        self._reading = reading
        self._succession = succession
        self._listening = listening
        self._page = page
        self._serve = serve
        self._on_ready = on_ready
        self._log = log
        # by the present generation
        self._config = config
        self._generation = generation
        # while something changes
        #: Signals that ask for a change, in their order.
        self._wanted: list[signal.Signals] = []
        self._errand: Errand | None = None
        #: What the log is to say once every worker has taken the new generation over, and when those that have not
        #: are replaced, monotonic seconds; None: it is said.
        self._news: dict[str, object] | None = None
        self._news_due = math.inf
        # while it runs
        self._selector = selectors.DefaultSelector()
        self._forks = Forks(self._selector, self._channels)
        self._crew = Crew(count, page, self._forks, self._selector, self._be_worker, log)
        #: It has served: what keeps workers from starting now is no reason to give up.
        self._served = False
        self._told_ready = False
        #: How often all were told to leave.
        self._leaving = 0
        #: Why no worker could start.
        self.failure = ""

    def take(self, notes: list[Note], *, same_page: bool) -> None:
        """Take the children of the supervisor that was this process before; called once, before `run`."""
        self._crew.take(notes, same_page=same_page)
        self._served = True

    def run(self) -> int:
        """Start the workers and keep them running. Returns the exit status once all have ended."""
        self._crew.call_all()
        self._forks.listen()
        self._reap()  # who ended while nobody listened
        while self._crew.children or self._crew.due:
            for key, events in self._selector.select(self._patience()):
                self._attend(key, events)
            self._look_at_the_clock()
            self._change()
            self._restart()
        self._forks.close()
        self._selector.close()
        return 2 if self.failure else 0

    def _channels(self) -> list[Channel]:
        return [*self._crew.channels, *([self._errand.channel] if self._errand is not None else [])]

    def _attend(self, key: selectors.SelectorKey, events: int) -> None:
        if isinstance(key.data, Errand):
            self._hear_errand(key.data)
        elif isinstance(key.data, Child):
            for message in self._crew.attend(key.data, events):
                self._hear(key.data, message)
        else:
            for sent in self._forks.signals():
                self._signalled(sent)

    def _patience(self) -> float | None:
        """Seconds until something is due; None where nothing is."""
        errand = self._errand.deadline if self._errand is not None else math.inf
        look = math.inf if self._leaving else self._reading.due(self._config)
        first = min([errand, look, self._news_due, *self._crew.dates()])
        return max(0.0, first - time.monotonic()) if first < math.inf else None

    def _look_at_the_clock(self) -> None:
        """End what hangs."""
        now = time.monotonic()
        self._crew.look_at_the_clock()
        if self._errand is not None and now >= self._errand.deadline:
            self._give_up(self._errand, f"there was no verdict within {self._errand.time:.0f} s")
        if not self._leaving and self._reading.has_changed(self._config, now):
            self._log.info("the files of the configuration have changed")
            self._signalled(signal.SIGHUP)
        if now >= self._news_due:
            self._replace_late(now)

    # Workers' lives.

    def _restart(self) -> None:
        self._crew.restart(self._generation, self._config.server.drain_timeout)

    def _be_worker(self, number: int, row: Row, control: Channel) -> int:
        page = Page(self._page.fd, in_loop=True)
        seat = Seat(page, page.rows[row.number], self._crew.count)
        return self._serve(number, self._generation, self._config, seat, control)

    def _hear(self, child: Child, message: Message) -> None:
        match message:
            case Ready():
                child.hears(Life.SERVING)
                self._look_at_the_crew()
            case Failed(text) if not self._served:
                self.failure = text
                self._leave()
            case Failed(text):
                self._log.warning("a worker cannot start", worker=child.number, reason=text)
            case Closing():
                child.hears(Life.CLOSED)
                self._look_at_the_listeners(child)
            case Adopted(generation, refusal):
                self._adopted(child, generation, refusal)

    def _look_at_the_crew(self) -> None:
        """Once every number's worker serves, the host is ready, and those that were replaced may go."""
        if self._leaving or not self._crew.complete:
            return
        self._served = True
        if not self._told_ready:
            self._told_ready = True
            self._on_ready()
        self._crew.hand_over()
        self._look_at_the_listeners(None)
        self._tell_news()

    def _look_at_the_listeners(self, closed: Child | None) -> None:
        """Close the listeners on which nobody accepts: *closed* has ended that, or everybody has whom it concerns."""
        children = self._crew.children.values()
        if self._leaving and (
            (closed is not None and not closed.replaced) or all(one.life is Life.CLOSED for one in children)
        ):
            self._listening.close()
        if self._told_ready and all(one.life is Life.CLOSED for one in children if one.replaced):
            self._listening.close_former()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self._errand is not None and pid == self._errand.pid:
                self._errand_ended(self._errand)
            child = self._crew.children.get(pid)
            if child is not None:
                for message in self._crew.listen(child):  # its last words
                    self._hear(child, message)
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, status: int) -> None:
        deaths = self._crew.bury(child)
        self._look_at_the_listeners(None)
        if not self._leaving and not child.replaced:
            if not self._served and deaths >= STILLBIRTHS_LIMIT:
                self.failure = self.failure or f"a worker cannot start (exit status {status})"
                self._leave()
                return
            wait = self._crew.call_again(child.number, deaths)
            self._log.warning("a worker ended", worker=child.number, pid=child.pid, status=status, again_in=wait)
        self._tell_news()

    # Changes: a configuration, new code.

    def _change(self) -> None:
        """Begin what was asked for, unless a change is under way."""
        if self._leaving or self._errand is not None or self._news is not None or not self._wanted:
            return
        if self._wanted.pop(0) is signal.SIGHUP:
            self._send_out(self._be_judge, self._judged, PATIENCE)
        else:
            self._try()

    def _try(self) -> None:
        try:
            words = os.memfd_create("headrace-words", os.MFD_CLOEXEC)
        except OSError as error:
            self._tried(Judged(refusal=str(error)))
            return

        def done(verdict: Judged) -> None:
            if not (verdict.config or verdict.refusal):
                verdict = Judged(refusal=last_word(words))
            os.close(words)
            self._tried(verdict)

        self._send_out(lambda control: self._try_out(control, words), done, TRIAL_TIME)

    def _send_out(self, live: Callable[[Channel], int], done: Callable[[Judged], None], seconds: float) -> None:
        """Have a process *live* that tells one thing: nothing may hold the supervisor up."""
        try:
            pid, ours = self._forks.start(live)
        except OSError as error:
            done(Judged(refusal=str(error)))
            return
        self._errand = Errand(pid, ours, seconds, time.monotonic() + seconds, done)
        self._selector.register(ours, selectors.EVENT_READ, self._errand)

    def _hear_errand(self, errand: Errand) -> None:
        if errand is self._errand and (messages := errand.channel.receive()) != []:
            told = messages[0] if messages else None
            self._told(told if isinstance(told, Judged) else Judged())

    def _told(self, verdict: Judged) -> None:
        errand, self._errand = self._errand, None
        assert errand is not None
        self._selector.unregister(errand.channel)
        errand.channel.close()
        errand.done(verdict)

    def _errand_ended(self, errand: Errand) -> None:
        """It is dead: what it said is there, and nobody else's hold on its channel will say more."""
        read = -1
        while self._errand is errand and len(errand.channel.rest[0]) > read:
            read = len(errand.channel.rest[0])
            self._hear_errand(errand)
        if self._errand is errand:
            self._told(Judged())

    def _give_up(self, errand: Errand, reason: str) -> None:
        os.kill(errand.pid, signal.SIGKILL)
        self._told(Judged(refusal=reason))

    def _be_judge(self, control: Channel) -> int:
        self._listening.let_go()
        try:
            judged = Judged(packed(self._reading.read(self._config)))
        except Exception as error:  # whatever it is: the running configuration stays
            judged = Judged(refusal=str(error) or repr(error))
        control.sock.setblocking(True)
        control.send(judged)
        return 0

    def _judged(self, verdict: Judged) -> None:
        if self._leaving:
            return
        if not verdict.config:
            reason = verdict.refusal or "it could not be read to its end"
            self._log.warning("the configuration is refused, the former one stays", reason=reason)
            return
        self._config, self._news = self._reading.accept(self._config, unpacked(verdict.config))
        self._news_due = time.monotonic() + PATIENCE
        self._generation += 1
        adopt = Adopt(self._generation, packed(self._config))
        for child in self._crew.present:
            self._crew.send(child, adopt)
        self._tell_news()

    def _adopted(self, child: Child, generation: int, refusal: str) -> None:
        if self._leaving:
            return
        if refusal:
            # It was tried, and the other workers took it: one that cannot makes room for one that is made with it.
            self._log.warning("a worker cannot take the configuration over", worker=child.number, reason=refusal)
            self._crew.replace(child)
        else:
            child.generation = generation
            child.drain = self._config.server.drain_timeout
        self._tell_news()

    def _replace_late(self, now: float) -> None:
        """Replace who does not take the configuration over; give up waiting for successors that do not come."""
        late = self._late()
        for child in late:
            self._log.warning("a worker does not take the configuration over and is replaced", pid=child.pid)
            self._crew.replace(child)
        self._news_due = now + PATIENCE
        self._tell_news()
        if self._news is not None and not late:
            text = "the configuration waits: not every worker of this version serves"
            self._log.warning(text, generation=self._generation)
            self._news, self._news_due = None, math.inf

    def _late(self) -> list[Child]:
        return [child for child in self._crew.present if child.generation != self._generation]

    def _tell_news(self) -> None:
        if self._news is not None and not self._late() and self._crew.complete:
            self._log.info("reloaded", generation=self._generation, **self._news)
            self._news, self._news_due = None, math.inf

    def _try_out(self, control: Channel, words: int) -> int:
        return self._succession.try_out(self._notes(), self._generation, control, words)

    def _notes(self) -> list[Note]:
        return [child.noted() for child in self._crew.children.values()]

    def _tried(self, verdict: Judged) -> None:
        if self._leaving:
            return
        if not verdict.config:
            self._log.warning("the upgrade is refused, the running version stays", reason=verdict.refusal)
            return
        self._log.info("upgrading", version=verdict.version, former=__version__)
        self._forks.hold(self._wanted)
        reason = self._succession.replace(self._notes(), self._generation, verdict.config)
        self._forks.let_go()
        self._log.warning("the upgrade cannot be, the running version stays", reason=reason)

    # Signals.

    def _signalled(self, number: signal.Signals) -> None:
        if number is signal.SIGCHLD:
            self._reap()
        elif number in (signal.SIGHUP, signal.SIGUSR2):
            if self._leaving:
                self._log.warning("nothing is changed while all drain", signal=number.name)
            elif number not in self._wanted:
                self._wanted.append(number)
                if self._errand is not None or self._news is not None:
                    self._log.info("it waits for the change that is under way", signal=number.name)
        else:
            self._log.info("draining", signal=number.name, again=bool(self._leaving))
            self._leave(pre_stop=number is signal.SIGTERM)

    def _leave(self, *, pre_stop: bool = False) -> None:
        self._leaving += 1
        self._page.leave()
        self._news, self._news_due = None, math.inf
        if self._errand is not None:
            self._give_up(self._errand, "all leave")
        self._crew.dismiss(pre_stop=self._config.server.pre_stop if pre_stop else None, quick=self._leaving > 1)
