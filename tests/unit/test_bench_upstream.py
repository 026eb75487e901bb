"""The scripted upstream, spoken to over real sockets, its bytes parsed by h11."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import h11
import pytest

from bench import messages
from bench.processes import ROOT, surroundings
from bench.upstream import request_length

STREAM = messages.stream_body(1, 3)
STREAM_WITH_USAGE = json.dumps(json.loads(STREAM) | {"stream_options": {"include_usage": True}}).encode()


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "bench.upstream"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=surroundings(), stdin=pipe, stdout=pipe) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0, "it ends with its standard input"


@pytest.fixture(scope="module")
def ports(process: subprocess.Popen[bytes]) -> list[int]:
    assert process.stdout is not None
    told: list[int] = json.loads(process.stdout.readline())
    return told


@pytest.fixture(params=[0, 1], ids=["first port", "second port"])
def sock(request: pytest.FixtureRequest, ports: list[int]) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", ports[request.param]), timeout=10) as sock:
        yield sock


def answer(sock: socket.socket, client: h11.Connection) -> tuple[h11.Response, bytes]:
    """The next answer on *sock*, by the rules of h11."""
    head: h11.Response | None = None
    body = b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(sock.recv(65536))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return head, body
        else:
            raise AssertionError(event)


def ask(
    sock: socket.socket, client: h11.Connection, body: bytes, method: str = "POST", target: bytes = messages.PATH
) -> tuple[h11.Response, bytes]:
    """Send a request that h11 makes; its answer."""
    head = h11.Request(method=method, target=target, headers=[("Host", "bench"), ("Content-Length", str(len(body)))])
    sock.sendall(b"".join(client.send(event) or b"" for event in (head, h11.Data(data=body), h11.EndOfMessage())))
    return answer(sock, client)


def client() -> h11.Connection:
    return h11.Connection(our_role=h11.CLIENT)


def test_a_call_gets_600_bytes_of_json_with_usage_and_the_connection_stays(sock: socket.socket) -> None:
    connection = client()
    for _ in range(3):
        head, body = ask(sock, connection, messages.call_body())
        assert (head.status_code, body) == (200, messages.ANSWER_BODY)
        connection.start_next_cycle()
    assert len(messages.ANSWER_BODY) == 600
    assert json.loads(messages.ANSWER_BODY)["usage"]["total_tokens"] == 192


def test_the_request_of_the_generator_is_one_that_h11_accepts_and_1300_bytes_long() -> None:
    request = messages.Request(8080, messages.call_body())
    server = h11.Connection(our_role=h11.SERVER)
    server.receive_data(bytes(request.number(1)))
    head = server.next_event()
    assert isinstance(head, h11.Request)
    assert head.target == messages.PATH
    data = server.next_event()
    assert isinstance(data, h11.Data)
    assert bytes(data.data) == messages.call_body()
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert 1250 <= len(request.buffer) <= 1350
    assert json.loads(messages.call_body())["model"] == messages.JSON_MODEL


def test_every_request_has_a_traceparent_of_its_own() -> None:
    request = messages.Request(8080, messages.call_body())
    seen = set()
    for n in (1, 2, 1 << 40):
        server = h11.Connection(our_role=h11.SERVER)
        server.receive_data(bytes(request.number(n)))
        head = server.next_event()
        assert isinstance(head, h11.Request)
        (trace,) = (value for name, value in head.headers if name == b"traceparent")
        assert [len(part) for part in trace.split(b"-")] == [2, 32, 16, 2]
        seen.add(trace)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("body", "asked"), [(STREAM, False), (STREAM_WITH_USAGE, True)], ids=["plain", "asked for usage"]
)
def test_a_stream_has_its_events_then_usage_if_asked_for_then_its_end(
    sock: socket.socket, body: bytes, asked: bool
) -> None:
    connection = client()
    head, payload = ask(sock, connection, body)
    assert (b"content-type", b"text/event-stream; charset=utf-8") in list(head.headers)
    events = [event + b"\n\n" for event in payload.split(b"\n\n")[:-1]]
    usage = [messages.USAGE_EVENT] if asked else []
    assert events[3:] == [messages.FINISH_EVENT, *usage, messages.DONE_EVENT]
    stamps = [int(event[messages.EVENT_STAMP], 16) for event in events[:3]]
    assert stamps == sorted(set(stamps))
    assert all(len(event) == 180 for event in events[:3])
    assert all(json.loads(event[6:])["choices"] for event in events[:3])
    connection.start_next_cycle()
    assert ask(sock, connection, messages.call_body())[0].status_code == 200


def test_a_request_may_come_in_pieces(sock: socket.socket) -> None:
    request = bytes(messages.Request(8080, messages.call_body()).number(1))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for n in range(0, len(request), 100):
        sock.sendall(request[n : n + 100])
    connection = client()
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "bench")]))
    connection.send(h11.EndOfMessage())
    assert answer(sock, connection)[1] == messages.ANSWER_BODY


def test_it_counts_what_it_has_done(sock: socket.socket) -> None:
    connection = client()

    def served() -> dict[str, int]:
        told: dict[str, int] = json.loads(ask(sock, connection, b"", "GET", b"/served")[1])
        connection.start_next_cycle()
        return told

    before = served()
    for body in (messages.call_body(), STREAM, STREAM_WITH_USAGE):
        ask(sock, connection, body)
        connection.start_next_cycle()
    after = served()
    assert {name: after[name] - before[name] for name in after} == {
        "calls": 1,
        "streams": 2,
        "events": 6,
        "usage_asked": 1,
    }


def test_an_unknown_path_is_404(sock: socket.socket) -> None:
    assert ask(sock, client(), b"", "GET", b"/v1/models")[0].status_code == 404


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 43),
        (b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", 43),
        (b"POST / HTTP/1.1\r\nCONTENT-LENGTH:5\r\n\r\nhello", 42),
        (b"POST / HTTP/1.1\r\nA: b\r\n\r\ncontent-length: 5\r\n", 25),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r", 0),
        (b"", 0),
    ],
)
def test_a_request_ends_where_its_content_length_says(data: bytes, length: int) -> None:
    assert request_length(data) == length
