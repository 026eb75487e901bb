"""`python -m bench translated`: what it costs to say a stream of chat chunks in another dialect.

Owns the doors that are compared, the load on them, and the table: CPU per chunk beside that of the same stream relayed
untouched, in the same rounds, and resident memory per stream. It refuses nginx and whole calls (`overhead`). Called by
`bench.__main__`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench import build, machine, messages, targets
from bench.cpu import Tree
from bench.figures import differences, spread
from bench.processes import Broken
from bench.scenarios import OUTLIVE_S, SETTLE_S, opening_ms

#: Seconds that opening all streams may take beyond its pace.
SPARE_S: Final = 10.0
_READ: Final = 1 << 16


class TranslatedOptions(msgspec.Struct, frozen=True):
    """How many streams, an event each so many milliseconds, in how many rounds of how many seconds."""

    streams: int = 100
    period_ms: int = 20
    rounds: int = 5
    duration: float = 2.0


class Door(msgspec.Struct, frozen=True):
    """One path: its request's own members, and what stands once in each of its chunks."""

    path: str
    mark: bytes
    body: dict[str, object]


_MESSAGES: Final[list[object]] = [{"role": "user", "content": messages.QUESTION}]
#: The first is relayed untouched, being the one door of the scripted upstream; the others are said in another dialect.
DOORS: Final = (
    Door("/v1/chat/completions", b'"delta":{"content"', {"messages": _MESSAGES}),
    Door("/v1/messages", b'"text_delta"', {"messages": _MESSAGES}),
    Door("/v1/responses", b'"response.output_text.delta"', {"input": messages.QUESTION}),
    Door("/api/chat", b'"done":false', {"messages": _MESSAGES}),
)


class Stream(asyncio.Protocol):
    """One client: sends its request, and counts the chunks that come."""

    def __init__(self, request: bytes, mark: bytes) -> None:
        self.chunks = 0
        self.head = b""
        self._request = request
        self._mark = mark
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.head:
            self.head = data[:64]
        data = self._tail + data
        found = data.rfind(self._mark)
        self.chunks += data.count(self._mark)
        # A mark that two reads cut is counted once it is whole.
        self._tail = data[max(found + len(self._mark), len(data) - len(self._mark) + 1) :]


class Found(msgspec.Struct):
    """One door in one round."""

    cpu_us: float
    memory: float


def _request(door: Door, options: TranslatedOptions, events: int) -> bytes:
    limit = "max_output_tokens" if door.path == "/v1/responses" else "max_tokens"
    counted = {"options": {"num_predict": events}} if door.path == "/api/chat" else {limit: events}
    model = messages.stream_model(options.period_ms)
    body = msgspec.json.encode({**door.body, **counted, "model": model, "stream": True})
    head = (
        f"POST {door.path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {messages.KEY.decode()}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _offer(door: Door, options: TranslatedOptions, port: int, tree: Tree) -> Found:
    """Open all streams, let them run, and look at what the gateway uses meanwhile. Broken where one is no stream."""
    loop = asyncio.get_running_loop()
    gap = opening_ms(options.streams, options.period_ms) / 1e3
    lasting = options.streams * gap + SETTLE_S + options.duration + OUTLIVE_S + SPARE_S
    request = _request(door, options, int(lasting * 1e3 / options.period_ms))
    before = tree.resident()
    streams = []
    try:
        async with asyncio.timeout(lasting + SPARE_S):
            for _ in range(options.streams):
                _, stream = await loop.create_connection(lambda: Stream(request, door.mark), "127.0.0.1", port)
                streams.append(stream)
                await asyncio.sleep(gap)
            await asyncio.sleep(SETTLE_S)
            start, spent = sum(stream.chunks for stream in streams), tree.spent()
            await asyncio.sleep(options.duration)
            chunks, spent = sum(stream.chunks for stream in streams) - start, tree.spent() - spent
            grown = tree.resident() - before
    except TimeoutError:
        raise Broken(f"{door.path}: the streams could not be opened in time") from None
    finally:
        for stream in streams:
            stream.transport.abort()
    if any(not stream.head.startswith(b"HTTP/1.1 200 ") or not stream.chunks for stream in streams) or not chunks:
        raise Broken(f"{door.path}: not every client got its stream: {streams[0].head!r}")
    return Found(spent / 1e3 / chunks, grown / options.streams / 1024)


def run(options: TranslatedOptions) -> None:
    """Measure every door once a round, and print the table. Broken where something does not run."""
    cpus = targets.cpus()
    print(machine.header({**machine.described(), "gateway": str(build.measured())}), flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        upstream = targets.start_upstream(stack, folder, cpus.of_upstream)
        gateway = targets.start_target(targets.GATEWAY, stack, folder, cpus, upstream.ports)
        process = gateway.proxies[0].process
        os.sched_setaffinity(0, {cpus.of_load(0)})
        tree = Tree(process.pid)
        while len(tree.pids) == 1 and process.poll() is None:  # the worker is born after its listener
            time.sleep(OUTLIVE_S / 100)
            tree.newcomers()
        rounds: dict[str, list[Found]] = {door.path: [] for door in DOORS}
        for round_ in range(options.rounds):
            at = round_ % len(DOORS)
            for door in (*DOORS[at:], *DOORS[:at]):
                print(f"round {round_ + 1} of {options.rounds}, {door.path}", file=sys.stderr, flush=True)
                rounds[door.path].append(asyncio.run(_offer(door, options, gateway.ports[0], tree)))
        print(_table(rounds))


def _table(rounds: dict[str, list[Found]]) -> str:
    relayed = _by_round(rounds[DOORS[0].path])
    lines = [f"{'door':22} {'CPU us per chunk':>22} {'above relayed':>22} {'KiB per stream':>16}"]
    for path, found in rounds.items():
        spent = _by_round(found)
        above = differences(spent, relayed)
        memory = max(one.memory for one in found)
        lines.append(f"{path:22} {_told(list(spent.values())):>22} {_told(above):>22} {memory:16.1f}")
    return "\n".join(lines)


def _by_round(found: Sequence[Found]) -> dict[int, float]:
    return {round_: one.cpu_us for round_, one in enumerate(found)}


def _told(values: Sequence[float]) -> str:
    of = spread(values)
    return f"{of.median:.1f} [{of.low:.1f}..{of.high:.1f}]"
