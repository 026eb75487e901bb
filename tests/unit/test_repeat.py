"""Heads read by pattern: whatever came before on a connection, a head reads as it does alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.http1.errors import WireError, Wrong
from protocols.http1.fields import FieldTable
from protocols.http1.repeat import MISSES_LIMIT, Pattern
from protocols.http1.request import Request, RequestHeads, parse_request_head
from protocols.http1.response import STATUS_LINES, ResponseHead, ResponseHeads, parse_response_head
from tests.unit.configuring import STEADY

Said = dict[str, Any]
Lines = list[bytes]

LIMIT = 4 << 10

#: What may stand behind "Name:" in place of the value that was there before.
VALUES = (
    *(b" 5", b" 17", b" 005", b" 000000000000000005", b" 0000000000000000005", b" 9", b" 123456789012345678"),
    *(b"5", b"  5", b" 5 ", b" 5\t", b"\t5", b" \t 5 \t ", b"", b" ", b"  "),
    *(b" a", b" a-b.c_d:e", b" a b", b" a\tb", b' "a"', b" a: b", b" a,b", b" +5", b" -1", b" 0x5", b" 5, 5", b" \xb2"),
    *(b" \xe9", b" a\x85", b" a\0", b" a\x01b", b" a\x0b", b" \x1f", b" a\x7f", b" a\nb", b" a\rb", b" a\r", b" a\n"),
    *(b" a\nX: b", b" a\n\nb", b" 5\n", b" \n5", b" a\r\n b", b" a\r\n\tb"),
)


def block_of(lines: Iterable[bytes]) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def is_one_head(lines: Iterable[bytes]) -> bool:
    block = block_of(lines)
    return block.find(b"\r\n\r\n") == len(block) - 4


def of_request(request: Request) -> Said:
    names = ("method", "path", "query", "http_1_1", "keep_alive", "length", "chunked")
    said = {name: getattr(request, name) for name in names}
    return {**said, "special": list(request.special), "forward": b"".join(request.forward)}


def of_response(head: ResponseHead) -> Said:
    names = ("status", "content_type", "is_event_stream", "length", "chunked", "persistent")
    said = {name: getattr(head, name) for name in names}
    kept = (head.keep_alive_timeout, head.keep_alive_max)
    return {**said, "keep-alive": kept, "lines": b"".join(head.lines)}


class Requests:
    """One connection's requests beside the same heads read alone."""

    def __init__(self) -> None:
        self.heads = RequestHeads(FieldTable(), LIMIT)
        self._alone = FieldTable()

    def together(self, data: bytes) -> Said | None:
        request = self.heads.read(data)
        return of_request(request) if request is not None else None

    def alone(self, block: bytes) -> Said:
        return of_request(parse_request_head(block, self._alone))


class Responses:
    """One connection's answers beside the same heads read alone."""

    def __init__(self) -> None:
        self.heads = ResponseHeads()

    def together(self, data: bytes) -> Said | None:
        head = self.heads.read(data)
        if head is None:
            return None
        assert head.start in (b"", STATUS_LINES[head.status] + b"".join(head.lines))
        return of_response(head)

    def alone(self, block: bytes) -> Said:
        return of_response(parse_response_head(block[:-4]))


def verdict(read: Callable[[bytes], Said | None], data: bytes) -> Said | Wrong | None:
    try:
        return read(data)
    except WireError as error:
        return error.kind


