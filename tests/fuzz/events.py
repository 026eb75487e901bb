"""Server-sent events: nothing is lost between events, and what was written as one is read as one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from protocols import sse
from protocols.openai.ends import says_end
from protocols.openai.usage import find_usage, usage_of_answer, usage_of_chunk
from tests.fuzz.cutting import cut, pieces, uncut

WORDS = [
    *(
        b"data: ",
        b"data:",
        b"data",
        b"event: error\n",
        b"id: 1\n",
        b": hello\n",
        b"\n\n",
        b"\r\n\r\n",
        b"\r\r",
        b"\n",
        b"\r",
        b"[DONE]",
    ),
    *(
        b'{"choices":[{"index":0,"delta":{}}]}',
        b'"usage":{"prompt_tokens":1,"completion_tokens":2}',
        b'"usage":null',
        b'"usage"',
    ),
    *(b'"finish_reason":"stop"', b"{", b"}", b"[", b"]", b",", b'"', b"\xef\xbb\xbf", b"\\", b"1e999", b"-1"),
]
SEEDS = [
    uncut(
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\ndata: [DONE]\n\n',
        9,
        30,
    ),
    uncut(
        b'data: {"choices":[{"index":0,"finish_reason":"stop"}],"usage":null}\r\n\r\n: x\r\rdata: a\ndata: b\n\nid: 1',
        40,
        72,
        76,
    ),
    uncut(b'{"id":"x","choices":[{}],"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":1}}}'),
]


def opened() -> AbstractContextManager[Callable[[bytes], None]]:
    return nullcontext(check)


def check(data: bytes) -> None:
    places, payload = cut(data)
    events = sse.split_events(payload)
    border = sse.last_border(payload)
    assert b"".join(events) == payload[:border]
    for event in events:
        assert sse.last_border(event) == len(event)
        found = sse.data_of(event)
        if found is not None:
            usage_of_chunk(found)
            if b"\n" not in found and b"\r" not in found:
                assert sse.data_of(sse.data_event(found)) == found
    says_end(payload)
    find_usage(payload)
    usage_of_answer(payload)
    in_pieces(payload, border, pieces(payload, places))


def in_pieces(payload: bytes, border: int, parts: list[bytes]) -> None:
    """As a sink takes them: what waits for its end is at most a line end more than of the whole."""
    tail = written = b""
    for part in parts:
        tail += part
        end = sse.last_border(tail)
        written, tail = written + tail[:end], tail[end:]
    assert written + tail == payload
    assert 0 <= border - len(written) <= 2
    assert payload[len(written) : border].strip(b"\r\n") == b""
