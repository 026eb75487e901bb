"""The vendor's SDK reads every message and every stream that is written for its clients: in-process, no sockets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from anthropic.types import Message, ToolUseBlock
from pydantic import BaseModel

from protocols.anthropic.client import MessagesClient
from protocols.anthropic.count import count_body
from protocols.anthropic.errors import error_body
from protocols.dialect import Dropped, ErrorObject, JsonObject

BROKEN = ErrorObject(502, "The connection to the backend was lost.", "server_error", "upstream_lost")


class Door:
    """A transport of the SDK that answers as the gateway does: with *chunks*, one *answer*, or an *error*."""

    def __init__(
        self, chunks: Iterable[JsonObject | ErrorObject] = (), answer: JsonObject | None = None, cut: int = 1 << 20
    ) -> None:
        self.chunks = list(chunks)
        self.answer = answer
        self.cut = cut
        self.hub: JsonObject = {}
        self.client = anthropic.Anthropic(
            api_key="k",
            base_url="http://gateway",
            max_retries=0,
            http_client=httpx2.Client(transport=httpx2.MockTransport(self.serve)),
        )

    def serve(self, request: httpx2.Request) -> httpx2.Response:
        fields = orjson.loads(request.content)
        dropped = Dropped(lenient=False)
        if request.url.path.endswith("/count_tokens"):
            return httpx2.Response(200, content=count_body(fields, dropped))
        side = MessagesClient(fields, bool(fields.get("stream")), "abc", 0, dropped)
        self.hub = side.hub
        if not fields.get("stream"):
            assert self.answer is not None
            return httpx2.Response(200, content=side.answer(self.answer))
        return httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, content=self.cut_up(b"".join(self.events(side)))
        )

    def events(self, side: MessagesClient) -> Iterable[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, ErrorObject):
                yield side.fail(chunk)
                return
            yield side.feed(chunk)
        yield side.end()

    def cut_up(self, payload: bytes) -> Iterable[bytes]:
        for start in range(0, len(payload), self.cut):
            yield payload[start : start + self.cut]

    def stream(self, **fields: Any) -> Message:
        with self.client.messages.stream(**request(**fields)) as stream:
            for _ in stream:
                pass
            return stream.get_final_message()


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], **fields}


def chunk(finish: str | None = None, **delta: Any) -> JsonObject:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "model": "served-as"}


def tool(index: int, arguments: str, name: str = "") -> JsonObject:
    call = {"index": index, "id": name and f"call_{name}", "function": {"name": name, "arguments": arguments}}
    return chunk(tool_calls=[call])


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 30,
        "completion_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 10, "cache_creation_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
}


def shown(message: Message) -> list[Any]:
    return [block.model_dump(exclude_none=True) for block in message.content]


@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
def test_text_with_tokens(cut: int) -> None:
    message = Door([chunk(content="Grüß "), chunk(content="😀"), chunk("stop"), USAGE], cut=cut).stream()
    assert shown(message) == [{"type": "text", "text": "Grüß 😀"}]
    assert (message.id, message.model, message.stop_reason) == ("msg_abc", "served-as", "end_turn")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (15, 10, 5)
    assert usage.output_tokens == 8
    assert usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == 2


def test_text_as_it_comes() -> None:
    door = Door([chunk(content="a"), chunk(content="b"), chunk("length")])
    with door.client.messages.stream(**request()) as stream:
        assert list(stream.text_stream) == ["a", "b"]
        assert stream.get_final_message().stop_reason == "max_tokens"


def test_thinking_with_a_signature() -> None:
    signed = {"type": "thinking", "thinking": "", "signature": "sig"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    door = Door([chunk(reasoning_content="hm"), chunk(thinking_blocks=[signed, hidden]), chunk("stop", content="a")])
    assert shown(door.stream()) == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        hidden,
        {"type": "text", "text": "a"},
    ]


def test_calls_in_every_order_of_their_fragments() -> None:
    """Two calls and the fragments of both, in all ways in which they can be mixed."""
    first = [tool(0, "", "f"), tool(0, '{"a":'), tool(0, '"x}"}')]
    second = [tool(1, "", "g"), tool(1, '{"b":'), tool(1, "[1]}")]
    for places in itertools.combinations(range(6), 3):
        rests = iter(first), iter(second)
        chunks = [next(rests[0] if place in places else rests[1]) for place in range(6)]
        message = Door([chunk(content="Let me see."), *chunks, chunk("tool_calls"), USAGE]).stream()
        assert message.stop_reason == "tool_use"
        calls = sorted([block for block in message.content if isinstance(block, ToolUseBlock)], key=lambda b: b.name)
        assert [(call.id, call.input) for call in calls] == [("call_f", {"a": "x}"}), ("call_g", {"b": [1]})]
        assert message.content[0].type == "text"


def test_a_call_without_arguments() -> None:
    message = Door([tool(0, "", "f"), chunk("stop")]).stream()
    assert shown(message) == [{"type": "tool_use", "id": "call_f", "name": "f", "input": {}}]


def test_an_empty_stream() -> None:
    message = Door().stream()
    assert message.content == []
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize("before", [[], [chunk(content="a")], [tool(0, '{"a', "f")]])
def test_an_error_amid_the_stream(before: list[JsonObject]) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        Door([*before, BROKEN]).stream()
    assert caught.value.type == "api_error"
    assert "was lost" in str(caught.value)


class Answer(BaseModel):
    city: str
    degrees: int


def test_structured_output() -> None:
    door = Door([chunk(content='{"city":"Rome",'), chunk("stop", content='"degrees":20}')])
    with door.client.messages.stream(**request(), output_format=Answer) as stream:
        message = stream.get_final_message()
    assert message.parsed_output == Answer(city="Rome", degrees=20)
    shape = door.hub["response_format"]["json_schema"]
    assert shape["schema"]["required"] == ["city", "degrees"]


def test_whole_answers() -> None:
    calls = [{"id": "call_f", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    message = {"role": "assistant", "content": "Let me see.", "tool_calls": calls, "reasoning_content": "hm"}
    answer = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE["usage"]}
    door = Door(answer=answer)
    first = door.client.messages.create(**request())
    assert shown(first) == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "call_f", "name": "f", "input": {"a": 1}},
    ]
    # What the SDK got it sends again, with the tool's result.
    result = {"type": "tool_result", "tool_use_id": "call_f", "content": "r"}
    turns = [*request()["messages"], first.to_param(), {"role": "user", "content": [result]}]
    door.client.messages.create(**request(messages=turns))
    assert [turn["role"] for turn in door.hub["messages"]] == ["user", "assistant", "tool"]
    assert door.hub["messages"][1]["tool_calls"] == calls


def test_tokens_are_counted() -> None:
    count = Door().client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "x" * 400}])
    assert count.input_tokens == 106


@pytest.mark.parametrize(
    ("error", "exception"),
    [
        (ErrorObject(400, "x"), anthropic.BadRequestError),
        (ErrorObject(401, "x"), anthropic.AuthenticationError),
        (ErrorObject(404, "x"), anthropic.NotFoundError),
        (ErrorObject(429, "x"), anthropic.RateLimitError),
        (ErrorObject(502, "x"), anthropic.InternalServerError),
        (ErrorObject(529, "x"), anthropic.InternalServerError),
    ],
)
def test_errors_are_the_sdks(error: ErrorObject, exception: type[anthropic.APIStatusError]) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(error.status, content=error_body(error)))
    client = anthropic.Anthropic(
        api_key="k", base_url="http://gateway", max_retries=0, http_client=httpx2.Client(transport=transport)
    )
    with pytest.raises(exception) as caught:
        client.messages.create(**request())
    assert caught.value.api_message == "x"
    assert caught.value.type
