"""The evil clients: one process, so many visits at a time, and the book of outcomes.

Owns the order of the visits and the connections that are kept between them. It refuses to know what a visit does
(`visits`). Started by `run` as `python -m bench.faults.crowd ERRAND`, the errand being JSON; it prints a line for each
visit that begins, and the lag of its own event loop last of all.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvloop

from bench.faults import answers, plan
from bench.faults.connection import Connection
from bench.faults.ledger import Book, Lag, Watch
from bench.faults.plan import Visit
from bench.faults.visits import VISITS, Errand


class Orders(msgspec.Struct, frozen=True):
    """What the process is told."""

    port: int
    book: str
    seed: int
    count: int
    rows: tuple[int, ...]
    only: tuple[int, ...]
    at_once: int
    #: seconds that a visit may take in all
    patience: float = 60.0


async def carry_out(orders: Orders, book: Book) -> Lag:
    """Make every visit of the plan."""
    watch = Watch()
    rest = iter(plan.make(orders.seed, orders.count, orders.rows, orders.only).visits)
    await asyncio.gather(*(_client(orders, rest, book) for _ in range(orders.at_once)))
    return watch.lag()


async def _client(orders: Orders, rest: Iterator[Visit], book: Book) -> None:
    """One visit after another, until there are none."""
    kept: Connection | None = None
    for visit in rest:
        print(visit.number, flush=True)
        errand = Errand(orders.port, visit, kept)
        await _visit(errand, orders.patience)
        kept = errand.kept
        for outcome in errand.outcomes.values():
            book.write(outcome)
    if kept is not None:
        kept.close()


async def _visit(errand: Errand, patience: float) -> None:
    try:
        async with asyncio.timeout(patience):
            await VISITS[errand.case.visit](errand)
    except (OSError, TimeoutError) as error:  # a connection that the gateway did not take, or a wait without end
        for outcome in errand.outcomes.values():
            if not outcome.ended:
                outcome.ended = time.monotonic()
                outcome.word, outcome.detail = answers.LATE, repr(error)
    finally:
        errand.close()


def main() -> None:
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    book = Book(Path(orders.book))
    # A collection would show up as a client that left later than it says.
    gc.disable()
    try:
        lag = uvloop.run(carry_out(orders, book))
    finally:
        book.close()
    print(msgspec.json.encode(lag).decode(), flush=True)


if __name__ == "__main__":
    main()
