"""One process that serves: its loop, its listeners, and the drain in numbered stages.

Owns the order in which things start and end. It refuses to wire (`gateway.build`) and to serve (everything else).
Called in a process of its own by `gateway.host`.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable, Sequence
from typing import Final

import uvloop

from gateway.build import Gateway
from gateway.channel import Adopt, Adopted, Channel, Closing, Failed, Leave, Ready, unpacked
from gateway.clock import monotonic_ns
from gateway.config.schema import Config
from gateway.errors import Fault, Kind, Side
from gateway.gate import Gate
from gateway.page import BEAT, LEAVING, SERVING, STATE, Seat

#: Seconds that cut or finished answers get to leave before their sockets are closed.
FLUSH_TIME: Final = 2.0
#: Seconds between two looks at whether the running calls are over.
LOOK_INTERVAL: Final = 0.05
#: Young objects before a collection. The start is frozen and calls are freed by counting: there is little to find.
GC_THRESHOLD: Final = 50_000


def run(config: Config, generation: int, socks: Sequence[socket.socket], seat: Seat, control: Channel) -> int:
    """Serve on *socks* until told to leave. Returns the exit status."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Worker(config, generation, socks, seat, control).serve())
    except (OSError, ValueError) as error:
        # A log that cannot be opened, a certificate that cannot be read, mock options.
        control.send(Failed(str(error)))
        return 2


class Worker:
    """Starts, waits until it is told to leave, drains."""

    def __init__(
        self, config: Config, generation: int, socks: Sequence[socket.socket], seat: Seat, control: Channel
    ) -> None:
        self._gateway = Gateway(config, seat, generation)
        self._socks = socks
        self._control = control
        #: Others have taken its place, and the host stays as it is.
        self._replaced = False
        #: How often it was told to leave since the host goes down; the second time cuts the waiting short.
        self._asked = 0
        self._leave = Leave()
        self._told = asyncio.Event()
        #: Discoveries of former configurations that are ending.
        self._closing: set[asyncio.Task[None]] = set()

    async def serve(self) -> int:
        loop = asyncio.get_running_loop()
        gateway = self._gateway
        loop.add_reader(self._control.fileno(), self._hear)
        gateway.clients.start(loop)
        gateway.clock.start(loop)
        gate = Gate(
            self._socks,
            gateway.accept,
            gateway.descriptors,
            gateway.make_room,
            gateway.measures.accept_pauses,
            gateway.log,
        )
        gate.open()
        for discovery in gateway.discoveries:
            discovery.start()
        # What lives now lives for ever: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        # Whoever finds that this worker serves may find too that it hangs, though its first sweep has not been yet.
        gateway.seat.row.cells[BEAT] = monotonic_ns()
        gateway.seat.row.cells[STATE] = SERVING
        self._control.send(Ready())
        await self._told.wait()
        await self._drain(gateway, gate)
        return 0

    def _hear(self) -> None:
        messages = self._control.receive()
        if messages is None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())  # the supervisor is dead, and so are we
            return
        for message in messages:
            match message:
                case Leave():
                    self._go(message)
                case Adopt(generation, config):
                    self._adopt(generation, config)

    def _adopt(self, generation: int, config: bytes) -> None:
        """Serve new calls under *config*, and say so; a reason why it cannot be leaves everything as it is."""
        refusal = ""
        try:
            for discovery in self._gateway.adopt(generation, unpacked(config)):
                self._closing.add(task := asyncio.get_running_loop().create_task(discovery.close()))
                task.add_done_callback(self._closing.discard)
            for discovery in self._gateway.discoveries:
                discovery.start()
        except Exception as error:
            refusal = str(error) or repr(error)
        self._control.send(Adopted(generation, refusal))

    def _go(self, leave: Leave) -> None:
        if leave.replaced:
            self._replaced = True
        else:
            self._asked += 1
            self._leave = leave
        self._told.set()

    async def _hand_over(self, gateway: Gateway, gate: Gate) -> None:
        """Let clients go over to those that replace this worker, as each of them comes to it.

        Readiness stays: the host is ready. An idle connection stays open for its next request, whose answer says that
        it is the last, or for as long as it may be idle: one that is closed meets requests that are on their way.
        """
        gateway.log.info("replaced", calls=len(gateway.proxy.active), connections=len(gateway.clients.open))
        gateway.retire()
        self._close(gate)
        await asyncio.sleep(LOOK_INTERVAL)  # what the loop has accepted already comes to be among the open ones
        seconds = gateway.generation.config.server.drain_timeout
        await self._wait(seconds, lambda: self._asked > 0 or not (gateway.clients.open or gateway.arrivals.open))

    def _close(self, gate: Gate) -> None:
        """No new connections."""
        gate.close()
        for sock in self._socks:
            sock.close()
        self._control.send(Closing())

    async def _drain(self, gateway: Gateway, gate: Gate) -> None:
        """Go down without breaking a promise; a second signal skips the waiting."""
        settings = gateway.generation.config.server
        replaced = self._replaced
        if replaced:
            await self._hand_over(gateway, gate)
        gateway.log.info("draining", calls=len(gateway.proxy.active))
        # 1. Readiness says no if the whole host ends, but connections are accepted: load balancers are slow to notice.
        gateway.seat.row.cells[STATE] = LEAVING
        gateway.clients.wear_out()
        if self._leave.pre_stop and not replaced:
            await self._wait(settings.pre_stop, lambda: False)
        # 2. No new connections.
        if not replaced:
            self._close(gate)
        # 3. Idle connections close now, the others after their answer.
        gateway.clients.drain()
        await asyncio.sleep(LOOK_INTERVAL)  # who was accepted in the last turn is answered, too
        # 4. Calls run on, up to the drain's time; that of a replaced worker is over unless the host goes down.
        if self._asked or not replaced:
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
        await gateway.estate.close()
        gateway.clock.stop()
        gateway.publish()
        gateway.log.info("stopped")
        gateway.lines.close(FLUSH_TIME)

    async def _wait(self, seconds: float, over: Callable[[], bool], *, patient: bool = False) -> None:
        """Wait until *over*, at most *seconds*; not at all after a second signal, unless *patient*."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not over() and loop.time() < end and (patient or self._asked < 2):
            # What is waited for is a set that empties in many places; asking is simpler than telling.
            await asyncio.sleep(min(LOOK_INTERVAL, max(0.0, end - loop.time())))
