"""What fails in another dialect than the client's is told once, in the client's own: before a stream and within it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, Response, build_request
from tests.wire.process import Configuration, Gateway, free_port
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upsets import (
    AFTER,
    BEFORE,
    NATIVE,
    PROTOCOLS,
    TRANSLATED,
    WORDS,
    check_broken,
    check_refusal,
    request,
    stream,
)
from tests.wire.upstream import Upstream

translated = pytest.mark.parametrize(("door", "protocol"), TRANSLATED)
both_ways = pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def servers(module_stage: Stage) -> dict[str, Upstream]:
    return {protocol: module_stage.upstream() for protocol in PROTOCOLS}


@pytest.fixture(scope="module")
def config(servers: dict[str, Upstream]) -> Configuration:
    """Of each protocol: a server, the same for who has no patience, and one that is not there."""
    dead = f"http://127.0.0.1:{free_port()}"
    timeouts = {"first_byte": "300ms", "idle": "300ms"}

    def once(name: str, protocol: str, upstream: Upstream | str, **more: Any) -> dict[str, Any]:
        """Asked once for each call."""
        native = NATIVE[protocol]
        return backend(upstream, name=name, protocol=protocol, models=[name], native=native, retry={"tries": 1}, **more)

    return configuration(
        *(once(one, one, servers[one]) for one in PROTOCOLS),
        *(once(f"hasty-{one}", one, servers[one], timeouts=timeouts) for one in PROTOCOLS),
        *(once(f"dead-{one}", one, dead) for one in PROTOCOLS),
    )


def ask(gateway: Gateway, door: str, model: str, *, streams: bool) -> Response:
    return gateway.ask("POST", door, request(door, model, stream=streams), timeout=20.0)


@both_ways
@translated
def test_nobody_is_there(gateway: Gateway, door: str, protocol: str, streams: bool) -> None:
    response = ask(gateway, door, f"dead-{protocol}", streams=streams)
    assert response.status == 503 and check_refusal(door, response) == "The upstream could not be reached."


@both_ways
@translated
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 529])
def test_an_error_is_told_with_its_status_and_when_to_come_again(
    gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, status: int, streams: bool
) -> None:
    later = (("retry-after", "7"), ("anthropic-ratelimit-requests-limit", "50")) if status in (429, 503, 529) else ()
    servers[protocol].answer = answers.whole(status, WORDS[protocol].refusal, *later)
    response = ask(gateway, door, protocol, streams=streams)
    assert check_refusal(door, response) == "It broke."
    assert response.status == status
    assert response.header("retry-after") == ("7" if later else None)
    assert response.header("anthropic-ratelimit-requests-limit") is None
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["status"], line["upstream"], line["ending"]) == (status, protocol, "--")
    assert len(servers[protocol].requests) == 1


@translated
@pytest.mark.parametrize("name", BEFORE)
def test_a_stream_that_does_not_begin_is_an_error(
    gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, name: str
) -> None:
    servers[protocol].answer = BEFORE[name](WORDS[protocol])
    response = ask(gateway, door, f"hasty-{protocol}" if name == "stalled" else protocol, streams=True)
    assert response.status in ((504,) if name == "stalled" else (500, 502, 529)), response
    message = check_refusal(door, response)
    assert ("It broke." in message) is (name == "an error first") and message
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert line["ending"] in ("UH", "uH", "UP", "uP") and line["fault"].startswith("upstream")


@translated
@pytest.mark.parametrize("name", AFTER)
def test_a_stream_that_breaks_tells_one_error_and_nothing_more(
    gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, name: str
) -> None:
    read = Gate()
    servers[protocol].answer = AFTER[name](WORDS[protocol], read)
    model = f"hasty-{protocol}" if name == "a stall" else protocol
    client = Client(gateway.port, timeout=20.0)
    try:
        client.send(build_request("POST", door, request(door, model, stream=True), (("Connection", "close"),)))
        assert client.read_head("POST").status == 200
        assert client.read_payload()
        read.open()
        response = client.finish()
    finally:
        client.close()
    check_broken(door, response)
    assert (b"It broke." in response.body) is (name == "an error")
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert line["ending"] == ("uD" if name == "a stall" else "UD") and line["fault"].startswith("upstream")


@translated
def test_a_stream_in_place_of_a_whole_answer_is_an_error(
    gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str
) -> None:
    words = WORDS[protocol]
    servers[protocol].answer = stream(words, words.begin, words.end)
    response = ask(gateway, door, protocol, streams=False)
    assert response.status == 502
    check_refusal(door, response)


@translated
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"{nonsense", b'{"choices":[]}', b"\xff\xfe", b"[" * 3000]
)
def test_a_whole_answer_that_is_none_is_an_error(
    gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, body: bytes
) -> None:
    servers[protocol].answer = answers.whole(200, body)
    response = ask(gateway, door, protocol, streams=False)
    assert response.status == 502
    check_refusal(door, response)


@translated
@pytest.mark.parametrize("status", [302, 401, 403])
def test_an_odd_status_is_told_as_what_it_is(
    gateway: Gateway, servers: dict[str, Upstream], door: str, protocol: str, status: int
) -> None:
    """A redirection is no answer to anybody's client, and what the gateway's own key may do is not the client's."""
    servers[protocol].answer = answers.whole(status, b"secret words", ("location", "http://elsewhere"))
    response = ask(gateway, door, protocol, streams=False)
    assert response.status == (403 if status == 403 else 502), response
    assert ("secret" not in check_refusal(door, response) or status == 403) and response.header("location") is None
