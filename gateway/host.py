"""One host: listeners, page, workers and their supervisor, put together.

Owns how many workers there are, and what is made before the first of them is. It refuses to watch them
(`gateway.supervisor`) and to serve (`gateway.worker`). Called by `gateway.cli.serve`.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway import worker
from gateway.build import Gateway
from gateway.channel import Channel
from gateway.config.changes import changed_keys, keep_settled, settled
from gateway.config.schema import WORKERS_LIMIT, Config
from gateway.gate import raise_limit
from gateway.listener import Listener
from gateway.observe.access import DirectLines, outlet
from gateway.observe.logs import Level, Log, Stamp
from gateway.page import Page, Seat
from gateway.supervisor import Supervisor

#: Where a control group tells how much processor time its members may have: quota and period, microseconds.
_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


class _Reading:
    """How the configuration is read again: as it was read first (*load*), and tried."""

    def __init__(self, load: Callable[[], Config]) -> None:
        self._load = load

    def read(self) -> Config:
        config = self._load()
        Gateway(config)
        return config

    def accept(self, old: Config, new: Config) -> tuple[Config, dict[str, object]]:
        keys = list(changed_keys(old, new))
        news: dict[str, object] = {"changed": ", ".join(keys) or "nothing"}
        if fixed := settled(keys):
            news["after_restart"] = ", ".join(fixed)
        return keep_settled(old, new), news


def run(load: Callable[[], Config], ready: Callable[[str], None]) -> int:
    """Serve what *load* gives until a signal ends it. Returns the exit status.

    *ready* is told the URL once every worker accepts. Raises what *load* raises, `ListenError` where the address
    cannot be used, `OSError` or `ValueError` where a worker cannot start.
    """
    config = load()
    raise_limit()
    count = config.server.workers or min(usable_cores(), WORKERS_LIMIT)
    listener = Listener(config.server, count)
    # The first row is the supervisor's. A successor has one of its own while its predecessor drains.
    page = Page.make(2 * count + 1)
    lines = DirectLines([outlet(name) for name in config.logging.output], config.logging.format)
    log = Log(lines, Level[config.logging.level.upper()], Stamp())

    def serve(number: int, generation: int, config: Config, seat: Seat, control: Channel) -> int:
        sock = listener.socks[number]
        for other in listener.socks:
            if other is not sock:
                other.close()
        lines.close()
        return worker.run(config, generation, sock, seat, control)

    def on_ready() -> None:
        log.info("listening", url=listener.url, workers=count)
        ready(listener.url)

    supervisor = Supervisor(count, config, page, serve, _Reading(load), on_ready=on_ready, log=log)
    supervisor.stop_listening = listener.close
    # What is shared with the workers stays shared: the collector touches none of it.
    gc.collect()
    gc.freeze()
    try:
        status = supervisor.run()
    finally:
        listener.close()
    if supervisor.failure:
        raise ValueError(supervisor.failure)
    log.info("stopped")
    return status


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and its control group's quota where that is less."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA.read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no control group, or "max": no quota
    return cores
