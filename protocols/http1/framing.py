"""Body framing: where a body ends, and what of the bytes is payload (RFC 9112 sections 6 and 7).

Owns the decoders of bodies, the same for requests and responses, and the encoding of one chunk. It refuses to know
what the payload is. A decoder is made for each body by the owner of the connection.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from protocols.http1.errors import WireError, Wrong

CRLF: Final = b"\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

#: A chunk-size line is hex digits and perhaps an extension; nobody sends more, hostile peers do (CVE-2024-22019).
SIZE_LINE_LIMIT: Final = 256
#: 16 hex digits are 2^64 - 1; more can only be leading zeros or an overflow.
SIZE_DIGITS_LIMIT: Final = 16
#: Trailers are read and dropped (RFC 9110 section 6.5.1); this bounds what is read.
TRAILER_LIMIT: Final = 16 << 10

#: What stands in no field and no extension: every control character but the tab.
CONTROLS: Final = bytes(c for c in range(32) if c != 9) + b"\x7f"
_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:")
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
#: The usual sizes of events, as peers spell them: a look-up instead of a parse. 0 is not among them.
_SIZES: Final = {spelling % size: size for size in range(1, 2048) for spelling in (b"%x", b"%X")}


class Decoder(Protocol):
    """Takes the body's bytes as they come."""

    #: True once the body is over, by its own framing.
    complete: bool
    #: What came after the end of the body: a pipelined request, or an upstream that must not be reused.
    excess: bytes
    #: True if the last `feed` was given exactly one chunk: its bytes may be relayed as they are.
    verbatim: bool

    def feed(self, data: bytes) -> bytes:
        """Return the payload in *data*; raises `WireError`."""

    def at_eof(self) -> bool:
        """Whether the end of the connection is the proper end of the body now."""


class LengthDecoder:
    """A body of a length known from the head."""

    __slots__ = ("complete", "excess", "left", "verbatim")

    def __init__(self, length: int) -> None:
        self.left = length
        self.complete = length == 0
        self.excess = b""
        self.verbatim = False

    def feed(self, data: bytes) -> bytes:
        left = self.left - len(data)
        if left > 0:
            self.left = left
            return data
        payload = data
        if left < 0:
            payload, self.excess = data[: self.left], data[self.left :]
        self.left = 0
        self.complete = True
        return payload

    def at_eof(self) -> bool:
        return self.complete


class EofDecoder:
    """A body that ends with the connection. Whether it is whole cannot be told from the framing."""

    __slots__ = ("complete", "excess", "verbatim")

    def __init__(self) -> None:
        self.complete = False
        self.excess = b""
        self.verbatim = False

    def feed(self, data: bytes) -> bytes:
        return data

    def at_eof(self) -> bool:
        self.complete = True
        return True


