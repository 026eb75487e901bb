"""What evil upstreams do, by the word in the request.

Owns the deeds. It refuses sockets (an `Exchange` is given) and expectations (`matrix`). A deed that returns has given
a sound answer, unless it called `cut` before. A request that comes a second time gets a sound answer, save where the
deed is in ALWAYS: so a gateway that tries elsewhere, rightly, is seen to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bench.faults import speech
from bench.faults.ledger import How, Start
from bench.faults.speech import Ask
from bench.faults.wire import Wire

#: Seconds after which a deed that waits for the gateway to leave gives up.
PATIENCE: Final = 30.0
#: Seconds after which no request is likely to be under way to an idle connection.
QUIET: Final = 0.3


class Exchange:
    """One request being answered."""

    def __init__(self, wire: Wire, ask: Ask, start: Start, body: bytes) -> None:
        self.wire = wire
        self.ask = ask
        self.start = start
        self.wants_usage = b'"include_usage":true' in body

    async def send(self, data: bytes) -> None:
        await self.wire.send(data)
        self.start.sent += len(data)

    async def sleep(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)

    def cut(self) -> None:
        """From here on nobody may take the answer for sound."""
        self._end(How.CUT)

    def answered(self) -> None:
        """The answer is out; what follows concerns the connection only."""
        self._end(How.ANSWERED)

    def _end(self, how: How) -> None:
        if self.start.how is How.OPEN:
            self.start.how, self.start.ended = how, time.monotonic()

    async def speak(self, data: bytes) -> None:
        """Send what nobody asked for, unless somebody asks for something now."""
        if not self.wire.inbox:
            self.wire.unasked = time.monotonic()
            await self.send(data)

    async def await_abort(self) -> None:
        """Do nothing: the gateway has to leave."""
        await asyncio.sleep(PATIENCE)
        self.start.wrong = f"the gateway did not leave within {PATIENCE:.0f} s"

    # --- pieces of answers ---

    async def head(self, status: int = 200) -> None:
        """The head of the sound answer."""
        ask = self.ask
        if ask.stream:
            line = speech.framing_line("close" if ask.framing == "close" else "chunked", 0)
            await self.send(speech.head(status, "text/event-stream", line))
        else:
            line = speech.framing_line(ask.framing, len(speech.whole(ask)))
            await self.send(speech.head(status, "application/json", line))

    async def payload(self, data: bytes) -> None:
        chunked = self.ask.framing == "chunked" or (self.ask.stream and self.ask.framing != "close")
        await self.send(speech.chunk(data) if chunked else data)

    async def part(self) -> None:
        """The head and the first part: `count` events, or half of a body (nothing where `count` is 0)."""
        ask = self.ask
        await self.sleep(ask.pause)
        await self.head()
        if ask.stream:
            for number in range(1, ask.count + 1):
                await self.payload(speech.event(ask, number))
                await self.sleep(ask.pause)
        elif ask.count:
            whole = speech.whole(ask)
            await self.payload(whole[: len(whole) // 2])
            await self.sleep(ask.pause)

    async def all(self) -> None:
        """A sound answer."""
        ask = self.ask
        if not ask.stream:
            await self.sleep(ask.pause)
            await self.head()
            await self.payload(speech.whole(ask))
        else:
            await self.part()
            await self.payload(speech.events(ask)[-1])
            if self.wants_usage:
                await self.payload(speech.usage_event(ask))
            await self.payload(speech.DONE)
        await self.finish()

    async def finish(self) -> None:
        """End a sound answer by its framing."""
        ask = self.ask
        closing = ask.framing == "close"
        if not closing and (ask.stream or ask.framing == "chunked"):
            await self.send(speech.LAST_CHUNK)
        self.answered()
        if closing:
            self.wire.fin()


Deed = Callable[[Exchange], Awaitable[None]]


async def fine(x: Exchange) -> None:
    await x.all()


async def slow(x: Exchange) -> None:
    await x.sleep(x.ask.pause * 9)
    await x.all()


async def stall(x: Exchange) -> None:
    """Nothing at all."""
    await x.await_abort()


async def stall_midway(x: Exchange) -> None:
    await x.part()
    await x.await_abort()


async def flood(x: Exchange) -> None:
    """A stream without end, of 13 MB a second: more than any buffer holds, and not all that the machine can do."""
    await x.head()
    block = speech.event(x.ask, 1)
    block = speech.chunk(block * (65536 // len(block) + 1))
    while True:
        await x.send(block)
        await x.sleep(0.005)


def refusing(status: int, *lines: str) -> Deed:
    async def refuse(x: Exchange) -> None:
        body = speech.error(x.ask)
        await x.sleep(x.ask.pause)
        await x.send(speech.head(status, "application/json", f"Content-Length: {len(body)}", *lines) + body)

    return refuse


async def cut(x: Exchange) -> None:
    """FIN in the middle; with `count` 0, behind the head."""
    await x.part()
    x.cut()
    x.wire.fin()


async def reset(x: Exchange) -> None:
    await x.part()
    x.cut()
    x.wire.rst()


async def reset_within_event(x: Exchange) -> None:
    await x.part()
    half = speech.event(x.ask, x.ask.count + 1)
    await x.payload(half[: len(half) // 2])
    await x.sleep(x.ask.pause)
    x.cut()
    x.wire.rst()


async def bad_chunk(x: Exchange) -> None:
    await x.part()
    x.cut()
    await x.send(b"zz\r\n")


async def half_head(x: Exchange) -> None:
    await x.sleep(x.ask.pause)
    x.cut()
    await x.send(speech.head(200, "application/json", "Content-Length: 9")[:40])
    x.wire.fin()


async def lose(x: Exchange) -> None:
    """RST in place of an answer."""
    await x.sleep(x.ask.pause)
    x.cut()
    x.wire.rst()


async def error_first(x: Exchange) -> None:
    """A stream whose first event is an error."""
    await x.head()
    x.cut()
    await x.payload(b"data: " + speech.error(x.ask) + b"\n\n")
    await x.send(speech.LAST_CHUNK)


async def empty(x: Exchange) -> None:
    """A stream without an event."""
    await x.head()
    x.cut()
    await x.send(speech.LAST_CHUNK)


async def malformed_first(x: Exchange) -> None:
    await x.head()
    x.cut()
    await x.payload(b"data: <html>\n\n")
    await x.send(speech.LAST_CHUNK)


def nobodys(x: Exchange) -> bytes:
    """An answer that nobody asked for."""
    body = speech.whole(Ask(id="nobody", deed=x.ask.deed, number=0))
    return speech.head(200, "application/json", f"Content-Length: {len(body)}") + body


async def twice(x: Exchange) -> None:
    """Two answers to one request, at once."""
    body = speech.whole(x.ask)
    await x.sleep(x.ask.pause)
    x.answered()
    await x.send(speech.head(200, "application/json", f"Content-Length: {len(body)}") + body + nobodys(x))


async def twice_apart(x: Exchange) -> None:
    """A byte too much, and soon another answer: who keeps the connection meanwhile gives it to another call."""
    body = speech.whole(x.ask)
    await x.sleep(x.ask.pause)
    x.answered()
    await x.send(speech.head(200, "application/json", f"Content-Length: {len(body)}") + body + b"\n")
    await x.sleep(QUIET / 3)
    await x.send(nobodys(x))


async def babble(x: Exchange) -> None:
    """A sound answer, and another behind it that nobody asked for, while the connection is idle."""
    await x.all()
    await x.sleep(QUIET)
    await x.speak(nobodys(x))


async def mumble(x: Exchange) -> None:
    """A sound answer, and bytes behind it that are no answer."""
    await x.all()
    await x.sleep(x.ask.pause)
    await x.speak(b"mumble")


async def worn(x: Exchange) -> None:
    """A sound answer, and soon after it the connection's end, whatever the gateway sends meanwhile."""
    await x.all()
    await x.sleep(x.ask.pause)
    x.wire.close()


