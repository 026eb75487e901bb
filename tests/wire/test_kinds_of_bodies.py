"""JSON that its sender calls something else: where that is refused, and where users of a dialect rely on it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.wire.client import Client

Connect = Callable[..., Client]
FORM = ("Content-Type", "application/x-www-form-urlencoded")  # as `curl -d` has it
BODIES = {
    "/api/chat": {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": False},
    "/api/generate": {"model": "m", "prompt": "Hello", "stream": False},
    "/api/embed": {"model": "m", "input": "Hello"},
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
    "/v1/messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]},
}


@pytest.mark.parametrize("path", BODIES)
def test_only_ollamas_doors_take_a_body_that_is_called_a_form(connect: Connect, path: str) -> None:
    client = connect()
    client.request("POST", path, json.dumps(BODIES[path]).encode(), [FORM])
    assert client.response("POST").status == (200 if path.startswith("/api/") else 415)


@pytest.mark.parametrize("path", BODIES)
def test_a_page_of_another_site_has_to_call_it_json_everywhere(connect: Connect, path: str) -> None:
    client = connect()
    client.request("POST", path, json.dumps(BODIES[path]).encode(), [FORM, ("Origin", "https://evil.test")])
    assert client.response("POST").status == 415