class ChunkedDecoder:
    """A chunked body. The usual read, exactly one whole chunk, takes one look-up and one slice."""

    __slots__ = ("_held", "_left", "_overhead", "_part", "complete", "excess", "verbatim")

    SIZE = 0
    DATA = 1
    TRAILER = 2

    def __init__(self) -> None:
        self.complete = False
        self.excess = b""
        self.verbatim = False
        self._part = self.SIZE
        self._left = 0  # payload bytes still to come in this chunk, and then its CRLF (-2..0)
        self._held = b""  # an incomplete size line or trailer section
        self._overhead = 0

    def feed(self, data: bytes) -> bytes:
        if self._part == 0 and not self._held:  # SIZE, and nothing left over
            size_end = data.find(CRLF, 0, SIZE_DIGITS_LIMIT + 2)
            if size_end > 0:
                size = _SIZES.get(data[:size_end]) or _plain_size(data[:size_end])
                if size > 0 and len(data) == size_end + size + 4 and data.endswith(CRLF):
                    self.verbatim = True
                    return data[size_end + 2 : -2]
        self.verbatim = False
        return self._feed_parts(data)

    def at_eof(self) -> bool:
        return self.complete

    @property
    def announced(self) -> int:
        """Payload bytes of the present chunk that are still to come."""
        return max(self._left, 0)

    def _feed_parts(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
            self._held = b""
        payload: list[bytes] = []
        at = 0
        end = len(data)
        while at < end:
            if self.complete:
                self.excess = data[at:]
                break
            if self._part == self.DATA:
                at = self._take_data(data, at, payload)
            elif self._part == self.SIZE:
                at = _take_whole_chunks(data, at, payload)
                if at < end:
                    at = self._take_size(data, at)
            else:
                at = self._take_trailer(data, at)
            if at < 0:
                break
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _take_data(self, data: bytes, at: int, payload: list[bytes]) -> int:
        if self._left > 0:
            piece = data[at : at + self._left]
            payload.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        # The chunk's own CRLF: it may come in two reads.
        expected = 13 if self._left == 0 else 10
        if data[at] != expected:
            raise WireError(Wrong.BAD_FRAMING, "a chunk does not end where its size says")
        if self._left == 0:
            self._left = -1
        else:
            self._left = 0
            self._part = self.SIZE
        return at + 1

    def _take_size(self, data: bytes, at: int) -> int:
        line_end = data.find(CRLF, at, at + SIZE_LINE_LIMIT + 2)
        if line_end < 0:
            if len(data) - at > SIZE_LINE_LIMIT + 1:  # the line's CR may have come, and its LF not
                raise WireError(Wrong.BAD_FRAMING, "a chunk size line is too long")
            return self._hold(data[at:])
        line = data[at:line_end]
        digits, semicolon, extension = line.partition(b";")
        if semicolon:
            if extension.translate(None, CONTROLS) != extension:
                raise WireError(Wrong.BAD_FRAMING, "a control character in a chunk extension")
            digits = digits.rstrip(b" \t")
        size = _plain_size(digits)
        if size < 0:
            raise WireError(Wrong.BAD_FRAMING, "a chunk size is not a plain hexadecimal number")
        self._left = size
        self._part = self.DATA if size else self.TRAILER
        self._overhead = 0
        return line_end + 2

    def _hold(self, line: bytes) -> int:
        """Wait for the end of *line*, unless it has what no end can mend: a bare LF, behind which nothing may come."""
        begun = line.removesuffix(b"\r")
        if begun.translate(None, CONTROLS) != begun:
            raise WireError(Wrong.BAD_FRAMING, "a control character in a chunk's size line or in a trailer")
        self._held = line
        return -1

    def _take_trailer(self, data: bytes, at: int) -> int:
        line_end = data.find(CRLF, at)
        if line_end < 0:
            if len(data) - at + self._overhead > TRAILER_LIMIT:
                raise WireError(Wrong.BAD_FRAMING, "the trailer section is too large")
            return self._hold(data[at:])
        if line_end == at:
            self.complete = True
        line = data[at:line_end]
        if line.translate(None, CONTROLS) != line:
            raise WireError(Wrong.BAD_FRAMING, "a control character in a trailer")
        if line and not _FIELD_NAME.match(line):  # dropped all the same, but another would read a request in it
            raise WireError(Wrong.BAD_FRAMING, "a trailer is not name: value")
        self._overhead += line_end + 2 - at
        if self._overhead > TRAILER_LIMIT:
            raise WireError(Wrong.BAD_FRAMING, "the trailer section is too large")
        return line_end + 2


def _take_whole_chunks(data: bytes, at: int, payload: list[bytes]) -> int:
    """Take the chunks from *at* on that are whole and of a usual size; return where the first other one begins.

    A read of a fast stream holds thousands of them.
    """
    while True:
        line_end = data.find(CRLF, at, at + SIZE_DIGITS_LIMIT + 2)
        if line_end < 0:
            return at
        size = _SIZES.get(data[at:line_end])
        if size is None:
            return at
        start = line_end + 2
        end = start + size
        if data[end : end + 2] != CRLF:
            return at
        payload.append(data[start:end])
        at = end + 2


def _plain_size(digits: bytes) -> int:
    """The number that *digits* spell, or -1: int() alone would take `+5`, `0x5`, `1_0` and spaces."""
    if not digits or len(digits) > SIZE_DIGITS_LIMIT or not _HEX.issuperset(digits):
        return -1
    return int(digits, 16)


def chunk(payload: bytes) -> bytes:
    """*payload* (not empty) as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
