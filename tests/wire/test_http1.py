"""How a client may speak HTTP/1.1: in pieces, in a row, with offers and expectations, or badly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import KEY, Client, build_request, chat_request
from tests.wire.process import Gateway
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("headers", [(), (("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"))])
def test_a_request_may_come_in_any_pieces(
    connect: Connect, upstream: Upstream, headers: tuple[tuple[str, str], ...], chunked: bool
) -> None:
    """The JDK's client offers h2c with every request; a body must not get lost for it."""
    body = chat_request()
    request = build_request("POST", CHAT, body, headers, chunked=chunked)
    client = connect()
    for at in range(1, len(request), 3):
        client.split(request, at)
        assert client.response().status == 200
    client.dribble(request)
    assert client.response().status == 200
    assert all(one.json()["messages"] == upstream.requests[0].json()["messages"] for one in upstream.requests)
    assert len(upstream.requests) == len(range(1, len(request), 3)) + 1


@pytest.mark.parametrize("headers", [(), (("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"))])
def test_pipelined_requests_are_answered_in_order(
    connect: Connect, upstream: Upstream, headers: tuple[tuple[str, str], ...]
) -> None:
    upstream.answer = [answers.chat(f"answer {number}") for number in range(20)]
    client = connect()
    client.send(b"".join(build_request("POST", CHAT, chat_request(seed=n), headers) for n in range(20)))
    for number in range(20):
        text = client.response().json()["choices"][0]["message"]["content"]
        assert text == f"answer {number}"
    assert [request.json()["seed"] for request in upstream.requests] == list(range(20))


def test_a_hundred_pipelined_requests_are_bounded_and_none_is_lost(connect: Connect, upstream: Upstream) -> None:
    gate = Gate()
    upstream.answer = answers.stalled(gate)
    client = connect()
    client.send(b"".join(build_request("POST", CHAT, chat_request(seed=number)) for number in range(100)))
    upstream.ledger.wait_requests(1)
    assert len(upstream.requests) == 1, "one after another"
    gate.open()
    for _ in range(100):
        assert client.response().status == 200


def test_a_bad_request_after_a_good_one_is_refused_after_the_good_answer(connect: Connect, upstream: Upstream) -> None:
    client = connect()
    client.send(build_request("POST", CHAT, chat_request()) + b"NONSENSE\r\n\r\n")
    assert client.response().status == 200
    refused = client.response()
    assert refused.status == 400 and refused.header("connection") == "close"
    assert client.read_end() == b"" and client.ended == "fin"
    assert len(upstream.requests) == 1


def test_what_follows_a_request_that_says_close_is_ignored(connect: Connect, upstream: Upstream) -> None:
    client = connect()
    request = build_request("POST", CHAT, chat_request(), [("Connection", "close")])
    client.send(request + build_request("POST", CHAT, chat_request()))
    response = client.response()
    assert response.status == 200 and response.header("connection") == "close"
    assert client.read_end() == b""
    assert len(upstream.requests) == 1


def test_trailers_are_dropped(connect: Connect, upstream: Upstream) -> None:
    request = build_request("POST", CHAT, chat_request(), chunked=True)
    client = connect()
    for trailer in (b"X-Trailer: 1\r\n", b"Host: evil\r\n", b"Authorization: Bearer wrong\r\n"):
        client.send(request[:-2] + trailer + b"\r\n")
        assert client.response().status == 200
    assert not [one for one in upstream.requests if one.header("x-trailer")]


def test_a_body_is_waited_for_with_100_continue(connect: Connect, upstream: Upstream) -> None:
    request = build_request("POST", CHAT, chat_request(), [("Expect", "100-continue")])
    end = request.index(b"\r\n\r\n") + 4
    client = connect()
    client.send(request[:end])
    interim = b""
    while not interim.endswith(b"\r\n\r\n"):
        interim += client.sock.recv(1000)
    assert interim.startswith(b"HTTP/1.1 100 ")
    client.send(request[end:])
    assert client.response().status == 200
    assert upstream.ledger.last.header("expect") is None


