"""The upgrade of a running gateway: new code is tried, then takes this process's place.

Owns what passes from one supervisor to the next and how: the state in a memfd, the descriptors, the command line. It
refuses to decide when (`gateway.supervisor`) and to put a host together (`gateway.host`).

Code is new only to an interpreter that was just started. So it is tried in a child that executes the command line of
this process anew; and then this process does so itself: same pid, same children, same open sockets. Both are told by an
environment variable what they are there for, and by a descriptor what there is. The state is plain msgpack: the new
code may know other classes than the old. What it cannot read, it refuses in the trial, while nothing has changed yet.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from gateway import __version__
from gateway.channel import LANGUAGE, Channel, Judged
from gateway.crew import Note
from gateway.listener import Listener, ListenerNote
from gateway.page import LAYOUT, Page

VARIABLE: Final = "HEADRACE_UPGRADE"
_TRY, _TAKE = "try", "take"


class UpgradeError(ValueError):
    """The upgrade cannot be; the text is for the operator."""


class _Language(msgspec.Struct):
    language: int


class State(msgspec.Struct, kw_only=True):
    """What a supervisor leaves to its successor. *page* and those within are descriptors."""

    language: int = LANGUAGE
    version: str = __version__
    layout: int = LAYOUT
    generation: int
    page: int
    #: Rows of the page beside the supervisor's.
    rows: int
    listening: ListenerNote
    #: Other places, where workers of before still accept.
    former: list[ListenerNote] = []
    children: list[Note]
    #: As the new code packed it in the trial; empty before.
    config: bytes = b""

    @property
    def descriptors(self) -> list[int]:
        sockets = [fd for one in (self.listening, *self.former) for fd in one.descriptors]
        return [self.page, *sockets, *(child.channel for child in self.children)]


class Order(NamedTuple):
    """Why this process was started, where it was started by an upgrade."""

    state: State
    #: Where a trial's outcome is told; None: it is no trial.
    control: Channel | None


def encoded(state: State) -> bytes:
    return msgspec.msgpack.encode(state)


def decoded(data: bytes) -> State:
    """Raises `UpgradeError`."""
    try:
        language = msgspec.msgpack.decode(data, type=_Language).language
        if language != LANGUAGE:
            raise UpgradeError(f"the running gateway speaks version {language} and the new one {LANGUAGE}: restart it")
        return msgspec.msgpack.decode(data, type=State)
    except msgspec.DecodeError as error:
        raise UpgradeError(f"the running gateway's state cannot be read: {error}") from None


def order() -> Order | None:
    """What this process was started for; None: it was started by a person. Raises `UpgradeError`.

    Called first of all, and once: what the variable says is nobody else's business.
    """
    purpose, *numbers = os.environ.pop(VARIABLE, "").split(":")
    if purpose not in (_TRY, _TAKE):
        return None
    at, *control = map(int, numbers)
    with os.fdopen(at, "rb") as file:
        file.seek(0)
        data = file.read()
    if purpose == _TRY:
        return Order(decoded(data), Channel(socket.socket(fileno=control[0])))
    state = decoded(data)
    for fd in state.descriptors:
        os.set_inheritable(fd, False)
    return Order(state, None)


class Succession:
    """How new code takes this process over: what it is left."""

    def __init__(self, page: Page, listener: Listener, former: Callable[[], list[Listener]] = list) -> None:
        """*former*: listeners of former addresses that are still open."""
        self._page = page
        self._listener = listener
        self._former = former

    def _state(self, notes: list[Note], generation: int, config: bytes = b"") -> State:
        return State(
            generation=generation,
            page=self._page.fd,
            rows=len(self._page.rows) - 1,
            listening=self._listener.noted(),
            former=[one.noted() for one in self._former()],
            children=notes,
            config=config,
        )

    def try_out(self, notes: list[Note], generation: int, control: Channel, words: int) -> int:
        """Execute the new code in this process, a child, which tells *control* what it finds.

        What it prints goes to the file *words*. Returns where it cannot be executed.
        """
        for fd in (1, 2):
            os.dup2(words, fd)
        at = _written(self._state(notes, generation))
        error = _execute(f"{_TRY}:{at}:{control.fileno()}", [at, control.fileno()])
        control.send(Judged(refusal=_refusal(error)))
        return 1

    def replace(self, notes: list[Note], generation: int, config: bytes) -> str:
        """Execute the new code in this process. Returns why it cannot be; then nothing has changed."""
        state = self._state(notes, generation, config)
        try:
            at = _written(state)
        except OSError as error:
            return str(error)
        failure = _execute(f"{_TAKE}:{at}", [at, *state.descriptors])
        os.close(at)
        return _refusal(failure)


def last_word(words: int) -> str:
    """The last line in the file *words*: an interpreter that fails tells there why."""
    os.lseek(words, 0, os.SEEK_SET)
    with os.fdopen(os.dup(words), "rb") as file:
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a word")


def _refusal(error: OSError) -> str:
    return f"{_program()[0] or 'the interpreter'} cannot be run: {error.strerror or error}"


def _program() -> list[str]:
    """This process's own command line.

    A script is run as such, not by the present interpreter: what stands at its path now may name another one. The
    interpreter is run by its path, and under it: that is where it looks for its packages.
    """
    arguments = sys.orig_argv[1:]
    try:
        with open(arguments[0], "rb") as file:
            if file.read(2) == b"#!" and os.access(arguments[0], os.X_OK):
                return arguments
    except (OSError, IndexError):
        pass  # an option, such as -m: no script
    return [sys.executable, *arguments]


def _written(state: State) -> int:
    fd = os.memfd_create("headrace-state", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(encoded(state))
    return fd


def _execute(order: str, passed: Iterable[int]) -> OSError:
    for fd in passed:
        os.set_inheritable(fd, True)
    try:
        os.execve((command := _program())[0], command, {**os.environ, VARIABLE: order})
    except OSError as error:
        for fd in passed:
            os.set_inheritable(fd, False)
        return error
