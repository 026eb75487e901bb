"""A request's body on its way in: its framing, its size limit and its share of the byte budget.

Owns `take_budget` and `BodyIntake`. It refuses sockets and deadlines (`gateway.downstream`, which makes one for each
body that does not come with its head).
"""

from __future__ import annotations

from typing import Final, Protocol

from gateway.call import Call
from gateway.errors import Fault, Kind, Side, refusal
from protocols.http1.errors import WireError
from protocols.http1.framing import ChunkedDecoder, Decoder, LengthDecoder

#: Bytes on the wire that chunk framing may cost beyond the payload, and its multiple of the payload: what exceeds both
#: sends framing, not a body (CVE-2024-22019).
OVERHEAD_LIMIT: Final = 16 << 10
OVERHEAD_SHARE: Final = 4
#: Bytes of a body that some clients send with a GET: read and ignored, and too few to wear the budget out.
OPERATION_BODY_LIMIT: Final = 8 << 10


class Limits(Protocol):
    """Bytes that a whole body may have, by whether its endpoint takes images or sound."""

    body: int
    media_body: int


def take_budget(call: Call, size: int, limits: Limits, announced: int = 0) -> Fault | None:
    """Take *size* more body bytes for *call*, behind which so many are *announced*; nothing is taken with a fault."""
    if call.operation is not None:
        limit = OPERATION_BODY_LIMIT
    else:
        limit = limits.media_body if call.endpoint.media else limits.body
    held = call.budget_held + size
    if held + announced > limit:
        return Fault(Side.CLIENT, Kind.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
    budget = call.budget
    used = budget.used + size
    if used > budget.limit:
        return Fault(Side.GATEWAY, Kind.OUT_OF_BUDGET, "Too many request bodies are held; try again soon.")
    budget.used = used
    call.budget_held = held
    return None


class BodyIntake:
    """One body that is still coming. A length that is known is taken from the budget at once."""

    __slots__ = ("_call", "_decoder", "_limits", "_parts", "_size", "_wire")

    def __init__(self, call: Call, limits: Limits) -> None:
        self._call = call
        self._limits = limits
        request = call.request
        self._decoder: Decoder = ChunkedDecoder() if request.chunked else LengthDecoder(request.length)
        self._parts: list[bytes] = []
        self._size = 0
        self._wire = 0

    def feed(self, data: bytes) -> Fault | None:
        """Take bytes as they come; a fault ends the body."""
        try:
            payload = self._decoder.feed(data)
        except WireError as error:
            return refusal(error)
        self._wire += len(data)
        self._size += len(payload)
        if self._wire > OVERHEAD_SHARE * self._size + OVERHEAD_LIMIT:
            return Fault(Side.CLIENT, Kind.BAD_REQUEST, "The body is nearly all framing.")
        if payload:
            self._parts.append(payload)
        if isinstance(self._decoder, ChunkedDecoder):
            # A chunk that will be too large is refused by its size line: its sender may wait to hear so.
            return take_budget(self._call, len(payload), self._limits, self._decoder.announced)
        return None

    @property
    def size(self) -> int:
        """Payload bytes so far."""
        return self._size

    @property
    def complete(self) -> bool:
        return self._decoder.complete

    @property
    def body(self) -> bytes:
        """The whole body, once `complete`."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    @property
    def excess(self) -> bytes:
        """What came behind the body: the next request."""
        return self._decoder.excess
