"""The LiteLLM SDK as a backend: its own words in front of a scripted provider, and the way around it.

It pins openai<3, so it has an environment of its own: `tox -e litellm`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

import pytest

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import KEY, Client, Response, build_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, configuration
from tests.wire.upstream import Upstream

pytestmark = [
    pytest.mark.skipif(find_spec("litellm") is None, reason="needs the extra headrace[litellm]: tox -e litellm"),
    pytest.mark.timeout(120),
]

SECRET = "provider-key-0123456789"
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
#: Without strictness about warnings: the package has some.
PYTHON = (sys.executable, "-m", "gateway")


def sdk(upstream: Upstream, model: str = "openai/big", **more: Any) -> dict[str, Any]:
    url = f"litellm://{model}?api_base={quote(upstream.url + '/v1', safe='')}"
    auth = {"type": "bearer", "token": SECRET}
    return {"name": "sdk", "endpoints": [url], "models": ["m"], "auth": auth, "retry": {"tries": 1}, **more}


@pytest.fixture(scope="module")
def upstream(module_stage: Stage) -> Upstream:
    return module_stage.upstream()


@pytest.fixture(scope="module")
def warm(module_stage: Stage, upstream: Upstream) -> Gateway:
    """A gateway whose worker has imported the package."""
    gateway = module_stage.gateway(configuration(sdk(upstream)), command=PYTHON)
    assert ask(gateway, HELLO, timeout=60).status == 200
    gateway.idle_fds = gateway.fds() + 4  # what the package has opened, and connections that it keeps
    return gateway


@pytest.fixture
def gateway(warm: Gateway, upstream: Upstream) -> Iterator[Gateway]:
    yield warm
    upstream.reset()  # the connections are kept by the package


def ask(gateway: Gateway, body: dict[str, Any], path: str = "/v1/chat/completions", **more: Any) -> Response:
    return gateway.ask("POST", path, json.dumps(body).encode(), **more)


def events(answer: Response) -> list[Any]:
    parts = [part.removeprefix(b"data: ") for part in answer.body.split(b"\n\n") if part]
    return [part if part == b"[DONE]" else json.loads(part) for part in parts]


def begin(stage: Stage, gateway: Gateway, body: dict[str, Any]) -> Client:
    client = stage.connect(gateway)
    client.send(build_request("POST", "/v1/chat/completions", json.dumps(body).encode()))
    return client


# answers


def test_a_chat_is_asked_with_the_backend_s_key_and_model_and_answered_as_openai_does(
    gateway: Gateway, upstream: Upstream
) -> None:
    answer = ask(gateway, HELLO | {"temperature": 0.5, "user": "u"})
    told = json.loads(answer.body)
    assert answer.status == 200
    assert told["choices"][0]["message"] == {"role": "assistant", "content": "Hello", "refusal": None}
    assert told["usage"]["total_tokens"] == 12
    assert "provider_specific_fields" not in answer.body.decode()
    request = upstream.requests[-1]
    assert request.header("authorization") == f"Bearer {SECRET}"
    assert request.header("x-headrace-hops") == "1"
    assert request.json() == {"model": "big", "messages": HELLO["messages"], "temperature": 0.5}
    line = gateway.wait_call(path="/v1/chat/completions")
    assert line["status"] == 200


def test_a_stream_ends_with_its_usage_and_done(gateway: Gateway) -> None:
    *chunks, usage, done = events(ask(gateway, HELLO | {"stream": True, "stream_options": {"include_usage": True}}))
    assert done == b"[DONE]"
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks) == "word0 word1 word2 "
    assert [one["choices"][0]["finish_reason"] for one in chunks][-1] == "stop"
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 12)
    assert len({one["id"] for one in (*chunks, usage)}) == 1


def test_a_stream_has_no_usage_where_nobody_asked(gateway: Gateway) -> None:
    *chunks, done = events(ask(gateway, HELLO | {"stream": True}))
    assert done == b"[DONE]"
    assert all(one["choices"] and not one.get("usage") for one in chunks)


def test_embeddings_come_as_floats_and_as_base64(gateway: Gateway) -> None:
    for wanted, vector in ((None, [0.5, -0.25]), ("base64", "AAAAPwAAgL4=")):
        answer = ask(gateway, {"model": "m", "input": ["a"], "encoding_format": wanted}, "/v1/embeddings")
        told = json.loads(answer.body)
        assert told["data"][0]["embedding"] == vector
        assert told["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


def test_a_text_is_completed_whole_and_streamed(gateway: Gateway, upstream: Upstream) -> None:
    choice = {"index": 0, "text": " there", "logprobs": None, "finish_reason": "stop"}
    whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "big", "choices": [choice]}
    upstream.answer = answers.whole(200, answers.json_body(whole | {"usage": answers.usage()}))
    asked = {"model": "m", "prompt": "Hi"}
    told = json.loads(ask(gateway, asked, "/v1/completions").body)
    assert (told["choices"][0]["text"], told["usage"]["total_tokens"]) == (" there", 12)
    event = b"data: " + answers.json_body(whole) + b"\n\n"
    upstream.answer = answers.stream([event, answers.DONE])
    *chunks, done = events(ask(gateway, asked | {"stream": True}, "/v1/completions"))
    assert done == b"[DONE]"
    assert "".join(one["choices"][0]["text"] for one in chunks) == " there"


def test_a_client_of_another_dialect_is_served_too(gateway: Gateway, upstream: Upstream) -> None:
    body = {"model": "m", "max_tokens": 9, "system": "Be brief.", "messages": HELLO["messages"]}
    told = json.loads(ask(gateway, body, "/v1/messages").body)
    assert (told["type"], told["content"][0]["text"], told["stop_reason"]) == ("message", "Hello", "end_turn")
    assert upstream.requests[-1].json()["messages"][0] == {"role": "system", "content": "Be brief."}
    streamed = ask(gateway, body | {"stream": True}, "/v1/messages").body
    assert b"event: message_stop" in streamed and b"word0" in streamed


# refusals and errors


def test_what_would_reach_into_the_sdk_is_refused(gateway: Gateway, upstream: Upstream) -> None:
    before = len(upstream.requests)
    answer = ask(gateway, HELLO | {"api_base": "http://127.0.0.1:1"})
    assert (answer.status, json.loads(answer.body)["error"]["param"]) == (400, "api_base")
    assert len(upstream.requests) == before


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_has_its_status_and_openai_s_shape_and_is_asked_for_once(
    gateway: Gateway, upstream: Upstream, status: int, stream: bool
) -> None:
    said = f"no, not with {SECRET} or sk-abcdefghijklmnop"
    upstream.answer = answers.error(status, said, ("retry-after", "7"))
    before = len(upstream.requests)
    answer = ask(gateway, HELLO | {"stream": stream})
    assert answer.status == status
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert SECRET not in answer.body.decode() and "sk-abc" not in answer.body.decode()
    assert len(upstream.requests) == before + 1
    if status == 429:
        assert answer.header("retry-after") == "7"


def test_a_refused_key_is_not_the_client_s(gateway: Gateway, upstream: Upstream) -> None:
    upstream.answer = answers.error(401, "no such key")
    answer = ask(gateway, HELLO)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "upstream_unauthorized")


def test_a_stream_that_breaks_ends_with_an_error_and_not_with_done(gateway: Gateway, upstream: Upstream) -> None:
    event = b"data: " + answers.error_body("it broke") + b"\n\n"
    upstream.answer = answers.stream([*answers.chat_events(done=False)[:3], event])
    *_, last = events(ask(gateway, HELLO | {"stream": True}))
    assert "error" in last


# leaving


def test_a_client_that_leaves_ends_the_provider_s_work(stage: Stage, gateway: Gateway, upstream: Upstream) -> None:
    for stream in (False, True):
        gate = Gate()
        before = answers.chat_events()[:2]
        upstream.answer = answers.stalled_stream(gate, before) if stream else answers.await_abort
        seen = len(upstream.requests)
        client = begin(stage, gateway, HELLO | {"stream": stream})
        wait_until(lambda seen=seen: len(upstream.requests) > seen, "the provider is asked")
        if stream:
            client.read_head("POST")
        client.close()
        wait_until(lambda: upstream.requests[-1].aborted, "the provider's connection is closed", 3.0)


# circles


def test_a_gateway_in_front_of_itself_says_so_in_the_end(stage: Stage, upstream: Upstream) -> None:
    config = configuration()
    own = f"http://127.0.0.1:{config['server']['port']}/v1"
    auth = {"type": "bearer", "token": KEY}
    url = f"litellm://openai/m?api_base={quote(own, safe='')}"
    config["backends"] = [
        {"name": "self", "endpoints": [url], "models": ["m"], "auth": auth, "retry": {"tries": 1}},
    ]
    gateway = stage.gateway(config, command=PYTHON)
    answer = ask(gateway, HELLO, timeout=60)
    assert answer.status >= 500
    assert len(gateway.calls(path="/v1/chat/completions")) <= 5
    gateway.kill()


# the quick form


def test_the_quick_form_takes_it(stage: Stage, upstream: Upstream) -> None:
    env = {
        "GATEWAY_UPSTREAMS": "gpt-4o-mini=litellm://gpt-4o-mini",
        "GATEWAY_API_KEYS": KEY,
        "OPENAI_API_KEY": SECRET,
        "OPENAI_BASE_URL": f"{upstream.url}/v1",
    }
    upstream.answer = answers.model_server
    gateway = stage.gateway({"server": {"pre_stop": "0s"}}, env=env, command=PYTHON)
    assert ask(gateway, HELLO | {"model": "gpt-4o-mini"}, timeout=60).status == 200
    assert upstream.requests[-1].json()["model"] == "gpt-4o-mini"
    upstream.reset()
    gateway.stop()