def interim(count: int) -> Deed:
    async def hint(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await x.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * (count - 1))
        await x.all()

    return hint


async def switch(x: Exchange) -> None:
    """101 that nobody asked for."""
    x.cut()
    await x.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nPRI * HTTP/2.0\r\n\r\n"
    )


async def huge_head(x: Exchange) -> None:
    x.cut()
    await x.send(b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 20))


async def drip(x: Exchange) -> None:
    """A head byte by byte, one in a fifth of a second."""
    x.cut()
    for byte in speech.head(200, "application/json", "X: " + "a" * 200, "Content-Length: 9"):
        await x.send(bytes([byte]))
        await x.sleep(0.2)


DEEDS: Final[dict[str, Deed]] = {
    **{
        deed.__name__: deed
        for deed in (
            *(fine, slow, stall, stall_midway, flood, cut, reset, reset_within_event, bad_chunk, half_head, lose),
            *(error_first, empty, malformed_first, twice, babble, mumble, twice_apart, worn, switch, huge_head, drip),
        )
    },
    "refuse": refusing(500),
    "busy": refusing(429, "Retry-After: 2"),
    "unavailable": refusing(503),
    "storm": refusing(503),
    "interim_few": interim(10),
    "interim_many": interim(20),
}
#: Done however often the request comes.
ALWAYS: Final = frozenset({"fine", "slow", "storm", "worn"})
#: Done before the request's body is read.
AT_HEAD: Final = frozenset({lose})
