"""Body framing: one table of bodies, fed whole, byte by byte, cut anywhere and with junk behind; one of refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.http1.errors import WireError, Wrong
from protocols.http1.framing import (
    LAST_CHUNK,
    SIZE_LINE_LIMIT,
    TRAILER_LIMIT,
    ChunkedDecoder,
    Decoder,
    EofDecoder,
    LengthDecoder,
    chunk,
)
from tests.unit.configuring import STEADY

Make = Callable[[], Decoder]


def _of_length(length: int) -> Make:
    return lambda: LengthDecoder(length)


LONGEST_LINE = b"5;" + b"x" * (SIZE_LINE_LIMIT - 2)
LONGEST_TRAILER = b"X: " + b"y" * (TRAILER_LIMIT - 7)

#: Who decodes it, the body, and the payload in it.
BODIES: dict[str, tuple[Make, bytes, bytes]] = {
    "of length 0": (_of_length(0), b"", b""),
    "of length 1": (_of_length(1), b"x", b"x"),
    "of length 10": (_of_length(10), b"0\r\n\r\n01234", b"0\r\n\r\n01234"),
    "no chunk": (ChunkedDecoder, b"0\r\n\r\n", b""),
    "one chunk": (ChunkedDecoder, b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "two chunks": (ChunkedDecoder, b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!"),
    "hex in both cases": (
        ChunkedDecoder,
        b"A\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n",
        b"0123456789" * 2 + b"a",
    ),
    "leading zeros": (ChunkedDecoder, b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "sixteen digits": (ChunkedDecoder, b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n", b"hello"),
    "chunks that look like framing": (ChunkedDecoder, b"5\r\n0\r\n\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n\r\n"),
    "an extension": (ChunkedDecoder, b'5;a=b;c="d e"\r\nhello\r\n0;last\r\n\r\n', b"hello"),
    "an extension with a semicolon in it": (ChunkedDecoder, b"5;a;b\r\nhello\r\n0\r\n\r\n", b"hello"),
    "an empty extension": (ChunkedDecoder, b"5;\r\nhello\r\n0\r\n\r\n", b"hello"),
    "space before an extension": (ChunkedDecoder, b"5 \t;a\r\nhello\r\n0 ;a\r\n\r\n", b"hello"),
    "the longest size line": (ChunkedDecoder, LONGEST_LINE + b"\r\nhello\r\n0\r\n\r\n", b"hello"),
    "a trailer": (ChunkedDecoder, b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"hello"),
    "trailers of framing": (ChunkedDecoder, b"0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nHost: b\r\n\r\n", b""),
    "until close": (EofDecoder, b"0\r\n\r\nwhatever\r\n", b"0\r\n\r\nwhatever\r\n"),
    "nothing until close": (EofDecoder, b"", b""),
}
FRAMED = {name: body for name, body in BODIES.items() if body[0] is not EofDecoder}
#: What h11 reads too. It takes no space before an extension (RFC 9112 section 7.1.1 wants recipients to), and it judges
#: trailers, which we drop, by the rules of heads.
CHUNKED = {
    name: body
    for name, body in FRAMED.items()
    if body[0] is ChunkedDecoder and name not in ("space before an extension", "trailers of framing")
}


def named(table: dict[str, tuple[Make, bytes, bytes]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("body", table.values(), ids=table.keys())


def drive(decoder: Decoder, pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """The payload, and what is behind the body: nothing is fed to a decoder that is complete, as in the gateway."""
    payload = rest = b""
    for piece in pieces:
        if decoder.complete:
            rest += piece
        else:
            payload += decoder.feed(piece)
    return payload, decoder.excess + rest


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@named(BODIES)
def test_a_body_in_one_piece_is_its_payload(body: tuple[Make, bytes, bytes]) -> None:
    make, wire, payload = body
    decoder = make()
    assert drive(decoder, [wire]) == (payload, b"")
    assert decoder.at_eof()
    assert decoder.complete


@named(BODIES)
def test_a_body_that_comes_byte_by_byte_is_the_same(body: tuple[Make, bytes, bytes]) -> None:
    make, wire, payload = body
    decoder = make()
    assert drive(decoder, bytewise(wire)) == (payload, b"")
    assert decoder.at_eof()


@named(BODIES)
def test_a_body_that_is_cut_anywhere_is_the_same(body: tuple[Make, bytes, bytes]) -> None:
    make, wire, payload = body
    for at in range(len(wire) + 1):
        decoder = make()
        assert drive(decoder, [wire[:at], wire[at:]]) == (payload, b""), at
        assert decoder.at_eof(), at


@named(FRAMED)
def test_a_body_is_over_with_its_last_byte_and_not_before(body: tuple[Make, bytes, bytes]) -> None:
    make, wire, _ = body
    decoder = make()
    for at, byte in enumerate(bytewise(wire)):
        assert not decoder.complete, at
        assert not decoder.at_eof(), at
        decoder.feed(byte)
    assert decoder.complete


@named(FRAMED)
@pytest.mark.parametrize("junk", [b"G", b"\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_follows_a_body_is_excess_to_the_byte(body: tuple[Make, bytes, bytes], junk: bytes) -> None:
    make, wire, payload = body
    whole = wire + junk
    for pieces in ([whole], bytewise(whole), [wire, junk], [wire[:-1], wire[-1:] + junk]):
        assert drive(make(), pieces) == (payload, junk)


def test_a_body_until_close_has_no_excess_and_no_end_of_its_own() -> None:
    decoder = EofDecoder()
    assert drive(decoder, [b"HTTP/1.1 200 OK\r\n", b"\r\n"]) == (b"HTTP/1.1 200 OK\r\n\r\n", b"")
    assert not decoder.complete


@named(CHUNKED)
def test_h11_reads_the_same_payload(body: tuple[Make, bytes, bytes]) -> None:
    _, wire, payload = body
    assert by_h11(wire) == payload


def by_h11(wire: bytes) -> bytes:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
    payload = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            payload += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return payload
        else:
            assert isinstance(event, h11.Request), event


REFUSED = {
    "size +5": b"+5\r\nhello\r\n",
    "size -5": b"-5\r\nhello\r\n",
    "size 0x5": b"0x5\r\nhello\r\n",
    "size 1_0": b"1_0\r\n0123456789abcdef\r\n",
    "size empty": b"\r\nhello\r\n",
    "size empty before an extension": b";a\r\nhello\r\n",
    "size not hex": b"g\r\nhello\r\n",
    "size in other digits": "\u0665\r\nhello\r\n".encode(),
    "size of 17 digits": b"00000000000000005\r\nhello\r\n",
    "size beyond 64 bits": b"10000000000000000\r\nhello\r\n",
    "space before the size": b" 5\r\nhello\r\n",
    "tab before the size": b"\t5\r\nhello\r\n",
    "space behind the size": b"5 \r\nhello\r\n",
    "space in the size": b"1 0\r\n0123456789abcdef\r\n",
    "size ended by LF": b"5\nhello\r\n",
    "size ended by CR": b"5\rhello\r\n",
    "size ended by LF before a CRLF": b"5\n\r\nhello\r\n",
    "NUL in the size": b"5\0\r\nhello\r\n",
    "no CRLF behind the data": b"5\r\nhello0\r\n\r\n",
    "LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "CR behind the data": b"5\r\nhello\r0\r\n\r\n",
    "LF CR behind the data": b"5\r\nhello\n\r0\r\n\r\n",
    "more data than the size": b"5\r\nhello!\r\n0\r\n\r\n",
    "less data than the size": b"6\r\nhello\r\n0\r\n\r\n",
    "overlong size line": b"5;" + b"x" * SIZE_LINE_LIMIT + b"\r\nhello\r\n",
    "endless size line": b"5;" + b"x" * 3 * SIZE_LINE_LIMIT,
    "LF in an extension": b"5;a\nb\r\nhello\r\n",
    "CR in an extension": b"5;a\rb\r\nhello\r\n",
    "NUL in an extension": b"5;a\0b\r\nhello\r\n",
    "SOH in an extension": b"5;a\x01b\r\nhello\r\n",
    "ESC in an extension": b"5;a\x1bb\r\nhello\r\n",
    "DEL in an extension": b"5;a\x7fb\r\nhello\r\n",
    "one endless trailer": b"0\r\nX: " + b"x" * TRAILER_LIMIT,
    "one trailer too large": b"0\r\nX: " + b"x" * TRAILER_LIMIT + b"\r\n\r\n",
    "endless trailers": b"0\r\n" + b"X: y\r\n" * (TRAILER_LIMIT // 6 + 1),
    "LF in a trailer": b"0\r\nX: a\nY: b\r\n\r\n",
    "CR in a trailer": b"0\r\nX: a\rb\r\n\r\n",
    "NUL in a trailer": b"0\r\nX: a\0b\r\n\r\n",
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
    "a trailer without a name": b"0\r\n: a\r\n\r\n",
    "a trailer that is a request": b"0\r\nGET /x: HTTP/1.1\r\n\r\n",
    "space before a trailer's colon": b"0\r\nX : a\r\n\r\n",
    "a folded trailer": b"0\r\nX: a\r\n b: c\r\n\r\n",
    "a trailer with a name beyond ASCII": b"0\r\n\xe9: a\r\n\r\n",
}


@pytest.mark.parametrize("wire", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("cut", [lambda wire: [wire], bytewise], ids=["whole", "byte by byte"])
def test_framing_that_others_could_read_otherwise_is_refused(wire: bytes, cut: Callable[[bytes], list[bytes]]) -> None:
    for before in (b"", b"1\r\n!\r\n"):
        with pytest.raises(WireError) as caught:
            drive(ChunkedDecoder(), cut(before + wire))
        assert caught.value.kind is Wrong.BAD_FRAMING


def test_the_largest_trailer_section_is_read_however_it_comes() -> None:
    wire = b"0\r\n" + LONGEST_TRAILER + b"\r\n\r\n"
    for pieces in ([wire], [wire[:-1], wire[-1:]], [wire[:-2], wire[-2:]], [wire[:-3], wire[-3:]]):
        decoder = ChunkedDecoder()
        assert drive(decoder, pieces) == (b"", b"")
        assert decoder.complete


def test_what_a_size_line_may_hold_back_is_bounded() -> None:
    decoder = ChunkedDecoder()
    for taken in range(10 * SIZE_LINE_LIMIT):
        try:
            decoder.feed(b"5" if not taken else b";")
        except WireError:
            break
    assert taken <= SIZE_LINE_LIMIT + 2


@pytest.mark.parametrize(
    "wire",
    [b"5\n", b"5;\n", b"5\0", b"5\rh", b"5;a\x01", b"0\r\n\n", b"0\r\nX: a\n", b"0\r\n\0", b"0\r\nX\r\r", b"0\n\n"],
)
@pytest.mark.parametrize("before", [b"", b"5\r\nhello\r\n"])
def test_a_line_that_no_byte_can_mend_is_not_waited_for(before: bytes, wire: bytes) -> None:
    for pieces in ([before + wire], bytewise(before + wire)):
        with pytest.raises(WireError):
            drive(ChunkedDecoder(), pieces)


@pytest.mark.parametrize("wire", [b"5", b"5\r", b"5;a=\t", b"5;a\r", b"0\r\n\r", b"0\r\nX: a\r"])
def test_a_line_that_may_still_end_is_waited_for(wire: bytes) -> None:
    for pieces in ([wire], bytewise(wire)):
        assert drive(ChunkedDecoder(), pieces) == (b"", b"")


VERBATIM = {
    b"5\r\nhello\r\n": True,
    b"0005\r\nhello\r\n": True,
    b"0000000000000005\r\nhello\r\n": True,
    b"2\r\n\r\n\r\n": True,
    b"5\r\nhello\r\n5\r\nhello\r\n": False,
    b"5\r\nhello\r\n0\r\n\r\n": False,
    b"0\r\n\r\n": False,
    b"5\r\nhello": False,
    b"5\r\nhello\r": False,
    b"5;a=b\r\nhello\r\n": False,
    b"5\r\nhell": False,
    b"": False,
}


@pytest.mark.parametrize(("read", "verbatim"), VERBATIM.items())
def test_a_read_is_verbatim_if_it_is_exactly_one_plain_chunk(read: bytes, verbatim: bool) -> None:
    decoder = ChunkedDecoder()
    decoder.feed(read)
    assert decoder.verbatim is verbatim


def test_a_read_that_looks_like_a_chunk_inside_of_one_is_not_verbatim() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"14\r\n") == b""
    assert decoder.feed(b"5\r\nhello\r\n") == b"5\r\nhello\r\n"
    assert not decoder.verbatim


def test_a_read_that_looks_like_a_chunk_behind_half_a_size_is_not_verbatim() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"1")
    assert decoder.feed(b"5\r\n0123456789abcdefghijk\r\n") == b"0123456789abcdefghijk"
    assert not decoder.verbatim


def test_verbatim_holds_for_one_read_only() -> None:
    decoder = ChunkedDecoder()
    found = []
    for read in (b"5\r\nhello\r\n", b"5\r\nhe", b"llo\r\n", b"5\r\nhello\r\n", LAST_CHUNK):
        decoder.feed(read)
        found.append(decoder.verbatim)
    assert found == [True, False, False, True, False]
    assert decoder.complete


@pytest.mark.parametrize("decoder", [LengthDecoder(9), EofDecoder()])
def test_only_chunks_are_ever_verbatim(decoder: Decoder) -> None:
    decoder.feed(b"5\r\nhello\r\n")
    assert not decoder.verbatim


@STEADY
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.data())
def test_chunks_that_were_written_are_read_back_in_any_pieces(payloads: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(map(chunk, payloads)) + LAST_CHUNK
    cuts = sorted(data.draw(st.sets(st.integers(0, len(wire)), max_size=6)))
    pieces = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    decoder = ChunkedDecoder()
    assert drive(decoder, pieces) == (b"".join(payloads), b"")
    assert decoder.complete
    assert by_h11(wire) == b"".join(payloads)


@given(st.binary(min_size=1, max_size=300))
@STEADY
def test_one_written_chunk_is_read_verbatim(payload: bytes) -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(chunk(payload)) == payload
    assert decoder.verbatim


@STEADY
@given(st.text(alphabet="05aA;+x_ \t\r\n\0g", max_size=24).map(str.encode), st.data())
def test_no_cut_changes_the_verdict_on_any_bytes(wire: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(wire)))
    assert verdict([wire]) == verdict([wire[:at], wire[at:]]) == verdict(bytewise(wire))


def verdict(pieces: Iterable[bytes]) -> tuple[bytes, bytes, bool] | Wrong:
    decoder = ChunkedDecoder()
    try:
        payload, excess = drive(decoder, pieces)
    except WireError as error:
        return error.kind
    return payload, excess, decoder.complete
