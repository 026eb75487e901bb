"""The samples behind a client of the OpenAI SDK, without sockets; used by the tests of the samples.

Owns the stand-in for a server. A strict client refuses a missing key and a wrong word.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai

from protocols.openai.body import decode_fields
from protocols.openai.samples.answer import sample
from protocols.openai.samples.shapes import Asked, Refused, Stream, Whole

HELLO: Any = [{"role": "user", "content": "Hello there"}]
ECHO = 'This is the mock backend: no model is running here. You said: "Hello there"'


def ask(path: str, body: dict[str, Any] | bytes, text: str = "") -> Whole | Stream:
    """The sample for *body*, a JSON object or, as bytes, a form."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    stream = isinstance(body, dict) and bool(body.get("stream"))
    model = body.get("model", "mock") if isinstance(body, dict) else "mock"
    fields = None if isinstance(body, bytes) else decode_fields(raw)
    asked = Asked(path=path, model=model, stream=stream, fields=fields, body=raw, id="a1", created=7, text=text)
    answer = sample(asked)
    assert answer is not None
    return answer


def _serve(request: httpx2.Request) -> httpx2.Response:
    body = request.read()
    is_form = request.headers["content-type"].startswith("multipart/form-data")
    try:
        answer = ask(request.url.path, body if is_form else json.loads(body))
    except Refused as refusal:
        error = {"message": refusal.message, "type": "invalid_request_error", "param": refusal.param}
        return httpx2.Response(400, json={"error": {**error, "code": None}})
    if isinstance(answer, Whole):
        headers = {"content-type": answer.content_type.decode()}
        return httpx2.Response(200, headers=headers, content=answer.body)
    events = [*answer.opening, *answer.tokens, *answer.closing]
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=b"".join(events))


def connect(*, strict: bool) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="any",
        base_url="http://mock.test/v1",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(transport=httpx2.MockTransport(_serve)),
        _strict_response_validation=strict,
    )


def events(answer: Whole | Stream) -> list[Any]:
    """The parsed data of a stream without event names, `[DONE]` left out but asserted."""
    assert isinstance(answer, Stream)
    raw = [*answer.opening, *answer.tokens, *answer.closing]
    assert raw[-1] == b"data: [DONE]\n\n"
    for event in raw:
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        assert event.count(b"\n") == 2
    return [json.loads(event[6:]) for event in raw[:-1]]
