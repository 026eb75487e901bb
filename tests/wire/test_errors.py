"""Every fault has one status and one body, and nothing of the house leaks into it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.wire import answers
from tests.wire.client import KEY, Client, Response, build_request, chat_request
from tests.wire.process import Configuration, Gateway, free_port
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Script, Upstream

CHAT = "/v1/chat/completions"
NARROW = "narrow-key-0123456789"
TOKEN = "backend-token-0123456789"


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    keys = [
        {"name": "tester", "key": KEY},
        {"name": "narrow", "key": NARROW, "allowed_models": ["other*"]},
    ]
    return configuration(
        # so many failures in a row would use up the usual budget of repetitions
        backend(module_upstream, auth={"type": "bearer", "token": TOKEN}, retry={"budget": 1.0}),
        backend(f"http://127.0.0.1:{free_port()}", name="gone", models=["gone"]),
        auth={"keys": keys},
    )


def no_leak(response: Response, *secrets: str) -> None:
    """Nothing of the house: no address, key, file or trace."""
    text = response.body.decode() + str(response.headers)
    for word in ("127.0.0.1", "localhost", "Traceback", ".py", "/work", KEY, NARROW, TOKEN, *secrets):
        assert word not in text, word


@dataclass
class Case:
    """One request that cannot be served, and what is said about it."""

    request: bytes
    status: int
    code: str
    #: `error.param`, where the contract tells which field is wrong
    param: str | None = None
    #: the connection must not go on, because where the next request starts is unknown
    closes: bool = False
    method: str = "POST"


def post(body: bytes | str, *headers: tuple[str, str], key: str | None = KEY, path: str = CHAT) -> bytes:
    return build_request("POST", path, body if isinstance(body, bytes) else body.encode(), headers, key=key)


def framing(*lines: str, start: str = f"POST {CHAT} HTTP/1.1", host: str = "Host: a\r\n") -> bytes:
    """A head written by hand."""
    head = "".join(f"{line}\r\n" for line in lines)
    return f"{start}\r\n{host}Authorization: Bearer {KEY}\r\n{head}\r\n".encode("latin-1")


SOUND = chat_request()
CASES = {
    "JSON with a stray word": Case(post('{"model": x}'), 400, "invalid_json"),
    "JSON that is cut": Case(post('{"model": "m"'), 400, "invalid_json"),
    "JSON with bytes after it": Case(post(SOUND + b"}"), 400, "invalid_json"),
    "JSON that is not UTF-8": Case(post(b'{"model": "m", "user": "\xff"}'), 400, "invalid_json"),
    "no body": Case(post(""), 400, "invalid_json"),
    "no model": Case(post('{"messages": []}'), 400, "missing_model", "model"),
    "a model that is a number": Case(post('{"model": 1}'), 400, "invalid_model", "model"),
    "a stream that is a word": Case(post('{"model": "m", "stream": "yes"}'), 400, "invalid_stream", "stream"),
    "no key": Case(post(SOUND, key=None), 401, "invalid_api_key"),
    "a wrong key": Case(post(SOUND, key="wrong"), 401, "invalid_api_key"),
    "a key that goes on": Case(post(SOUND, key=KEY + "0"), 401, "invalid_api_key"),
    "another scheme": Case(post(SOUND, ("Authorization", f"Basic {KEY}"), key=None), 401, "invalid_api_key"),
    "a model the key may not use": Case(post(SOUND, key=NARROW), 403, "model_not_allowed", "model"),
    "an unknown model": Case(post(chat_request(model="nobody")), 404, "model_not_found", "model"),
    "an unknown path": Case(build_request("GET", "/v1/nothing"), 404, "unknown_path", method="GET"),
    "a path that is not under /v1": Case(build_request("GET", "/nothing"), 404, "unknown_path", method="GET"),
    "a model nobody lists": Case(
        build_request("GET", "/v1/models/nobody"), 404, "model_not_found", "model", method="GET"
    ),
    "the wrong method": Case(build_request("GET", CHAT), 405, "method_not_allowed", method="GET"),
    "a method of its own": Case(build_request("PURGE", CHAT), 405, "method_not_allowed"),
    "CONNECT": Case(framing(start="CONNECT a:443 HTTP/1.1"), 405, "method_not_allowed", closes=True),
    "a packed body": Case(post(SOUND, ("Content-Encoding", "gzip")), 415, "unsupported_media_type"),
    "an expectation": Case(post(SOUND, ("Expect", "tea")), 417, "unsupported_expectation"),
    "a long target": Case(
        build_request("GET", "/v1/models?q=" + "a" * 20_000),
        414,
        "target_too_long",
        closes=True,
        method="GET",
    ),
    "a large head": Case(
        build_request("GET", "/v1/models", headers=[("X-Large", "a" * 100_000)]),
        431,
        "head_too_large",
        closes=True,
        method="GET",
    ),
    "no host": Case(framing("Content-Length: 0", host=""), 400, "bad_request", closes=True),
    "two hosts": Case(framing("Host: b", "Content-Length: 0"), 400, "bad_request", closes=True),
    "length and chunks": Case(
        framing("Content-Length: 5", "Transfer-Encoding: chunked"), 400, "bad_request", closes=True
    ),
    "two equal lengths": Case(framing("Content-Length: 5", "Content-Length: 5"), 400, "bad_request", closes=True),
    "a length with a sign": Case(framing("Content-Length: +5"), 400, "bad_request", closes=True),
    "a folded header": Case(framing("X-A: b", " c"), 400, "bad_request", closes=True),
    "a space before the colon": Case(framing("X-A : b"), 400, "bad_request", closes=True),
    "a control in a value": Case(framing("X-A: b\x01"), 400, "bad_request", closes=True),
    "another coding": Case(
        framing("Transfer-Encoding: gzip, chunked"), 501, "unsupported_transfer_encoding", closes=True
    ),
    "HTTP/2.0 by name": Case(framing(start=f"POST {CHAT} HTTP/2.0"), 505, "http_version_not_supported", closes=True),
    "HTTP/0.9 by name": Case(framing(start=f"POST {CHAT} HTTP/0.9"), 505, "http_version_not_supported", closes=True),
    "a body beyond the limit": Case(framing("Content-Length: 9000000"), 413, "body_too_large", closes=True),
    "an upstream that is gone": Case(post(chat_request(model="gone")), 503, "no_healthy_upstream"),
}


@pytest.mark.parametrize("send", [Client.send, Client.dribble], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", CASES)
def test_a_fault_has_its_status_and_body(
    name: str, send: Callable[[Client, bytes], None], connect: Callable[..., Client], upstream: Upstream
) -> None:
    case = CASES[name]
    if send is Client.dribble and len(case.request) > 10_000:
        send = lambda client, data: client.split(data, *range(7, len(data), 4999))  # noqa: E731
    client = connect()
    try:
        send(client, case.request)
    except (BrokenPipeError, ConnectionResetError):
        assert case.closes
    response = client.response(case.method)
    assert (response.status, response.code) == (case.status, case.code), response
    assert response.json()["error"]["param"] == case.param
    assert response.complete and response.header("x-request-id")
    no_leak(response)
    assert upstream.requests == []
    assert response.header("connection") == "close" or not case.closes
    if response.header("connection") == "close":
        assert client.read_end() == b"" and client.ended == "fin"
    else:
        client.chat()
        assert client.response().status == 200


def test_bad_json_names_the_byte(gateway: Gateway) -> None:
    for body, byte in [(b'{"model": x}', 10), (b'{"a":1,\n "b":\x01}', 13)]:
        response = gateway.ask("POST", CHAT, body)
        assert f"byte {byte}" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"[]", b'"m"', b"1", b"null"])
def test_a_body_that_is_no_object_is_400(gateway: Gateway, body: bytes) -> None:
    response = gateway.ask("POST", CHAT, body)
    assert response.status == 400 and response.code in ("invalid_json", "bad_request")


@pytest.mark.parametrize(
    ("path", "methods"), [(CHAT, "POST"), ("/v1/models", "GET, HEAD"), ("/health/live?x=1", "GET, HEAD")]
)
@pytest.mark.parametrize("method", ["DELETE", "QUERY", "get"])
def test_the_wrong_method_is_told_the_right_ones(gateway: Gateway, method: str, path: str, methods: str) -> None:
    """One that no door takes, too: Allow tells what this door takes (RFC 9110 section 15.5.6)."""
    response = gateway.ask(method, path)
    assert (response.status, response.header("allow")) == (405, methods)


def test_a_method_that_nobody_knows_at_a_path_that_nobody_knows_is_told_all_that_there_are(gateway: Gateway) -> None:
    assert gateway.ask("QUERY", "/nothing").header("allow") == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


@pytest.mark.parametrize(
    ("start", "field", "status", "words"),
    [
        ("QUERY /v1/models HTTP/1.1", "", 405, "Method not allowed: "),
        ("GET /v1/models?" + "x" * 9000 + " HTTP/1.1", "", 414, "Request target too long: "),
        ("GET /v1/models HTTP/1.1", "X: " + "x" * 70_000, 431, "Request head too large: "),
        ("POST /v1/models HTTP/1.1", "Transfer-Encoding: gzip", 501, "Not implemented: "),
        ("GET /v1/models HTTP/1.1", "Expect: more", 417, "Expectation failed: "),
        ("GET /v1/models HTTP/3.0", "", 505, "HTTP version not supported: "),
        ("GET v1/models HTTP/1.1", "", 400, "Bad request: "),
    ],
)
def test_an_error_begins_with_the_words_of_its_status(
    connect: Callable[..., Client], start: str, field: str, status: int, words: str
) -> None:
    client = connect()
    client.send("\r\n".join([start, "Host: a", *([field] if field else []), "", ""]).encode())
    response = client.response()
    assert response.status == status
    assert response.json()["error"]["message"].startswith(words)


def test_a_fault_on_head_has_no_body(connect: Callable[..., Client]) -> None:
    client = connect()
    client.request("HEAD", CHAT)
    assert client.response("HEAD").status == 405
    client.request("HEAD", "/v1/nothing")
    assert client.response("HEAD").status == 404


def test_a_fault_is_logged_with_its_code(gateway: Gateway) -> None:
    response = gateway.ask("POST", CHAT, chat_request(model="nobody"))
    line = gateway.wait_call(request_id=response.header("x-request-id"))
    assert (line["status"], line["fault"], line["method"], line["path"]) == (
        404,
        "model_not_found",
        "POST",
        CHAT,
    )
    assert line["key"] == "tester" and line["ending"] != "--"


LOST: dict[str, tuple[Script, str]] = {
    "closes without a word": (answers.raw(b"", then="close"), "upstream_lost"),
    "resets without a word": (answers.raw(b"", then="rst"), "upstream_lost"),
    "closes within the head": (answers.raw(b"HTTP/1.1 200 O", then="close"), "upstream_lost"),
    "speaks another language": (answers.raw(b"SSH-2.0-OpenSSH\r\n\r\n"), "upstream_invalid_response"),
    "switches protocols": (
        answers.raw(answers.head(101, ("upgrade", "x"), ("connection", "upgrade"))),
        "upstream_invalid_response",
    ),
    "answers with two lengths": (
        answers.raw(answers.head(200, ("content-length", "1"), ("content-length", "2")) + b"ab"),
        "upstream_invalid_response",
    ),
    "answers with length and chunks": (
        answers.raw(answers.head(200, ("content-length", "1"), ("transfer-encoding", "chunked")) + b"0\r\n\r\n"),
        "upstream_invalid_response",
    ),
    "answers with another coding": (
        answers.raw(answers.head(200, ("transfer-encoding", "gzip")) + b"0\r\n\r\n"),
        "upstream_invalid_response",
    ),
    "answers with a head without end": (
        answers.raw(b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 20_000),
        "upstream_invalid_response",
    ),
    "answers with interim heads without end": (
        answers.raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100 + answers.head(204)),
        "upstream_invalid_response",
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", LOST)
def test_a_broken_upstream_is_502(gateway: Gateway, upstream: Upstream, name: str, stream: bool) -> None:
    upstream.answer, code = LOST[name]
    response = gateway.ask("POST", CHAT, chat_request(stream=stream))
    assert (response.status, response.code) == (502, code)
    assert len(upstream.requests) == (2 if code == "upstream_lost" else 1), "lost is tried again, nonsense is not"
    no_leak(response, str(upstream.port))


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 503])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_upstreams_own_error_is_passed_on(gateway: Gateway, upstream: Upstream, status: int, stream: bool) -> None:
    upstream.answer = answers.error(status, "too many words", ("retry-after", "7"))
    response = gateway.ask("POST", CHAT, chat_request(stream=stream))
    assert (response.status, response.body) == (status, answers.error_body("too many words"))
    assert response.header("retry-after") == "7"
    assert len(upstream.requests) == 1, "the client may wait so long, the gateway does not"


def test_an_upstream_that_refuses_our_credentials_does_not_tell_them(gateway: Gateway, upstream: Upstream) -> None:
    def refuse(x: Exchange) -> None:
        answers.error(401, f"Incorrect API key: {x.request.header('authorization')}")(x)

    upstream.answer = refuse
    response = gateway.ask("POST", CHAT, SOUND)
    assert response.status in (401, 502)
    assert TOKEN in (upstream.ledger.last.header("authorization") or "")
    no_leak(response)


BOMBS = {
    "deep array": b'{"model": "m", "messages": ' + b"[" * 1_000_000,
    "deep array, closed": b'{"model": "m", "messages": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "deep object": b'{"model": "m", "messages": ' + b'{"a":' * 1_000_000,
    "wide object": json.dumps({"model": "m", **dict.fromkeys(map(str, range(500_000)), 0)}).encode(),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_json_bomb_is_400_and_cheap(stage: Stage, name: str) -> None:
    upstream = stage.upstream()
    gateway = stage.gateway(configuration(backend(upstream)), dev=False)
    spent = []
    for _ in range(3):
        before = gateway.cpu()
        response = gateway.ask("POST", CHAT, BOMBS[name])
        spent.append(gateway.cpu() - before)
        assert response.status == 400, response.status
    assert upstream.requests == []
    assert min(spent) <= 0.05, f"seconds of processor time: {spent}"


def test_secrets_stay_out_of_the_log(gateway: Gateway, connect: Callable[..., Client]) -> None:
    client = connect()
    for key in (KEY, "wrong-secret-012345"):
        client.chat(headers=[("X-API-Key", key)])
        client.response()
    gateway.wait_call(2, request_id=client.id)
    for secret in (KEY, NARROW, TOKEN, "wrong-secret-012345"):
        assert secret not in gateway.stdout + gateway.stderr
    assert KEY not in gateway.metrics().text
