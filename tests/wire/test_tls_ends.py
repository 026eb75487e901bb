"""How answers end, over TLS as without: whole at any pace, and never complete where the end was not told.

Over TLS the end of a connection is told by close_notify alone: a FIN can be forged on the way (RFC 8446 section 6.1,
RFC 9112 section 9.8).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.wire import answers, tls
from tests.wire.accepted import Wire
from tests.wire.client import Client, Response, build_request, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

SPEECH = "/v1/audio/speech"
CHAT = "/v1/chat/completions"
AUDIO = ("content-type", "audio/mpeg")
CLOSE = ("connection", "close")
#: Around what the kernel's buffers take of an answer that nobody reads: the last bytes wait at every place there is.
SIZES = [*range(2_000_000, 4_000_000, 125_000), 12_000_000]
Step = Callable[[Exchange], None]
House = tuple[Upstream, Gateway]


@pytest.fixture(scope="module")
def houses(module_stage: Stage) -> dict[bool, House]:
    """An upstream and its gateway, without TLS between them and with it."""
    made = {}
    for over_tls in (False, True):
        upstream = module_stage.upstream(tls=tls.server() if over_tls else None)
        fields = {"tls": {"ca_file": tls.CA}} if over_tls else {}
        made[over_tls] = (upstream, module_stage.gateway(configuration(backend(upstream, **fields))))
    return made


@pytest.fixture
def house(module_stage: Stage, houses: dict[bool, House], over_tls: bool) -> Iterator[House]:
    yield houses[over_tls]
    module_stage.settle()


def leave(x: Exchange) -> None:
    """As a peer does that means well."""
    if x.over_tls:
        x.notify()
    x.close()


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def over_tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# --- whole, whatever the client's pace ---


def to_the_end(body: bytes) -> bytes:
    return answers.head(200, AUDIO, CLOSE) + body


def of_told_length(body: bytes) -> bytes:
    return answers.head(200, AUDIO, CLOSE, ("content-length", str(len(body)))) + body


def in_chunks(body: bytes) -> bytes:
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    head = answers.head(200, AUDIO, CLOSE, ("transfer-encoding", "chunked"))
    return head + b"".join(map(answers.chunk, pieces)) + answers.LAST_CHUNK


def as_events(body: bytes) -> bytes:
    head = answers.head(200, ("content-type", "text/event-stream"), CLOSE, ("transfer-encoding", "chunked"))
    return head + answers.chunk(body) + answers.LAST_CHUNK


def as_events_to_the_end(body: bytes) -> bytes:
    return answers.head(200, ("content-type", "text/event-stream"), CLOSE) + body


def events(size: int) -> bytes:
    before, after = answers.event({"content": "0000000 " + "x" * 1000}).split(b"0000000")
    count = size // len(before + b"0000000" + after)
    return b"".join(b"%b%07d%b" % (before, number, after) for number in range(count)) + answers.DONE


@pytest.mark.parametrize("framed", [to_the_end, of_told_length, in_chunks, as_events, as_events_to_the_end])
def test_a_client_that_sleeps_gets_the_whole_of_an_answer_whose_upstream_has_left(
    module_stage: Stage, house: House, framed: Callable[[bytes], bytes]
) -> None:
    stream = framed in (as_events, as_events_to_the_end)
    upstream, gateway = house
    for number, size in enumerate(SIZES):
        body = (events if stream else answers.numbers)(size)

        def script(x: Exchange, answer: bytes = framed(body)) -> None:
            x.send(answer)
            leave(x)

        upstream.answer = script
        client = module_stage.connect(gateway, receive_buffer=4096, timeout=20.0)
        client.request("POST", CHAT if stream else SPEECH, chat_request(stream=stream))
        wait_left_or_blocked(upstream, number)
        response = client.response()
        assert len(response.body) == len(body) and response.body == body
        assert response.complete, size


def wait_left_or_blocked(upstream: Upstream, number: int) -> None:
    """Until the upstream has left its connection *number*, or has not been able to send on for a while."""

    def settled() -> bool:
        if len(upstream.ledger.connections) <= number:
            return False
        one = upstream.ledger.connections[number]
        left = one.closed is not None or any(request.answered for request in one.requests)
        return left or (one.blocked is not None and time.monotonic() - one.blocked > 0.3)

    wait_until(settled, "the upstream's end, or its wait")


# --- ends ---


def notify(x: Exchange) -> None:
    x.notify()


def fin(x: Exchange) -> None:
    x.fin()


def close(x: Exchange) -> None:
    x.close()


def rst(x: Exchange) -> None:
    x.sleep(0.1)  # the kernel may drop what was not read before a reset
    x.rst()


PLAIN_ENDS: dict[str, tuple[Sequence[Step], bool]] = {
    "FIN": ([fin], True),
    "close": ([close], True),
    "reset": ([rst], False),
}
TLS_ENDS: dict[str, tuple[Sequence[Step], bool]] = {
    "close_notify alone": ([notify], True),
    "close_notify and FIN": ([notify, fin], True),
    "close_notify and close": ([notify, close], True),
    "a bare FIN": ([fin], False),
    "a bare close": ([close], False),
    "a reset": ([rst], False),
}
ENDS = [
    pytest.param(over_tls, steps, proper, id=f"{'TLS' if over_tls else 'plain'}-{name}")
    for over_tls, table in ((False, PLAIN_ENDS), (True, TLS_ENDS))
    for name, (steps, proper) in table.items()
]


def ending(answer: bytes, steps: Sequence[Step]) -> Step:
    def script(x: Exchange) -> None:
        x.send(answer)
        for step in steps:
            step(x)

    return script


def asked(
    module_stage: Stage, gateway: Gateway, *, sleeps: bool, upstream: Upstream, path: str, stream: bool
) -> Response:
    client = module_stage.connect(gateway, receive_buffer=4096 if sleeps else 0, timeout=20.0)
    client.request("POST", path, chat_request(stream=stream))
    if sleeps:
        wait_left_or_blocked(upstream, 0)
    return client.response()


@pytest.mark.parametrize("size", [1000, 3 << 20], ids=["small", "held up"])
@pytest.mark.parametrize(("over_tls", "steps", "proper"), ENDS)
def test_a_body_that_ends_with_its_connection_is_complete_only_if_that_end_is_told(
    module_stage: Stage, house: House, steps: Sequence[Step], proper: bool, size: int
) -> None:
    upstream, gateway = house
    body = answers.numbers(size)
    upstream.answer = ending(to_the_end(body), steps)
    response = asked(module_stage, gateway, sleeps=size > 1000, upstream=upstream, path=SPEECH, stream=False)
    assert response.complete is proper
    assert response.body == body if proper else body.startswith(response.body)
    assert not response.complete or len(response.body) == size


@pytest.mark.parametrize(("over_tls", "steps", "proper"), ENDS)
def test_a_stream_that_ends_with_its_connection_is_complete_once_its_events_said_so(
    module_stage: Stage, house: House, steps: Sequence[Step], proper: bool
) -> None:
    """[DONE] came: nothing can be missing, however the connection ends. A reset may destroy bytes on their way."""
    upstream, gateway = house
    body = events(20_000)
    upstream.answer = ending(as_events_to_the_end(body), steps)
    response = asked(module_stage, gateway, sleeps=False, upstream=upstream, path=CHAT, stream=True)
    assert response.complete is (response.body == body)
    assert response.complete or b'"error"' in response.events[-1]
    assert response.complete or not proper


@pytest.mark.parametrize(("over_tls", "steps", "proper"), ENDS)
def test_a_stream_without_its_last_word_is_never_complete(
    module_stage: Stage, house: House, steps: Sequence[Step], proper: bool
) -> None:
    upstream, gateway = house
    upstream.answer = ending(as_events_to_the_end(answers.chat_events(2)[0]), steps)
    response = asked(module_stage, gateway, sleeps=False, upstream=upstream, path=CHAT, stream=True)
    assert not response.complete and b'"error"' in response.events[-1]


@pytest.mark.parametrize(("over_tls", "steps", "proper"), ENDS)
@pytest.mark.parametrize("framed", [of_told_length, in_chunks])
def test_a_body_with_framing_of_its_own_is_judged_by_that_and_by_no_end(
    module_stage: Stage, house: House, steps: Sequence[Step], proper: bool, framed: Callable[[bytes], bytes]
) -> None:
    upstream, gateway = house
    body = answers.numbers(200_000)
    whole = framed(body)
    for answer in (whole, whole[:-1]):
        upstream.answer = ending(answer, steps)
        response = asked(module_stage, gateway, sleeps=False, upstream=upstream, path=SPEECH, stream=False)
        assert response.complete is (answer is whole)


@pytest.mark.parametrize(("over_tls", "steps", "proper"), ENDS)
def test_a_client_whose_answer_ends_with_its_connection_is_told_too(
    module_stage: Stage, house: House, steps: Sequence[Step], proper: bool
) -> None:
    """HTTP/1.0: a FIN would look like the proper end, so a broken answer ends by reset."""
    upstream, gateway = house
    upstream.answer = ending(to_the_end(b"audio"), steps)
    client: Client = module_stage.connect(gateway)
    client.send(build_request("POST", SPEECH, chat_request()).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    client.read_end()
    assert client.ended == ("fin" if proper else "rst")


@pytest.mark.parametrize(("over_tls", "steps"), [(True, [fin]), (True, [close])], ids=["FIN", "close"])
def test_nothing_but_a_head_and_a_bare_end_is_an_error(house: House, steps: Sequence[Step]) -> None:
    upstream, gateway = house
    upstream.answer = ending(to_the_end(b""), steps)
    response = gateway.ask("POST", SPEECH, chat_request())
    assert response.status == 502 and response.code == "upstream_lost"


# --- too soon ---


@pytest.mark.parametrize("says", [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", b""], ids=["answer", "end"])
def test_a_peer_that_does_not_wait_to_be_asked_is_no_fault_of_the_gateway(
    house: House, over_tls: bool, says: bytes
) -> None:
    """What comes after the request was sent may pass for its answer: nobody can tell."""
    upstream, gateway = house

    def speak(wire: Wire) -> None:
        if says:
            wire.send(says)
        if over_tls:
            wire.notify()
        wire.close()

    upstream.on_accept = speak
    for _ in range(5):
        assert gateway.ask("POST", CHAT, chat_request()).status in ((200, 502, 503) if says else (502, 503))
