"""A key in the query, where that is allowed, stays here in whatever spelling it comes."""

from __future__ import annotations

import pytest

from tests.wire.client import KEY, chat_request
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import backend, configuration
from tests.wire.upstream import Upstream

CHAT = "/v1/chat/completions"
FILES = "/v1/files"


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    keys = [{"name": "tester", "key": KEY, "passthrough": True}]
    auth = {"query_param": "api_key", "keys": keys}
    return configuration(backend(module_upstream, passthrough=["/v1/files*"]), auth=auth)


#: As it is sent, and what goes upstream of it.
QUERIES = {
    f"api_key={KEY}": "",
    f"api%5Fkey={KEY}": "",
    f"api%5fkey={KEY}": "",
    f"%61pi_key={KEY}": "",
    f"%61%70%69%5f%6b%65%79={KEY}": "",
    f"a=1&api%5Fkey={KEY}&b=%20x": "?a=1&b=%20x",
    f"api_key=wrong&api%5Fkey={KEY}&b": "?b",
    f"api%5Fkey=wrong&api_key={KEY}": "",
    f"xapi_key=1&api_key={KEY}&api_keys=2": "?xapi_key=1&api_keys=2",
}


@pytest.mark.parametrize("path", [CHAT, FILES])
@pytest.mark.parametrize("query", QUERIES)
def test_it_is_taken_and_not_passed_on(gateway: Gateway, upstream: Upstream, path: str, query: str) -> None:
    response = gateway.ask("POST", f"{path}?{query}", chat_request(), key=None)
    assert response.status == 200
    assert upstream.ledger.last.target == path + QUERIES[query]
    assert KEY.encode() not in upstream.ledger.last.raw_head


def test_beside_a_key_in_a_header_it_is_not_passed_on_either(gateway: Gateway, upstream: Upstream) -> None:
    assert gateway.ask("POST", f"{CHAT}?api%5Fkey={KEY}", chat_request()).status == 200
    assert upstream.ledger.last.target == CHAT


def test_it_is_not_written_down(gateway: Gateway) -> None:
    response = gateway.ask("POST", f"{CHAT}?api%5Fkey={KEY}", chat_request(), key=None)
    gateway.wait_call(request_id=response.header("x-request-id"))
    assert KEY not in gateway.stdout and KEY not in gateway.stderr
