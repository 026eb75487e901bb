"""Requests that come before the last answer is over: in order, none lost, and no more of them held than a bound."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, build_request, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]
Leave = Callable[[Client], None]
leaving = pytest.mark.parametrize(
    "leave", [Client.close, Client.abort, Client.half_close], ids=["close", "rst", "half-close"]
)

#: Bytes that a flood may cost: 64 KiB, one read (uvloop takes up to 256,000 bytes), copies of both, and the
#: allocator's arenas.
HELD = 4 << 20


def numbered(number: int, **more: object) -> bytes:
    return build_request("POST", CHAT, chat_request(seed=number, **more))


def seeds(upstream: Upstream) -> list[int]:
    return [request.json()["seed"] for request in upstream.requests]


def begun_stream(client: Client, upstream: Upstream, gate: Gate) -> None:
    """*client* has a stream that is half over and goes on at *gate*; what follows is answered at once."""
    events = answers.chat_events(3)
    upstream.answer = [answers.stalled_stream(gate, events[:2], events[2:]), answers.chat()]
    client.chat(stream=True, seed=0)
    client.read_head()
    client.read_events(2)


@pytest.mark.parametrize("stream", [False, True])
def test_requests_in_one_segment_are_answered_in_order(connect: Connect, upstream: Upstream, stream: bool) -> None:
    """The last one is cut: what is there of it waits for the rest."""
    requests = b"".join(numbered(number, stream=stream) for number in range(5))
    client = connect()
    client.send(requests[:-7])
    for _ in range(4):
        assert client.response().complete
    client.send(requests[-7:])
    assert client.response().complete
    assert seeds(upstream) == list(range(5))


def test_a_request_that_comes_byte_by_byte_amid_an_answer_is_served_after_it(
    connect: Connect, upstream: Upstream
) -> None:
    gate = Gate()
    client = connect()
    begun_stream(client, upstream, gate)
    client.dribble(numbered(1) + numbered(2))
    gate.open()
    assert client.finish().complete
    assert [client.response().status for _ in range(2)] == [200, 200]
    assert seeds(upstream) == [0, 1, 2]


@pytest.mark.parametrize("at", [1, 40, -30], ids=["its first byte", "in its head", "in its body"])
def test_a_request_of_which_an_answers_end_came_in_the_middle_is_whole(
    connect: Connect, upstream: Upstream, gateway: Gateway, at: int
) -> None:
    """The gateway stands still while both come, so it meets the answer's end and the rest of the request at once."""
    gate = Gate()
    client = connect()
    begun_stream(client, upstream, gate)
    request = numbered(1)
    client.send(request[:at])
    wait_until_read(gateway, client)
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        gate.open()
        upstream.ledger.wait(lambda: upstream.requests[0].answered, "the stream's end is sent")
        client.send(request[at:])
    finally:
        gateway.process.send_signal(signal.SIGCONT)
    assert client.finish().complete
    assert client.response().status == 200
    assert seeds(upstream) == [0, 1]


def wait_until_read(gateway: Gateway, client: Client) -> None:
    """Return when the kernel holds nothing more of what *client* sent."""
    here, there = (f"0100007F:{port:04X}" for port in (client.address[1], gateway.port))

    def queued() -> list[str]:
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table]
        return [row[4] for row in rows if (row[1], row[2]) in ((here, there), (there, here))]

    wait_until(lambda: all(queues in ("00000000:00000000",) for queues in queued()), "all is read")


# --- more than is held ---


class Flood:
    """A client that sends requests as fast as they are taken, from a thread of its own."""

    def __init__(self, client: Client, count: int, size: int) -> None:
        self.sent = 0
        self._client = client
        self._requests = [numbered(number, user="x" * size) for number in range(count)]
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        for request in self._requests:
            try:
                self._client.send(request)
            except OSError:
                return  # the test has left
            self.sent += 1

    def wait_blocked(self) -> None:
        """Return when nothing was taken for a while, although there is more."""
        end = time.monotonic() + 10
        before = -1
        while self.sent != before:
            assert time.monotonic() < end and self.sent < len(self._requests), "all of it is taken"
            before = self.sent
            self._thread.join(0.3)

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def stop(self, gateway: Gateway) -> None:
        """Leave, and wait until that is noticed."""
        self._client.sock.shutdown(socket.SHUT_RDWR)  # a plain close would not reach the thread amid its send
        self.join()
        self._client.close()
        gateway.wait_gauge(1, "gateway_client_connections")  # the one that asks


@pytest.fixture
def flooded(stage: Stage) -> tuple[Gateway, Upstream]:
    """Without dev mode, whose allocator pads every block: memory is measured here."""
    upstream = stage.upstream()
    config = configuration(backend(upstream), server={"keepalive_requests": 1_000_000})
    return stage.gateway(config, dev=False), upstream


def test_a_flood_is_held_back_and_served_whole(flooded: tuple[Gateway, Upstream], stage: Stage) -> None:
    gateway, upstream = flooded
    gate = Gate()
    upstream.answer = [answers.stalled(gate), answers.chat()]
    client = stage.connect(gateway)
    flood = Flood(client, 400, 60_000)
    flood.wait_blocked()
    assert len(upstream.requests) == 1
    gate.open()
    for _ in range(400):
        assert client.response().status == 200
    flood.join()
    assert seeds(upstream) == list(range(400))


@pytest.mark.parametrize("size", [10, 60_000], ids=["small requests", "large requests"])
def test_a_flood_costs_no_more_memory_with_each_answer(
    flooded: tuple[Gateway, Upstream], stage: Stage, size: int
) -> None:
    """What is taken for one call must not outgrow what one call uses up."""
    gateway, _ = flooded
    assert all(gateway.ask("POST", CHAT, chat_request()).status == 200 for _ in range(20))
    before = gateway.rss()
    client = stage.connect(gateway)
    flood = Flood(client, (24 << 20) // (size + 200), size)
    peak = 0
    for _ in range(100):
        assert client.response().status == 200
        peak = max(peak, gateway.rss())
    flood.stop(gateway)
    print(f"{(peak - before) >> 10} KiB")
    assert peak - before <= HELD


@leaving
def test_a_client_that_leaves_while_a_later_call_runs_is_noticed_though_it_is_not_read(
    connect: Connect, upstream: Upstream, gateway: Gateway, leave: Leave
) -> None:
    upstream.answer = [answers.chat(), answers.chat(), answers.await_abort]
    client = connect()
    client.send(b"".join(numbered(number) for number in range(1000)))
    assert [client.response().status for _ in range(2)] == [200, 200]
    upstream.ledger.wait_requests(3)
    leave(client)
    upstream.ledger.wait_abort(1.0)
    gateway.wait_gauge(0, "gateway_in_flight_requests")
    assert len(upstream.requests) == 3