def compare(sides: Requests | Responses, heads: Iterable[Lines], rest: bytes = b"{}\r\n\r\n") -> None:
    """Each head comes in two reads, the second with *rest* behind it."""
    for at, lines in enumerate(heads):
        block = block_of(lines)
        for cut in (len(block) // 2, len(block) - 1):
            assert verdict(sides.together, block[:cut]) is None, (at, lines)
        expected = verdict(sides.alone, block)
        assert verdict(sides.together, block + rest) == expected, (at, lines)
        if not isinstance(expected, Wrong):
            assert sides.heads.size == len(block)


# One varying value after another.

REQUEST = [b"POST /v1/chat/completions?a=b HTTP/1.1", b"Host: a", b"User-Agent: me", b"Content-Type: application/json"]
VARYING = [b"Content-Length", b"X-Request-ID", b"X-Trace-Id", b"Traceparent", b"Idempotency-Key"]
RESPONSE = [b"HTTP/1.1 200 OK", b"Server: b", b"Content-Type: application/json", b"X-Kept: 1"]
VOLATILE = [b"Content-Length", b"Date", b"X-Request-ID", b"OpenAI-Processing-Ms", b"X-Process-Time", b"ETag", b"Age"]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", VARYING)
def test_a_request_is_the_same_whatever_a_varying_value_becomes(name: bytes, value: bytes) -> None:
    first = [*REQUEST, *(b"%b: 7" % each for each in VARYING), b"X-Last: 1"]
    other = [line if not line.startswith(name) else name + b":" + value for line in first]
    compare(Requests(), [first, first, other, first, other, other, first])


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", VOLATILE)
def test_an_answer_is_the_same_whatever_a_varying_value_becomes(name: bytes, value: bytes) -> None:
    first = [*RESPONSE, *(b"%b: 7" % each for each in VOLATILE), b"X-Last: 1"]
    other = [line if not line.startswith(name) else name + b":" + value for line in first]
    compare(Responses(), [first, first, other, first, other, other, first])


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("sides", [Requests, Responses])
def test_a_value_as_long_as_one_before_is_judged_all_the_same(
    value: bytes, sides: type[Requests] | type[Responses]
) -> None:
    start, name = (REQUEST, b"X-Request-ID") if sides is Requests else (RESPONSE, b"ETag")
    other = [*start, name + b":" + value, b"X-Last: 1"]
    if is_one_head(other):
        first = [*start, name + b": " + b"7" * (len(value) - 1), b"X-Last: 1"]
        compare(sides(), [first, first, first, other, first, other, first])


def test_values_of_many_lengths_are_read_as_they_are() -> None:
    lengths = [length for one in range(1, 18) for length in (one, 1, one)]
    compare(Requests(), [[*REQUEST, b"Content-Length: " + b"7" * length, b"Traceparent: 1"] for length in lengths])


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints", b"204 No Content", b"304 Not Modified"])
def test_an_answer_without_a_body_has_none_when_it_is_repeated(status: bytes) -> None:
    lines = [b"HTTP/1.1 " + status, b"Date: 1", b"Content-Length: 5"]
    compare(Responses(), [lines, lines, [lines[0], b"Date: 2", b"Content-Length: 6"], lines])


@pytest.mark.parametrize("named", [b"traceparent", b"Content-Length", b"X-Request-ID, Idempotency-Key", b"etag, date"])
def test_a_field_that_connection_names_ends_here_when_it_is_repeated(named: bytes) -> None:
    first = [*REQUEST, b"Connection: keep-alive, " + named, *(b"%b: 7" % each for each in VARYING)]
    second = [line.replace(b": 7", b": 8") for line in first]
    compare(Requests(), [first, first, second, second])
    first = [*RESPONSE, b"Connection: keep-alive, " + named, *(b"%b: 7" % each for each in VOLATILE)]
    second = [line.replace(b": 7", b": 8") for line in first]
    compare(Responses(), [first, first, second, second])


WHOLE = b"\r\n".join([*REQUEST, b"Content-Length: 7", b"Traceparent: 7"])


@pytest.mark.parametrize("cut", [cut for cut in range(1, 40) if is_one_head([WHOLE[:-cut]])])
def test_a_head_that_ends_early_is_read_for_itself(cut: int) -> None:
    compare(Requests(), [[WHOLE], [WHOLE], [WHOLE[:-cut]], [WHOLE]])


# Any sequence of heads.

_STARTS = [
    *(b"POST /v1/x HTTP/1.1", b"POST /v1/x?y HTTP/1.1", b"GET / HTTP/1.1", b"POST /v1/x HTTP/1.0"),
    *(b"POST http://a/v1/x HTTP/1.1", b"POST http://b/ HTTP/1.1", b"OPTIONS * HTTP/1.1", b"BREW / HTTP/1.1"),
]
_FIELDS = [
    *(b"User-Agent: me", b"Content-Type: application/json", b"Authorization: Bearer k", b"Accept: */*"),
    *(b"Content-Length: 7", b"content-length: 12", b"Transfer-Encoding: chunked", b"Expect: 100-continue"),
    *(b"X-Request-ID: r1", b"x-trace-id: t1", b"traceparent: 00-1", b"Idempotency-Key: k", b"Idempotency-Key:k"),
    *(b"Connection: close", b"Connection: keep-alive", b"Connection: traceparent, x-b", b"X-A: 1", b"X-B: 2"),
    *(b"X-A:content-length: 5", b"X-A: Content-Length: 5", b"traceparent:x: y", b"X-A: traceparent: 00-1", b"X_A: 1"),
]
_STATUSES = [
    *(b"HTTP/1.1 200 OK", b"HTTP/1.1 404 No", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Same"),
    *(b"HTTP/1.1 100 Go", b"HTTP/1.1 200", b"HTTP/1.1 999 What", b"HTTP/2 200 OK"),
]
_ANSWERED = [
    *(b"Content-Length: 7", b"content-length: 12", b"Transfer-Encoding: chunked", b"Date: now", b"date: then"),
    *(b"Content-Type: application/json", b"Content-Type: text/event-stream", b"Connection: close", b"X-A: 1"),
    *(b"Connection: etag, x-a", b"Connection: keep-alive", b"Keep-Alive: timeout=5, max=9", b"ETag: 1", b"age: 2"),
    *(b"OpenAI-Processing-Ms: 3", b"X-Process-Time:4", b"X-Request-ID: r", b"X-A: etag: 1", b"etag:x: y", b"Age: 2"),
]


@st.composite
def _sequences(draw: st.DrawFn, starts: Lines, fields: Lines, always: Lines, varying: Lines) -> list[Lines]:
    """A sound head, and heads derived from it or from one another, with repetitions between them."""
    lines = draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=_name))
    lines += draw(st.lists(st.sampled_from([b"%b: 7" % name for name in varying]), min_size=2, unique=True))
    heads = [[draw(st.sampled_from(starts[:4])), *always, *draw(st.permutations(lines))]]
    for change in draw(st.lists(st.sampled_from("v=vadmosn"), min_size=2, max_size=8)):
        derived = _changed(draw, change, draw(st.sampled_from([heads[0], heads[-1]])), starts, fields)
        heads.append(derived if is_one_head(derived) else heads[0])
    return heads


