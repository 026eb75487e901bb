"""What the load generator takes for the scripted answer, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import answers, messages
from bench.answers import StreamReader, Wrong


def event(stamp: int) -> bytes:
    return messages.EVENT_START + b"%016x" % stamp + messages.EVENT_END


FIRST, SECOND = messages.chunk(event(17)), messages.chunk(event(18))
FINISH = messages.chunk(messages.FINISH_EVENT)
USAGE = messages.chunk(messages.USAGE_EVENT)
DONE = messages.chunk(messages.DONE_EVENT)
STREAM = messages.STREAM_HEAD + FIRST + SECOND + FINISH + DONE + messages.LAST_CHUNK
#: A proxy may frame as it likes: all events in one chunk, and one event in two.
REFRAMED = (
    messages.STREAM_HEAD
    + messages.chunk(event(17) + event(18)[:50])
    + messages.chunk(event(18)[50:] + messages.FINISH_EVENT + messages.DONE_EVENT)
    + messages.LAST_CHUNK
)


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize("stream", [STREAM, REFRAMED], ids=["as scripted", "reframed"])
def test_a_stream_is_read_however_it_is_cut(stream: bytes, cut: Callable[[bytes], list[bytes]]) -> None:
    reader = StreamReader()
    stamps = [stamp for piece in cut(stream) for stamp in reader.feed(piece)]
    assert stamps == [17, 18]
    assert reader.ended


@pytest.mark.parametrize(
    ("read", "clean"),
    [
        (b"", False),
        (messages.STREAM_HEAD, True),
        (messages.STREAM_HEAD + FIRST[:10], False),
        (messages.STREAM_HEAD + FIRST, True),
        (messages.STREAM_HEAD + FIRST + FINISH, False),
    ],
)
def test_the_next_byte_begins_an_event_only_between_two_of_them(read: bytes, clean: bool) -> None:
    reader = StreamReader()
    reader.feed(read)
    assert reader.clean is clean


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(messages.NOT_FOUND, id="another status"),
        pytest.param(messages.STREAM_HEAD.replace(b"event-stream", b"plain") + FIRST, id="another type"),
        pytest.param(
            messages.STREAM_HEAD.replace(b"transfer-encoding: chunked", b"connection: close"), id="not framed"
        ),
        pytest.param(messages.STREAM_HEAD + FIRST + USAGE, id="usage before the finish"),
        pytest.param(messages.STREAM_HEAD + FIRST + FINISH + USAGE, id="usage after the finish"),
        pytest.param(messages.STREAM_HEAD + FIRST + FINISH + SECOND, id="an event after the finish"),
        pytest.param(messages.STREAM_HEAD + FIRST + DONE, id="done without a finish"),
        pytest.param(messages.STREAM_HEAD + FIRST + FINISH + DONE + SECOND, id="an event after done"),
        pytest.param(messages.STREAM_HEAD + FIRST + messages.LAST_CHUNK, id="no finish"),
        pytest.param(messages.STREAM_HEAD + FIRST + FINISH + messages.LAST_CHUNK, id="no done"),
        pytest.param(STREAM + b"x", id="trailing junk"),
        pytest.param(messages.STREAM_HEAD + b"zz\r\n", id="no chunk size"),
        pytest.param(messages.STREAM_HEAD + b"1\r\nabc", id="a chunk without its end"),
        pytest.param(messages.STREAM_HEAD + messages.chunk(b": comment\n\n"), id="a comment"),
        pytest.param(messages.STREAM_HEAD + messages.chunk(event(17).replace(b"bench", b"other")), id="other text"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 4000, id="an endless head"),
    ],
)
def test_a_stream_that_is_not_the_scripted_one_is_refused(stream: bytes) -> None:
    with pytest.raises(Wrong):
        StreamReader().feed(stream)


def test_an_answer_is_one_whole_200_with_the_scripted_body() -> None:
    assert answers.is_answer(messages.ANSWER)
    assert answers.is_answer(messages.ANSWER.replace(b"server: uvicorn", b"x-request-id: 0123456789"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        messages.ANSWER[:-1],
        messages.ANSWER + b"x",
        messages.ANSWER + messages.ANSWER,
        messages.ANSWER.replace(b"200 OK", b"201 OK"),
        messages.ANSWER.replace(b"paddles", b"puddles"),
        messages.NOT_FOUND,
    ],
)
def test_any_other_answer_is_refused(data: bytes) -> None:
    assert not answers.is_answer(data)


def test_every_beginning_of_an_answer_is_waited_on() -> None:
    assert all(answers.may_become_answer(messages.ANSWER[:n]) for n in range(len(messages.ANSWER)))


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 5",
        messages.NOT_FOUND,
        messages.ANSWER.replace(b"paddles", b"puddles"),
        messages.ANSWER + b"x",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 4000,
    ],
)
def test_a_beginning_that_cannot_become_the_answer_is_not_waited_on(data: bytes) -> None:
    assert not answers.may_become_answer(data)
