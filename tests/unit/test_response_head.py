"""Response heads: which are refused and why, how a body is framed, and what of a head is relayed."""

from __future__ import annotations

import re
import tracemalloc
from http import HTTPStatus
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.http1 import response as module
from protocols.http1.errors import WireError, Wrong
from protocols.http1.framing import ChunkedDecoder, EofDecoder, LengthDecoder
from protocols.http1.response import FIELDS_LIMIT, STATUS_LINES, own_head, parse_response_head
from tests.unit.configuring import STEADY


def head(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A head as it is parsed: without its empty line."""
    return b"\r\n".join([line, *fields])


CL, TE = b"Content-Length: 5", b"Transfer-Encoding: chunked"

#: RELIABILITY's section 2.2, row by row.
REFUSED: dict[str, tuple[bytes, Wrong]] = {
    "9 length and chunked": (head(CL, TE), Wrong.BAD_FRAMING),
    "9 chunked and length": (head(TE, CL), Wrong.BAD_FRAMING),
    "9 two lengths": (head(CL, b"content-length: 6"), Wrong.BAD_FRAMING),
    "9 two lengths, equal": (head(CL, CL), Wrong.BAD_FRAMING),
    **{
        f"9 length {value!r}": (head(b"Content-Length: " + value), Wrong.BAD_FRAMING)
        for value in (
            *(b"-1", b"+5", b"0x5", b"1_0", b"5a", b"", b"5, 5", b"5,5", b"1 0", b"5;", b"\xb2", b"\xb5"),
            *(b"%d" % 2**63, b"1" + b"0" * 18, b"9" * 5000),
        )
    },
    **{
        f"10 coding {value!r}": (head(b"Transfer-Encoding: " + value), Wrong.BAD_TRANSFER_CODING)
        for value in (
            *(b"gzip", b"chunked, gzip", b"gzip, chunked", b"identity", b"", b"xchunked", b"chunked;a=b"),
            *(b"chunked, chunked", b"chunked\r\nTransfer-Encoding: chunked", b"chunked,", b'"chunked"'),
        )
    },
    **{
        f"9 {status} with length {value!r}": (
            head(b"Content-Length: " + value, line=b"HTTP/1.1 %d Whatever" % status),
            Wrong.BAD_FRAMING,
        )
        for status in (100, 204, 304)
        for value in (b"-1", b"5, 5", b"5a", b"", b"9" * 19)
    },
    "11 chunked in HTTP/1.0": (head(TE, line=b"HTTP/1.0 200 OK"), Wrong.BAD_FRAMING),
    "12 LF behind the status line": (b"HTTP/1.1 200 OK\n" + CL, Wrong.BAD_HEAD),
    "12 LF behind a field": (head(b"X: a\nY: b"), Wrong.BAD_HEAD),
    "12 LF before a field": (head(b"\nX: a"), Wrong.BAD_HEAD),
    "12 CR in a value": (head(b"X: a\rb"), Wrong.BAD_HEAD),
    "12 CR behind a value": (head(b"X: a\r"), Wrong.BAD_HEAD),
    "12 LF CR in a value": (head(b"X: a\n\rb"), Wrong.BAD_HEAD),
    "12 CR before a field": (head(b"\rX: a"), Wrong.BAD_HEAD),
    "12 CR and LF apart, as many as a line end": (head(b"X: a\nb", b"Y: a\rb"), Wrong.BAD_HEAD),
    "12 folded": (head(b"X: a", b" b"), Wrong.BAD_HEAD),
    "12 folded by a tab": (head(b"X: a", b"\tb: c"), Wrong.BAD_HEAD),
    "12 space before the colon": (head(b"Content-Length : 5"), Wrong.BAD_HEAD),
    "12 tab before the colon": (head(b"X\t: 5"), Wrong.BAD_HEAD),
    "12 no colon": (head(b"X"), Wrong.BAD_HEAD),
    "12 an empty line": (head(b"", b"X: a"), Wrong.BAD_HEAD),
    "12 empty name": (head(b": a"), Wrong.BAD_HEAD),
    **{
        f"12 name {name!r}": (head(name + b": a"), Wrong.BAD_HEAD)
        for name in (b"X[", b"X@", b"X/", b'"X"', b"X(", b"X,", b"X Y", b"\xc3\xa9", b"X\0", b"X\x7f", b"X;")
    },
    **{
        f"12 and 13 {char!r}": (block, Wrong.BAD_HEAD)
        for char in (b"\0", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1b", b"\x1f", b"\x7f")
        for block in (head(b"X: a" + char), head(CL, line=b"HTTP/1.1 200 O" + char))
    },
    "13 NUL in the reason": (head(line=b"HTTP/1.1 200 O\0K"), Wrong.BAD_HEAD),
    **{
        f"13 status {status!r}": (head(line=b"HTTP/1.1 " + status), Wrong.BAD_HEAD)
        for status in (
            *(b"99 Low", b"099 Low", b"600 High", b"999 High", b"000 Nil", b"abc OK", b"20 OK", b"2000 OK", b"200OK"),
            *(b"", b" 200 OK", b"+20 OK", b"-20 OK", b"2_0 OK", b"2.0 OK", b"\xb2\xb2\xb2 OK", b"200\tOK", b"20"),
        )
    },
    **{
        f"13 version {version!r}": (head(line=version), Wrong.BAD_VERSION)
        for version in (
            *(b"", b"200 OK", b"HTTP/1.1", b"HTTP/2 200 OK", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"ICY 200 OK"),
            *(b"HTTP/1.2 200 OK", b"http/1.1 200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1\t200 OK", b"HTTP/11 200 OK"),
        )
    },
    "19 too many fields": (head(*[b"X: a"] * FIELDS_LIMIT), Wrong.HEAD_TOO_LARGE),
}


@pytest.mark.parametrize(("block", "kind"), REFUSED.values(), ids=REFUSED.keys())
def test_a_head_that_proxies_have_been_fooled_with_is_refused(block: bytes, kind: Wrong) -> None:
    for _ in range(2):  # a line that is remembered is judged as the first time
        with pytest.raises(WireError) as caught:
            parse_response_head(block)
        assert caught.value.kind is kind


def expected(block: bytes, **said: Any) -> tuple[bytes, dict[str, Any]]:
    """*block*, and what it says; what is not named is as in a bare 200 that ends with its connection."""
    plain = {"status": 200, "lines": b"", "content_type": b"", "is_event_stream": False, "length": None}
    plain["encoded"] = False
    kept = {"chunked": False, "persistent": said.get("length") is not None or said.get("chunked", False)}
    return block, {**plain, **kept, "keep_alive_timeout": 0, "keep_alive_max": 0, **said}


def of_status(status: int, *fields: bytes) -> bytes:
    return head(*fields, line=b"HTTP/1.1 %d Whatever" % status)


PASSES = {
    "bare": expected(head()),
    "without a reason": expected(head(CL, line=b"HTTP/1.1 404"), status=404, length=5),
    "with an empty reason": expected(head(CL, line=b"HTTP/1.1 404 "), status=404, length=5),
    "with any reason": expected(head(CL, line=b"HTTP/1.1 299 \xe9t\xe9\t200 OK"), status=299, length=5),
    "a length": expected(head(CL), length=5),
    "a length of 0": expected(head(b"content-length:0"), length=0),
    "zeros before a length": expected(head(b"Content-Length: 005"), length=5),
    "space around a length": expected(head(b"Content-Length:\t 5 \t"), length=5),
    "the largest length": expected(head(b"Content-Length: " + b"9" * 18), length=10**18 - 1),
    "chunked": expected(head(TE), chunked=True),
    "chunked in other letters": expected(head(b"TRANSFER-ENCODING: CHUNKED "), chunked=True),
    "HTTP/1.0 with a length": expected(head(CL, line=b"HTTP/1.0 200 OK"), length=5, persistent=False),
    "HTTP/1.0 kept": expected(
        head(CL, b"Connection: Keep-Alive", line=b"HTTP/1.0 200 OK"), length=5, persistent=True
    ),
    "HTTP/1.0 kept, without a length": expected(
        head(b"Connection: keep-alive", line=b"HTTP/1.0 200 OK"), persistent=False
    ),
    "neither, though kept": expected(head(b"Connection: keep-alive"), persistent=False),
    "close": expected(head(CL, b"Connection: close"), length=5, persistent=False),
    "CLOSE in a list": expected(head(CL, b"Connection: keep-alive, CLOSE"), length=5, persistent=False),
    "close in a second field": expected(
        head(CL, b"Connection: keep-alive", b"connection: close"), length=5, persistent=False
    ),
    **{
        f"{status} with {name}": expected(of_status(status, *fields), status=status, length=0, persistent=sound)
        for status in (100, 102, 103, 199, 304)
        for name, sound, fields in (
            ("nothing", True, ()), ("a length", True, (CL,)), ("chunks", False, (TE,)), ("both", False, (CL, TE)),
        )
    },
    # A 204 must not say how long its body is: where it does, perhaps one follows, and the connection is not used again.
    **{
        f"4 204 with {name}": expected(of_status(204, *fields), status=204, length=0, persistent=sound)
        for name, sound, fields in (
            ("nothing", True, ()), ("a length of 0", True, (b"Content-Length: 0",)), ("a length", False, (CL,)),
            ("chunks", False, (TE,)), ("both", False, (CL, TE)),
        )
    },
    "205 has a body like any other": expected(of_status(205, CL), status=205, length=5),
    "100 and 599 are the bounds": expected(of_status(599, CL), status=599, length=5),
    "Keep-Alive": expected(
        head(CL, b"Keep-Alive: timeout=5, max=100"), length=5, keep_alive_timeout=5, keep_alive_max=100
    ),
    "Keep-Alive in other letters and order": expected(
        head(CL, b"KEEP-ALIVE: MAX = 7 ,x, Timeout= 65"), length=5, keep_alive_timeout=65, keep_alive_max=7
    ),
    "Keep-Alive in two fields": expected(
        head(CL, b"Keep-Alive: timeout=5", b"Keep-Alive: max=3"), length=5, keep_alive_timeout=5, keep_alive_max=3
    ),
    **{
        f"Keep-Alive of nonsense {value!r}": expected(head(CL, b"Keep-Alive: " + value), length=5)
        for value in (b"", b"timeout", b"timeout=", b"timeout=x", b"timeout=-5", b"timeout=5s", b"timeout=1_0", b"=5",
                      b"timeout=" + b"9" * 19, b"timeout==5", b"timeout=\xb2", b"xtimeout=5", b"timeout=+5")
    },
    "Connection names fields": expected(
        head(b"X-A: 1", CL, b"Connection: X-A,, keep-alive ,x-b", b"x-B: 2", b"X-C: 3"),
        length=5, lines=b"x-c: 3\r\n", persistent=True,
    ),
    "Connection cannot take the framing away": expected(head(CL, b"Connection: content-length"), length=5),
    "JSON": expected(
        head(b"Content-Type: application/json", CL), length=5, content_type=b"application/json",
        lines=b"content-type: application/json\r\n",
    ),
    "events": expected(
        head(b"content-type: Text/Event-Stream; charset=utf-8", TE), chunked=True, is_event_stream=True,
        content_type=b"Text/Event-Stream; charset=utf-8", lines=b"content-type: Text/Event-Stream; charset=utf-8\r\n",
    ),
    "packed events": expected(
        head(b"Content-Encoding: gzip", b"Content-Type: text/event-stream", TE), chunked=True, is_event_stream=True,
        encoded=True, content_type=b"text/event-stream",
        lines=b"content-encoding: gzip\r\ncontent-type: text/event-stream\r\n",
    ),
    "nothing packed": expected(
        head(b"Content-Encoding: Identity", CL), length=5, lines=b"content-encoding: Identity\r\n"
    ),
    "no events": expected(
        head(b"X-Type: text/event-stream", b"Content-Type: text/plain", TE), chunked=True, content_type=b"text/plain",
        lines=b"x-type: text/event-stream\r\ncontent-type: text/plain\r\n",
    ),
    "what is relayed keeps its order, its doubles and its bytes": expected(
        head(b"X-B: 1", b"ETag:\"a\"", b"X-A:  \xe9 b:\tc ", b"X-B: 2", b"Retry-After: 3", b"X-Empty:", CL), length=5,
        lines=b"x-b: 1\r\netag: \"a\"\r\nx-a: \xe9 b:\tc\r\nx-b: 2\r\nretry-after: 3\r\nx-empty: \r\n",
    ),
    "the most fields": expected(head(*[b"X: a"] * (FIELDS_LIMIT - 1)), lines=b"x: a\r\n" * (FIELDS_LIMIT - 1)),
}  # fmt: skip


@pytest.mark.parametrize(("block", "said"), PASSES.values(), ids=PASSES.keys())
def test_a_head_that_passes_says_what_it_says(block: bytes, said: dict[str, Any]) -> None:
    for _ in range(2):
        parsed = parse_response_head(block)
        found = {name: getattr(parsed, name) for name in said}
        assert {**found, "lines": b"".join(parsed.lines)} == said


@pytest.mark.parametrize(
    "name",
    b"""connection keep-alive proxy-connection proxy-authenticate te trailer transfer-encoding upgrade content-length
    date server set-cookie via alt-svc x-request-id x-trace-id x-upstream server-timing x-accel-buffering""".split(),
)
def test_what_concerns_this_connection_or_the_software_behind_is_not_relayed(name: bytes) -> None:
    value = {b"content-length": b"5", b"transfer-encoding": b"chunked"}.get(name, b"v")
    for spelled in (name, name.upper(), name.title()):
        parsed = parse_response_head(head(spelled + b": " + value, b"X-Kept: 1"))
        assert parsed.lines == [b"x-kept: 1\r\n"]


@pytest.mark.parametrize(
    ("block", "kind"),
    [(head(CL), LengthDecoder), (head(TE), ChunkedDecoder), (head(), EofDecoder), (of_status(204), LengthDecoder)],
)
def test_the_decoder_is_the_one_that_the_framing_asks_for(block: bytes, kind: type) -> None:
    assert type(parse_response_head(block).decoder()) is kind


def test_the_decoder_of_an_answer_without_a_body_is_complete_at_once() -> None:
    assert parse_response_head(of_status(304, CL)).decoder().complete
    assert not parse_response_head(head(CL)).decoder().complete


_PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\0", b": ", b":", b" ", b"\t", b"x", b"a", b"\x0b", b"\x7f", b"\xe9", b"\x85", b",", b";"]
)
_SOUND_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+: [^\0-\x08\x0a-\x1f\x7f]*\r\n")


@STEADY
@given(st.lists(_PIECES, max_size=8).map(b"".join), st.lists(_PIECES, max_size=8).map(b"".join))
def test_no_field_can_smuggle_another_line_to_the_client(name: bytes, value: bytes) -> None:
    block = head(CL, b"X-" + name + b": " + value)
    try:
        parsed = parse_response_head(block)
    except WireError:
        return
    assert all(_SOUND_LINE.fullmatch(line) for line in parsed.lines)
    # h11 takes the same head, and sees every relayed field in it.
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(block + b"\r\n\r\n")
    event = connection.next_event()
    assert isinstance(event, h11.Response)
    seen = [name + b": " + value + b"\r\n" for name, value in event.headers]
    assert [line for line in parsed.lines if line not in seen] == []


def test_ten_thousand_different_lines_cost_no_memory() -> None:
    def flood(first: int, name: bytes) -> None:
        for at in range(first, first + 10_000, 100):
            parse_response_head(head(*[b"X-%d%b: %d" % (n, name, n) for n in range(at, at + 100)]))

    flood(0, b"")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        flood(10_000, b"")
        for at in range(300):
            parse_response_head(head(b"X-%d" % at + b"x" * 30_000 + b": a", b"X: %d" % at + b"y" * 30_000))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 1 << 20
    assert len(module._LINES) <= module._LINES_LIMIT


def test_values_that_change_with_each_answer_are_not_remembered() -> None:
    lines = [b"Date: now", b"ETag: 1", b"X-Request-ID: r", b"OpenAI-Processing-Ms: 7", CL]
    parse_response_head(head(*lines))
    assert not set(lines) & set(module._LINES)


def test_status_lines_have_the_standard_reason() -> None:
    assert set(STATUS_LINES) == set(range(100, 600))
    for status, line in STATUS_LINES.items():
        known = status in HTTPStatus._value2member_map_
        reason = HTTPStatus(status).phrase if known else "Status"
        assert line == f"HTTP/1.1 {status} {reason}\r\n".encode()


def test_the_gateways_own_head_is_one_that_it_would_read() -> None:
    own = own_head(200, b"text/event-stream; charset=utf-8", None)
    assert (own.is_event_stream, own.length, own.chunked) == (True, None, False)
    assert b"".join(own.lines) == b"content-type: text/event-stream; charset=utf-8\r\n"
    bare = own_head(204, b"", 0)
    assert (bare.lines, bare.length, bare.is_event_stream) == ([], 0, False)


def test_who_may_read_it_elsewhere_is_not_the_upstreams_to_say() -> None:
    lines = b"Access-Control-Allow-Origin: *\r\nACCESS-CONTROL-MAX-AGE: 5\r\nStrict-Transport-Security: max-age=1"
    head = parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + lines)
    assert head.lines == []