def test_a_refused_request_is_not_told_to_continue(connect: Connect) -> None:
    request = build_request("POST", CHAT, chat_request(), [("Expect", "100-continue")], key="wrong")
    client = connect()
    client.send(request[: request.index(b"\r\n\r\n") + 4])
    response = client.response()
    assert (response.status, response.informational) == (401, [])


@pytest.mark.parametrize("target", ["http://gateway.test/v1/models", "http://GATEWAY.test/v1/models"])
def test_a_target_may_be_absolute(gateway: Gateway, target: str) -> None:
    assert gateway.ask("GET", target).status == 200


@pytest.mark.parametrize("target", ["ftp://gateway.test/v1/models", "http://u@gateway.test/v1/models", "*"])
def test_a_target_that_is_no_path_of_ours_is_400(gateway: Gateway, target: str) -> None:
    assert gateway.ask("GET", target).status == 400


@pytest.mark.parametrize(
    "path", ["//v1/models", "/v1//models", "/v1/./models", "/V1/models", "/v1/models/", "/v1%2Fmodels"]
)
def test_a_path_is_taken_literally(gateway: Gateway, path: str) -> None:
    assert gateway.ask("GET", path).status == 404


def test_one_empty_line_before_a_request_is_skipped(connect: Connect) -> None:
    client = connect()
    client.send(b"\r\n" + build_request("GET", "/v1/models"))
    assert client.response().status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/metrics"])
def test_head_is_get_without_the_body(connect: Connect, path: str) -> None:
    client = connect()
    client.request("HEAD", path)
    response = client.response("HEAD")
    assert (response.status, response.body) == (200, b"")
    client.request("GET", path)
    assert client.response().body


def test_http_1_0_ends_the_connection_unless_asked_to_keep_it(connect: Connect) -> None:
    start = f"GET /v1/models HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\n"
    client = connect()
    client.send(f"{start}Connection: keep-alive\r\n\r\n".encode())
    response = client.response()
    assert response.status == 200 and response.header("connection") == "keep-alive"
    client.send(f"{start}\r\n".encode())
    assert client.response().status == 200
    assert client.read_end() == b"" and client.ended == "fin"


BAD_HEADS = {
    "no version": b"GET /v1/models\r\n\r\n",
    "bare LF": b"GET /v1/models HTTP/1.1\nHost: a\n\n",
    "bare LF in a header": b"GET /v1/models HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare CR": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
    "NUL in a value": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    "no colon": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "empty name": b"GET /v1/models HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "two spaces": b"GET  /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty host": b"GET /v1/models HTTP/1.1\r\nHost: \r\n\r\n",
    "a list of hosts": b"GET /v1/models HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a host with a path": b"GET /v1/models HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a host with a user": b"GET /v1/models HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a fragment": b"GET /v1/models#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "raw bytes in the target": b"GET /v1/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /v1/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a list of lengths": b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
    "an empty length": b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
    "a bad chunk size": build_request("POST", CHAT, b"{}", chunked=True).replace(b"\r\n2\r\n", b"\r\n0x2\r\n"),
    "a chunk that is too long": build_request("POST", CHAT, b"{}", chunked=True).replace(b"{}", b"{}}"),
}


@pytest.mark.parametrize("send", [Client.send, Client.dribble], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", BAD_HEADS)
def test_bad_framing_is_400_and_the_end(
    connect: Connect, upstream: Upstream, name: str, send: Callable[[Client, bytes], None]
) -> None:
    client = connect()
    try:
        send(client, BAD_HEADS[name])
    except (BrokenPipeError, ConnectionResetError):
        pass
    response = client.response()
    assert response.status == 400 and response.header("connection") == "close"
    assert client.read_end() == b"" and client.ended == "fin"
    assert upstream.requests == []