def _name(line: bytes) -> bytes:
    return line.partition(b":")[0].lower()


def _changed(draw: st.DrawFn, change: str, lines: Lines, starts: Lines, fields: Lines) -> Lines:
    lines = list(lines)
    at = draw(st.integers(0, len(lines) - 1))
    if change == "v":  # another value, sound or not
        lines[at] = lines[at].partition(b":")[0] + b":" + draw(st.sampled_from(VALUES)) if at else lines[0]
    elif change == "a":
        lines.insert(max(at, 1), draw(st.sampled_from(fields)))
    elif change == "d":
        del lines[max(at, 1) : max(at, 1) + 1]
    elif change == "m":  # a byte put anywhere
        cut = draw(st.integers(0, len(lines[at])))
        byte = draw(st.sampled_from([b" ", b":", b"\r", b"\n", b"\0", b"\t", b"x", b"\xe9"]))
        lines[at] = lines[at][:cut] + byte + lines[at][cut:]
    elif change == "o":
        lines[1:] = draw(st.permutations(lines[1:]))
    elif change == "s":
        lines[0] = draw(st.sampled_from(starts))
    elif change == "n":  # a name in other letters
        name, colon, value = lines[at].partition(b":")
        lines[at] = name.swapcase() + colon + value if at else lines[0]
    return lines


@settings(STEADY, max_examples=600)
@given(_sequences(_STARTS, _FIELDS, [b"Host: a"], VARYING))
def test_requests_of_one_connection_read_as_they_do_alone(heads: list[Lines]) -> None:
    compare(Requests(), heads)


@settings(STEADY, max_examples=600)
@given(_sequences(_STATUSES, _ANSWERED, [], VOLATILE))
def test_answers_of_one_connection_read_as_they_do_alone(heads: list[Lines]) -> None:
    compare(Responses(), heads)


# Where a head ends.


@pytest.mark.parametrize("rest", [b"", b"\r\n\r\n", b"G", b"x" * (2 * LIMIT)])
def test_the_size_is_the_heads_own_whatever_follows(rest: bytes) -> None:
    heads = [[*REQUEST, b"Traceparent: %b" % value, b"X: 1"] for value in (b"1", b"2", b"", b"\xe9", b"33", b"4")]
    compare(Requests(), heads, rest)
    heads = [[*RESPONSE, b"ETag: %b" % value, b"X: 1"] for value in (b"1", b"2", b"", b"\xe9", b"33", b"4")]
    compare(Responses(), heads, rest)


@pytest.mark.parametrize("last", [b"X-Last: 1", b"Traceparent: 1", b"X-Request-ID: 1"])
def test_a_head_that_comes_byte_by_byte_is_read_once_it_is_whole(last: bytes) -> None:
    lines = [*REQUEST, b"Content-Length: 7", last]
    reader = RequestHeads(FieldTable(), LIMIT)
    for changed in (lines, lines, [line.replace(b": 1", b": 22") for line in lines], lines):
        block = block_of(changed)
        assert [reader.read(block[:size]) for size in range(len(block))] == [None] * len(block)
        request = reader.read(block)
        assert request is not None
        assert of_request(request) == of_request(parse_request_head(block, FieldTable()))


def test_a_head_may_have_the_limit_and_no_byte_more() -> None:
    reader = RequestHeads(FieldTable(), LIMIT)
    least = len(block_of([*REQUEST, b"Traceparent: "]))
    for size, whole in ((LIMIT, True), (LIMIT, True), (LIMIT + 1, False), (LIMIT, True), (LIMIT + 1, False)):
        block = block_of([*REQUEST, b"Traceparent: " + b"t" * (size - least)])
        assert len(block) == size
        assert (reader.read(block) is not None) is whole


