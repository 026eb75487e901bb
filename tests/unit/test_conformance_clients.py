"""What every client's side keeps to, whatever dialect it speaks."""

from __future__ import annotations

import copy

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.dialect import Broken, ErrorObject, JsonObject, Task
from protocols.openai.asked import check_chat, check_completion, check_embeddings
from tests.unit import drawn
from tests.unit.configuring import STEADY
from tests.unit.conforming import (
    CLIENTS,
    Client,
    Transcript,
    each,
    every_client,
    every_streaming_client,
    transcripts,
)
from tests.unit.meanings import assembled, heard, meaning, meaning_of_request, said

#: Each example has many parts.
SOME = settings(STEADY, max_examples=40)
CHECKS = {Task.CHAT: check_chat, Task.COMPLETION: check_completion, Task.EMBEDDINGS: check_embeddings}
every_request = each("request.json", CLIENTS)
READ = {name: client for name, client in CLIENTS.items() if client.backend is not None}
READ_STREAMS = {name: client for name, client in READ.items() if client.streams}
every_client_that_is_read = pytest.mark.parametrize("client", READ.values(), ids=READ)
every_streaming_client_that_is_read = pytest.mark.parametrize("client", READ_STREAMS.values(), ids=READ_STREAMS)

ERROR = ErrorObject(503, "Out of order.", "service_unavailable", "overloaded")


@every_request
def test_a_request_becomes_one_of_the_hub(adapter: Client, transcript: Transcript) -> None:
    fields = transcript.json
    side = adapter.open(copy.deepcopy(fields), stream=bool(adapter.streams))
    CHECKS[side.task](side.hub)
    assert orjson.dumps(side.hub)


ASKING = {name: client for name, client in READ.items() if client.says}


@pytest.mark.parametrize("client", ASKING.values(), ids=ASKING)
@SOME
@given(data=st.data())
def test_a_request_keeps_what_both_sides_can_say(client: Client, data: st.DataObject) -> None:
    hub = data.draw(drawn.requests(client.says))
    ask = client.reader(hub).ask("m")
    back = client.open(orjson.loads(ask.body), lenient=False).hub
    CHECKS[client.task](back)
    assert meaning_of_request(back) == {**client.fills, **meaning_of_request(hub)}


@every_client_that_is_read
@SOME
@given(data=st.data())
def test_an_answer_keeps_what_both_sides_can_say(client: Client, data: st.DataObject) -> None:
    answer = data.draw(drawn.answers(client.task, client.has))
    before = copy.deepcopy(answer)
    body = client.open(stream=False).answer(answer)
    hub = {"model": "m", "input": ["Hi"] * len(answer["data"])} if client.task is Task.EMBEDDINGS else None
    back = client.reader(hub, stream=False).answer(body)
    assert answer == before, "answers are not changed"
    if client.task is Task.EMBEDDINGS:
        assert [one["embedding"] for one in back["data"]] == [one["embedding"] for one in answer["data"]]
        assert back["usage"]["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    else:
        assert meaning(back, client.has) == meaning(answer, client.has)


@every_streaming_client_that_is_read
@SOME
@given(data=st.data())
def test_a_stream_keeps_what_both_sides_can_say(client: Client, data: st.DataObject) -> None:
    answer = data.draw(drawn.answers(client.task, client.has))
    chunks = data.draw(drawn.streams(answer))
    assert meaning(assembled(chunks)) == meaning(answer)
    before = copy.deepcopy(chunks)
    body = said(client.open(), chunks)
    assert chunks == before, "chunks are not changed"
    at = data.draw(st.integers(0, len(body)))
    pieces = [body[:at], body[at:]]
    assert meaning(assembled(heard(client.reader(), pieces)), client.has) == meaning(answer, client.has)


@every_streaming_client
@SOME
@given(data=st.data())
def test_a_stream_that_breaks_anywhere_ends_with_an_error_and_never_as_complete(
    client: Client, data: st.DataObject
) -> None:
    chunks = data.draw(drawn.streams(data.draw(drawn.answers(client.task, client.has))))
    complete = said(client.open(), chunks)
    assert any(done in complete for done in client.written.done)
    side = client.open()
    broken = b"".join(side.feed(chunk) for chunk in chunks[: data.draw(st.integers(0, len(chunks)))])
    assert complete.startswith(broken), "what was fed is out at once, and the same each time"
    end = side.fail(ERROR)
    assert ERROR.message.encode() in end
    assert not any(done in end for done in client.written.done)
    if client.backend is not None:
        reader = client.reader()
        with pytest.raises(Broken) as caught:
            heard(reader, [broken, end])
        assert caught.value.error.message == ERROR.message


@every_client
def test_each_client_has_requests_of_its_own(client: Client) -> None:
    assert transcripts(client, "request.json")


def test_the_fewest_fields_are_enough() -> None:
    for name, client in CLIENTS.items():
        fields: JsonObject = copy.deepcopy(client.fields)
        assert client.open(fields, stream=False, lenient=False).task is client.task, name
