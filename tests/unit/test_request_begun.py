"""A head that comes in pieces gets the verdict that it would get whole, as soon as no byte can mend it."""

from __future__ import annotations

import pytest

from protocols.http1.errors import WireError, Wrong
from protocols.http1.fields import FieldTable
from protocols.http1.request import TARGET_LIMIT, RequestHeads, after_empty_lines

LIMIT = 2 * TARGET_LIMIT
LINE = b"GET / HTTP/1.1\r\nHost: a\r\n"


def verdict(data: bytes, *ends: int) -> tuple[Wrong | None, int]:
    """What is said about *data* when it comes in pieces that end at *ends*, and after how many bytes."""
    heads = RequestHeads(FieldTable(), LIMIT)
    scan = 0
    for end in (*ends, len(data)):
        piece = data[:end]
        try:
            if heads.read(piece, scan) is not None:
                return None, end
            heads.judge_begun(piece, scan)
        except WireError as error:
            return error.kind, end
        scan = max(0, end - 3)
    return None, len(data)


#: What is wrong, and after how many bytes that is certain.
HOPELESS: dict[str, tuple[bytes, Wrong, int]] = {
    "LF first of all": (b"\n", Wrong.BAD_HEAD, 1),
    "LF behind the request line": (b"GET / HTTP/1.1\nHost: a", Wrong.BAD_HEAD, 15),
    "LF behind a field": (LINE + b"X: a\nY", Wrong.BAD_HEAD, len(LINE) + 5),
    "LF CR": (LINE + b"X: a\n\r", Wrong.BAD_HEAD, len(LINE) + 5),
    "a version of another, and LF": (b"GET / HTTP/2.0\nHost: a", Wrong.BAD_HEAD, 15),
    "a target without end": (b"GET /" + b"a" * LIMIT, Wrong.TARGET_TOO_LONG, LIMIT + 1),
    "a target of no use, then LF": (b"GET /" + b"a" * LIMIT + b"\n", Wrong.TARGET_TOO_LONG, LIMIT + 1),
    "a method without end": (b"A" * 2 * LIMIT, Wrong.BAD_METHOD, LIMIT + 1),
    "a method nobody serves": (b"PURGE /" + b"a" * LIMIT, Wrong.BAD_METHOD, LIMIT + 1),
    "a name without end": (LINE + b"X" * LIMIT, Wrong.HEAD_TOO_LARGE, LIMIT + 1),
    "a value without end": (LINE + b"X: " + b"a" * LIMIT, Wrong.HEAD_TOO_LARGE, LIMIT + 1),
    "fields without end": (LINE + b"X: a\r\n" * LIMIT, Wrong.HEAD_TOO_LARGE, LIMIT + 1),
    "a body with LF behind a head that is too large": (
        LINE + b"X: " + b"a" * LIMIT + b"\r\n\r\n{\n}", Wrong.HEAD_TOO_LARGE, LIMIT + 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "kind", "certain"), HOPELESS.values(), ids=HOPELESS.keys())
def test_a_head_that_no_byte_can_mend_is_refused_as_soon_as_that_is_certain(
    data: bytes, kind: Wrong, certain: int
) -> None:
    assert verdict(data)[0] is kind
    assert verdict(data, *range(1, len(data))) == (kind, certain)
    for cut in {1, 2, len(data) // 2, len(data) - 1}:
        assert verdict(data, cut)[0] is kind, cut


@pytest.mark.parametrize("data", [b"", b"G", b"\r", LINE, LINE + b"\r", LINE + b"X: " + b"a" * (LIMIT - len(LINE) - 3)])
def test_a_head_that_may_still_become_one_is_waited_for(data: bytes) -> None:
    RequestHeads(FieldTable(), LIMIT).judge_begun(data)


@pytest.mark.parametrize(
    ("data", "rest"),
    [(b"", b""), (b"\r\n", b""), (b"\r\n\r\nGET", b"GET"), (b"\r", b"\r"), (b"\r\n\r", b"\r"), (b"\n", b"\n")],
)
def test_empty_lines_before_a_request_are_skipped(data: bytes, rest: bytes) -> None:
    assert after_empty_lines(data) == rest


def test_skipping_a_megabyte_of_empty_lines_does_not_copy_it_for_each() -> None:
    """Its square would be 250 GB, and minutes; the test would not end in its time."""
    assert after_empty_lines(b"\r\n" * (1 << 19) + b"GET") == b"GET"
