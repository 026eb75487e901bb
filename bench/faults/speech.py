"""What the evil clients and the evil upstreams say to each other through the gateway, as bytes.

Owns requests, answers and events. Every byte that matters is made from the id of its call, so that bytes of another
call are seen wherever they turn up. It refuses sockets and time, and to say which of them are sent when (`deeds`,
`visits`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

#: The key that the clients present; bench/faults/gateway.toml names it.
KEY: Final = "sk-faults-2b7e151628aed2a6abf7158809cf4f3c"
CHAT: Final = "/v1/chat/completions"
#: A door whose calls must not be repeated once they were sent: they have an effect.
RESPONSES: Final = "/v1/responses"
#: The header in which a request tells the upstream what to do with it.
TOLD: Final = "x-fault"

DONE: Final = b"data: [DONE]\n\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
#: Bytes of a request's body beyond which its upstream only knows its head and its length.
TEXT_LIMIT: Final = 1 << 20


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request tells its upstream. Times are seconds."""

    id: str
    deed: str
    #: the number of the visit; the tokens that the upstream bills
    number: int
    stream: bool = False
    #: events before whatever is done to the answer
    count: int = 0
    #: characters of each event, or of the whole answer
    size: int = 40
    #: between two steps of the answer
    pause: float = 0.0
    #: characters of the request's message
    asked: int = 40
    framing: str = "chunked"


def text(id: str, part: int, size: int) -> str:
    """*size* characters or more that only the call *id* has."""
    one = f"{id}/{part} "
    return one * (size // len(one) + 1)


def messages(ask: Ask) -> bytes:
    return b'[{"role":"user","content":"%s"}]' % text(ask.id, 0, ask.asked).encode()


def body(ask: Ask, model: str) -> bytes:
    """The request's body."""
    stream = b',"stream":true' if ask.stream else b""
    return b'{"model":"%s","messages":%s%s,"user":"%s"}' % (model.encode(), messages(ask), stream, ask.id.encode())


def request(
    ask: Ask,
    model: str,
    door: str = CHAT,
    headers: Sequence[str] = (),
    *,
    payload: bytes | None = None,
    chunked: bool = False,
    key: str = KEY,
) -> bytes:
    """A request as an ordinary client writes it, with *headers* last."""
    payload = body(ask, model) if payload is None else payload
    lines = [
        f"POST {door} HTTP/1.1",
        "Host: gateway.test",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(payload)}",
        f"X-Request-Id: {ask.id}",
        f"{TOLD}: {msgspec.json.encode(ask).decode()}",
        *headers,
    ]
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    return head + (b"".join(chunks(payload)) + LAST_CHUNK if chunked else payload)


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def chunks(payload: bytes, size: int = 8192) -> Iterator[bytes]:
    return (chunk(payload[at : at + size]) for at in range(0, len(payload), size))


# --- answers ---


def usage(ask: Ask) -> bytes:
    """The tokens that are billed: the visit's number, so that a bill of another call is seen."""
    return b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
        ask.number,
        max(ask.count, 1),
        ask.number + max(ask.count, 1),
    )


def whole(ask: Ask) -> bytes:
    """The body of a sound answer that is no stream."""
    return (
        b'{"id":"%s","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
        b'{"role":"assistant","content":"%s"},"finish_reason":"stop"}],"usage":%s}'
        % (ask.id.encode(), text(ask.id, 1, ask.size).encode(), usage(ask))
    )


def _chunk_of(ask: Ask, choices: bytes, more: bytes = b"") -> bytes:
    return b'data: {"id":"%s","object":"chat.completion.chunk","created":1,"model":"m","choices":[%b]%b}\n\n' % (
        ask.id.encode(),
        choices,
        more,
    )


def event(ask: Ask, part: int) -> bytes:
    content = text(ask.id, part, ask.size).encode()
    return _chunk_of(ask, b'{"index":0,"delta":{"content":"%b"},"finish_reason":null}' % content)


def events(ask: Ask) -> list[bytes]:
    """The events of a sound stream up to its [DONE]; the client gets these and nothing else."""
    last = _chunk_of(ask, b'{"index":0,"delta":{},"finish_reason":"stop"}')
    return [*(event(ask, part) for part in range(1, ask.count + 1)), last]


def usage_event(ask: Ask) -> bytes:
    """What the gateway asks for and withholds from the client, who did not ask."""
    return _chunk_of(ask, b"", b',"usage":%b' % usage(ask))


def stream(ask: Ask) -> bytes:
    """All that a client gets of a sound stream."""
    return b"".join(events(ask)) + DONE


def error(ask: Ask, message: str = "the upstream says no") -> bytes:
    return b'{"error":{"message":"%s","type":"server_error","param":null,"code":"%s"}}' % (
        message.encode(),
        ask.id.encode(),
    )


def head(status: int, type: str, *lines: str) -> bytes:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", "Server: evil", f"Content-Type: {type}", *lines, "", ""]).encode(
        "ascii"
    )


def framing_line(framing: str, length: int) -> str:
    """The line of the head that says how the body ends: "chunked", "length" or "close"."""
    return {
        "chunked": "Transfer-Encoding: chunked",
        "length": f"Content-Length: {length}",
        "close": "Connection: close",
    }[framing]
