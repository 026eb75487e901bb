"""Request heads: which are refused and why, which pass and as what, and what of them travels on."""

from __future__ import annotations

import re
import tracemalloc
from typing import Any

import h11
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocols.http1.errors import WireError, Wrong
from protocols.http1.fields import FieldTable, Role
from protocols.http1.request import FIELDS_LIMIT, METHODS, TARGET_LIMIT, Request, parse_request_head
from tests.unit.configuring import STEADY


def parse(block: bytes, table: FieldTable | None = None) -> Request:
    return parse_request_head(block, table or FieldTable())


def head(*fields: bytes, line: bytes = b"POST /v1/x HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *fields]) + b"\r\n\r\n"


def field(*fields: bytes) -> bytes:
    return head(*fields)


def line(text: bytes) -> bytes:
    return head(line=text)


def old(*fields: bytes) -> bytes:
    return head(*fields, line=b"POST /v1/x HTTP/1.0")


#: RELIABILITY's section 2.1, row by row. Any coding but one `chunked` is one that is not supported.
REFUSED: dict[str, tuple[bytes, Wrong]] = {
    "1 length and chunked": (field(b"Content-Length: 5", b"Transfer-Encoding: chunked"), Wrong.BAD_FRAMING),
    "1 chunked and length": (field(b"Transfer-Encoding: chunked", b"Content-Length: 5"), Wrong.BAD_FRAMING),
    "2 two lengths": (field(b"Content-Length: 5", b"Content-Length: 6"), Wrong.BAD_FRAMING),
    "3 two lengths, equal": (field(b"Content-Length: 5", b"Content-Length: 5"), Wrong.BAD_FRAMING),
    **{
        f"3 to 5 length {value!r}": (field(b"Content-Length: " + value), Wrong.BAD_FRAMING)
        for value in (
            *(b"5, 5", b"+5", b"-1", b"0x5", b"1_0", b"5a", b"", b"1 0", b"0o5", b"5.0", b"5e1", b"\xb2"),
            *(b"%d" % 2**64, b"%d" % (2**64 - 1), b"%d" % 2**63, b"1" + b"0" * 18, b"0" * 18 + b"5", b"9" * 5000),
        )
    },
    **{
        f"7 coding {value!r}": (field(b"Transfer-Encoding: " + value), Wrong.BAD_TRANSFER_CODING)
        for value in (
            *(b"", b"gzip", b"xchunked", b"identity", b'"chunked"', b"chunked;a=b", b"chunked,", b"chunkedx"),
            *(b"chunked, gzip", b"chunked, chunked", b"chunked\r\nTransfer-Encoding: chunked"),
        )
    },
    "7 coding with a control": (field(b"Transfer-Encoding: \x0bchunked"), Wrong.BAD_HEAD),
    "8 coding gzip, chunked": (field(b"Transfer-Encoding: gzip, chunked"), Wrong.BAD_TRANSFER_CODING),
    "8 coding , chunked": (field(b"Transfer-Encoding: , chunked"), Wrong.BAD_TRANSFER_CODING),
    "8 coding gzip in a line of its own": (
        field(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
        Wrong.BAD_TRANSFER_CODING,
    ),
    **{
        f"7 and 8 length and coding {value!r}": (
            field(b"Content-Length: 5", b"Transfer-Encoding: " + value),
            Wrong.BAD_FRAMING,
        )
        for value in (b"", b"gzip", b"gzip, chunked", b"chunked, gzip", b"gzip\r\nTransfer-Encoding: chunked")
    },
    "8 coding identity, chunked": (field(b"Transfer-Encoding: identity, chunked"), Wrong.BAD_TRANSFER_CODING),
    "9 chunked in HTTP/1.0": (old(b"Transfer-Encoding: chunked"), Wrong.BAD_FRAMING),
    "9 a coding list in HTTP/1.0": (old(b"Transfer-Encoding: gzip, chunked"), Wrong.BAD_FRAMING),
    "9 another coding in HTTP/1.0": (old(b"Transfer-Encoding: gzip"), Wrong.BAD_FRAMING),
    "11 LF in the request line": (line(b"GET /\nHTTP/1.1"), Wrong.BAD_HEAD),
    "11 LF behind the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Wrong.BAD_HEAD),
    "11 LF behind a field": (field(b"X: a\nY: b"), Wrong.BAD_HEAD),
    "11 LF before a field": (field(b"\nX: a"), Wrong.BAD_HEAD),
    "11 LF and another method": (head(b"X: a\nb", line=b"PURGE / HTTP/1.1"), Wrong.BAD_HEAD),
    "11 LF and another version": (head(b"X: a\nb", line=b"GET / HTTP/2.0"), Wrong.BAD_HEAD),
    "11 LF and too many fields": (field(*[b"X: a\nb"] * FIELDS_LIMIT), Wrong.BAD_HEAD),
    "12 CR in a value": (field(b"X: a\rb"), Wrong.BAD_HEAD),
    "12 CR behind a value": (field(b"X: a\r"), Wrong.BAD_HEAD),
    "12 CR before a field": (field(b"\rX: a"), Wrong.BAD_HEAD),
    "13 folded": (field(b"X: a\r\n b"), Wrong.BAD_HEAD),
    "13 folded by a tab": (field(b"X: a\r\n\tb"), Wrong.BAD_HEAD),
    "13 folded framing": (field(b"Transfer-Encoding:\r\n chunked"), Wrong.BAD_HEAD),
    "14 space before the colon": (field(b"Content-Length : 5"), Wrong.BAD_HEAD),
    "14 tab before the colon": (field(b"X\t: a"), Wrong.BAD_HEAD),
    "14 space before the first field": (head(b"X: a", host=b" Host: a"), Wrong.BAD_HEAD),
    "14 empty name": (field(b": a"), Wrong.BAD_HEAD),
    "14 no colon": (field(b"X"), Wrong.BAD_HEAD),
    **{
        f"14 name {name!r}": (field(name + b": a"), Wrong.BAD_HEAD)
        for name in (b"X[", b"X]", b"X@", b"X/", b'"X"', b"X(", b"X,", b"X\x7f", b"\xc3\xa9", b"X\0", b"X Y")
    },
    **{
        f"15 value {value!r}": (field(b"X: a" + value + b"b"), Wrong.BAD_HEAD)
        for value in (b"\0", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1b", b"\x1f", b"\x7f")
    },
    "18 no Host": (head(host=b""), Wrong.BAD_HOST),
    "18 two Hosts": (field(b"Host: b"), Wrong.BAD_HOST),
    "18 two Hosts, equal": (field(b"host: a"), Wrong.BAD_HOST),
    **{
        f"18 Host {host!r}": (head(host=b"Host: " + host), Wrong.BAD_HOST)
        for host in (
            *(b"", b"a, b", b"a,b", b"u@h", b"h/path", b"h?x", b"h#x", b"a b", b"\xe9", b"[::1", b":80", b"a:80:80"),
            *(b"a:x", b"a:123456", b"http://a", b'"a"', b"a\\b", b"<a>"),
        )
    },
    "18 a bad Host in HTTP/1.0": (head(line=b"GET / HTTP/1.0", host=b"Host: a/b"), Wrong.BAD_HOST),
    "19 another authority than Host": (line(b"GET http://b/ HTTP/1.1"), Wrong.BAD_HOST),
    "19 another port than Host": (line(b"GET http://a:81/ HTTP/1.1"), Wrong.BAD_HOST),
    "19 another scheme": (line(b"GET ftp://a/ HTTP/1.1"), Wrong.BAD_HEAD),
    "19 userinfo": (line(b"GET http://u@a/ HTTP/1.1"), Wrong.BAD_HEAD),
    "19 no authority": (line(b"GET http:///x HTTP/1.1"), Wrong.BAD_HEAD),
    "20 * with GET": (line(b"GET * HTTP/1.1"), Wrong.BAD_HEAD),
    "20 CONNECT": (line(b"CONNECT a:443 HTTP/1.1"), Wrong.BAD_METHOD),
    "20 CONNECT with a path": (line(b"CONNECT /v1/x HTTP/1.1"), Wrong.BAD_METHOD),
    "20 a fragment": (line(b"GET /#x HTTP/1.1"), Wrong.BAD_HEAD),
    "20 a fragment in the query": (line(b"GET /?x#y HTTP/1.1"), Wrong.BAD_HEAD),
    "20 two spaces": (line(b"GET  / HTTP/1.1"), Wrong.BAD_HEAD),
    "20 a tab for a space": (line(b"GET\t/ HTTP/1.1"), Wrong.BAD_HEAD),
    "20 a space before the method": (line(b" GET / HTTP/1.1"), Wrong.BAD_HEAD),
    "20 a space behind the version": (line(b"GET / HTTP/1.1 "), Wrong.BAD_HEAD),
    "20 no target": (line(b"GET HTTP/1.1"), Wrong.BAD_HEAD),
    "20 an empty line": (line(b""), Wrong.BAD_HEAD),
    "20 no version": (line(b"GET /"), Wrong.BAD_HEAD),
    "20 neither path nor URL": (line(b"GET x HTTP/1.1"), Wrong.BAD_HEAD),
    **{
        f"21 and 22 {version!r}": (line(b"GET / " + version), Wrong.BAD_VERSION)
        for version in (
            *(b"HTTP/2.0", b"HTTP/2", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/9.9", b"HTTP/01.01"),
            *(b"HTTP/1.", b"HTTP/", b"HTTP/1,1", b"HTTP/+1.1"),
        )
    },
    "21 RTSP": (line(b"GET / RTSP/1.0"), Wrong.BAD_HEAD),
    "21 ICE": (line(b"SOURCE / ICE/1.0"), Wrong.BAD_HEAD),
    "22 http": (line(b"GET / http/1.1"), Wrong.BAD_HEAD),
    **{
        f"23 and 24 {method[:10]!r}": (line(method + b" / HTTP/1.1"), Wrong.BAD_METHOD)
        for method in (b"PURGE", b"M-SEARCH", b"QUERY", b"SOURCE", b"TRACE", b"get", b"X", b"G\0T", b"A" * 100_000)
    },
    "25 target too long": (line(b"GET /" + b"a" * TARGET_LIMIT + b" HTTP/1.1"), Wrong.TARGET_TOO_LONG),
    "25 query too long": (line(b"GET /?" + b"a" * TARGET_LIMIT + b" HTTP/1.1"), Wrong.TARGET_TOO_LONG),
    "25 too many fields": (field(*[b"X: a"] * FIELDS_LIMIT), Wrong.HEAD_TOO_LARGE),
    **{
        f"26 {target!r} in the target": (line(b"GET /a" + target + b" HTTP/1.1"), Wrong.BAD_HEAD)
        for target in (
            b"\x80",
            b"\xc3\xa9",
            b"\xff",
            b"\t",
            b"\0",
            b"\x01",
            b"\x1f",
            b"\x7f",
            b"?\xe9",
            b"?a\tb",
            b"\r",
        )
    },
    "34 another expectation": (field(b"Expect: 200-ok"), Wrong.BAD_EXPECTATION),
    "34 two expectations": (field(b"Expect: 100-continue", b"Expect: 100-continue"), Wrong.DUPLICATE_FIELD),
    "45 the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\n", Wrong.BAD_VERSION),
    **{
        f"50 two {name.decode()}": (field(name + b": a", name.lower() + b": a"), Wrong.DUPLICATE_FIELD)
        for name in (b"Authorization", b"X-Api-Key", b"Content-Type", b"Idempotency-Key", b"X-Request-ID", b"Origin")
    },
}


@pytest.mark.parametrize(("block", "kind"), REFUSED.values(), ids=REFUSED.keys())
def test_a_head_that_must_not_be_trusted_is_refused(block: bytes, kind: Wrong) -> None:
    table = FieldTable()
    for _ in range(2):  # a line that is remembered is judged as the first time
        with pytest.raises(WireError) as caught:
            parse(block, table)
        assert caught.value.kind is kind


class Expected:
    """What a head that passes says; what is not named is as in a plain GET."""

    def __init__(self, block: bytes, **said: Any) -> None:
        self.block = block
        self.special: dict[Role, bytes] = {Role.HOST: b"a", **said.pop("special", {})}
        plain = {"method": b"POST", "path": b"/v1/x", "query": b"", "length": 0, "chunked": False, "http_1_1": True}
        self.said = {**plain, "keep_alive": True, "forward": b"", **said}


AGENT = b"User-Agent: me/1.0"
PASSES: dict[str, Expected] = {
    "plain": Expected(field()),
    "a length": Expected(field(b"Content-Length: 5"), length=5, special={Role.CONTENT_LENGTH: b"5"}),
    "zeros before a length": Expected(
        field(b"Content-Length: 005"), length=5, special={Role.CONTENT_LENGTH: b"005"}
    ),
    "space around a length": Expected(
        field(b"Content-Length:\t5 \t"), length=5, special={Role.CONTENT_LENGTH: b"5"}
    ),
    "the largest length": Expected(
        field(b"Content-Length: " + b"9" * 18), length=10**18 - 1, special={Role.CONTENT_LENGTH: b"9" * 18}
    ),
    "chunked": Expected(
        field(b"Transfer-Encoding: Chunked "), chunked=True, special={Role.TRANSFER_ENCODING: b"Chunked"}
    ),
    "underscores never frame": Expected(field(b"Transfer_Encoding: chunked", b"Content_Length: 5")),
    "a name in any case": Expected(field(b"cOnTeNt-LeNgTh: 5"), length=5, special={Role.CONTENT_LENGTH: b"5"}),
    "the query": Expected(line(b"GET /v1/x?a=b?c&d HTTP/1.1"), method=b"GET", query=b"a=b?c&d"),
    "an empty query": Expected(line(b"GET /v1/x? HTTP/1.1"), method=b"GET"),
    "an absolute target": Expected(line(b"GET http://a/v1/x?y=http://b/ HTTP/1.1"), method=b"GET", query=b"y=http://b/"),
    "an absolute target in other letters": Expected(line(b"GET HTTPS://A/v1/x HTTP/1.1"), method=b"GET"),
    "an absolute target without a path": Expected(line(b"GET http://a HTTP/1.1"), method=b"GET", path=b"/"),
    "an absolute target with a query only": Expected(
        line(b"GET http://a?q HTTP/1.1"), method=b"GET", path=b"/", query=b"q"
    ),
    "the server itself": Expected(line(b"OPTIONS * HTTP/1.1"), method=b"OPTIONS", path=b"*"),
    "a target is never decoded": Expected(
        line(b"GET /\"<>{}|^`\\%00%0d%0a//../%2e HTTP/1.1"), method=b"GET", path=b"/\"<>{}|^`\\%00%0d%0a//../%2e"
    ),
    "the longest target": Expected(
        line(b"GET /" + b"a" * (TARGET_LIMIT - 1) + b" HTTP/1.1"), method=b"GET", path=b"/" + b"a" * (TARGET_LIMIT - 1)
    ),
    "the most fields": Expected(field(*[b"X: a"] * (FIELDS_LIMIT - 1)), forward=b"X: a\r\n" * (FIELDS_LIMIT - 1)),
    "obs-text in a value": Expected(field(b"X: \xe9\xff"), forward=b"X: \xe9\xff\r\n"),
    "a tab in a value": Expected(field(b"X: a\tb"), forward=b"X: a\tb\r\n"),
    "no space behind the colon": Expected(field(b"X:a"), forward=b"X: a\r\n"),
    "space around a value": Expected(field(b"X: \t a b \t"), forward=b"X: a b\r\n"),
    "a value of colons": Expected(field(b"X: a: b:"), forward=b"X: a: b:\r\n"),
    "order and doubles": Expected(field(b"B: 1", b"A: 2", b"B: 3"), forward=b"B: 1\r\nA: 2\r\nB: 3\r\n"),
    "HTTP/1.0": Expected(old(), http_1_1=False, keep_alive=False),
    "HTTP/1.0 without Host": Expected(
        head(line=b"POST /v1/x HTTP/1.0", host=b""), http_1_1=False, keep_alive=False, special={Role.HOST: None}
    ),
    "HTTP/1.0 kept": Expected(
        old(b"Connection: keep-alive"), http_1_1=False, special={Role.CONNECTION: b"keep-alive"}
    ),
    "HTTP/1.0 kept, in other letters": Expected(
        old(b"Connection: Keep-Alive"), http_1_1=False, special={Role.CONNECTION: b"Keep-Alive"}
    ),
    "close": Expected(field(b"Connection: close"), keep_alive=False, special={Role.CONNECTION: b"close"}),
    "CLOSE": Expected(field(b"Connection: CLOSE"), keep_alive=False, special={Role.CONNECTION: b"CLOSE"}),
    "close wins": Expected(
        field(b"Connection: keep-alive", b"Connection: Close"),
        keep_alive=False,
        special={Role.CONNECTION: b"keep-alive,Close"},
    ),
    "an upgrade is not taken": Expected(
        field(
            *(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"),
            *(b"Content-Length: 5", AGENT),
        ),
        length=5,
        special={Role.CONNECTION: b"Upgrade, HTTP2-Settings", Role.CONTENT_LENGTH: b"5"},
        forward=AGENT + b"\r\n",
    ),
    "a chunked body behind an upgrade": Expected(
        field(b"Connection: upgrade", b"Upgrade: foo", b"Transfer-Encoding: chunked"),
        chunked=True,
        special={Role.CONNECTION: b"upgrade", Role.TRANSFER_ENCODING: b"chunked"},
    ),
    "100-continue": Expected(field(b"Expect: 100-Continue"), special={Role.EXPECT: b"100-Continue"}),
    "Connection names credentials": Expected(
        field(b"Connection: close, Authorization, X-A", b"Authorization: Bearer k", b"X-A: 1", b"X-B: 2"),
        keep_alive=False,
        special={Role.CONNECTION: b"close, Authorization, X-A", Role.AUTHORIZATION: b"Bearer k"},
        forward=b"X-B: 2\r\n",
    ),
    "Connection names what was forwarded before": Expected(
        field(b"x-a: 1", AGENT, b"CONNECTION: ,X-A ,", b"X-A: 2"),
        special={Role.CONNECTION: b",X-A ,"},
        forward=AGENT + b"\r\n",
    ),
    "what is read and kept": Expected(
        field(b"Content-Type: a/b", b"Traceparent: 00-1", b"Idempotency-Key: k"),
        special={Role.CONTENT_TYPE: b"a/b", Role.TRACEPARENT: b"00-1", Role.IDEMPOTENCY_KEY: b"k"},
        forward=b"Content-Type: a/b\r\nTraceparent: 00-1\r\nIdempotency-Key: k\r\n",
    ),
    **{f"Host {host!r}": Expected(head(host=b"Host: " + host), special={Role.HOST: host})
       for host in (b"a", b"a:80", b"a:", b"[::1]", b"[::1]:80", b"10.0.0.1:8080", b"a_b.c-d~e")},
    **{f"method {method.decode()}": Expected(line(method + b" /v1/x HTTP/1.1"), method=method)
       for method in sorted(METHODS)},
}  # fmt: skip


@pytest.mark.parametrize("expected", PASSES.values(), ids=PASSES.keys())
def test_a_head_that_passes_says_what_it_says(expected: Expected) -> None:
    table = FieldTable()
    for _ in range(2):
        request = parse(expected.block, table)
        said = {name: getattr(request, name) for name in expected.said if name != "forward"}
        assert {**said, "forward": b"".join(request.forward)} == expected.said
        assert {Role(at): value for at, value in enumerate(request.special) if value is not None} == {
            role: value for role, value in expected.special.items() if value is not None
        }


HOP_BY_HOP = b"""connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer
transfer-encoding upgrade""".split()
POSING = b"""host content-length authorization x-api-key cookie forwarded x-forwarded-for x-forwarded-host x-real-ip via
x-gateway-key sec-websocket-key access-control-request-method x-request-id x-trace-id x-backend range referer
accept-encoding expect content_type x_real_ip""".split()


@pytest.mark.parametrize("name", [*HOP_BY_HOP, *POSING])
def test_what_concerns_this_connection_or_poses_as_another_never_travels_on(name: bytes) -> None:
    values = {
        b"host": b"a",
        b"content-length": b"5",
        b"transfer-encoding": b"chunked",
        b"expect": b"100-continue",
    }
    value = values.get(name, b"v")
    for spelled in (name, name.upper(), name.title()):
        one = spelled + b": " + value
        request = parse(head(one, AGENT) if name != b"host" else head(AGENT, host=one))
        assert request.forward == [AGENT + b"\r\n"]


def test_the_configured_key_field_is_read_and_ends_here() -> None:
    table = FieldTable(b"X-My_Key")
    for name in (b"x-my_key", b"X-API-Key"):
        request = parse(field(name + b": k"), table)
        assert request.special[Role.API_KEY] == b"k"
        assert request.forward == []


_PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b": ",
        b":",
        b" ",
        b"\t",
        b"x",
        b"Host",
        b"a",
        b"\x0b",
        b"\x7f",
        b"\xe9",
        b"\x85",
        b",",
    ]
)
_SOUND_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\0-\x08\x0a-\x1f\x7f]*\r\n")


@STEADY
@given(st.lists(_PIECES, max_size=8).map(b"".join), st.lists(_PIECES, max_size=8).map(b"".join))
def test_no_field_can_smuggle_another_line_out(name: bytes, value: bytes) -> None:
    block = field(b"X-" + name + b": " + value, b"Connection: x-named")
    assume(block.find(b"\r\n\r\n") == len(block) - 4)
    try:
        request = parse(block)
    except WireError:
        return
    assert all(_SOUND_LINE.fullmatch(line) for line in request.forward)
    # h11 takes the same head, and sees every forwarded field in it.
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(block)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    seen = [name + b": " + value + b"\r\n" for name, value in event.headers.raw_items()]
    assert [line for line in request.forward if line not in seen] == []


def test_ten_thousand_different_lines_leave_the_memo_within_its_limit() -> None:
    table = FieldTable()
    for at in range(0, 10_000, 50):
        parse(field(*[b"X-%d: %d" % (n, n) for n in range(at, at + 50)]), table)
        assert len(table.lines) <= FieldTable.LIMIT
    assert parse(field(b"X: a"), table).forward == [b"X: a\r\n"]


def test_secrets_and_long_lines_are_not_remembered() -> None:
    table = FieldTable()
    parse(field(b"Authorization: Bearer secret-1", b"X-Api-Key: secret-2", b"X: " + b"y" * 300, AGENT), table)
    assert set(table.lines) == {b"Host: a", AGENT}


def test_long_field_names_are_not_hoarded() -> None:
    table = FieldTable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for at in range(300):
            parse(field(b"X-%d" % at + b"x" * 30_000 + b": a"), table)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 1 << 20
