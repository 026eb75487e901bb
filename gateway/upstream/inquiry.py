"""A request of the gateway's own to a peer, and its whole answer.

Owns `ask`, `read` and `knock`. It refuses clients' calls (`gateway.proxy`) and what the answer means (`discovery`,
`health`, `load`).
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from gateway.call import Exchange, Sink
from gateway.errors import Fault
from gateway.upstream.http import Target
from gateway.within import within
from protocols.http1.response import ResponseHead

#: Bytes of an answer that are taken; the longest list of models in the wild is under 1 MiB.
ANSWER_LIMIT: Final = 4 << 20


class InquiryError(Exception):
    """The peer gave no usable answer; the text says why, for the log. *late*: it took the request, at least."""

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


class _Heard(NamedTuple):
    """An answer."""

    status: int
    body: bytes


class _Inquiry:
    """Collects one answer (a `gateway.call.Receiver`)."""

    __slots__ = ("_body", "_future", "_limit", "_size", "exchange", "reused", "sink", "status")

    def __init__(self, future: asyncio.Future[_Heard], limit: int) -> None:
        self.exchange: Exchange | None = None
        self.sink: Sink | None = None
        self.reused = False
        self.status = 0
        self._future = future
        self._limit = limit
        self._body: list[bytes] = []
        self._size = 0

    def sent(self) -> None:
        """Nothing waits for this but the caller's timeout."""

    def whole(self, head: ResponseHead, body: bytes) -> None:
        self.head(head)
        self.feed(body)
        self.end()

    def head(self, head: ResponseHead) -> None:
        self.status = head.status

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        self._size += len(payload)
        if self._size <= self._limit:
            self._body.append(payload)
        elif self.exchange is not None:
            self.exchange.abort()
            self._finish(InquiryError("the answer is too large"))

    def end(self) -> None:
        self._finish(_Heard(self.status, b"".join(self._body)))

    def fail(self, fault: Fault) -> None:
        self._finish(InquiryError(fault.message))

    def crashed(self) -> None:
        self._finish(InquiryError("the gateway failed to read the answer"))

    @property
    def answered(self) -> bool:
        return self._future.done() and not self._future.cancelled()

    async def answer(self) -> _Heard:
        """The whole answer. Raises `InquiryError`."""
        return await self._future

    def _finish(self, outcome: _Heard | InquiryError) -> None:
        if self._future.done():
            return
        if isinstance(outcome, InquiryError):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)


async def ask(target: Target, path: bytes, seconds: float) -> bytes:
    """GET *path* from *target* within so many *seconds*: the body of a 200 answer. Raises `InquiryError`."""
    return _body_of(await _inquire(target, path, seconds, b"accept: application/json\r\n\r\n"))


async def read(target: Target, path: bytes, seconds: float, limit: int) -> bytes:
    """The body of a 200 answer to GET *path*, at most *limit* bytes, on a connection that ends with it.

    Raises `InquiryError`.
    """
    return _body_of(await _inquire(target, path, seconds, b"connection: close\r\n\r\n", limit))


async def knock(target: Target, path: bytes, seconds: float) -> int:
    """The status of the answer to GET *path*, on a connection that ends with it. Raises `InquiryError`."""
    status, _ = await _inquire(target, path, seconds, b"connection: close\r\n\r\n")
    return status


def _body_of(heard: _Heard) -> bytes:
    if heard.status != 200:
        raise InquiryError(f"the answer's status is {heard.status}")
    return heard.body


async def _inquire(target: Target, path: bytes, seconds: float, lines: bytes, limit: int = ANSWER_LIMIT) -> _Heard:
    inquiry = _Inquiry(asyncio.get_running_loop().create_future(), limit)
    try:
        async with within(seconds):
            # A fresh one: an idle one may be worn out, and nothing is retried here.
            connection = await target.pool.open()
            connection.send(inquiry, target.start(b"GET", path) + target.own_lines + lines)
            return await inquiry.answer()
    except TimeoutError:
        raise InquiryError("no answer in time", late=inquiry.exchange is not None) from None
    except OSError as error:
        raise InquiryError(f"no connection: {error.strerror or type(error).__name__}") from None
    finally:
        if inquiry.exchange is not None and not inquiry.answered:
            inquiry.exchange.abort()
