"""What evil clients do, by the word in the plan.

Owns the errands. It refuses to schedule them (`crowd`) and to say what may come of them (`matrix`). Each writes down
the outcome of every call of its visit, whatever happens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bench.faults import answers, speech
from bench.faults.answers import Answer, word_of
from bench.faults.connection import Connection
from bench.faults.hostile import HOSTILE
from bench.faults.ledger import Outcome
from bench.faults.plan import Visit
from bench.faults.speech import Ask

#: Above server.body_limit of bench/faults/gateway.toml.
OVERSIZE: Final = 2 << 20
#: A client of small buffers is one that stops the gateway soon.
SMALL_BUFFER: Final = 4096


class Errand:
    """One visit being carried out, on a connection that earlier ones may have left."""

    def __init__(self, port: int, visit: Visit, kept: Connection | None) -> None:
        self.port = port
        self.visit = visit
        self.case = visit.case
        self.kept = kept
        self.outcomes = {ask.id: Outcome(ask.id) for ask in visit.asks}
        self._open: list[Connection] = []

    async def connect(self, receive_buffer: int = 0) -> Connection:
        """A connection of this visit's own."""
        connection = await Connection.open(self.port, receive_buffer)
        self._open.append(connection)
        return connection

    async def connection(self) -> Connection:
        """The one that was kept, if it still can be used."""
        kept, self.kept = self.kept, None
        if kept is not None and kept.usable:
            self._open.append(kept)
            return kept
        if kept is not None:
            kept.close()
        return await self.connect()

    def begin(self, connection: Connection, ask: Ask) -> Outcome:
        outcome = self.outcomes[ask.id]
        outcome.begun = time.monotonic()
        outcome.port, outcome.opened = connection.port, connection.opened
        return outcome

    def end(self, ask: Ask, answer: Answer, word: str = "") -> None:
        outcome = self.outcomes[ask.id]
        outcome.ended = time.monotonic()
        outcome.word = word or word_of(answer, ask)
        outcome.detail = str(answer)

    def leave(self, connection: Connection, *asks: Ask) -> None:
        """Leave for good; every one of *asks* is left unanswered."""
        left = connection.leave(self.visit.manner)
        for ask in asks:
            outcome = self.outcomes[ask.id]
            outcome.left = outcome.ended = left
            outcome.word, outcome.detail = answers.LEFT, self.visit.manner

    def keep(self, connection: Connection, answer: Answer) -> None:
        """Leave *connection* to the next visit, if it may carry another call."""
        if answer.reusable and connection.calls < 20:
            self._open.remove(connection)
            self.kept = connection

    def request(self, ask: Ask) -> bytes:
        return speech.request(ask, self.case.model, self.case.door, self.case.headers)

    def close(self) -> None:
        for connection in self._open:
            connection.close()


async def say(connection: Connection, data: bytes) -> None:
    """Send; that the gateway has left shows when its answer is read."""
    try:
        await connection.send(data)
    except OSError:
        pass


async def stopped(sending: asyncio.Future[None]) -> None:
    """Whatever was not sent yet is not wanted any more."""
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def ask(e: Errand) -> None:
    (ask,) = e.visit.asks
    connection = await e.connection()
    e.begin(connection, ask)
    await say(connection, e.request(ask))
    answer = await connection.answer()
    e.end(ask, answer)
    e.keep(connection, answer)


# --- those who leave ---


async def leave(e: Errand) -> None:
    (ask,) = e.visit.asks
    connection = await e.connection()
    e.begin(connection, ask)
    await say(connection, e.request(ask))
    await asyncio.sleep(e.visit.leaves)
    e.leave(connection, ask)


async def queue(e: Errand) -> None:
    """Requests behind one that is not answered yet, and nobody left to answer them to."""
    connection = await e.connection()
    for one in e.visit.asks:
        e.begin(connection, one)
    await say(connection, b"".join(e.request(one) for one in e.visit.asks))
    await asyncio.sleep(e.visit.leaves)
    e.leave(connection, *e.visit.asks)


async def leave_midway(e: Errand) -> None:
    (ask,) = e.visit.asks
    connection = await e.connection()
    e.begin(connection, ask)
    await say(connection, e.request(ask))
    answer = connection.expect()
    while not (answer.done or answer.body) and await connection.read(answer):
        pass
    end = time.monotonic() + e.visit.leaves
    while not answer.done and time.monotonic() < end:
        await asyncio.sleep(0.01)
    if answer.done:
        e.end(ask, answer)
        return
    e.leave(connection, ask)


async def leave_flood(e: Errand) -> None:
    """Read what comes as fast as it comes, for a while."""
    (ask,) = e.visit.asks
    connection = await e.connection()
    e.begin(connection, ask)
    await say(connection, e.request(ask))
    answer = connection.expect()
    end = time.monotonic() + e.visit.leaves
    while not answer.done and time.monotonic() < end and await connection.read(answer):
        pass
    e.leave(connection, ask)


async def die_unread(e: Errand) -> None:
    (ask,) = e.visit.asks
    connection = await e.connect(SMALL_BUFFER)
    e.begin(connection, ask)
    await say(connection, e.request(ask))
    await asyncio.sleep(e.visit.leaves)
    e.leave(connection, ask)


