"""One process that serves: its loop, its listener, its signals, and the drain in numbered stages.

Owns the order in which things start and end. It refuses to wire (`gateway.build`) and to serve (everything else).
Called by `gateway.cli.serve`.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from typing import Final

import uvloop

from gateway.build import Gateway
from gateway.config.schema import Config
from gateway.errors import Fault, Kind, Side
from gateway.listener import Listener

#: Seconds that cut or finished answers get to leave before their sockets are closed.
FLUSH_TIME: Final = 2.0
#: Seconds between two looks at whether the running calls are over.
LOOK_INTERVAL: Final = 0.05
#: Young objects before a collection. The start is frozen and calls are freed by counting: there is little to find.
GC_THRESHOLD: Final = 50_000


def run(config: Config, ready: Callable[[str], None]) -> int:
    """Serve until a signal ends it; *ready* is told the URL once connections are accepted. Returns the exit status.

    Raises `ListenError` where the address cannot be listened on.
    """
    listener = Listener(config.server)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Worker(config, listener).serve(ready))
    finally:
        listener.close()


class Worker:
    """Starts, waits for a signal, drains."""

    def __init__(self, config: Config, listener: Listener) -> None:
        self._config = config
        self._listener = listener
        self._signals: list[signal.Signals] = []
        self._signalled = asyncio.Event()

    async def serve(self, ready: Callable[[str], None]) -> int:
        loop = asyncio.get_running_loop()
        gateway = Gateway(self._config)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal, number)
        gateway.clients.start(loop)
        gateway.clock.start(loop)
        sock = self._listener.sock
        create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        server = await create(gateway.accept, sock=sock, backlog=self._config.server.backlog)
        for discovery in gateway.discoveries:
            discovery.start()
        url = self._listener.url
        if self._config.server.tls.cert:
            url = url.replace("http:", "https:", 1)
        gateway.log.info("listening", url=url)
        gateway.lines.flush()
        # What lives now lives for ever: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        ready(url)
        await self._signalled.wait()
        await self._drain(gateway, server)
        return 0

    def _signal(self, number: signal.Signals) -> None:
        self._signals.append(number)
        self._signalled.set()

    async def _drain(self, gateway: Gateway, server: asyncio.Server) -> None:
        """Go down without breaking a promise; a second signal skips the waiting."""
        settings = self._config.server
        gateway.log.info("draining", signal=self._signals[0].name, calls=len(gateway.proxy.active))
        # 1. Readiness says no, but connections are accepted: load balancers take a moment to notice.
        gateway.drain.begun = True
        if self._signals[0] is signal.SIGTERM:
            await self._wait(settings.pre_stop, lambda: False)
        # 2. No new connections.
        server.close()
        self._listener.remove()
        # 3. Idle connections close now, the others after their answer.
        gateway.clients.drain()
        # 4. Calls run on, up to the drain's time.
        await self._wait(settings.drain_timeout, lambda: not gateway.clients.busy)
        # 5. What still runs is ended, and told so: a stream gets an error event and no [DONE].
        fault = Fault(Side.GATEWAY, Kind.DRAINING, "The gateway is shutting down.")
        for call in list(gateway.proxy.active):
            gateway.proxy.stop(call, fault)
        gateway.clients.give_up_reading(fault)
        # 6. Answers leave; then sockets close.
        await self._wait(FLUSH_TIME, lambda: not gateway.clients.unsent, patient=True)
        gateway.arrivals.abort()
        gateway.clients.abort()
        # 7. Backends and timers end, the log last.
        for discovery in gateway.discoveries:
            await discovery.close()
        for backend in gateway.backends:
            await backend.close()
        gateway.clock.stop()
        gateway.log.info("stopped")
        gateway.lines.close(FLUSH_TIME)

    async def _wait(self, seconds: float, over: Callable[[], bool], *, patient: bool = False) -> None:
        """Wait until *over*, at most *seconds*; not at all after a second signal, unless *patient*."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not over() and loop.time() < end and (patient or len(self._signals) < 2):
            # What is waited for is a set that empties in many places; asking is simpler than telling.
            await asyncio.sleep(min(LOOK_INTERVAL, max(0.0, end - loop.time())))
