"""Answers that have no body whatever their head says: the next answer is the right one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire import answers
from tests.wire.client import KEY, Client, chat_request
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import backend, configuration
from tests.wire.upstream import Script, Upstream

FILES = "/v1/files/f-1"
Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    keys = [{"name": "tester", "key": KEY, "passthrough": True}]
    return configuration(backend(module_upstream, passthrough=["/v1/files*"]), auth={"keys": keys})


def not_modified(*headers: tuple[str, str]) -> Script:
    return answers.raw(answers.head(304, ("etag", '"1"'), *headers))


def sized(size: int) -> tuple[str, str]:
    return ("content-length", str(size))


#: A 304 may tell the length that a 200 would have had (RFC 9110, 8.6); a 204 must not, and some servers do.
BODILESS = {
    "204": answers.no_content(),
    "204 that tells a length of 0": answers.no_content(sized(0)),
    "304": not_modified(),
    "304 that tells a length": not_modified(sized(1234)),
    "304 that tells a length of 0": not_modified(sized(0)),
    "304 of a chunked answer": not_modified(("transfer-encoding", "chunked")),
}


@pytest.mark.parametrize("path", [FILES, "/v1/chat/completions"])
@pytest.mark.parametrize("name", BODILESS)
def test_it_comes_twice_on_one_connection_and_then_one_with_a_body(
    connect: Connect, gateway: Gateway, upstream: Upstream, name: str, path: str
) -> None:
    """The second head is read by the pattern of the first, which must not tell a body's length."""
    after = answers.whole(200, b'{"after": "it"}', ("etag", '"1"'))
    upstream.answer = [BODILESS[name], BODILESS[name], after, after, BODILESS[name], after]
    client = connect()
    for status in (int(name[:3]), int(name[:3]), 200, 200, int(name[:3]), 200):
        client.request("POST", path, chat_request())
        response = client.response("POST")
        assert (response.status, response.complete, response.ended) == (status, True, "")
        assert response.body == (b'{"after": "it"}' if status == 200 else b"")
        assert response.header("transfer-encoding") is None
        assert (response.header("content-length") is not None) == (status == 200)
    # One that speaks of chunks may have sent some: its connection is not proved clean, and is used no more.
    indices = [0, 0, 0, 1, 2, 0] if "chunked" in name else [0, 1, 2, 3, 4, 5]
    assert [request.index for request in upstream.requests] == indices
    assert gateway.wait_call(6, request_id=client.id)["ending"] == "--"


def test_answers_to_head_have_no_body_either(connect: Connect, upstream: Upstream) -> None:
    """HEAD is not passed on, so no upstream's answer to it needs to be told apart."""
    client = connect()
    client.request("HEAD", FILES)
    assert client.response("HEAD").status == 405
    client.request("GET", FILES)
    assert client.response().status == 200
