"""The doors: inference paths, models and their names, passed-through paths, and what goes upstream."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.client import KEY, Client, build_request, chat_request
from tests.wire.process import Configuration, Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]
PLAIN = "plain-key-0123456789"

JSON_PATHS = [
    CHAT,
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/images/generations",
    "/v1/audio/speech",
]
FORM_PATHS = [
    "/v1/images/edits",
    "/v1/images/variations",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
]


def auto_server(x: Exchange) -> None:
    """A server that serves two models of its own."""
    if x.request.target == "/v1/models":
        return answers.models("auto-1", "auto-2")(x)
    return answers.model_server(x)


@pytest.fixture(scope="module")
def wild(module_stage: Stage) -> Upstream:
    return module_stage.upstream()


@pytest.fixture(scope="module")
def auto(module_stage: Stage) -> Upstream:
    return module_stage.upstream(auto_server)


@pytest.fixture(scope="module")
def config(module_upstream: Upstream, wild: Upstream, auto: Upstream) -> Configuration:
    passing = {"models": "auto", "passthrough": ["/v1/files*", "/v1/batches"]}
    return configuration(
        backend(module_upstream, models=["m", {"nice-name": "real/name-v1"}]),
        backend(wild, name="wild", models=["wild-*", "wild-special-*"]),
        backend(auto, name="auto", **passing),
        auth={"keys": [{"name": "tester", "key": KEY, "passthrough": True}, {"name": "plain", "key": PLAIN}]},
    )


# --- paths ---


@pytest.mark.parametrize("path", JSON_PATHS)
def test_an_inference_path_is_forwarded(gateway: Gateway, upstream: Upstream, path: str) -> None:
    upstream.answer = answers.whole(200, b'{"some": "answer"}')
    response = gateway.ask("POST", path, b'{"model": "m", "input": ["a", "b"]}')
    assert (response.status, response.body) == (200, b'{"some": "answer"}')
    assert response.header("x-upstream") == "alpha"
    request = upstream.ledger.last
    assert (request.method, request.target) == ("POST", path)
    assert request.json() == {"model": "m", "input": ["a", "b"]}
    assert request.header("content-type") == "application/json"
    assert request.header("content-length") == str(len(request.body))


@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize("path", FORM_PATHS)
def test_a_form_is_forwarded_as_it_is(gateway: Gateway, upstream: Upstream, path: str, model_first: bool) -> None:
    model = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    file = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="upload"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + bytes(range(256)) * 300 + b"\r\n"
    )
    body = (model + file if model_first else file + model) + b"--B--\r\n"
    kind = ("Content-Type", "multipart/form-data; boundary=B")
    response = gateway.ask("POST", path, body, (kind,))
    assert response.status == 200
    request = upstream.ledger.last
    assert (request.target, request.body, request.header("content-type")) == (path, body, kind[1])


def test_a_form_without_a_model_is_400(gateway: Gateway, upstream: Upstream) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n--B--\r\n'
    kind = (("Content-Type", "multipart/form-data; boundary=B"),)
    response = gateway.ask("POST", "/v1/images/edits", body, kind)
    assert (response.status, response.code) == (400, "missing_model")
    assert upstream.requests == []


# --- bodies ---


def test_every_value_of_the_body_goes_upstream_byte_by_byte(gateway: Gateway, upstream: Upstream) -> None:
    values = {
        b"model": b'"m"',
        b"messages": b'[ {"role" : "user",\n "content":"\\u00e9 \\ud83d\\ude00 \\/ \xc3\xa9"} ]',
        b"big": b"123456789012345678901234567890",
        b"float": b"1.0E+2",
        b"exact": b"0.10000000000000000555",
        b"unknown": b'{"z":1,"a":[null,true,false],"z":2}',
        b"metadata": b"{}",
    }
    sent = b"{" + b" , ".join(b'"%s" : %s' % pair for pair in values.items()) + b"}"
    assert gateway.ask("POST", CHAT, sent).status == 200
    body = upstream.ledger.last.body
    for name, value in values.items():
        assert re.search(rb'"%s"\s*:\s*%s' % (name, re.escape(value)), body), name
    assert list(json.loads(body)) == [name.decode() for name in values]


def test_a_key_that_comes_twice_goes_upstream_once_with_its_last_value(gateway: Gateway, upstream: Upstream) -> None:
    body = b'{"model": "nobody", "n": 1, "model": "m", "n": 2}'
    assert gateway.ask("POST", CHAT, body).status == 200
    assert upstream.ledger.last.body.count(b'"model"') == 1
    assert upstream.ledger.last.json() == {"model": "m", "n": 2}


def test_a_body_that_needs_no_change_is_sent_as_it_came(gateway: Gateway, upstream: Upstream) -> None:
    body = json.dumps(json.loads(chat_request(n=1)), separators=(",", ":")).encode()
    gateway.ask("POST", CHAT, body)
    assert upstream.ledger.last.body == body


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_a_large_body_in_chunks_goes_upstream_whole(gateway: Gateway, upstream: Upstream, size: int) -> None:
    body = chat_request(user="x" * size)
    assert gateway.ask("POST", CHAT, body, chunked=True).status == 200
    assert upstream.ledger.last.json() == json.loads(body)


# --- models ---


def test_an_alias_goes_upstream_as_the_name_it_stands_for(gateway: Gateway, upstream: Upstream) -> None:
    assert gateway.ask("POST", CHAT, chat_request(model="nice-name")).status == 200
    assert upstream.ledger.last.json()["model"] == "real/name-v1"


def test_the_name_behind_an_alias_is_not_served(gateway: Gateway) -> None:
    assert gateway.ask("POST", CHAT, chat_request(model="real/name-v1")).status == 404


def test_a_wildcard_serves_every_name_that_fits(gateway: Gateway, wild: Upstream) -> None:
    for model in ("wild-1", "wild-special-2"):
        assert gateway.ask("POST", CHAT, chat_request(model=model)).header("x-upstream") == "wild"
        assert wild.ledger.last.json()["model"] == model
    assert gateway.ask("POST", CHAT, chat_request(model="tame-1")).status == 404


def test_a_backend_that_was_not_told_its_models_is_asked(gateway: Gateway, auto: Upstream) -> None:
    def upstream() -> str | None:
        return gateway.ask("POST", CHAT, chat_request(model="auto-2")).header("x-upstream")

    wait_until(lambda: upstream() == "auto", "the models of the backend are known")


def test_models_of_all_backends_are_listed_once(gateway: Gateway) -> None:
    def listed() -> list[str]:
        response = gateway.ask("GET", "/v1/models")
        assert response.json()["object"] == "list"
        assert all(model["object"] == "model" for model in response.json()["data"])
        return [model["id"] for model in response.json()["data"]]

    wait_until(lambda: "auto-1" in listed(), "the models of the backend are known")
    assert sorted(listed()) == ["auto-1", "auto-2", "m", "nice-name"]


@pytest.mark.parametrize("model", ["m", "nice-name"])
def test_one_model_is_described(gateway: Gateway, model: str) -> None:
    described = gateway.ask("GET", f"/v1/models/{model}").json()
    assert (described["id"], described["object"]) == (model, "model")


# --- paths that pass ---


PASSING = [
    ("GET", "/v1/files", None),
    ("GET", "/v1/files/f-1?limit=2&after=%20x", None),
    ("DELETE", "/v1/files/a%2Fb", None),
    ("POST", "/v1/files", b"\x00\x01 anything \xff"),
    ("POST", "/v1/batches", b'{"no": "model"}'),
    ("PUT", "/v1/files/f-1", b"x" * 100_000),
]


@pytest.mark.parametrize(("method", "target", "body"), PASSING)
def test_a_listed_path_passes_untouched(
    gateway: Gateway, auto: Upstream, method: str, target: str, body: bytes | None
) -> None:
    auto.answer = answers.whole(201, b"\xff\x00 whatever", type="application/x-own")
    response = gateway.ask(method, target, body, (("Content-Type", "application/x-mine"),))
    assert (response.status, response.body) == (201, b"\xff\x00 whatever")
    assert response.header("content-type") == "application/x-own"
    request = next(one for one in auto.requests if one.target != "/v1/models")
    assert (request.method, request.target, request.body) == (method, target, body or b"")
    assert request.header("content-type") == "application/x-mine"


def test_a_path_passes_only_for_keys_that_may(gateway: Gateway, auto: Upstream) -> None:
    response = gateway.ask("GET", "/v1/files", key=PLAIN)
    assert (response.status, response.code) == (403, "path_not_allowed")
    assert [request for request in auto.requests if "files" in request.target] == []


@pytest.mark.parametrize("target", ["/v1/fine_tuning/jobs", "/v1/batches/b-1", "/files", "/v1/../v1/files"])
def test_a_path_that_no_backend_lists_is_404(gateway: Gateway, target: str) -> None:
    assert gateway.ask("GET", target).status == 404


def test_a_passed_path_may_name_its_backend(gateway: Gateway) -> None:
    assert gateway.ask("GET", "/v1/files", None, (("X-Backend", "auto"),)).status == 200
    assert gateway.ask("GET", "/v1/files", None, (("X-Backend", "alpha"),)).status == 404
    assert gateway.ask("GET", "/v1/files", None, (("X-Backend", "nobody"),)).status == 404


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_may_be_given_in_its_own_header(connect: Connect, upstream: Upstream, stream: bool) -> None:
    client = connect()
    for headers in ([("X-API-Key", KEY)], [("x-api-key", KEY)], [("authorization", f"bearer {KEY}")]):
        client.send(build_request("POST", CHAT, chat_request(stream=stream), headers, key=None))
        assert client.response().status == 200, headers
