"""Which models a backend serves, where the configuration says `models = "auto"`: the backend is asked.

Owns one Task per such backend. It refuses the model table (`gateway.routing.routes` is told). Made by
`gateway.upstreams`, started and closed by the worker.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gateway.observe.logs import Log
from gateway.upstream.http import Target
from gateway.upstream.inquiry import ask

#: Seconds to wait for one list.
ASK_TIME: Final = 5.0
#: Seconds until a backend that gave no list is asked again, doubled up to the refresh interval.
FIRST_WAIT: Final = 0.5


class Source(NamedTuple):
    """Where a backend lists its models, and what reads the list: it raises ValueError where it is none."""

    path: bytes
    parse: Callable[[bytes], tuple[str, ...]]


class Discovery:
    """Asks one backend's peers in turn, now and every *refresh* seconds; tells *learn* what it hears."""

    def __init__(
        self,
        name: str,
        targets: Sequence[Target],
        source: Source,
        refresh: float,
        learn: Callable[[tuple[str, ...]], None],
        log: Log,
    ) -> None:
        self._name = name
        self._targets = targets
        self._source = source
        self._refresh = refresh
        self._learn = learn
        self._log = log
        self._known: tuple[str, ...] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        wait = FIRST_WAIT / 2
        while True:
            wait = self._refresh if await self._ask_peers() else min(wait * 2, self._refresh)
            # Gateways that were started together should not ask together.
            await asyncio.sleep(wait * random.uniform(0.9, 1.1))

    async def _ask_peers(self) -> bool:
        """True once some peer told its models; an answer that cannot be had leaves the old one in force."""
        for target in list(self._targets):  # others may take their places meanwhile
            try:
                models = self._source.parse(await ask(target, self._source.path, ASK_TIME))
            except Exception as error:  # whatever it is, the next wait ends and the backend is asked again
                self._log.warning("no list of models", upstream=self._name, reason=str(error))
                continue
            if models != self._known:
                self._known = models
                self._learn(models)
                self._log.info("models learnt", upstream=self._name, count=len(models))
            return True
        return False
