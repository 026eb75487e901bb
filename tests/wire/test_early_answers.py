"""An answer that comes before its request is over: it arrives whole though the client sends on, and is the last one.

RELIABILITY 2.1 row 43: a connection that is closed while bytes come is reset by the kernel, and the reset destroys the
answer in the client's buffers (RFC 9112 section 9.6).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.client import KEY, Client, build_request, chat_request
from tests.wire.process import Configuration, wait_until
from tests.wire.stage import backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
LIMIT = 64 << 10
Connect = Callable[..., Client]
#: More than the gateway's and the kernel's buffers take at once, and less than what it reads after its last word.
REST = b"x" * 900_000


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    return configuration(backend(module_upstream), server={"body_limit": LIMIT, "media_body_limit": 4 << 20})


def begun(
    path: str, *lines: str, key: str = KEY, method: str = "POST", framing: str = "Content-Length: 900000"
) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {key}", framing, *lines]
    return "\r\n".join([*head, "", ""]).encode()


CHUNKED = "Transfer-Encoding: chunked"
EARLY = {
    "a wrong key": (begun("/v1/images/generations", key="wrong"), 401),
    "a path that is not there": (begun("/v1/nowhere"), 404),
    "a method that is not served": (begun("/v1/images/generations", method="PUT"), 405),
    "a body that is too large": (begun(CHAT), 413),
    "a kind of body that is not taken": (begun("/v1/images/generations", "Content-Type: text/plain"), 415),
    "an expectation": (begun("/v1/images/generations", "Expect: tea"), 417),
    "two lengths": (begun("/v1/images/generations", "Content-Length: 1"), 400),
    "another coding": (begun("/v1/images/generations", framing="Transfer-Encoding: gzip"), 501),
    "a chunk of junk": (begun("/v1/images/generations", framing=CHUNKED) + b"zz\r\n", 400),
    "chunks beyond the limit": (begun(CHAT, framing=CHUNKED) + b"%x\r\n" % len(REST), 413),
    "a head that is too large": (begun(CHAT, "X: " + "a" * 70_000), 431),
}


@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "slowly"])
@pytest.mark.parametrize("name", EARLY)
def test_an_early_answer_arrives_though_the_client_sends_on(
    connect: Connect, upstream: Upstream, name: str, slowly: bool
) -> None:
    head, status = EARLY[name]
    client = connect()
    client.send(head)
    if slowly:
        response = client.read_head()  # the answer is there; the client does not care, and sends on
        assert response.status == status
    client.send(REST)
    response = client.finish() if slowly else client.response()
    assert (response.status, response.complete) == (status, True)
    assert response.header("connection") == "close" and response.code
    assert client.read_end() == b"" and client.ended == "fin"
    assert upstream.ledger.connections == []


def test_a_client_that_never_stops_sending_is_cut_off(connect: Connect) -> None:
    """What is read after the last word is bounded: a mebibyte."""
    client = connect()
    client.send(EARLY["a wrong key"][0])
    assert client.response().status == 401
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.send(200 * REST)


def test_a_client_that_does_not_leave_is_left(connect: Connect) -> None:
    """After two seconds, and not after the minute of an idle connection: bytes of its own no longer get through."""
    client = connect()
    client.send(EARLY["a wrong key"][0])
    assert client.response().status == 401
    assert client.read_end() == b""
    wait_until(lambda: is_refused(client), "the end of a connection that nobody leaves", 10.0)


def is_refused(client: Client) -> bool:
    try:
        client.send(b"x")
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_the_next_request_of_a_client_that_was_refused_early_is_not_served(
    connect: Connect, upstream: Upstream
) -> None:
    """Where its body ends is not known: what looks like a request may be a part of it."""
    client = connect()
    client.send(EARLY["a path that is not there"][0] + b"x" * 1000)
    client.send(build_request("POST", CHAT, chat_request()))
    assert client.response().status == 404
    assert client.read_end() == b""
    assert upstream.requests == []


def test_an_answer_to_http_1_0_ends_with_its_connection_and_has_no_chunks(connect: Connect, upstream: Upstream) -> None:
    body = chat_request(stream=True)
    head = f"POST {CHAT} HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    client = connect()
    client.send(head.encode() + body)
    data = client.read_end()
    assert client.ended == "fin"
    lines, _, payload = data.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in lines.lower() and b"connection: close" in lines.lower()
    assert payload == b"".join(answers.chat_events())
