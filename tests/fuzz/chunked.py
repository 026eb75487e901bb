"""Chunked bodies: cut or whole, the payload and the verdict are the same, and h11's are too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import h11

from protocols.http1.errors import WireError
from protocols.http1.framing import ChunkedDecoder
from tests.fuzz.cutting import cut, pieces, uncut

#: Payload, what is behind the body, whether it is over; None: refused.
Verdict = tuple[bytes, bytes, bool] | None
#: h11 takes no space before an extension, and judges trailers, which we drop, by the rules of heads.
_BEYOND_H11 = re.compile(rb"[ \t];|\r\n0+(?:;[^\r\n]*)?\r\n[^\r]|^0+(?:;[^\r\n]*)?\r\n[^\r]")

WORDS = [
    *(
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"A;a=b\r\n",
        b"X: a\r\n",
        b"0000000000000001",
        b"ffffffffffffffff",
        b"\r\n",
        b"\n",
    ),
    *(b"\r", b";", b" ", b"\t", b"+", b"-", b"_", b"0x", b"\0", b"\xb2", b":"),
]
SEEDS = [
    *(
        uncut(b"5\r\nhello\r\n" + size + b"\r\nhello\r\n0\r\n\r\n", 9)
        for size in (b"+5;a", b"5+;a", b"5 ", b" 5", b"0x5", b"5_", b"")
    ),
    uncut(b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\nGET", 1, 4, 20),
    uncut(b"5\r\nhello\r\n0\r\nX: a\r\nY: b\r\n\r\n", 12, 20),
    uncut(b"A \t;x\r\n0123456789\r\n000\r\n\r\n", 3),
    uncut(b"3\r\n0\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n"),
]


def opened() -> AbstractContextManager[Callable[[bytes], None]]:
    return nullcontext(check)


def check(data: bytes) -> None:
    places, wire = cut(data)
    whole = decoded([wire])
    assert decoded(pieces(wire, places)) == whole
    assert decoded(wire[at : at + 1] for at in range(len(wire))) == whole
    if whole is not None and not _BEYOND_H11.search(wire):
        assert by_h11(wire) == whole


def decoded(parts: Iterable[bytes]) -> Verdict:
    decoder = ChunkedDecoder()
    payload = rest = b""
    try:
        for part in parts:
            if decoder.complete:
                rest += part
                continue
            got = decoder.feed(part)
            assert not decoder.verbatim or part.endswith(got + b"\r\n")
            payload += got
    except WireError:
        return None
    return payload, decoder.excess + rest, decoder.complete


def by_h11(wire: bytes) -> Verdict:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
    payload = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            payload += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return payload, connection.trailing_data[0], True
        elif event is h11.NEED_DATA:
            return payload, b"", False
