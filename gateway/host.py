"""One host: listeners, page, workers and their supervisor, put together.

Owns how many workers there are, what is made before the first of them is, and what of it is taken over from the
process that this one was before an upgrade. It refuses to watch workers (`gateway.supervisor`) and to serve
(`gateway.worker`). Called by `gateway.cli.serve`.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway import __version__, upgrade, worker
from gateway.build import Gateway
from gateway.channel import Channel, Judged, packed, unpacked
from gateway.config.changes import changed_keys, keep_settled, settled
from gateway.config.complete import DEV_KEY, MOCK
from gateway.config.schema import WORKERS_LIMIT, Config
from gateway.config.secrets import digest
from gateway.gate import raise_limit
from gateway.listener import Listener, ListenerNote, ListenError, is_beside, is_there, judge
from gateway.observe.access import DirectLines, outlet
from gateway.observe.logs import Level, Log, Stamp
from gateway.page import LAYOUT, Page, PageError, Seat
from gateway.supervisor import Supervisor
from gateway.upgrade import State, Succession, UpgradeError
from gateway.watch import Watch

#: Rows of the page for each worker, and at least: predecessors of an upgrade keep theirs while they drain, for minutes,
#: and another may change the number of workers. Untouched ones take no memory.
ROWS_EACH: Final = 4
ROWS_LEAST: Final = 32
#: Where a control group tells how much processor time its members may have: quota and period, microseconds.
_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


class _Reading:
    """How the configuration is read again: as it was read first (*load*), and tried."""

    def __init__(self, load: Callable[[], Config], paths: Sequence[str], watch: Watch, config: Config) -> None:
        self._load = load
        self._paths = paths
        self._named = watch.named
        self._files = watch.named(config)
        self.due = watch.due
        self.has_changed = watch.has_changed

    def read(self, old: Config) -> Config:
        config = self._load()
        _keep_from_nothing(old, config, ", ".join(self._paths) or "environment")
        Gateway(config)
        return config

    def accept(self, old: Config, new: Config) -> tuple[Config, dict[str, object]]:
        keys = list(changed_keys(old, new))
        news: dict[str, object] = {"changed": ", ".join(keys) or "nothing"}
        if fixed := settled(keys):
            news["after_upgrade"] = ", ".join(fixed)
        before, self._files = self._files, self._named(new)
        if renewed := [file for file, mark in self._files.items() if file in before and before[file] != mark]:
            news["renewed"] = ", ".join(renewed)
        return keep_settled(old, new), news


def _keep_from_nothing(old: Config, new: Config, where: str) -> None:
    """Raise ValueError where *new* says nothing of what *old* served: so reads a file that was cut off, or emptied."""
    for key, of in (("[[backends]]", _own_backends), ("[[auth.keys]]", _own_keys)):
        if of(old) and not of(new):
            raise ValueError(f"{where}: {key}: none is there any more, expected at least one (an empty or cut file?)")


def _own_backends(config: Config) -> bool:
    return any(backend.name != MOCK or backend.protocol != MOCK for backend in config.backends)


def _own_keys(config: Config) -> bool:
    return not config.auth.enabled or {key.sha256 for key in config.auth.keys} != {digest(DEV_KEY)}


class _Listeners:
    """Where clients connect, and where they did before upgrades that changed the address."""

    def __init__(self, now: Listener, former: list[Listener]) -> None:
        self.now = now
        self.former = former

    def close(self) -> None:
        self.now.close()
        self.close_former()

    def close_former(self) -> None:
        for one in self.former:
            one.close()
        self.former = []

    def keep(self, number: int, count: int) -> list[socket.socket]:
        """In a worker: only its share stays open."""
        share = self.now.share(number, count)
        self._close_all_but(share)
        return share

    def let_go(self) -> None:
        """In a process that is no worker: a socket that is open there goes on taking connections."""
        self._close_all_but([])

    def _close_all_but(self, share: Sequence[socket.socket]) -> None:
        for one in (self.now, *self.former):
            for sock in one.socks:
                if sock not in share:
                    sock.close()


def run(load: Callable[[], Config], paths: Sequence[str], ready: Callable[[str], None]) -> int:
    """Serve what *load* gives until a signal ends it. Returns the exit status.

    *paths*: the files, and folders of files, that it reads. *ready* is told the URL once every worker accepts. Raises
    what *load* raises, `ListenError` where the address cannot be used, `OSError` or `ValueError` where a worker cannot
    start. In a process that an upgrade has started, what runs already is judged or taken over (`gateway.upgrade`).
    """
    # Until there is somebody to hear them their default is to kill; they wait, and a program that takes over has them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR2))
    order = upgrade.order()
    if order is None:
        return _serve(load, paths, ready, None)
    if order.control is None:
        return _serve(load, paths, ready, order.state)
    order.control.sock.setblocking(True)
    order.control.send(_tried(load, order.state))
    return 0


def _tried(load: Callable[[], Config], state: State) -> Judged:
    """Whether this code can take over from the gateway whose *state* it is."""
    try:
        config = load()
        Gateway(config)
        count = _count(config)
        free = state.rows - len(state.children)
        if state.layout == LAYOUT and free < count:
            draining = f"{len(state.children)} workers live, those among them that still drain after former upgrades"
            raise UpgradeError(f"{draining}; the shared page has room for {free} more, and {count} are needed")
        if not is_there(state.listening, config.server):
            judge(state.listening, config.server)
        return Judged(packed(config), version=__version__)
    except Exception as error:  # whatever it is: the running version stays
        return Judged(refusal=str(error) or repr(error))


def _serve(load: Callable[[], Config], paths: Sequence[str], ready: Callable[[str], None], former: State | None) -> int:
    config = load() if former is None else _left(former, load)
    watch = Watch(paths, config)
    raise_limit()
    count = _count(config)
    lines = DirectLines([outlet(name) for name in config.logging.output], config.logging.format)
    log = Log(lines, Level[config.logging.level.upper()], Stamp())
    if former is None:
        listeners = _Listeners(Listener(config.server, count), [])
    else:
        config, listeners = _taken_listeners(former, config, count, log)
    try:
        return _supervise(config, count, listeners, former, _Reading(load, paths, watch, config), ready, lines, log)
    finally:
        listeners.close()


def _supervise(
    config: Config,
    count: int,
    listeners: _Listeners,
    former: State | None,
    reading: _Reading,
    ready: Callable[[str], None],
    lines: DirectLines,
    log: Log,
) -> int:
    listener = listeners.now
    page, same_page = _page(former, count, log)

    def serve(number: int, generation: int, config: Config, seat: Seat, control: Channel) -> int:
        socks = listeners.keep(number, count)
        lines.close()
        return worker.run(config, generation, socks, seat, control)

    def on_ready() -> None:
        if former is None:
            log.info("listening", url=listener.url, workers=count)
            ready(listener.url)
        else:
            log.info("upgraded", url=listener.url, workers=count, version=__version__, generation=generation)

    generation = 1 if former is None else former.generation + 1
    succession = Succession(page, listener, lambda: listeners.former)
    supervisor = Supervisor(
        count, config, page, serve, reading, succession, listeners, on_ready=on_ready, log=log, generation=generation
    )
    if former is not None:
        supervisor.take(former.children, same_page=same_page)
    # What is shared with the workers stays shared: the collector touches none of it.
    gc.collect()
    gc.freeze()
    status = supervisor.run()
    listeners.close()
    if supervisor.failure:
        raise ValueError(supervisor.failure)
    log.info("stopped")
    return status


def _left(former: State, load: Callable[[], Config]) -> Config:
    """What the trial packed; whoever cannot read it after all reads it anew: there is no process to go back to."""
    try:
        return unpacked(former.config)
    except Exception:  # whatever it is: code or files were changed since
        return load()


def _taken_listeners(former: State, config: Config, count: int, log: Log) -> tuple[Config, _Listeners]:
    """What *former* left, and what *config* asks for beside it: a place that cannot be had leaves the former one."""
    replace = msgspec.structs.replace
    left, server = former.listening, config.server

    def taken(one: ListenerNote, count: int = 0) -> Listener:
        return Listener(replace(server, host=one.host, port=one.port), count, one)

    older = [taken(one) for one in former.former]
    if not is_there(left, server):
        try:
            now = Listener(server, count, beside=is_beside(left, server))
            return config, _Listeners(now, [taken(left), *older])
        except ListenError as error:
            log.warning("the former address stays", reason=str(error))
            config = replace(config, server=replace(server, host=left.host, port=left.port))
    now = Listener(config.server, count, left)
    if now.flaw:
        log.warning("the listener is not all that it should be", reason=now.flaw)
    return config, _Listeners(now, older)


def _page(former: State | None, count: int, log: Log) -> tuple[Page, bool]:
    """The page, and whether it is the *former* one."""
    if former is not None:
        try:
            return Page(former.page), True
        except PageError as error:
            os.close(former.page)
            log.warning("what was counted begins anew", reason=str(error))
    return Page.make(1 + max(ROWS_EACH * count, ROWS_LEAST)), False


def _count(config: Config) -> int:
    return config.server.workers or min(usable_cores(), WORKERS_LIMIT)


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and its control group's quota where that is less."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA.read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no control group, or "max": no quota
    return cores
