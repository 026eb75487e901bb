"""What travels beside the bodies: ids, the gateway's own headers, and what stays on its own side."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.client import KEY, Client, chat_request
from tests.wire.process import Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
Connect = Callable[..., Client]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("stream", [False, True])
def test_a_clients_request_id_is_kept(gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    id = "a.B-9_" + "x" * 100
    response = gateway.ask("POST", CHAT, chat_request(stream=stream), (("X-Request-Id", id),))
    assert response.header("x-request-id") == id
    assert upstream.ledger.last.header("x-request-id") == id
    assert gateway.wait_call(request_id=id)["status"] == 200


@pytest.mark.parametrize("id", ["", "two words", "x" * 129, "a;b", "\xe9", "<script>"])
def test_a_request_id_that_could_do_harm_is_replaced(gateway: Gateway, upstream: Upstream, id: str) -> None:
    response = gateway.ask("POST", CHAT, chat_request(), (("X-Request-Id", id),))
    ours = response.header("x-request-id")
    assert ours and ours != id and re.fullmatch(r"[A-Za-z0-9._-]{1,128}", ours)
    assert upstream.ledger.last.header("x-request-id") == ours


def test_every_call_has_an_id_of_its_own(gateway: Gateway) -> None:
    ids = {gateway.ask("POST", CHAT, chat_request()).header("x-request-id") for _ in range(5)}
    assert len(ids) == 5 and all(ids)


def test_a_trace_goes_on(gateway: Gateway, upstream: Upstream) -> None:
    response = gateway.ask("POST", CHAT, chat_request(), (("traceparent", PARENT),))
    assert response.header("x-trace-id") == PARENT.split("-")[1]
    sent = upstream.ledger.last.header("traceparent") or ""
    assert sent.split("-")[:2] == PARENT.split("-")[:2]
    id = response.header("x-request-id")
    assert gateway.wait_call(request_id=id)["trace_id"] == PARENT.split("-")[1]


def test_a_trace_id_of_the_clients_own_is_kept(gateway: Gateway, upstream: Upstream) -> None:
    response = gateway.ask("POST", CHAT, chat_request(), (("X-Trace-Id", "trace-7"),))
    assert response.header("x-trace-id") == "trace-7"
    assert upstream.ledger.last.header("x-trace-id") == "trace-7"


def test_a_fault_carries_the_ids_too(gateway: Gateway) -> None:
    headers = (("X-Request-Id", "r-1"), ("traceparent", PARENT))
    response = gateway.ask("POST", CHAT, b"{", headers)
    assert response.header("x-request-id") == "r-1"
    assert response.header("x-trace-id") == PARENT.split("-")[1]


def test_the_answer_names_its_upstream_and_its_times(gateway: Gateway) -> None:
    response = gateway.ask("POST", CHAT, chat_request())
    assert response.header("x-upstream") == "alpha"
    assert re.fullmatch(r"gw;dur=[\d.]+, ?up;dur=[\d.]+", response.header("server-timing") or "")
    stream = gateway.ask("POST", CHAT, chat_request(stream=True))
    assert stream.header("x-upstream") == "alpha" and stream.header("server-timing") is None


def test_an_upstreams_own_ids_and_times_do_not_double_ours(gateway: Gateway, upstream: Upstream) -> None:
    upstream.answer = answers.chat(
        "Hello",
        ("x-request-id", "theirs"),
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("x-upstream", "theirs"),
    )
    response = gateway.ask("POST", CHAT, chat_request(), (("X-Request-Id", "ours"),))
    assert response.header("x-request-id") == "ours"
    assert response.header("x-upstream") == "alpha"
    assert response.header("date")


def test_a_clients_credentials_and_hops_stay_here(gateway: Gateway, upstream: Upstream) -> None:
    headers = (
        ("X-API-Key", KEY),
        ("Cookie", "a=b"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("OpenAI-Organization", "org-1"),
        ("User-Agent", "tester/1"),
    )
    gateway.ask("POST", CHAT, chat_request(), headers)
    request = upstream.ledger.last
    names = [name for name, _ in request.headers]
    assert not {"authorization", "x-api-key", "proxy-authorization", "keep-alive", "te", "x-hop"} & set(names)
    assert KEY.encode() not in request.raw_head
    assert request.header("openai-organization") == "org-1"
    assert request.header("user-agent") == "tester/1"
    assert request.header("host") == f"127.0.0.1:{upstream.port}"
    assert names.count("content-length") == 1 and "transfer-encoding" not in names
    assert request.header("accept-encoding") in (None, "identity")


def test_an_upgrade_is_not_passed_on(gateway: Gateway, upstream: Upstream) -> None:
    headers = (("Connection", "Upgrade"), ("Upgrade", "h2c"))
    assert gateway.ask("POST", CHAT, chat_request(), headers).status == 200
    assert upstream.ledger.last.header("upgrade") is None
    assert upstream.ledger.last.body == chat_request() or upstream.ledger.last.json()["model"] == "m"


# --- other origins ---


ORIGIN = "https://app.example"
PREFLIGHT = (
    ("Origin", ORIGIN),
    ("Access-Control-Request-Method", "POST"),
    ("Access-Control-Request-Headers", "authorization, content-type, x-stainless-os"),
)


@pytest.fixture
def open_gateway(stage: Stage) -> Gateway:
    cors = {"enabled": True, "allow_origins": [ORIGIN], "max_age": "10m"}
    return stage.gateway(configuration(backend(stage.upstream()), cors=cors))


def test_a_preflight_is_answered_without_a_key(open_gateway: Gateway) -> None:
    response = open_gateway.ask("OPTIONS", CHAT, None, PREFLIGHT, key=None)
    assert response.status in (200, 204) and response.complete
    assert response.header("access-control-allow-origin") == ORIGIN
    assert "POST" in (response.header("access-control-allow-methods") or "")
    allowed = (response.header("access-control-allow-headers") or "").lower().replace(" ", "").split(",")
    assert {"authorization", "content-type", "x-stainless-os"} <= set(allowed)
    assert response.header("access-control-max-age") == "600"
    assert "origin" in (response.header("vary") or "").lower()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_may_be_read_by_an_allowed_origin_alone(open_gateway: Gateway, stream: bool) -> None:
    body = chat_request(stream=stream)
    allowed = open_gateway.ask("POST", CHAT, body, (("Origin", ORIGIN),))
    assert (allowed.status, allowed.header("access-control-allow-origin")) == (200, ORIGIN)
    assert "origin" in (allowed.header("vary") or "").lower()
    assert "x-request-id" in (allowed.header("access-control-expose-headers") or "")
    other = open_gateway.ask("POST", CHAT, body, (("Origin", "https://evil.example"),))
    assert (other.status, other.header("access-control-allow-origin")) == (200, None)


def test_a_fault_may_be_read_by_an_allowed_origin(open_gateway: Gateway) -> None:
    response = open_gateway.ask("POST", CHAT, b"{", (("Origin", ORIGIN),), key="wrong")
    assert (response.status, response.header("access-control-allow-origin")) == (401, ORIGIN)


def test_without_cors_no_origin_is_told_anything(gateway: Gateway) -> None:
    response = gateway.ask("POST", CHAT, chat_request(), (("Origin", ORIGIN),))
    assert not [name for name, _ in response.headers if name.startswith("access-control")]
    assert gateway.ask("OPTIONS", CHAT, None, PREFLIGHT).status == 405


def test_a_translated_call_has_one_content_type_and_no_lines_of_the_clients_dialect(stage: Stage) -> None:
    upstream = stage.upstream()
    client = stage.connect(stage.gateway(configuration(backend(upstream))))
    lines = [("Anthropic-Version", "2023-06-01"), ("X-Stainless-OS", "Linux"), ("Accept", "*/*"), ("X-Own", "kept")]
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    client.request("POST", "/v1/messages", json.dumps(body).encode(), lines)
    assert client.response("POST").status == 200
    asked = upstream.requests[-1]
    assert asked.header("content-type") == "application/json"
    assert asked.header("x-own") == "kept"
    names = {name for name, _ in asked.headers}
    assert not names & {"anthropic-version", "x-stainless-os", "accept"}
