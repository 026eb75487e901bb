"""New processes: forked, without the parent's channels and signals.

Owns the fork, what a child lets go of, and the pipe through which signals wake the parent. It refuses what the child
does, and which listeners it keeps (`gateway.supervisor`, which makes one). The parent runs no thread and no loop: only
then is a fork sound.
"""

from __future__ import annotations

import os
import selectors
import signal
import traceback
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from gateway import channel, deathsig
from gateway.channel import Channel

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)


class Forks:
    """*kept* are the parent's ends of channels."""

    def __init__(self, selector: selectors.BaseSelector, kept: Callable[[], Iterable[Channel]]) -> None:
        self._selector = selector
        self._kept = kept
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        """Let signals wake the selector; `signals` tells which came. Those that a predecessor held come now."""
        # What rotates logs often sends it to whoever has them open; its default is to kill. Children inherit this.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.set_wakeup_fd(self._waker)
        for one in SIGNALS:
            signal.signal(one, _noted)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self.let_go()

    def signals(self) -> list[signal.Signals]:
        """Those that came, in their order."""
        return [signal.Signals(number) for number in os.read(self._woken, 4096)]

    def hold(self, more: Iterable[signal.Signals]) -> None:
        """Let signals wait, those that came and were not told yet too, and *more*: a program that takes this process
        over gets them (signal(7): what waits, and that it waits, outlives an exec)."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            told = self.signals()
        except BlockingIOError:
            told = []
        for one in (*told, *more):
            os.kill(os.getpid(), one)

    def let_go(self) -> None:
        """End `hold`."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._woken)
        os.close(self._waker)

    def start(self, live: Callable[[Channel], int]) -> tuple[int, Channel]:
        """A new process that *live*s, and this end of its channel. Raises OSError, and then nothing is left."""
        ours, theirs = channel.pair()
        parent = os.getpid()
        # A signal that came to the child before it has let go of the wake-up pipe would be taken for the parent's.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._be(parent, ours, lambda: live(theirs))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return pid, ours

    def _be(self, parent: int, ours: Channel, live: Callable[[], int]) -> NoReturn:
        """In a new process: let go of what is the parent's, and *live*."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # These reach the whole process group, from a terminal or a service manager: the supervisor alone decides
            # what they mean, and tells.
            for one in SIGNALS[:-1]:
                signal.signal(one, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            deathsig.die_with(parent)
            self._selector.close()
            os.close(self._woken)
            os.close(self._waker)
            ours.close()
            for kept in self._kept():
                kept.close()
            status = live()
        except BaseException:  # a bug of ours must leave its reason behind
            traceback.print_exc()
        finally:
            os._exit(status)


def _noted(number: int, frame: object) -> None:
    """The wake-up descriptor tells; a handler must be there for it to be written."""
