"""Hostile answers: RELIABILITY's section 2.2 as scripts, each with what the client sees and whether the peer's
connection may be used again.

Owns the table. It refuses sockets and fixtures (tests play it). `Seen.BROKEN` is an answer that no client takes for
complete: it was committed before it broke.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Literal, NamedTuple

from tests.wire import answers
from tests.wire.client import Response
from tests.wire.upstream import Exchange, Script

BODY: Final = answers.chat_body("sound")
LENGTH: Final = ("content-length", str(len(BODY)))
CHUNKED: Final = ("transfer-encoding", "chunked")
SOUND: Final = answers.head(200, answers.JSON_TYPE, LENGTH) + BODY


class Seen(Enum):
    SOUND = "the sound answer"
    EMPTY = "a status without a body"
    REFUSED = "502"
    BROKEN = "a part, that does not look complete"


class Evil(NamedTuple):
    script: Script
    seen: Seen
    #: The connection is clean all the same.
    reused: bool = False
    #: It is lost before anything of it could be shown: such a request is sent once more, elsewhere.
    lost: bool = False


def judge(seen: Seen, response: Response) -> None:
    """The client saw *seen*: never success where there was none."""
    if seen is Seen.SOUND:
        assert (response.status, response.body, response.complete) == (200, BODY, True), response
    elif seen is Seen.EMPTY:
        assert response.status in (204, 304) and response.body == b"" and response.complete, response
    elif seen is Seen.REFUSED:
        assert (response.status, response.complete) == (502, True), response
        assert response.code == "upstream_invalid_response" or response.code == "upstream_lost"
    else:
        assert response.status == 200 and not response.complete, response
        assert BODY.startswith(response.body), response
    names = [name for name, _ in response.headers]
    assert not {"server", "set-cookie", "keep-alive", "upgrade", "via", "x-hop"} & set(names), names
    for name in ("content-length", "transfer-encoding", "date", "x-request-id", "connection"):
        assert names.count(name) <= 1, names


Then = Literal["", "fin", "rst", "close"]


def raw(data: bytes, seen: Seen = Seen.REFUSED, *, then: Then = "", reused: bool = False, lost: bool = False) -> Evil:
    return Evil(answers.raw(data, then=then), seen, reused, lost)


def headed(*lines: str, start: str = "HTTP/1.1 200 OK", body: bytes = BODY) -> bytes:
    """A head with *lines* as they are, and a body."""
    return "\r\n".join([start, *lines, "", ""]).encode("latin-1") + body


def sized(*lines: str, start: str = "HTTP/1.1 200 OK") -> bytes:
    return headed("Content-Type: application/json", *lines, f"Content-Length: {len(BODY)}", start=start)


def parts(*pieces: bytes | Callable[[Exchange], None]) -> Script:
    """Each piece is read by itself."""

    def script(x: Exchange) -> None:
        for number, piece in enumerate(pieces):
            if number:
                x.sleep(0.02)  # enough, unless the machine is busy
                x.wire.await_read()
            if isinstance(piece, bytes):
                x.send(piece)
            else:
                piece(x)

    return script


CHUNKS: Final = answers.chunk(BODY[:50]) + answers.chunk(BODY[50:])
IN_CHUNKS: Final = answers.head(200, answers.JSON_TYPE, CHUNKED)
IN_LENGTH: Final = answers.head(200, answers.JSON_TYPE, LENGTH)
EARLY: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nServer: x\r\n\r\n"
LAST: Final = answers.LAST_CHUNK

EVIL: Final[dict[str, Evil]] = {
    **{
        f"1 {count} interim answers": raw(EARLY * count + SOUND, seen, reused=seen is Seen.SOUND)
        for count, seen in ((1, Seen.SOUND), (10, Seen.SOUND), (11, Seen.REFUSED), (50, Seen.REFUSED))
    },
    "1 interim answers of each kind": raw(
        b"".join(b"HTTP/1.1 %d Whatever\r\n\r\n" % status for status in (100, 102, 103, 110, 199)) + SOUND,
        Seen.SOUND, reused=True,
    ),
    "1 interim answers apart": Evil(parts(EARLY, EARLY[:9], EARLY[9:], SOUND), Seen.SOUND, True),
    "1 an interim answer with a length": raw(headed("Content-Length: 2", start="HTTP/1.1 100 Go", body=b"hi") + SOUND),
    "1 an interim answer, then nothing": raw(EARLY, then="fin", lost=True),
    "2 switching protocols": raw(
        headed("Upgrade: h2c", "Connection: upgrade", start="HTTP/1.1 101 Switched", body=b"PRI *")
    ),
    "4 204": raw(answers.head(204), Seen.EMPTY, reused=True),
    "4 204 with a length": raw(answers.head(204, ("content-length", "5")), Seen.EMPTY),
    "4 204 with chunks": raw(answers.head(204, CHUNKED) + LAST, Seen.EMPTY),
    "4 204 with a body": raw(answers.head(204, ("content-length", "5")) + b"hello", Seen.EMPTY),
    "4 304 with a length": raw(answers.head(304, ("content-length", "5")), Seen.EMPTY, reused=True),
    "4 304 with a body": raw(answers.head(304, ("content-length", "5")) + b"hello", Seen.EMPTY),
    "5 until it closes": raw(answers.head(200, answers.JSON_TYPE) + BODY, Seen.SOUND, then="fin"),
    "5 until it resets": Evil(parts(answers.head(200, answers.JSON_TYPE) + BODY[:50], Exchange.rst), Seen.BROKEN),
    **{
        f"{row} {name}, then {then}": Evil(parts(data, getattr(Exchange, then)), seen, lost=seen is Seen.REFUSED)
        for then in ("fin", "rst", "close")
        for row, name, data, seen in (
            (6, "less than its length", IN_LENGTH + BODY[:50], Seen.BROKEN),
            (6, "all but a byte of its length", IN_LENGTH + BODY[:-1], Seen.BROKEN),
            (6, "none of its length", IN_LENGTH, Seen.REFUSED),
            (6, "half a head", IN_LENGTH[:50], Seen.REFUSED),
            (7, "no last chunk", IN_CHUNKS + CHUNKS, Seen.BROKEN),
            (7, "half a last chunk", IN_CHUNKS + CHUNKS + b"0\r\n", Seen.BROKEN),
            (7, "half a chunk", IN_CHUNKS + CHUNKS[:30], Seen.BROKEN),
            (7, "no chunk", IN_CHUNKS, Seen.REFUSED),
        )
    },
    **{
        f"8 {name}": Evil(parts(IN_CHUNKS + CHUNKS, data), Seen.BROKEN)
        for name, data in (
            ("a size of junk", b"zz\r\n"), ("a size of 0x0", b"0x0\r\n\r\n"), ("a size of -1", b"-1\r\n\r\n"),
            ("a size beyond 64 bits", b"1" + b"0" * 16 + b"\r\n"), ("a size ended by LF", b"0\n\r\n"),
            ("a chunk that is too long", b"1\r\nab\r\n"), ("an endless extension", b"1;" + b"x" * 1000),
            ("endless trailers", b"0\r\n" + b"X: a\r\n" * 10_000), ("a trailer of junk", b"0\r\n\x00: a\r\n\r\n"),
        )
    },
    "8 a bad first chunk": raw(IN_CHUNKS + b"zz\r\n"),
    "8 a bad second chunk at once": raw(IN_CHUNKS + CHUNKS + b"zz\r\n"),
    **{
        f"9 to 12 {line!r}": raw(headed("Content-Type: application/json", line, body=CHUNKS + LAST))
        for line in (
            f"Content-Length: {len(BODY)}\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            *("Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5\r\nContent-Length: 5"),
            *("Content-Length: -1", "Content-Length: +5", "Content-Length: 0x5", "Content-Length: 5a"),
            *("Content-Length:", "Content-Length: 5, 5", f"Content-Length: {2**63}", f"Content-Length: {2**64 + 5}"),
            *("Transfer-Encoding: gzip", "Transfer-Encoding: chunked, gzip", "Transfer-Encoding: gzip, chunked"),
            *("Transfer-Encoding: identity", "Transfer-Encoding: xchunked", "Transfer-Encoding:"),
            *("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",),
            *("X: a\nY: b", "X: a\n", "\nX: a", "X: a\rb", "X: a\r", "X: a\r\n b", "X: a\r\n\tb", "X : a", "X\t: a"),
            *(": a", "X", "X: a\0", "X: \x01", "X: \x7f", "X\0: a", "X Y: a", "\xe9: a", "Transfer-Encoding : chunked"),
        )
    },
    "11 chunks in HTTP/1.0": raw(headed("Transfer-Encoding: chunked", start="HTTP/1.0 200 OK", body=CHUNKS + LAST)),
    "13 any reason": raw(sized(start="HTTP/1.1 200 Set-Cookie: a=b \xe9"), Seen.SOUND, reused=True),
    "13 no reason": raw(sized(start="HTTP/1.1 200"), Seen.SOUND, reused=True),
    **{
        f"13 start {start!r}": raw(sized(start=start))
        for start in (
            *("HTTP/1.1 999 High", "HTTP/1.1 600 High", "HTTP/1.1 099 Low", "HTTP/1.1 000 Nil", "HTTP/1.1 abc OK"),
            *("HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 -20 OK", "HTTP/1.1 200 O\0K", "HTTP/1.1 200 O\x08K"),
            *("HTTP/2 200 OK", "HTTP/1.2 200 OK", "HTTP/0.9 200 OK", "ICY 200 OK", "HTTP/1.1  200 OK", ""),
            *("HTTP/1.1\t200 OK", "200 OK", " HTTP/1.1 200 OK", "http/1.1 200 OK"),
        )
    },
    "13 no head at all": raw(BODY + b"\r\n\r\n"),
    "13 a greeting of SSH": raw(b"SSH-2.0-OpenSSH_9.2\r\n", then="fin", lost=True),
    "13 TLS on a plain port": raw(b"\x15\x03\x03\x00\x02\x02\x28", then="fin", lost=True),
    "14 more than its length": raw(SOUND + b"x", Seen.SOUND),
    "14 more than its length, later": Evil(parts(SOUND, b"x"), Seen.SOUND),
    "14 more than its last chunk": raw(IN_CHUNKS + CHUNKS + LAST + b"\r\n", Seen.SOUND),
    "14 two answers": raw(SOUND + SOUND, Seen.SOUND),
    "14 two answers apart": Evil(parts(SOUND, SOUND), Seen.SOUND),
    "14 two answers in chunks": raw(2 * (IN_CHUNKS + CHUNKS + LAST), Seen.SOUND),
    "14 half a second answer": raw(SOUND + SOUND[:30], Seen.SOUND),
    "14 an interim answer behind": raw(SOUND + EARLY, Seen.SOUND),
    "14 an empty line behind": raw(SOUND + b"\r\n", Seen.SOUND),
    "18 close": raw(sized("Connection: close"), Seen.SOUND),
    "18 Close, in a list": raw(sized("Connection: x-hop, Close", "X-Hop: 1"), Seen.SOUND),
    "18 HTTP/1.0": raw(sized(start="HTTP/1.0 200 OK"), Seen.SOUND),
    "18 HTTP/1.0, kept": raw(sized("Connection: keep-alive", start="HTTP/1.0 200 OK"), Seen.SOUND, reused=True),
    "18 fields of this hop": raw(
        sized("Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=9", "Upgrade: h2c", "Via: 1.1 x",
              "Set-Cookie: a=b", "Set-Cookie: c=d", "Trailer: X", "X-Request-Id: theirs", "Date: never"),
        Seen.SOUND, reused=True,
    ),
    "19 a head of 70 kB": raw(sized("X: " + "a" * 70_000)),
    "19 a head without end": raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000),
    "19 10,000 fields": raw(sized(*["X: a"] * 10_000)),
    "19 200 fields": raw(sized(*["X: a"] * 200)),
    "19 a head byte by byte": Evil(lambda x: x.dribble(SOUND), Seen.SOUND, True),
}  # fmt: skip
