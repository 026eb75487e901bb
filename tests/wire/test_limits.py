"""What a client may ask of the gateway: sizes, time for its own part, and a share of the memory for bodies."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.wire import tls
from tests.wire.client import KEY, Client, build_request, chat_request
from tests.wire.process import Configuration, Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
IMAGES = "/v1/images/generations"
Connect = Callable[..., Client]

HEAD, BODY, MEDIA, BUDGET = 4096, 10_240, 20_480, 65_536


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    limits = {
        "head_limit": HEAD,
        "body_limit": BODY,
        "media_body_limit": "20KiB",
        "body_budget": "64KiB",
        "header_timeout": "600ms",
        "body_timeout": "600ms",
    }
    return configuration(backend(module_upstream), server=limits)


def sized(size: int) -> bytes:
    """A chat body of *size* bytes."""
    empty = chat_request(user="")
    return chat_request(user="x" * (size - len(empty)))


def last_word(client: Client, status: int, code: str) -> None:
    """The answer is *status*, and it is the last one on this connection."""
    response = client.response()
    assert (response.status, response.code) == (status, code)
    assert response.complete and response.header("connection") == "close"
    assert client.read_end() == b"" and client.ended == "fin"


# --- sizes ---


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("path", "limit"), [(CHAT, BODY), (IMAGES, MEDIA)])
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(
    gateway: Gateway, upstream: Upstream, path: str, limit: int, chunked: bool
) -> None:
    assert gateway.ask("POST", path, sized(limit), chunked=chunked).status == 200
    response = gateway.ask("POST", path, sized(limit + 1), chunked=chunked)
    assert (response.status, response.code) == (413, "body_too_large")
    assert len(upstream.requests) == 1


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(connect: Connect, upstream: Upstream) -> None:
    client = connect()
    client.send(build_request("POST", CHAT, sized(BODY + 1)).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    response = client.response()
    assert (response.status, response.code) == (413, "body_too_large")
    assert upstream.ledger.connections == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_on_still_gets_its_answer(connect: Connect, chunked: bool) -> None:
    """Closing at once would make the kernel reset the connection and destroy the answer on its way."""
    client = connect()
    client.send(build_request("POST", CHAT, sized(500_000), chunked=chunked))
    last_word(client, 413, "body_too_large")


def test_a_head_larger_than_the_limit_is_431(connect: Connect) -> None:
    client = connect()
    client.send(build_request("GET", "/v1/models", headers=[("X-A", "a" * 3000)]))
    assert client.response().status == 200
    client.send(build_request("GET", "/v1/models", headers=[("X-A", "a" * 5000)]))
    last_word(client, 431, "head_too_large")


def test_a_head_with_too_many_fields_is_431(connect: Connect) -> None:
    client = connect()
    client.send(build_request("GET", "/v1/models", headers=[("A", "")] * 500))
    last_word(client, 431, "head_too_large")


def test_a_head_without_an_end_is_refused_at_its_limit(connect: Connect) -> None:
    client = connect()
    client.send(b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000)
    last_word(client, 431, "head_too_large")


def test_a_body_in_chunks_of_one_byte_is_taken(gateway: Gateway, connect: Connect) -> None:
    client = connect()
    head = build_request("POST", CHAT, b"", chunked=True)[: -len(b"0\r\n\r\n")]
    client.send(head + b"".join(b"1\r\n%c\r\n" % byte for byte in sized(2000)) + b"0\r\n\r\n")
    assert client.response().status == 200


@pytest.mark.parametrize(
    "excess", [b"1;" + b"x" * 200_000, b"0" * 100 + b"1\r\n", b"1\r\n{\r\n0\r\n" + b"A: b\r\n" * 50_000]
)
def test_what_is_between_chunks_is_bounded(connect: Connect, gateway: Gateway, excess: bytes) -> None:
    client = connect()
    head = build_request("POST", CHAT, b"", chunked=True)[: -len(b"0\r\n\r\n")]
    try:
        client.send(head + excess)
    except (BrokenPipeError, ConnectionResetError):
        pass
    response = client.response()
    assert response.status in (400, 413, 431) and response.header("connection") == "close"


# --- time ---


@pytest.mark.parametrize("sent", [1, 30, 100])
def test_a_head_that_stops_is_408(connect: Connect, sent: int) -> None:
    client = connect()
    client.send(build_request("POST", CHAT, chat_request())[:sent])
    last_word(client, 408, "request_timeout")


def test_a_head_that_drips_is_408_when_its_time_is_over(connect: Connect) -> None:
    """The time is for the whole head: a byte now and then does not prolong it."""
    client = connect()
    head = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Slow: " + b"a" * 200
    client.sock.settimeout(0.02)
    got = b""
    for byte in head:
        client.send(bytes([byte]))
        try:
            got = client.sock.recv(65_536)
            break
        except TimeoutError:
            continue
    assert got.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_stops_is_408(connect: Connect, upstream: Upstream, chunked: bool) -> None:
    client = connect()
    client.send(build_request("POST", CHAT, chat_request(), chunked=chunked)[:-4])
    last_word(client, 408, "request_timeout")
    assert upstream.ledger.connections == []


def test_a_body_that_goes_on_slowly_is_taken(connect: Connect) -> None:
    """Its time starts anew whenever something comes."""
    request = build_request("POST", CHAT, chat_request())
    start = request.index(b"\r\n\r\n") + 4
    client = connect()
    client.split(request, *range(start, len(request), 8), pause=0.1)
    assert client.response().status == 200


def test_slow_clients_do_no_harm_to_others(connect: Connect, gateway: Gateway) -> None:
    slow = [connect() for _ in range(100)]
    for number, client in enumerate(slow):
        client.send(build_request("POST", CHAT, chat_request())[: 20 + number])
    assert all(gateway.ask("POST", CHAT, chat_request()).status == 200 for _ in range(10))
    for client in slow:
        last_word(client, 408, "request_timeout")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("sent", [b"P", b"POST /v1/chat/completions HTTP/1.1\r\nX-Slow: a"], ids=["1 B", "a slow head"])
def test_500_slow_clients_leave_others_unharmed(stage: Stage, secure: bool, sent: bytes) -> None:
    more = {"tls": tls.LISTENER} if secure else {}
    server = {"header_timeout": "30s", **more}
    gateway = stage.gateway(configuration(backend(stage.upstream()), server=server))
    slow = [stage.connect(gateway, timeout=30.0) for _ in range(500)]
    for client in slow:
        client.send(sent)
    client = stage.connect(gateway)
    for _ in range(20):
        client.chat()
        assert client.response().status == 200
        for other in slow[:100]:
            other.send(b"a")
        assert gateway.ask("POST", CHAT, chat_request(stream=True)).complete
    assert gateway.gauge("gateway_client_connections") == 502


def test_framing_that_drips_is_no_progress_of_a_body(connect: Connect) -> None:
    client = connect()
    client.send(build_request("POST", CHAT, b"", chunked=True)[: -len(b"0\r\n\r\n")] + b"1;x=")
    client.sock.settimeout(0.02)
    got = b""
    for _ in range(200):
        try:
            client.send(b"a")
            got = client.sock.recv(65_536)
            break
        except TimeoutError:
            continue
    assert got.startswith(b"HTTP/1.1 408 ")


def test_empty_lines_that_drip_are_no_head(connect: Connect) -> None:
    """They may come before a request, and do not prolong the time that it has."""
    client = connect()
    client.sock.settimeout(0.02)
    for _ in range(200):
        try:
            client.send(b"\r\n")
            if client.sock.recv(65_536) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    else:
        pytest.fail("it was never ended")


# --- memory for bodies ---


def begin_upload(client: Client, size: int) -> None:
    """Announce a body of *size* bytes and send none of it."""
    head = f"POST {IMAGES} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
    client.send(f"{head}Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode())


def test_bodies_share_a_budget_which_is_taken_when_they_are_announced(connect: Connect, gateway: Gateway) -> None:
    first, second = connect(), connect()
    for client in (first, second, connect()):
        begin_upload(client, MEDIA)
    gateway.wait_gauge(3 * MEDIA, "gateway_body_budget_bytes")
    response = gateway.ask("POST", CHAT, sized(BODY))
    assert (response.status, response.code) == (503, "overloaded")
    assert int(response.header("retry-after") or 0) >= 1
    assert int(response.header("retry-after-ms") or 0) > 0
    assert gateway.ask("GET", "/v1/models").status == 200
    first.close()
    wait_until(lambda: gateway.ask("POST", CHAT, sized(BODY)).status == 200, "the share of one that left")


def test_a_body_in_chunks_takes_its_share_as_it_comes(connect: Connect, gateway: Gateway) -> None:
    client = connect()
    client.send(build_request("POST", CHAT, sized(8000), chunked=True)[:-5])
    gateway.wait_gauge(8000, "gateway_body_budget_bytes")
    client.send(b"0\r\n\r\n")
    assert client.response().status == 200
    gateway.wait_gauge(0, "gateway_body_budget_bytes")


def test_a_connection_without_a_request_is_closed_in_time(connect: Connect) -> None:
    client = connect()
    start = time.monotonic()
    data = client.read_end()
    assert client.ended == "fin" and time.monotonic() - start < 4
    assert data == b"" or data.startswith(b"HTTP/1.1 408 ")