# What the owner of a reader made of a head.

POST = block_of([*REQUEST, b"Content-Length: 7", b"Traceparent: 7"])
GET = block_of([b"GET /v1/models HTTP/1.1", b"Host: a", b"Traceparent: 7"])


def read(heads: RequestHeads, block: bytes) -> Request:
    request = heads.read(block)
    assert request is not None
    return request


@pytest.mark.parametrize("block", [POST, GET], ids=["POST", "GET"])
def test_a_finding_survives_repetitions(block: bytes) -> None:
    heads = RequestHeads(FieldTable(), LIMIT)
    found = object()
    read(heads, block).finding = found
    for value in (b"7", b"8", b"100"):
        assert read(heads, block.replace(b": 7", b": " + value)).finding is found


OTHERS = {
    "another path": POST.replace(b"/v1/chat/completions", b"/v1/chat/completions2"),
    "another query": POST.replace(b"?a=b", b"?a=c"),
    "another method": POST.replace(b"POST", b"PUT"),
    "another version": POST.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "another type": POST.replace(b"application/json", b"application/xml"),
    "a field more": POST.replace(b"User-Agent", b"Authorization: Bearer k\r\nUser-Agent"),
    "a field more at the end": POST[:-2] + b"Authorization: Bearer k\r\n\r\n",
    "a field less": POST.replace(b"User-Agent: me\r\n", b""),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("repeated", [1, 2, 3])
def test_a_finding_does_not_pass_to_another_head(other: bytes, repeated: int) -> None:
    assert other != POST
    heads = RequestHeads(FieldTable(), LIMIT)
    for _ in range(repeated):
        read(heads, POST).finding = object()
    assert read(heads, other).finding is None
    assert read(heads, POST).finding is None


def test_a_finding_does_not_outlive_a_refused_head() -> None:
    heads = RequestHeads(FieldTable(), LIMIT)
    read(heads, POST).finding = object()
    with pytest.raises(WireError):
        read(heads, POST.replace(b"Host: a", b"Host: a b"))
    assert read(heads, POST).finding is None


@pytest.mark.parametrize("block", [POST, GET], ids=["POST", "GET"])
def test_only_misses_in_a_row_end_the_learning_of_requests(block: bytes) -> None:
    heads = RequestHeads(FieldTable(), LIMIT)
    for at in range(3 * MISSES_LIMIT):
        changed = block.replace(b" /v1/", b" /v1/%d/" % at)
        assert read(heads, changed) is read(heads, changed)


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_only_misses_in_a_row_end_the_learning_of_answers(framing: bytes) -> None:
    heads = ResponseHeads()
    for at in range(3 * MISSES_LIMIT):
        block = block_of([b"HTTP/1.1 200 OK", b"X-Kind: %d" % at, b"Date: 1", framing])
        first = heads.read(block)
        assert first is not None
        assert heads.read(block) is first


def test_a_peer_that_never_repeats_itself_is_not_learned_for_ever() -> None:
    heads = RequestHeads(FieldTable(), LIMIT)
    for at in range(MISSES_LIMIT + 1):
        read(heads, POST.replace(b"?a=b", b"?a=%d" % at))
    assert read(heads, POST) is not read(heads, POST)


def test_a_pattern_fits_only_what_has_all_of_its_fixed_parts() -> None:
    pattern = Pattern([(b"A\r\nB: ", 0, 0), (b"\r\nC: ", 1, -1)], b"\r\n\r\n")
    for block, values in (
        (b"A\r\nB: 1\r\nC: 2\r\n\r\n", [b"1", b"2"]),
        (b"A\r\nB: \r\nC: \r\n\r\n", [b"", b""]),
    ):
        for rest in (b"", b"A\r\nB: 1\r\nC: 2\r\n\r\n", b"\r\n"):
            found: list[bytes | None] = [None, None]
            travels = [b"old"]
            assert pattern.read(block + rest, found, travels) == len(block)
            assert found == values
            assert travels == values[:1]
    for block in (
        *(b"", b"A\r\nB: ", b"A\r\nB: 1", b"A\r\nB: 1\r\nC: 2", b"A\r\nB: 1\r\nC: 2\r\n", b"A\r\nB: 1\r\n\r\n"),
        *(b"a\r\nB: 1\r\nC: 2\r\n\r\n", b"A\r\nB: 1\r\nC: 2\r\nX\r\n", b"A\r\nB: \x7f\r\nC: 2\r\n\r\n"),
        *(b"A\r\nB: \xe9\r\nC: 2\r\n\r\n", b"A\r\nB: 1\nC\r\nC: 2\r\n\r\n", b"A\r\nB: 1\r\nC: 2\r\nD: 3\r\n\r\n"),
    ):
        assert pattern.read(block, [None, None], [b""]) == 0
