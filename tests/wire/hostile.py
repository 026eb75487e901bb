"""Hostile requests: RELIABILITY's section 2.1 as bytes, each with the one status that it gets.

Owns the table, and the judgement of what reaches an upstream. It refuses sockets and fixtures (tests send, and look).
Every one of these ends its connection: where the next request would begin, two parsers could tell differently.
"""

from __future__ import annotations

import re
from typing import Final

import h11

from tests.wire.client import KEY, build_request
from tests.wire.ledger import Request

CHAT: Final = "/v1/chat/completions"
#: Bytes that a body may have where these are sent; the table has bodies beyond it.
BODY_LIMIT: Final = 64 << 10
#: What a server sees that took the end of one of these for the beginning of another request.
SMUGGLED: Final = build_request("POST", CHAT, b'{"model":"m","user":"smuggled"}')
GOOD: Final = b'{"model":"m"}'


def post(*lines: bytes, start: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    """A head written by hand, with *lines* as they are."""
    head = b"".join(line + b"\r\n" for line in lines)
    return start + b"\r\n" + host + b"Authorization: Bearer " + KEY.encode() + b"\r\n" + head + b"\r\n"


def get(target: bytes, *lines: bytes, version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    return post(*lines, start=b"%b %b %b" % (method, target, version))


def of_length(value: bytes) -> bytes:
    return post(b"Content-Length:" + value) + GOOD


def coded(value: bytes) -> bytes:
    return post(b"Transfer-Encoding:" + value) + b"d\r\n" + GOOD + b"\r\n0\r\n\r\n"


def chunks(body: bytes) -> bytes:
    return post(b"Content-Type: application/json", b"Transfer-Encoding: chunked") + body


SIZED: Final = b"d\r\n" + GOOD + b"\r\n"
LENGTH, CODING = b"Content-Length: 13", b"Transfer-Encoding: chunked"

#: Row and name -> the bytes and the status.
HOSTILE: Final[dict[str, tuple[bytes, int]]] = {
    "1 length, chunked": (post(LENGTH, CODING) + b"0\r\n\r\n", 400),
    "1 chunked, length": (post(CODING, LENGTH) + b"0\r\n\r\n", 400),
    "1 chunked, length of 0": (post(CODING, b"Content-Length: 0") + b"0\r\n\r\n", 400),
    "2 two lengths": (post(LENGTH, b"Content-Length: 0") + GOOD, 400),
    "3 two equal lengths": (post(LENGTH, LENGTH) + GOOD, 400),
    **{
        f"3 to 5 length {value.decode('latin-1')!r}": (of_length(value), 400)
        for value in (
            *(b" 13, 13", b" 13,13", b" +13", b" -1", b" 0xd", b" 1_3", b" 13a", b"", b" ", b" 1 3", b" 0o13", b" 13."),
            *(b" \xb2", b" %d" % 2**63, b" %d" % (2**64 - 1), b" %d" % 2**64, b" " + b"9" * 500, b" 13;a=b", b' "13"'),
        )
    },
    "5 a length beyond the limit": (post(b"Content-Length: %d" % 10**17), 413),
    **{
        f"7 and 8 coding {value.decode('latin-1')!r}": (coded(value), 501)
        for value in (
            *(
                b" gzip",
                b" xchunked",
                b" identity",
                b' "chunked"',
                b" chunked;a=b",
                b" chunked, gzip",
                b"",
                b" chunked,",
            ),
            *(
                b" gzip, chunked",
                b" , chunked",
                b" identity, chunked",
                b" chunked, chunked",
                b" chunked\xa0",
                b" chun ked",
            ),
            *(b" chunked\r\nTransfer-Encoding: chunked", b" gzip\r\nTransfer-Encoding: chunked"),
            *(b" chunked\r\nTransfer-Encoding: gzip", b" chunked\r\nTransfer-Encoding:"),
        )
    },
    "7 coding behind a control": (coded(b" \x0bchunked"), 400),
    "9 chunked in HTTP/1.0": (post(CODING, start=b"POST /v1/chat/completions HTTP/1.0") + b"0\r\n\r\n", 400),
    "9 another coding in HTTP/1.0": (post(b"Transfer-Encoding: gzip", start=b"POST / HTTP/1.0"), 400),
    "11 LF behind the request line": (b"GET /v1/models HTTP/1.1\nHost: a\r\n\r\n", 400),
    "11 LF throughout": (b"GET /v1/models HTTP/1.1\nHost: a\n\n", 400),
    "11 LF behind a field": (get(b"/v1/models", b"X: a\nY: b"), 400),
    "11 LF behind a framing field": (post(b"X: a\nContent-Length: 13") + GOOD, 400),
    "11 LF behind a chunk's size": (chunks(b"d\n" + GOOD + b"\r\n0\r\n\r\n"), 400),
    "11 LF behind a chunk": (chunks(b"d\r\n" + GOOD + b"\n0\r\n\r\n"), 400),
    "11 LF behind the last chunk": (chunks(SIZED + b"0\n\r\n"), 400),
    "11 LF in a trailer": (chunks(SIZED + b"0\r\nX: a\nY: b\r\n\r\n"), 400),
    "12 CR in a value": (get(b"/v1/models", b"X: a\rb"), 400),
    "12 CR before the end": (get(b"/v1/models", b"X: a\r"), 400),
    "12 CR CR LF": (b"GET /v1/models HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    "12 CR in a trailer": (chunks(SIZED + b"0\r\nX: a\rb\r\n\r\n"), 400),
    "13 folded": (get(b"/v1/models", b"X: a", b" b"), 400),
    "13 folded framing": (post(b"Transfer-Encoding:", b" chunked") + b"0\r\n\r\n", 400),
    "13 folded trailer": (chunks(SIZED + b"0\r\nX: a\r\n b\r\n\r\n"), 400),
    "14 space before the colon": (post(b"Content-Length : 13") + GOOD, 400),
    "14 tab before the colon": (post(b"Transfer-Encoding\t: chunked") + b"0\r\n\r\n", 400),
    "14 space before the first field": (post(host=b" Host: a\r\n"), 400),
    "14 no colon": (get(b"/v1/models", b"X"), 400),
    "14 trailer without a colon": (chunks(SIZED + b"0\r\nX\r\n\r\n"), 400),
    **{
        f"14 name {name.decode('latin-1')!r}": (get(b"/v1/models", name + b": a"), 400)
        for name in (b"", b"X[", b"X@", b'"X"', b"X(", b"X\x7f", b"\xc3\xa9", b"X\0", b"X Y", b"Content-Length\x0b")
    },
    **{
        f"15 value with {value!r}": (get(b"/v1/models", b"X: a" + bytes([value]) + b"b"), 400)
        for value in (0, 1, 8, 11, 12, 27, 31, 127)
    },
    "18 no Host": (post(host=b""), 400),
    "18 two Hosts": (get(b"/v1/models", b"Host: b"), 400),
    "18 two equal Hosts": (get(b"/v1/models", b"HOST: a"), 400),
    **{
        f"18 Host {host.decode('latin-1')!r}": (post(host=b"Host: " + host + b"\r\n"), 400)
        for host in (b"", b"a, b", b"u@h", b"h/path", b"h?x", b"a b", b"\xe9", b"[::1", b"a:x", b"a:80:80", b"http://a")
    },
    "18 a bad Host in HTTP/1.0": (b"GET /v1/models HTTP/1.0\r\nHost: a/b\r\n\r\n", 400),
    **{
        f"19 and 20 target {target.decode()!r}": (get(target), 400)
        for target in (
            *(b"http://b/v1/models", b"http://a:81/v1/models", b"ftp://a/v1/models", b"http://u@a/v1/models"),
            *(b"http:///v1/models", b"*", b"v1/models", b"/v1/models#x", b" /v1/models", b"/v1/models ", b"//a b"),
        )
    },
    "20 CONNECT": (get(b"a:443", method=b"CONNECT"), 405),
    "20 CONNECT with a body": (post(LENGTH, start=b"CONNECT a:443 HTTP/1.1") + GOOD, 405),
    "20 no version": (b"GET /v1/models\r\nHost: a\r\n\r\n", 400),
    "21 RTSP": (get(b"/v1/models", version=b"RTSP/1.0"), 400),
    "21 ICE": (get(b"/", version=b"ICE/1.0", method=b"SOURCE"), 400),
    **{
        f"21 and 22 {version.decode()}": (get(b"/v1/models", version=version), 505)
        for version in (
            *(b"HTTP/2.0", b"HTTP/2", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/9.9", b"HTTP/01.01", b"HTTP/3"),
        )
    },
    **{
        f"23 and 24 {method.decode()}": (get(b"/v1/models", method=method), 405)
        for method in (b"PURGE", b"M-SEARCH", b"QUERY", b"SOURCE", b"TRACE", b"get", b"BREW", b"POSTS", b"PROPFIND")
    },
    "24 a method of 100 kB": (get(b"/v1/models", method=b"A" * 100_000), 405),
    "25 a target of 100 kB": (get(b"/v1/models?q=" + b"a" * 100_000), 414),
    "25 a target of 10 kB": (get(b"/v1/models?q=" + b"a" * 10_000), 414),
    "25 a name of 100 kB": (get(b"/v1/models", b"X" * 100_000 + b": a"), 431),
    "25 a value of 100 kB": (get(b"/v1/models", b"X: " + b"a" * 100_000), 431),
    "25 10,000 fields": (get(b"/v1/models", *[b"X: a"] * 10_000), 431),
    "25 101 fields": (get(b"/v1/models", *[b"X: a"] * 99), 431),
    **{
        f"26 {target!r} in the target": (get(b"/v1/" + target), 400)
        for target in (b"\x80", b"\xc3\xa9", b"\xff", b"\t", b"\0", b"\x1f", b"\x7f", b"?\xe9", b"a\rb")
    },
    **{
        f"27 chunk size {size.decode('latin-1')!r}": (chunks(size + b"\r\n" + GOOD + b"\r\n0\r\n\r\n"), 400)
        for size in (b"0xd", b"-d", b"+d", b"1_3", b" d", b"d ", b"\td", b"", b"g", b"f" * 17, b"\xb2", b";a", b"d\0")
    },
    "27 no CRLF behind a chunk": (chunks(b"d\r\n" + GOOD + b"0\r\n\r\n"), 400),
    "27 a chunk that spills": (chunks(b"c\r\n" + GOOD + b"\r\n0\r\n\r\n"), 400),
    "28 a size of 300 zeros": (chunks(b"0" * 300 + b"d\r\n" + GOOD + b"\r\n0\r\n\r\n"), 400),
    "28 a size of 2^60": (chunks(b"1000000000000000\r\n" + b" " * (BODY_LIMIT + 1)), 413),
    "29 an extension of 100 kB": (chunks(b"d;" + b"x" * 100_000 + b"\r\n" + GOOD + b"\r\n0\r\n\r\n"), 400),
    "29 an extension with a control": (chunks(b"d;a\x0bb\r\n" + GOOD + b"\r\n0\r\n\r\n"), 400),
    "29 extensions of 200 bytes to chunks of 1": (chunks((b"1;" + b"x" * 200 + b"\r\n{\r\n") * 200), 400),
    "30 a body that is nearly all framing": (chunks(b"1;xxxxxx\r\n \r\n" * 10_000), 400),
    "31 trailers of 100 kB": (chunks(SIZED + b"0\r\n" + b"X: a\r\n" * 20_000), 400),
    "31 a trailer of 100 kB": (chunks(SIZED + b"0\r\nX: " + b"a" * 100_000), 400),
    "33 GET with too much of a body": (get(b"/v1/models", b"Content-Length: 9000") + b" " * 100, 413),
    "34 another expectation": (post(LENGTH, b"Expect: tea") + GOOD, 417),
    "34 two expectations": (post(LENGTH, b"Expect: 100-continue", b"Expect: 100-continue") + GOOD, 400),
    "45 the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    **{
        f"50 two {name.decode()}": (post(LENGTH, name + b": a", name.lower() + b": b") + GOOD, 400)
        for name in (b"Content-Type", b"Idempotency-Key", b"X-Request-Id", b"X-API-Key")
    },
    "50 two Authorizations": (post(LENGTH, b"Authorization: Bearer other") + GOOD, 400),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n" + bytes(range(128)), 400),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
}


# --- what reaches an upstream ---

_CONTROL = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: \S?(?:.*\S)?")
_START = re.compile(rb"(?:GET|POST|PUT|PATCH|DELETE) /[!-~]* HTTP/1\.1")
_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
    *("authorization", "x-api-key", "cookie", "proxy-authorization", "http2-settings"),
}


def judge_forwarded(request: Request, body: bytes | None = None) -> None:
    """One framing, one length, one Host, no control character, and the client's *body*: by hand, and by h11.

    A *body* of None is whatever came, of the length that was told.
    """
    start, *lines = request.raw_head[:-4].split(b"\r\n")
    assert _START.fullmatch(start), start
    names = []
    for line in lines:
        assert _LINE.fullmatch(line), line
        assert not _CONTROL.search(line), line
        names.append(line.partition(b":")[0].decode().lower())
    assert names.count("host") == 1, names
    assert not _HOP_BY_HOP & set(names), names
    assert not [name for name in names if "_" in name], names
    lengths = [value for name, value in request.headers if name == "content-length"]
    assert len(lengths) == (1 if request.method != "GET" else len(request.body) > 0), lengths
    assert request.body_complete
    assert not lengths or lengths[0] == str(len(request.body)), (lengths, len(request.body))
    assert body is None or request.body == body, (request.body, body)
    judge_by_h11(request)


def judge_by_h11(request: Request) -> None:
    """h11 reads head and body as one request of the same parts, and nothing behind it."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    parser.receive_data(request.raw_head + request.body)
    event = parser.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method.decode(), event.target.decode()) == (request.method, request.target)
    payload = b""
    while isinstance(part := parser.next_event(), h11.Data):
        payload += bytes(part.data)
    assert isinstance(part, h11.EndOfMessage)
    assert payload == request.body
    assert parser.trailing_data == (b"", False)