async def stop_reading(e: Errand) -> None:
    """Read again only when the gateway must have given up."""
    (ask,) = e.visit.asks
    connection = await e.connect(SMALL_BUFFER)
    e.begin(connection, ask)
    await say(connection, e.request(ask))
    await asyncio.sleep(e.visit.leaves)
    answer = await connection.answer()
    e.end(ask, answer, answers.word_of_flood(answer, ask))


async def read_slowly(e: Errand) -> None:
    """The whole takes longer than any time limit, each piece does not."""
    (ask,) = e.visit.asks
    connection = await e.connect(1 << 16)
    e.begin(connection, ask)
    await say(connection, e.request(ask))
    answer = connection.expect()
    while not answer.done and await connection.read(answer, 1 << 16):
        await asyncio.sleep(0.03)
    e.end(ask, answer)


async def half_close(e: Errand) -> None:
    """FIN behind the request: house rule, the client has left."""
    (ask,) = e.visit.asks
    connection = await e.connect()
    outcome = e.begin(connection, ask)
    await say(connection, e.request(ask))
    await asyncio.sleep(e.visit.leaves)
    outcome.left = time.monotonic()
    connection.half_close()
    e.end(ask, await connection.answer())


async def die_after(e: Errand) -> None:
    """FIN, and then RST, behind a complete answer."""
    (ask,) = e.visit.asks
    connection = await e.connection()
    e.begin(connection, ask)
    await say(connection, e.request(ask))
    answer = await connection.answer()
    e.end(ask, answer)
    connection.half_close()
    connection.leave("rst")


# --- those who send what they should not ---


async def drip_head(e: Errand) -> None:
    (ask,) = e.visit.asks
    connection = await e.connect()
    e.begin(connection, ask)
    await dripped(e, connection, ask)


async def dripped(e: Errand, connection: Connection, ask: Ask) -> None:
    """Send a head byte by byte until it is answered."""
    answering = asyncio.ensure_future(connection.answer())
    for byte in e.request(ask):
        await say(connection, bytes([byte]))
        done, _ = await asyncio.wait([answering], timeout=0.1)
        if done:
            break
    answer = await answering
    e.end(ask, answer, answers.word_of_nameless(answer))


async def stall_body(e: Errand) -> None:
    (ask,) = e.visit.asks
    connection = await e.connection()
    e.begin(connection, ask)
    await say(connection, e.request(ask)[:-20])
    e.end(ask, await connection.answer())


async def oversize(e: Errand) -> None:
    await _oversize(e, chunked=False)


async def oversize_chunked(e: Errand) -> None:
    await _oversize(e, chunked=True)


async def _oversize(e: Errand, *, chunked: bool) -> None:
    """All of it is sent although the answer may come before; the answer has to be received all the same."""
    (ask,) = e.visit.asks
    connection = await e.connect()
    e.begin(connection, ask)
    payload = b'{"model":"solo","x":"' + b"a" * OVERSIZE + b'"}'
    sending = asyncio.ensure_future(say(connection, speech.request(ask, "solo", payload=payload, chunked=chunked)))
    answer = await connection.answer()
    await stopped(sending)
    e.end(ask, answer)


async def expect_bad_key(e: Errand) -> None:
    (ask,) = e.visit.asks
    connection = await e.connect()
    e.begin(connection, ask)
    whole = speech.request(ask, "solo", headers=("Expect: 100-continue",), key="sk-wrong")
    await say(connection, whole[: whole.index(b"\r\n\r\n") + 4])
    answer = await connection.answer()
    e.end(ask, answer, "100" if answer.interim else "")


async def pipeline(e: Errand) -> None:
    """All requests at once; their answers in order. What is left when the gateway says "close" is sent again."""
    rest = list(e.visit.asks)
    while rest:
        connection = await e.connect()
        for one in rest:
            e.begin(connection, one)
        sending = asyncio.ensure_future(say(connection, b"".join(e.request(one) for one in rest)))
        answer = None
        while rest and (answer is None or answer.reusable):
            answer = await connection.answer()
            e.end(rest.pop(0), answer)
        await stopped(sending)
        if answer is not None and not answer.complete:
            for one in rest:
                e.end(one, answer, answers.NOTHING)
            return


async def hostile(e: Errand) -> None:
    """A good call, a hostile request behind it, and so on; then a good call again."""
    for one, name in zip(e.visit.asks, (*e.visit.extras, ""), strict=True):
        connection = await e.connection()
        e.begin(connection, one)
        await say(connection, e.request(one))
        answer = await connection.answer()
        e.end(one, answer)
        if name:
            await _attack(e, connection if answer.reusable else await e.connect(), one, name)
        connection.close()


async def _attack(e: Errand, connection: Connection, ask: Ask, name: str) -> None:
    data, status = HOSTILE[name]
    sending = asyncio.ensure_future(say(connection, data))
    answer = await connection.answer("CONNECT" if name == "CONNECT" else "POST")
    await stopped(sending)
    if answers.word_of_nameless(answer) != status:
        outcome = e.outcomes[ask.id]
        outcome.ended = time.monotonic()
        outcome.word, outcome.detail = "hostile", f"{name}: {answer}, not {status}"


VISITS: Final[dict[str, Callable[[Errand], Awaitable[None]]]] = {
    visit.__name__: visit
    for visit in (
        *(ask, leave, queue, leave_midway, leave_flood, die_unread, stop_reading, read_slowly, half_close, die_after),
        *(drip_head, stall_body, oversize, oversize_chunked, expect_bad_key, pipeline, hostile),
    )
}
