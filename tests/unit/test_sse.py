"""Events: where they end, however the stream is cut, and what data they carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import sse
from tests.unit.configuring import STEADY

ENDS = pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])


def stream(end: bytes, *events: list[bytes]) -> bytes:
    return b"".join(b"".join(line + end for line in event) + end for event in events)


@ENDS
def test_an_event_ends_with_its_blank_line(end: bytes) -> None:
    first, second = stream(end, [b"event: a", b"data: 1"]), stream(end, [b": comment"])
    assert sse.split_events(first + second) == [first, second]
    assert sse.last_border(first + second) == len(first + second)
    assert sse.split_events(first + b"data: 2" + end) == [first]
    assert sse.last_border(first + b"data: 2" + end) == len(first)
    assert sse.split_events(b"data: 2" + end) == []
    assert sse.last_border(b"data: 2" + end) == 0


def test_nothing_has_no_event() -> None:
    assert sse.split_events(b"") == []
    assert sse.last_border(b"") == 0
    assert sse.data_of(b"") is None


BORDERS = {
    b"\n": 0,
    b"\n\n": 2,
    b"\r\n": 0,
    b"\r\n\r": 0,
    b"\r\n\r\n": 4,
    b"\r\r": 2,
    b"a\n\nb": 3,
    b"a\n\nb\n\nc": 6,
    b"a\r\n\r\nb\r\n\r\nc": 10,
    b"a\r\n\r\nb\n\nc": 8,
    b"a\n\nb\r\n\r\nc": 8,
    b"a\n\nb\r\rc": 6,
    b"data: \\n\\n": 0,
    b"data: a\\r\\n\\r\\n\n": 0,
}


@pytest.mark.parametrize(("payload", "border"), BORDERS.items())
def test_the_last_border_is_behind_the_last_blank_line(payload: bytes, border: int) -> None:
    assert sse.last_border(payload) == border
    assert len(b"".join(sse.split_events(payload))) == border


DATA = {
    (b"data: a",): b"a",
    (b"data:a",): b"a",
    (b"data:  a ",): b" a ",
    (b"data:",): b"",
    (b"data: ",): b"",
    (b"data: a", b"data: b"): b"a\nb",
    (b"data: a", b"data:", b"data:b"): b"a\n\nb",
    (b"event: x", b"id: 1", b"retry: 5", b"data: a"): b"a",
    (b": data: a", b"data: b"): b"b",
    (b"data: a: b", b"datax: c", b" data: d"): b"a: b",
    (b"Data: a",): None,
    (b": keep-alive",): None,
    (b"event: done",): None,
    (b"id",): None,
    (b'data: {"a":"\\n\\ndata: x"}',): b'{"a":"\\n\\ndata: x"}',
    ("data: é\u2028\u0085\x0b\x0c".encode(),): "é\u2028\u0085\x0b\x0c".encode(),
}


@ENDS
@pytest.mark.parametrize(("lines", "data"), DATA.items())
def test_the_data_is_what_the_data_lines_say(end: bytes, lines: tuple[bytes, ...], data: bytes | None) -> None:
    assert sse.data_of(stream(end, list(lines))) == data


def test_data_that_was_written_is_read_back() -> None:
    event = sse.data_event(b'{"a":1}')
    assert event == b'data: {"a":1}\n\n'
    assert sse.split_events(event) == [event]
    assert sse.data_of(event) == b'{"a":1}'


_LINE = st.sampled_from(
    [b"data: a", b"data:", b"data: {}", b": c", b"event: x", b"data: \xc3\xa9", b"x", b"data: [DONE]", b"id:1"]
)
_EVENTS = st.lists(st.lists(_LINE, min_size=1, max_size=3), max_size=5)


def relayed(payload: bytes, cuts: list[int]) -> tuple[list[bytes], bytes]:
    """The events of *payload* that comes cut, as a relay finds them; and what is left after the last border."""
    events = []
    tail = b""
    for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True):
        tail += payload[start:end]
        border = sse.last_border(tail)
        events += sse.split_events(tail[:border])
        tail = tail[border:]
    return events, tail


@ENDS
@STEADY
@given(_EVENTS, st.sampled_from([b"", b"data: half", b"data: {}", b": c"]), st.data())
def test_borders_are_the_same_in_whatever_pieces_a_stream_comes(
    end: bytes, lines: list[list[bytes]], half: bytes, data: st.DataObject
) -> None:
    events = [stream(end, each) for each in lines]
    payload = b"".join(events) + half
    cuts = sorted(data.draw(st.sets(st.integers(0, len(payload)), max_size=8)))
    assert relayed(payload, cuts) == relayed(payload, []) == (events, half)
    assert relayed(payload, list(range(1, len(payload)))) == (events, half)


@STEADY
@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: a", b":"]), max_size=12).map(b"".join), st.data())
def test_no_byte_is_lost_between_events(payload: bytes, data: st.DataObject) -> None:
    assert b"".join(sse.split_events(payload)) == payload[: sse.last_border(payload)]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(payload)), max_size=4)))
    events, tail = relayed(payload, cuts)
    assert b"".join(events) + tail == payload


@STEADY
@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: a", b":"]), max_size=12).map(b"".join))
def test_every_piece_but_none_of_its_inside_ends_an_event(payload: bytes) -> None:
    for event in sse.split_events(payload):
        assert sse.last_border(event) == len(event)
        assert sse.split_events(event) == [event]


@STEADY
@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: a", b":"]), max_size=12).map(b"".join))
def test_the_first_border_is_behind_the_first_blank_line(payload: bytes) -> None:
    border = sse.first_border(payload)
    assert border == next((at for at in range(len(payload) + 1) if sse.last_border(payload[:at])), 0)
