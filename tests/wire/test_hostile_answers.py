"""RELIABILITY's section 2.2 over real sockets: no hostile answer looks like success, and none is left on a connection
that another call gets.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.client import Client, chat_request
from tests.wire.hostile import judge_forwarded
from tests.wire.hostile_answers import EVIL, judge
from tests.wire.ledger import Connection
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import backend, configuration
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    return configuration(backend(module_upstream, pool={"idle_timeout": "60s"}, retry={"budget": 1.0}))


def given_up(upstream: Upstream, connection: Connection) -> None:
    upstream.ledger.wait(lambda: connection.left or connection.closed, "the end of a connection")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("name", EVIL)
def test_a_hostile_answer_is_seen_for_what_it_is_and_its_connection_given_up(
    gateway: Gateway, upstream: Upstream, name: str, stream: bool
) -> None:
    evil = EVIL[name]
    upstream.answer = evil.script
    judge(evil.seen, gateway.ask("POST", CHAT, chat_request(stream=stream)))
    assert len(upstream.requests) == 1 + evil.lost, "what is not valid would be no better a second time"
    first = upstream.ledger.connections[0]
    if not evil.reused:
        given_up(upstream, first)
    upstream.answer = answers.chat("next")
    after = gateway.ask("POST", CHAT, chat_request())
    assert (after.status, after.body) == (200, answers.chat_body("next"))
    assert (upstream.ledger.last.connection is first) is evil.reused
    for request in upstream.requests:
        judge_forwarded(request)


@pytest.mark.parametrize("name", EVIL)
def test_a_hostile_answer_on_a_connection_that_was_sound_is_no_better(
    connect: Connect, upstream: Upstream, name: str
) -> None:
    """The sound answers before it have the same head, so that it may be read by their pattern."""
    evil = EVIL[name]
    evils = [evil.script] * (1 + evil.lost)
    upstream.answer = [answers.chat("one"), answers.chat("two"), *evils, answers.chat("next")]
    client = connect()
    for text in ("one", "two"):
        client.chat()
        assert client.response().body == answers.chat_body(text)
    client.chat()
    response = client.response()
    judge(evil.seen, response)
    if not evil.reused:
        given_up(upstream, upstream.ledger.connections[0])
    other = connect()
    other.chat()
    assert other.response().body == answers.chat_body("next")
    assert [request.index for request in upstream.requests] == [0, 1, 2, *[0] * evil.lost, 3 if evil.reused else 0]


IDLE = {
    "an answer": answers.head(200, ("content-length", "2")) + b"{}",
    "half an answer": b"HTTP/1.1 200 OK\r\ncontent-",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "an empty line": b"\r\n",
    "a byte": b"\0",
    "a lot": b"x" * 100_000,
}


@pytest.mark.parametrize("name", IDLE)
def test_what_comes_on_an_idle_connection_is_nobodys_answer(gateway: Gateway, upstream: Upstream, name: str) -> None:
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    gateway.wait_gauge(1, "gateway_upstream_connections", state="idle")
    upstream.wires()[0].sock.send(IDLE[name])
    upstream.ledger.wait_left(upstream.ledger.connections[0])
    upstream.answer = answers.chat("next")
    assert gateway.ask("POST", CHAT, chat_request()).body == answers.chat_body("next")


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
def test_head_never_reaches_an_upstream(connect: Connect, upstream: Upstream, path: str) -> None:
    """Row 3: an answer to HEAD has a length and no body, which no connection is to be judged by."""
    client = connect()
    client.request("HEAD", path)
    assert client.response("HEAD").status == 405
    assert upstream.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_relayed_and_not_followed(gateway: Gateway, upstream: Upstream, status: int) -> None:
    where = f"http://127.0.0.1:{upstream.port}/elsewhere"
    upstream.answer = answers.whole(status, b"{}", ("location", where))
    response = gateway.ask("POST", CHAT, chat_request())
    assert (response.status, response.header("location")) == (status, where)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("whole", [True, False])
def test_events_that_come_packed_pass_as_they_are(gateway: Gateway, upstream: Upstream, whole: bool) -> None:
    packed = gzip.compress(b"".join(answers.chat_events(50)))
    lines = (answers.SSE_TYPE, ("content-encoding", "gzip"), ("transfer-encoding", "chunked"))

    def script(x: Exchange) -> None:
        x.send(answers.head(200, *lines) + answers.chunk(packed[:30]))
        x.sleep(0.02)
        x.send(answers.chunk(packed[30:]) + (answers.LAST_CHUNK if whole else b""))
        if not whole:
            x.sleep(0.02)
            x.fin()

    upstream.answer = script
    response = gateway.ask("POST", CHAT, chat_request(stream=True))
    assert (response.status, response.body, response.complete) == (200, packed, whole)
    assert response.header("content-encoding") == "gzip"
    assert upstream.ledger.last.header("accept-encoding") == "identity"
