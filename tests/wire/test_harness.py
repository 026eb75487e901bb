"""The harness proves itself: the client straight to the scripted upstream, no gateway between."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable

import pytest

from bench.faults.backlog import FullBacklog
from tests.wire import answers
from tests.wire.accepted import Gate, Wire
from tests.wire.client import Client, Incomplete, build_request, chat_request, split_events
from tests.wire.ledger import Overdue
from tests.wire.process import DidNotStart, Metrics, to_toml
from tests.wire.stage import Stage, backend, configuration, merge
from tests.wire.upstream import Exchange, Script, Upstream, at_head


@pytest.fixture
def upstream(stage: Stage) -> Upstream:
    return stage.upstream(answers.chat())


@pytest.fixture
def client(stage: Stage, upstream: Upstream) -> Client:
    return stage.connect(upstream)


@pytest.mark.parametrize("send", [Client.send, Client.dribble], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_request_is_entered_with_head_and_payload(
    client: Client, upstream: Upstream, send: Callable[[Client, bytes], None], chunked: bool
) -> None:
    body = chat_request()
    sent = build_request("POST", "/v1/chat/completions", body, chunked=chunked)
    send(client, sent)
    assert client.response().json()["choices"][0]["message"]["content"] == "Hello"
    (request,) = upstream.requests
    assert request.raw_head == sent[: sent.index(b"\r\n\r\n") + 4]
    assert (request.method, request.target, request.body) == ("POST", "/v1/chat/completions", body)
    upstream.ledger.wait(lambda: request.answered, "the answer's end")
    assert not request.aborted


def test_requests_on_one_connection_are_counted(client: Client, upstream: Upstream) -> None:
    for _ in range(3):
        client.chat()
        assert client.response().complete
    assert [request.index for request in upstream.requests] == [0, 1, 2]
    assert len(upstream.ledger.connections) == 1


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
@pytest.mark.parametrize("pieces", ["events", "whole", "bytes", [17, 200, 333]], ids=str)
def test_a_stream_arrives_however_it_is_framed_and_written(
    client: Client, upstream: Upstream, framing: answers.Framing, pieces: answers.Pieces
) -> None:
    events = answers.chat_events(2)
    upstream.answer = answers.stream(events, framing, pieces)
    client.chat(stream=True)
    response = client.response()
    assert response.complete and response.events == events
    assert response.ended == ("fin" if framing == "close" else "")
    if framing == "chunked":
        assert response.chunks == events


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (answers.error(400), 400),
        (answers.error(401), 401),
        (answers.error(429), 429),
        (answers.error(500), 500),
        (answers.error(503), 503),
        (answers.no_content(), 204),
        (answers.models("a"), 200),
        (answers.embeddings(), 200),
    ],
)
def test_every_ready_made_answer_is_sound_http(client: Client, upstream: Upstream, answer: Script, status: int) -> None:
    upstream.answer = answer
    client.request("GET", "/")
    assert client.response().status == status


def test_a_head_answer_has_no_body(client: Client) -> None:
    client.request("HEAD", "/")
    response = client.response("HEAD")
    assert response.complete and response.body == b"" and response.header("content-length")
    client.request("HEAD", "/")
    assert client.response("HEAD").complete


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_an_answer_that_is_cut_is_seen_as_incomplete(
    client: Client, upstream: Upstream, how: str, framing: answers.Framing
) -> None:
    def cut(x: Exchange) -> None:
        x.send(answers.sse_head(framing, 1000))
        x.send(answers.chunk(b"data: 1\n\n") if framing == "chunked" else b"data: 1\n\n")
        x.sleep(0.05)
        getattr(x, how)()

    upstream.answer = cut
    client.chat(stream=True)
    response = client.response()
    assert not response.complete and response.ended == how and response.events == [b"data: 1\n\n"]


def test_an_answer_that_h11_refuses_fails_the_test(client: Client, upstream: Upstream) -> None:
    upstream.answer = answers.raw(b"HTTP/1.1 200 OK\r\nbad header: x\r\n\r\n")
    client.chat()
    with pytest.raises(AssertionError, match="h11 refuses the answer"):
        client.response()


def test_a_connection_that_ends_without_an_answer_is_incomplete(client: Client, upstream: Upstream) -> None:
    upstream.answer = answers.raw(b"", then="close")
    client.chat()
    with pytest.raises(Incomplete):
        client.response()


def test_a_request_that_h11_refuses_is_a_violation(client: Client, upstream: Upstream) -> None:
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    upstream.ledger.wait(lambda: upstream.ledger.violations, "a violation")
    assert "h11 refuses" in upstream.ledger.violations.pop()


def test_bytes_before_the_answer_is_complete_are_a_violation(client: Client, upstream: Upstream) -> None:
    gate = Gate()
    upstream.answer = answers.stalled(gate)
    client.chat()
    upstream.ledger.wait_requests(1)
    client.send(b"junk")
    gate.open()
    assert client.response().complete
    upstream.ledger.wait(lambda: upstream.ledger.violations, "a violation")
    assert "4 bytes" in upstream.ledger.violations.pop()
    upstream.drop_connections()
    upstream.ledger.violations.clear()


@pytest.mark.parametrize(("leave", "how"), [(Client.close, "fin"), (Client.half_close, "fin"), (Client.abort, "rst")])
def test_a_client_that_leaves_before_the_answer_is_entered(
    client: Client, upstream: Upstream, leave: Callable[[Client], None], how: str
) -> None:
    upstream.answer = answers.await_abort
    client.chat()
    upstream.ledger.wait_requests(1)
    before = time.monotonic()
    leave(client)
    request = upstream.ledger.wait_abort()
    assert request.connection.left_by == how
    assert request.aborted is not None and request.aborted >= before and request.answered is None


def test_a_client_that_leaves_after_the_answer_is_no_abort(client: Client, upstream: Upstream) -> None:
    client.chat()
    client.response()
    client.close()
    (connection,) = upstream.ledger.connections
    upstream.ledger.wait_left(connection)
    assert connection.left_by == "fin" and upstream.ledger.last.aborted is None


def test_a_client_that_does_not_read_blocks_the_script(stage: Stage, upstream: Upstream) -> None:
    def flood(x: Exchange) -> None:
        x.send(answers.head(200, ("connection", "close")))
        x.send(b"x" * (32 << 20))
        x.close()

    upstream.answer = flood
    client = stage.connect(upstream, receive_buffer=4096)
    client.chat()
    upstream.ledger.wait_requests(1)
    assert upstream.ledger.last.answered is None
    response = client.response()
    assert len(response.body) == 32 << 20
    upstream.ledger.wait(lambda: upstream.ledger.last.answered, "the answer's end")


def test_a_script_may_answer_before_it_read_the_body(client: Client, upstream: Upstream) -> None:
    upstream.answer = at_head(answers.error(413))
    client.send(build_request("POST", "/", b"12345")[:-1])
    assert client.response().status == 413
    assert upstream.ledger.last.body == b""


def test_a_connection_may_be_cut_before_anything_is_read(client: Client, upstream: Upstream, stage: Stage) -> None:
    upstream.on_accept = Wire.rst
    try:
        other = stage.connect(upstream)
    except ConnectionResetError:
        return  # so early that it met the connecting itself
    assert other.read_end() == b"" and other.ended == "rst"


def test_answers_are_used_up_in_order_and_by_path(client: Client, upstream: Upstream) -> None:
    upstream.answer = [answers.error(500), answers.chat()]
    upstream.answers = {"/v1/models": answers.models("a")}
    for target, status in [("/x", 500), ("/v1/models?q=1", 200), ("/x", 200), ("/x", 200)]:
        client.request("GET", target)
        assert client.response().status == status, target


def test_waiting_has_a_deadline(client: Client, upstream: Upstream) -> None:
    with pytest.raises(Overdue):
        upstream.ledger.wait_requests(1, timeout=0.01)
    client.sock.settimeout(0.01)
    with pytest.raises(Overdue):
        client.read_head()


def test_a_closed_upstream_refuses_and_a_full_backlog_hangs(stage: Stage, upstream: Upstream) -> None:
    upstream.close()
    with pytest.raises(ConnectionRefusedError):
        Client(upstream.port)
    full = FullBacklog()
    with pytest.raises(TimeoutError):
        Client(full.port, timeout=0.3)
    full.close()


def test_events_are_split_at_blank_lines_only() -> None:
    events = [b"data: 1\n\n", b"data: 2\r\n\r\n", b"rest\n"]
    assert split_events(b"".join(events)) == events


def test_a_configuration_is_written_as_toml() -> None:
    config = configuration(backend("http://a", weight=1), auth={"enabled": False})
    assert config["auth"]["keys"] and config["auth"]["enabled"] is False
    text = to_toml(merge(config, {"server": {"port": 1}}))
    assert 'server = {"port" = 1, "pre_stop" = "0s"}' in text


def test_metrics_are_summed_over_the_labels_that_are_not_named() -> None:
    metrics = Metrics('# TYPE a gauge\na{x="1",y="1"} 2\na{x="1",y="2"} 3\na{x="2",y="1"} 5\n')
    assert metrics.value("a", x="1") == 5 and metrics.value("a") == 10 and metrics.value("b") == 0


def test_a_gateway_that_cannot_start_is_told_apart_from_one_that_behaves_wrongly(stage: Stage) -> None:
    with pytest.raises(DidNotStart):
        stage.gateway({"no_such_section": {}})


def test_pieces_that_are_to_be_read_apart_wait_until_the_first_is_read(stage: Stage) -> None:
    read = threading.Event()

    def script(x: Exchange) -> None:
        x.send(b"first")
        x.wire.await_read()
        assert read.is_set(), "it was read before the script went on"
        x.send(b"second")

    client = stage.connect(stage.upstream(script))
    client.chat()
    select.select([client.sock], [], [], 5.0)
    time.sleep(0.05)  # for a script that does not wait to go on
    read.set()
    assert client.sock.recv(100) == b"first"
    assert client.sock.recv(100) == b"second"
