"""Events and lines are read the same however a stream is cut, and within a bound."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.ndjson import LineReader
from protocols.pieces import Malformed
from protocols.sse import Event, EventReader, data_of, split_events
from tests.unit.configuring import STEADY

EVENTS = b'event: a\r\ndata: {"x":1}\r\n\r\n: comment\n\nid: 7\n\ndata: x\ndata:y\n\nevent:b\rdata:z\r\r\n\ndata: tail'
READ = [Event(b"a", b'{"x":1}'), Event(b"", b"x\ny"), Event(b"b", b"z"), Event(b"", b"tail")]
LINES = '{"a":1}\r\n\n  \n{"b":"ü"}\n{"c":3}'.encode()
LIMIT = 64


@pytest.mark.parametrize("size", range(1, len(EVENTS) + 1))
def test_events_do_not_depend_on_how_they_are_cut(size: int) -> None:
    reader = EventReader()
    read = [event for at in range(0, len(EVENTS), size) for event in reader.feed(EVENTS[at : at + size])]
    assert read + reader.end() == READ


@pytest.mark.parametrize("size", range(1, len(LINES) + 1))
def test_lines_do_not_depend_on_how_they_are_cut(size: int) -> None:
    reader = LineReader()
    read = [line for at in range(0, len(LINES), size) for line in reader.feed(LINES[at : at + size])]
    assert read + reader.end() == [b'{"a":1}', '{"b":"ü"}'.encode(), b'{"c":3}']


@pytest.mark.parametrize("kind", [EventReader, LineReader])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_part_without_an_end_is_held_up_to_its_limit(kind: type[EventReader | LineReader], size: int) -> None:
    reader = kind(LIMIT)
    for _ in range(LIMIT // size):
        reader.feed(b"x" * size)
    with pytest.raises(Malformed):
        reader.feed(b"x" * size)


@pytest.mark.parametrize("kind", [EventReader, LineReader])
def test_a_part_that_is_too_long_is_refused_also_where_it_is_whole(kind: type[EventReader | LineReader]) -> None:
    with pytest.raises(Malformed):
        kind(LIMIT).feed(b"data: " + b"x" * LIMIT + b"\n\n")


@pytest.mark.parametrize("kind", [EventReader, LineReader])
def test_many_short_parts_in_one_read_may_be_longer_together(kind: type[EventReader | LineReader]) -> None:
    assert len(kind(LIMIT).feed(b"data: 1\n\n" * LIMIT)) == LIMIT


PLAIN = [
    b"event: a\ndata: 1\n\n",
    b"data:2\n\n",
    b"data:  3\n\n",
    b"event:b\ndata: 4\r\n\r\n",
    b": 5\n\n",
    b"data: 6\nid: 7\n\n\n",
]
NAMED = [Event(b"a", b"1"), Event(b"", b"2"), Event(b"", b" 3"), Event(b"b", b"4"), None, Event(b"", b"6")]


@pytest.mark.parametrize("order", list(permutations(range(len(PLAIN)), 3)))
def test_events_as_most_servers_write_them_are_read_like_all_others(order: tuple[int, ...]) -> None:
    read = EventReader().feed(b"".join(PLAIN[at] for at in order))
    assert read == [NAMED[at] for at in order if NAMED[at] is not None]


PIECES = st.sampled_from([b"data:", b"data: ", b"event: a", b":", b"x", b"\n", b"\n\n", b"\r\n", b"\r", b"\n\n\n"])


@STEADY
@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_events_are_read_as_their_borders_and_their_data_say(payload: bytes) -> None:
    whole = payload + b"\n\n"
    said = [data for data in map(data_of, split_events(whole)) if data is not None]
    reader = EventReader()
    assert [event.data for event in reader.feed(payload) + reader.end()] == said
