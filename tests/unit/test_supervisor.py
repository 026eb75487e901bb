"""What the supervisor decides, without a process: children are channels, signals and deaths are played."""

from __future__ import annotations

import math
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import pytest

from gateway import supervisor as module
from gateway.channel import Adopted, Channel, Closing, Failed, Judged, Leave, Message, Ready, packed, pair
from gateway.config.schema import Config
from gateway.crew import Note
from gateway.page import Page
from gateway.supervisor import Supervisor

SIGHUP, SIGTERM, SIGUSR2 = signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2
GOOD = Judged(packed(Config()), version="2")
GOOD_CONFIG = Judged(packed(Config()))


class World:
    """Plays everything that the supervisor meets. What it logs is what makes things happen (*upon*)."""

    def __init__(self) -> None:
        self.page = Page.make(9)
        #: By the first words of what is logged: what happens then, once.
        self.upon: dict[str, Callable[[], None]] = {}
        #: What each process says as soon as it is started; None: nothing; beyond the end, that it is ready.
        self.says: deque[Message | None] = deque()
        #: How new code takes over: why it cannot.
        self.unable = "it cannot be run"
        # what happened
        self.lines: list[str] = []
        self.ends: dict[int, Channel] = {}
        self.held: list[list[signal.Signals]] = []
        self.taken_over: list[int] = []
        #: By their order: what each process does, and the pids of those that were killed.
        self.lives: list[Callable[[Channel], int]] = []
        self.killed: list[int] = []
        #: How often signals, and listeners, were let go.
        self.let_go_of = 0
        self.listening = True
        self.failure = ""
        # played
        self._sent: deque[signal.Signals] = deque()
        self._dead: deque[tuple[int, int]] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._selector: selectors.BaseSelector | None = None

    # as gateway.forks

    def __call__(self, selector: selectors.BaseSelector, kept: object) -> World:
        self._selector = selector
        return self

    def listen(self) -> None:
        assert self._selector is not None
        self._selector.register(self._bell, selectors.EVENT_READ)

    def signals(self) -> list[signal.Signals]:
        os.eventfd_read(self._bell)
        sent, self._sent = list(self._sent), deque()
        return sent

    def start(self, live: Callable[[Channel], int]) -> tuple[int, Channel]:
        assert "draining" not in self.lines, "nobody is started once all leave"
        ours, theirs = pair()
        pid = 1_000_000_000 + len(self.ends)
        self.ends[pid] = theirs
        said = self.says.popleft() if self.says else Ready()
        if said is not None:
            theirs.send(said)
        self.lives.append(live)
        self._happen(f"process {len(self.ends)}")
        return pid, ours

    def hold(self, more: list[signal.Signals]) -> None:
        self.held.append(list(more))

    def let_go(self) -> None:
        """Signals are, after an upgrade that cannot be; and a judge's listeners."""
        self.let_go_of += 1

    # as gateway.upgrade

    def replace(self, notes: list[Note], generation: int, config: bytes) -> str:
        assert config == GOOD.config
        self.taken_over.append(len(notes))
        return self.unable

    # as the listeners, and as gateway.forks, which is closed after them

    def close(self) -> None:
        self.listening = False
        self._happen("closed")

    def close_former(self) -> None:
        """There is none."""

    # as the log

    def info(self, text: str, /, **fields: object) -> None:
        self.lines.append(text)
        self._happen(text)

    warning = info

    # played

    def _happen(self, text: str) -> None:
        for words in [words for words in self.upon if text.startswith(words)]:
            self.upon.pop(words)()

    def send(self, *numbers: signal.Signals) -> None:
        self._sent += numbers
        os.eventfd_write(self._bell, 1)

    def die(self, *pids: int, status: int = 0) -> None:
        self._dead += [(pid, status) for pid in pids]
        self.send(signal.SIGCHLD)

    def end(self) -> None:
        for end in self.ends.values():
            end.close()
        os.close(self._bell)
        self.page.close()

    def kill(self, pid: int, number: int) -> None:
        self.killed.append(pid)

    def waitpid(self, pid: int, options: int) -> tuple[int, int]:
        return self._dead.popleft() if self._dead else (0, 0)

    def heard(self, pid: int) -> list[Message]:
        return self.ends[pid].receive() or []

    def all_die(self) -> None:
        self.die(*self.ends)

    def run(self, count: int = 2) -> int:
        self.upon.setdefault("draining", self.all_die)
        supervisor = Supervisor(
            count, Config(), self.page, None, self, self, self, on_ready=lambda: self.info("ready"), log=self
        )  # type: ignore[arg-type]
        status = supervisor.run()
        self.failure = supervisor.failure
        return status

    def read(self, old: Config) -> Config:
        return Config()

    def accept(self, old: Config, new: Config) -> tuple[Config, dict[str, object]]:
        return new, {}

    def due(self, config: Config) -> float:
        return math.inf

    def has_changed(self, config: Config, now: float) -> bool:
        return False


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()
    monkeypatch.setattr(module, "Forks", world)
    monkeypatch.setattr(module.os, "waitpid", world.waitpid)
    monkeypatch.setattr(module.os, "kill", world.kill)
    yield world
    world.end()


