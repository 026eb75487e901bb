"""Requests that no gateway may pass on, each with the statuses that refuse it.

Owns the bytes. It refuses to send them (`visits`). Every one ends its connection: where the next request would begin,
two parsers could tell differently.
"""

from __future__ import annotations

from typing import Final

from bench.faults.speech import CHAT, KEY

_BODY: Final = b'{"model":"solo"}'
_LENGTH: Final = b"Content-Length: %d" % len(_BODY)
_CODING: Final = b"Transfer-Encoding: chunked"


def post(*lines: bytes, start: bytes = b"POST %b HTTP/1.1" % CHAT.encode(), host: bytes = b"Host: a\r\n") -> bytes:
    head = b"".join(line + b"\r\n" for line in lines)
    return start + b"\r\n" + host + b"Authorization: Bearer " + KEY.encode() + b"\r\n" + head + b"\r\n"


def chunked(body: bytes) -> bytes:
    return post(_CODING) + body


MALFORMED: Final[dict[str, tuple[bytes, str]]] = {
    "length and chunked": (post(_LENGTH, _CODING) + b"0\r\n\r\n", "400"),
    "chunked and length": (post(_CODING, b"Content-Length: 0") + b"0\r\n\r\n", "400"),
    "two lengths": (post(_LENGTH, b"Content-Length: 0") + _BODY, "400"),
    "two equal lengths": (post(_LENGTH, _LENGTH) + _BODY, "400"),
    "a length of +16": (post(b"Content-Length: +16") + _BODY, "400"),
    "a length of 2^64": (post(b"Content-Length: %d" % 2**64) + _BODY, "400"),
    "an unknown coding": (post(b"Transfer-Encoding: gzip, chunked") + _BODY, "501"),
    "chunked in HTTP/1.0": (post(_CODING, start=b"POST / HTTP/1.0") + b"0\r\n\r\n", "400"),
    "LF for CRLF": (b"GET /v1/models HTTP/1.1\nHost: a\n\n", "400"),
    "CR in a value": (post(b"X: a\rb"), "400"),
    "a folded line": (post(b"X: a", b" b"), "400"),
    "space before the colon": (post(b"Content-Length : 16") + _BODY, "400"),
    "NUL in a value": (post(b"X: a\0b"), "400"),
    "no Host": (post(host=b""), "400"),
    "two Hosts": (post(b"Host: b"), "400"),
    "a foreign authority": (post(start=b"GET http://b/v1/models HTTP/1.1"), "400"),
    "CONNECT": (post(start=b"CONNECT a:443 HTTP/1.1"), "405"),
    "TRACE": (post(start=b"TRACE /v1/models HTTP/1.1"), "405"),
    "HTTP/2.0": (post(start=b"GET /v1/models HTTP/2.0"), "505"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    "a target with a raw byte": (post(start=b"GET /v1/\xff HTTP/1.1"), "400"),
    "a chunk size of 0x10": (chunked(b"0x10\r\n" + _BODY + b"\r\n0\r\n\r\n"), "400"),
    "a chunk that spills": (chunked(b"f\r\n" + _BODY + b"\r\n0\r\n\r\n"), "400"),
    "an endless chunk extension": (chunked(b"10;" + b"x" * 100_000 + b"\r\n" + _BODY + b"\r\n0\r\n\r\n"), "400"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n" + bytes(range(128)), "400"),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "400"),
}

_DEEP: Final = b'{"model":"solo","messages":' + b"[" * 400_000 + b"]" * 400_000 + b"}"
BOMBS: Final[dict[str, tuple[bytes, str]]] = {
    "100,000 fields": (post(*[b"X: a"] * 100_000), "431"),
    "a field of 5 MB": (post(b"X: " + b"a" * (5 << 20)), "431"),
    "a target of 1 MB": (post(start=b"GET /%b HTTP/1.1" % (b"a" * (1 << 20))), "414"),
    "JSON nested 400,000 deep": (post(b"Content-Length: %d" % len(_DEEP)) + _DEEP, "400"),
}

HOSTILE: Final = {**MALFORMED, **BOMBS}
#: What a case's `extras` stand for.
NAMES: Final = {"malformed": tuple(MALFORMED), "bombs": tuple(BOMBS)}
