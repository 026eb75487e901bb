"""RELIABILITY's section 2.1 over real sockets: what is odd and legal is served, and travels on in one plain form."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import KEY, Client, build_request, chat_request
from tests.wire.hostile import BODY_LIMIT, CHAT, GOOD, SIZED, chunks, get, judge_forwarded, post
from tests.wire.process import Configuration, Gateway, wait_until
from tests.wire.stage import backend, configuration
from tests.wire.upstream import Upstream

Connect = Callable[..., Client]
ODD_PATH = b'/v1/odd/"<>{}|^`\\%00%0d%0a//;a=b?q="<>\'%zz&&=?'


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    limits = {"body_limit": BODY_LIMIT, "media_body_limit": BODY_LIMIT, "body_budget": 4 * BODY_LIMIT}
    keys = [{"name": "tester", "key": KEY, "passthrough": True}]
    return configuration(backend(module_upstream, passthrough=["/v1/odd/*"]), server=limits, auth={"keys": keys})


@dataclass
class Odd:
    """A request, and the body and lines that travel on; *kept* where the connection goes on."""

    data: bytes
    body: bytes = GOOD
    lines: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = ()
    kept: bool = True


def with_length(*lines: bytes) -> bytes:
    return post(b"Content-Length: 13", *lines) + GOOD


UPGRADE = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
KEY_LINE = b"Authorization: Bearer " + KEY.encode()
BARE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n"
OLD = b"POST /v1/chat/completions HTTP/1.0\r\n" + KEY_LINE + b"\r\nContent-Length: 13\r\n"

SERVED = {
    "6 zeros before a length": Odd(post(b"Content-Length: 0013") + GOOD),
    "6 tab before a length": Odd(post(b"Content-Length:\t13") + GOOD),
    "6 space behind a length": Odd(post(b"Content-Length: 13 \t ") + GOOD),
    "6 no space before a length": Odd(post(b"content-length:13") + GOOD),
    "8 chunked in other letters": Odd(post(b"transfer-ENCODING:\tChunked ") + SIZED + b"0\r\n\r\n"),
    "10 underscores never frame": Odd(
        with_length(b"Transfer_Encoding: chunked", b"Content_Length: 5", b"X_Forwarded_For: 1.2.3.4"),
        absent=(b"_", b"1.2.3.4"),
    ),
    "16 bytes beyond ASCII": Odd(with_length(b"X-A: \xe9\xff\x80"), lines=(b"X-A: \xe9\xff\x80",)),
    "17 space behind Host and key": Odd(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost:\ta:80 \t\r\n" + KEY_LINE + b" \t\r\n"
        b"Content-Length: 13\r\n\r\n" + GOOD
    ),
    "17 space around a value": Odd(with_length(b"X-A: \t b c\t "), lines=(b"X-A: b c",)),
    "19 an absolute target": Odd(
        post(b"Content-Length: 13", start=b"POST http://A/v1/chat/completions HTTP/1.1") + GOOD, absent=(b"http:",)
    ),
    "26 a target is not decoded": Odd(
        post(b"Content-Length: 13", start=b"PUT " + ODD_PATH + b" HTTP/1.1") + GOOD,
        lines=(b"PUT " + ODD_PATH + b" HTTP/1.1",),
    ),
    "28 zeros before a chunk's size": Odd(chunks(b"000000000000000d\r\n" + GOOD + b"\r\n00\r\n\r\n")),
    "29 small extensions": Odd(chunks(b'd;a=b;c="d e"\r\n' + GOOD + b"\r\n0;z\r\n\r\n")),
    "30 chunks of one byte": Odd(chunks(b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD) + b"0\r\n\r\n")),
    **{
        f"31 trailer {trailer.decode()}": Odd(
            chunks(SIZED + b"0\r\n" + trailer + b"\r\n\r\n"), absent=(trailer.partition(b":")[2].strip() or b"X-T",)
        )
        for trailer in (
            *(b"X-T: tail", b"X-T:", b"Host: tail", b"Authorization: Bearer tail", b"Content-Type: tail"),
            *(b"Content-Length: 31337", b"Transfer-Encoding: tail"),
        )
    },
    "38 an upgrade, with a length": Odd(with_length(*UPGRADE), absent=(b"h2c", b"AAEAAE")),
    "38 an upgrade, with chunks": Odd(
        post(*UPGRADE, b"Transfer-Encoding: chunked") + SIZED + b"0\r\n\r\n", absent=(b"h2c", b"AAEAAE")
    ),
    "38 an upgrade to anything": Odd(
        with_length(b"Connection: upgrade", b"Upgrade: websocket, foo/2"), absent=(b"foo/2",)
    ),
    "39 Connection names what it must not": Odd(
        with_length(
            b"Connection: Authorization, X-Hop, Host, Content-Length, X-Request-Id, X-Trace-Id", b"X-Hop: hopped"
        ),
        absent=(b"hopped",),
    ),
    "40 fields of this hop": Odd(
        with_length(
            b"TE: trailers", b"Keep-Alive: timeout=9", b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: Basic eDp5", b"Trailer: X-T", b"Via: 1.1 me",
            b"Forwarded: for=1.2.3.4", b"X-Real-IP: 1.2.3.4", b"X-Gateway-User: root",
        ),
        absent=(b"trailers", b"timeout=9", b"Basic", b"X-T:", b"1.1 me", b"1.2.3.4", b"root"),
    ),
    "44 an empty line before": Odd(b"\r\n" + with_length()),
    "44 many empty lines before": Odd(b"\r\n" * 1000 + with_length()),
    "46 HTTP/1.0": Odd(OLD + b"\r\n" + GOOD, kept=False),
    "46 HTTP/1.0 ignores an expectation": Odd(OLD + b"Expect: 100-continue\r\n\r\n" + GOOD, kept=False),
    "46 HTTP/1.0, kept": Odd(OLD + b"Connection: Keep-Alive\r\n\r\n" + GOOD),
    "48 a key that comes twice": Odd(
        post(b"Content-Length: 25") + b'{"model":"x","model":"m"}', body=b'{"model":"m"}', absent=(b'"x"',)
    ),
    "50 order, letters and doubles": Odd(
        with_length(b"X-B: 1", b"x-a: 2", b"X-b: 3"), lines=(b"X-B: 1\r\nx-a: 2\r\nX-b: 3",)
    ),
}  # fmt: skip


@pytest.mark.parametrize("repeated", [1, 3])
@pytest.mark.parametrize("name", SERVED)
def test_an_odd_request_is_served_and_travels_on_in_a_plain_form(
    connect: Connect, upstream: Upstream, name: str, repeated: int
) -> None:
    """Alone, and repeated on its connection: then it is read by a pattern."""
    odd = SERVED[name]
    client = connect()
    for _ in range(repeated if odd.kept else 1):
        client.send(odd.data)
        response = client.response()
        assert response.status == 200 and response.complete and response.informational == []
    if odd.kept:
        client.send(build_request("POST", CHAT, GOOD))
        assert client.response().status == 200
    else:
        assert client.read_end() == b""
    for request in upstream.requests[: repeated if odd.kept else 1]:
        judge_forwarded(request, odd.body)
        for line in odd.lines:
            assert b"\r\n" + line + b"\r\n" in b"\r\n" + request.raw_head
        for text in odd.absent:
            assert text not in request.raw_head + request.body


# --- no body, or one that nobody asked for ---


def test_a_post_without_framing_has_no_body(connect: Connect, upstream: Upstream) -> None:
    client = connect()
    client.send(post() + GOOD + b"\r\n\r\n")
    response = client.response()
    assert (response.status, response.code) == (400, "invalid_json")
    assert client.response().status == 400, "what follows is read as another request, which it is not"
    assert upstream.requests == []


@pytest.mark.parametrize("framing", [b"Content-Length: 13", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_body_that_comes_with_get_is_not_the_next_request(connect: Connect, method: bytes, framing: bytes) -> None:
    body = SIZED + b"0\r\n\r\n" if b"chunked" in framing else GOOD
    client = connect()
    client.send(get(b"/v1/models", framing, method=method) + body + get(b"/v1/models"))
    assert client.response(method.decode()).status == 200
    assert client.response().status == 200


@pytest.mark.parametrize("status", ["no key", "method", "path"])
def test_the_body_of_a_refused_request_is_not_the_next_request(connect: Connect, status: str) -> None:
    """Where it is there in full; where not, the connection ends."""
    requests = {
        "no key": (build_request("POST", CHAT, GOOD, key="wrong"), 401),
        "method": (build_request("PUT", CHAT, GOOD), 405),
        "path": (build_request("POST", "/v1/nowhere", GOOD), 404),
    }
    data, expected = requests[status]
    client = connect()
    client.send(data + build_request("POST", CHAT, GOOD))
    assert client.response().status == expected
    assert client.response().status == 200
    client.send(data[:-1])
    assert client.response().status == expected
    assert client.read_end() == b""


def test_a_packed_body_is_415_and_the_connection_goes_on(connect: Connect, upstream: Upstream) -> None:
    client = connect()
    client.send(with_length(b"Content-Encoding: gzip"))
    assert client.response().status == 415
    client.send(with_length())
    assert client.response().status == 200
    assert len(upstream.requests) == 1


# --- 100-continue ---

REFUSED_EARLY = {
    "key": (build_request("POST", CHAT, GOOD, [("Expect", "100-continue")], key="wrong"), 401),
    "path": (build_request("POST", "/v1/nowhere", GOOD, [("Expect", "100-continue")]), 404),
    "method": (build_request("PUT", CHAT, GOOD, [("Expect", "100-continue")]), 405),
    "kind of body": (
        build_request("POST", CHAT, GOOD, [("Expect", "100-continue"), ("Content-Encoding", "br")]),
        415,
    ),
    "length": (build_request("POST", CHAT, b" " * (BODY_LIMIT + 1), [("Expect", "100-continue")]), 413),
    "an absurd length": (post(b"Expect: 100-continue", b"Content-Length: 99999999999999999") + b"\r\n\r\n", 413),
    "another expectation": (build_request("POST", CHAT, GOOD, [("Expect", "100-continue, tea")]), 417),
}


@pytest.mark.parametrize("name", REFUSED_EARLY)
def test_what_is_refused_by_its_head_is_not_told_to_continue(connect: Connect, upstream: Upstream, name: str) -> None:
    data, status = REFUSED_EARLY[name]
    client = connect()
    client.send(data[: data.index(b"\r\n\r\n") + 4])
    response = client.response()
    assert (response.status, response.informational) == (status, [])
    assert response.header("connection") == "close"
    assert client.read_end() == b"" and client.ended == "fin"
    assert upstream.ledger.connections == []


def test_without_a_share_of_the_budget_nobody_is_told_to_continue(connect: Connect, gateway: Gateway) -> None:
    holders = [connect() for _ in range(4)]
    head = post(b"Expect: 100-continue", b"Content-Length: %d" % BODY_LIMIT)
    for holder in holders:
        holder.send(head)
        assert holder.sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client = connect()
    client.send(head)
    response = client.response()
    assert (response.status, response.informational, response.code) == (503, [], "overloaded")


@pytest.mark.parametrize("chunked", [False, True])
def test_continue_is_said_once_and_not_where_the_body_has_come(
    connect: Connect, upstream: Upstream, chunked: bool
) -> None:
    body = chat_request()
    request = build_request("POST", CHAT, body, [("Expect", "100-Continue")], chunked=chunked)
    end = request.index(b"\r\n\r\n") + 4
    client = connect()
    client.send(request)
    assert client.response().informational == []
    client.send(request[:end])
    assert client.sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.dribble(request[end:])
    response = client.response()
    assert (response.status, response.informational) == (200, [])
    for one in upstream.requests:
        assert one.json() == upstream.requests[0].json()
        judge_forwarded(one)


def test_a_request_behind_a_running_call_is_told_to_continue_in_its_turn(connect: Connect, upstream: Upstream) -> None:
    gate = Gate()
    upstream.answer = [answers.stalled(gate), answers.chat("second")]
    second = build_request("POST", CHAT, GOOD, [("Expect", "100-continue")])
    client = connect()
    client.send(build_request("POST", CHAT, GOOD) + second[: -len(GOOD)])
    upstream.ledger.wait_requests(1)
    gate.open()
    assert client.response().status == 200
    while client._rest != b"HTTP/1.1 100 Continue\r\n\r\n":
        client._rest += client.sock.recv(1000)
    client.send(GOOD)
    response = client.response()
    assert (response.status, response.informational) == (200, [100])


# --- many in a row ---


def takes_more(client: Client) -> bool:
    """Whether the kernel takes bytes of *client* within 5 ms."""
    return bool(select.select([], [client.sock], [], 0.005)[1])


def test_a_row_of_requests_behind_a_running_call_is_not_gathered(
    connect: Connect, gateway: Gateway, upstream: Upstream
) -> None:
    """Row 35: 64 KiB of it are held, the rest waits in the kernel's buffers and the client's; none is lost."""
    count = 300
    gate = Gate()
    upstream.answer = [answers.stalled(gate), lambda x: answers.chat(str(x.request.json()["n"]))(x)]
    client = connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
    client.send(build_request("POST", CHAT, GOOD))
    upstream.ledger.wait_requests(1)
    before = gateway.rss()
    bodies = (chat_request(n=number, user="x" * 8000) for number in range(count))
    row = b"".join(build_request("POST", CHAT, body) for body in bodies)
    writer = threading.Thread(target=client.sock.sendall, args=[row])
    writer.start()
    # Nothing tells that the gateway stopped reading, but that the kernel takes no more, fifty times in a row.
    wait_until(lambda: all(not takes_more(client) for _ in range(50)), "the gateway to stop reading")
    assert gateway.rss() - before < 2 << 20
    gate.open()
    assert client.response().status == 200
    for number in range(count):
        assert client.response().body == answers.chat_body(str(number))
    writer.join()