def then_send(world: World, says: Sequence[Message | None], *numbers: signal.Signals) -> None:
    """Once it is ready, send *numbers*; the processes started then say what *says* tells."""

    def act() -> None:
        world.says += says
        world.send(*numbers)

    world.upon["ready"] = act


def test_it_is_ready_once_all_workers_are_and_ends_with_them(world: World) -> None:
    world.upon["ready"] = lambda: world.send(SIGTERM)
    assert world.run() == 0
    assert world.lines == ["ready", "draining"] and not world.listening
    assert [world.heard(pid) for pid in world.ends] == [[Leave(pre_stop=True)]] * 2


def test_it_gives_up_where_no_worker_can_start(world: World) -> None:
    world.says += [Failed("the log cannot be opened")] * 2
    world.upon["ready"] = world.all_die

    def start(live: Callable[[Channel], int]) -> tuple[int, Channel]:
        started = World.start(world, live)
        world.die(started[0], status=2 << 8)
        return started

    world.start = start  # type: ignore[method-assign]
    assert world.run() == 2
    assert world.failure == "the log cannot be opened"


def test_new_code_that_cannot_be_run_after_its_trial_leaves_all_as_it_was(world: World) -> None:
    then_send(world, [GOOD], SIGUSR2)
    world.upon["the upgrade cannot be"] = lambda: world.send(SIGTERM)
    assert world.run() == 0
    assert world.lines == ["ready", "upgrading", "the upgrade cannot be, the running version stays", "draining"]
    assert world.taken_over == [2]


def test_code_that_fails_its_trial_is_never_run(world: World) -> None:
    then_send(world, [Judged(refusal="no")], SIGUSR2)
    world.upon["the upgrade is refused"] = lambda: world.send(SIGTERM)
    assert world.run() == 0
    assert not world.taken_over and not world.held


def test_changes_that_wait_are_handed_to_the_new_code(world: World) -> None:
    then_send(world, [GOOD], SIGUSR2, SIGHUP, SIGUSR2)
    world.upon["the upgrade cannot be"] = lambda: world.send(SIGTERM)
    assert world.run() == 0
    assert world.held == [[SIGHUP]] and world.let_go_of == 1


def test_nobody_is_started_once_all_leave(world: World) -> None:
    """Not even for a worker that refuses a configuration then: its successor would never be told to leave."""
    first = 1_000_000_000

    def refuse() -> None:
        world.ends[first].send(Adopted(2, "it cannot be served"))
        world.ends[first].send(Closing())

    world.upon["ready"] = lambda: world.send(SIGTERM)
    world.upon["draining"] = refuse
    world.upon["closed"] = world.all_die
    assert world.run() == 0
    assert len(world.ends) == 2


def test_who_judges_a_configuration_holds_no_listener(world: World) -> None:
    """A connection that the kernel gives to it would be answered by nobody."""
    ours, theirs = pair()
    then_send(world, [Judged(refusal="no")], SIGHUP)
    world.upon["the configuration is refused"] = lambda: world.send(SIGTERM)
    assert world.run() == 0 and world.let_go_of == 0
    world.lives[2](theirs)
    assert world.let_go_of == 1 and ours.receive() == [GOOD_CONFIG]
    ours.close()
    theirs.close()


@pytest.mark.parametrize("change", [SIGHUP, SIGUSR2])
def test_what_is_being_tried_ends_when_all_leave_and_leaves_nothing_open(
    world: World, monkeypatch: pytest.MonkeyPatch, change: signal.Signals
) -> None:
    made: list[int] = []
    create = os.memfd_create
    monkeypatch.setattr(module.os, "memfd_create", lambda *given: made.append(create(*given)) or made[-1])
    then_send(world, [None], change)
    world.upon["process 3"] = lambda: world.send(SIGTERM)
    assert world.run() == 0
    assert world.killed == [list(world.ends)[2]]
    assert world.lines == ["ready", "draining"], "its verdict is nobody's business any more"
    assert len(made) == (change is SIGUSR2) and not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in made)


def test_who_ends_without_a_verdict_has_refused_whoever_else_holds_its_channel(world: World) -> None:
    """Nor is it killed at its deadline, when it is gone."""
    then_send(world, [None], SIGHUP)
    world.upon["process 3"] = lambda: world.die(list(world.ends)[2])
    world.upon["the configuration is refused"] = lambda: world.send(SIGTERM)
    assert world.run() == 0
    assert not world.killed
