"""Where client and backend speak one dialect, bytes pass untouched both ways, whatever they say; and are understood."""

from __future__ import annotations

import pytest

from tests.wire import answers, anthropic_server
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import backend, configuration
from tests.wire.upsets import WORDS, line, stream
from tests.wire.upstream import Upstream

#: Values as they came; only white space around the fields themselves is not kept.
ODD = b'{"unheard_of":{"b" : 1.0, "a":[ 1e2,"\\u00fc"]},"model":"m","messages":[ ],"stream":%s,"max_tokens":1}'
HEADERS = (("Anthropic-Version", "2023-06-01"), ("anthropic-beta", "one-2026, two"), ("X-Own", "kept"))
MESSAGE = (
    b'{ "type":"message","unheard_of":[1.50], "content":[{"type":"new_kind","x":1}],\n'
    b'"usage":{"input_tokens":3,"cache_read_input_tokens":4,"cache_creation_input_tokens":5,"output_tokens":2}}\n'
)
EVENTS = (
    b": hello\n\n"
    + anthropic_server.event("ping")
    + b'event: message_start\r\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3,'
    b'"cache_read_input_tokens":4,"output_tokens":1}}}\r\n\r\n'
    + anthropic_server.event("new_kind", own=1.5)
    + b'id: 7\nevent: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"new"},"usage":'
    b'{"output_tokens":2}}\n\n' + anthropic_server.event("message_stop")
)
LINES = (
    b'{"message":{"role":"assistant","content":"Hi","new":1.0} ,"done":false}\n'
    + b'{"unheard_of":[ ],"done" : false}\r\n'
    + b'{"done":true,"done_reason":"new","prompt_eval_count":7,"eval_count":2, "x":1.50}\n'
)
DOORS = {
    "/v1/messages": ("anthropic", MESSAGE, EVENTS, (12, 2, 4), (7, 2, 4)),
    "/api/chat": ("ollama", LINES.splitlines()[-1], LINES, (7, 2, 0), (7, 2, 0)),
}


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    return configuration(
        backend(module_upstream, name="anthropic", protocol="anthropic", models=["m"]),
        backend(module_upstream, name="ollama", protocol="ollama", models=["o"]),
    )


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("door", DOORS)
def test_bytes_pass_untouched_both_ways(gateway: Gateway, upstream: Upstream, door: str, streams: bool) -> None:
    name, whole, events, of_whole, of_events = DOORS[door]
    kind = WORDS[name].type
    upstream.answer = (
        stream(WORDS[name], events, headers=(("x-new", "kept"),))
        if streams
        else answers.whole(200, whole, ("x-new", "kept"))
    )
    body = ODD % (b"true" if streams else b"false")
    body = body.replace(b'"m"', b'"o"') if name == "ollama" else body
    response = gateway.ask("POST", door, body, HEADERS)
    assert (response.status, response.complete) == (200, True), response
    assert response.body == (events if streams else whole)
    assert response.header("content-type") == (kind[1] if streams else "application/json")
    assert response.header("x-new") == "kept" and response.header("x-dropped-fields") is None
    sent = upstream.ledger.last
    assert (sent.body, sent.target) == (body, door)
    assert [sent.header(field.lower()) for field, _ in HEADERS] == [value for _, value in HEADERS]
    told = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (told["status"], told["ending"], told["upstream"]) == (200, "--", name)
    tokens = told["prompt_tokens"], told["completion_tokens"], told.get("cached_tokens") or 0
    assert tokens == (of_events if streams else of_whole)


def test_a_version_that_a_client_does_not_say_is_the_backends(gateway: Gateway, upstream: Upstream) -> None:
    upstream.answer = answers.whole(200, MESSAGE)
    gateway.ask("POST", "/v1/messages", ODD % b"false")
    assert upstream.ledger.last.header("anthropic-version") == "2023-06-01"


def test_a_stream_of_lines_that_breaks_ends_with_a_line_of_an_error(gateway: Gateway, upstream: Upstream) -> None:
    words = WORDS["ollama"]
    upstream.answer = stream(words, words.begin, line(done=False)[:20], then="cut")
    response = gateway.ask("POST", "/api/chat", (ODD % b"true").replace(b'"m"', b'"o"'))
    assert response.body.startswith(words.begin) and response.body.splitlines()[-1].startswith(b'{"error":')
    assert len(response.body.splitlines()) == 2 and not response.complete
