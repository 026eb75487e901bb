"""The record of one client request and its answer, and the faces that its life is written against.

Owns `Call`, `Attempt`, `Phase` and the interfaces around them (`Client`, `Exchange`, `Sink`, `Receiver`, `Backend`,
`Lifecycle`, `Operation`). It refuses policy (that is `proxy`) and bytes (that is `relay`). A Call is made by `front`
when a request's head is complete; an Attempt by `proxy`, one for each try at a peer.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from gateway.clock import NEVER, monotonic_ns
from protocols.http1.fields import Role
from protocols.http1.state import moves_to

if TYPE_CHECKING:
    from gateway.admission.budget import ByteBudget
    from gateway.admission.keys import Principal
    from gateway.errors import Fault
    from gateway.routing.endpoints import Endpoint
    from gateway.routing.peer import Peer
    from gateway.routing.route import Route
    from gateway.translation import Translation
    from protocols.dialect import Usage
    from protocols.http1.request import Request
    from protocols.http1.response import ResponseHead
    from protocols.openai.body import Fields


class Phase(IntEnum):
    """How far a call has come. The value's letter in `PHASE_LETTERS` is the second letter of its ending."""

    ADMITTING = 0
    CONNECTING = 1
    WAITING = 2
    PROBATION = 3
    RELAYING = 4
    SETTLED = 5


#: R: request, C: connect, H: waiting for the answer's head, P: head seen, nothing relayed, D: relaying data.
PHASE_LETTERS: Final = "RCHPD"


def _to(*phases: Phase) -> dict[Phase, Phase]:
    return {phase: phase for phase in phases}


# Bound once: reading a member from its enum class costs ten times a global (0.13 us).
ADMITTING, CONNECTING, WAITING, PROBATION, RELAYING, SETTLED = Phase

#: From -> to -> to. A retry goes back to CONNECTING or WAITING; SETTLED is terminal. A missing key is a bug.
PHASE_MOVES: Final[dict[Phase, dict[Phase, Phase]]] = {
    ADMITTING: _to(CONNECTING, WAITING, SETTLED),
    CONNECTING: _to(CONNECTING, WAITING, SETTLED),
    WAITING: _to(CONNECTING, WAITING, PROBATION, RELAYING, SETTLED),
    PROBATION: _to(CONNECTING, WAITING, RELAYING, SETTLED),
    RELAYING: _to(SETTLED),
    SETTLED: _to(),
}
TO_WAITING, TO_RELAYING, TO_SETTLED = (moves_to(PHASE_MOVES, phase) for phase in (WAITING, RELAYING, SETTLED))


class Client(Protocol):
    """The client's side of a call, as the relay needs it (made by `downstream`)."""

    address: str
    #: True where the answer may be chunked (HTTP/1.1).
    chunked: bool
    #: True while the connection may live on after this answer; whoever ends the answer by closing sets it False.
    reusable: bool

    def answer(self, data: bytes) -> None:
        """Send an answer that is whole, and go on as `answered` says."""

    def begin(self, data: bytes) -> None:
        """Send the answer's first bytes, its head among them."""

    @property
    def untaken(self) -> int:
        """Bytes written for it whose receipt it has not acknowledged."""

    def send(self, data: bytes) -> None:
        """Send more; a dead socket swallows it."""

    def answered(self) -> None:
        """The answer is complete: go on to the next request, or close."""

    def crashed(self) -> None:
        """A step raised: say so if nothing was said yet, and close."""

    def cut(self, *, told: bool) -> None:
        """The answer is broken: end the connection so that the client cannot take it for complete.

        *told*: what was sent says so itself.
        """


class Answer(NamedTuple):
    """What an operation of the gateway itself says; *lines* are whole lines of its head."""

    status: int
    content_type: bytes
    body: bytes
    lines: bytes = b""


#: Answers a call without a backend: health, metrics, models.
Operation = Callable[["Call"], "Answer | Fault"]


class Exchange(Protocol):
    """One running request to a peer. Every method is synchronous and may be called in any state."""

    def abort(self) -> None:
        """Stop at once and free everything. Nothing is reported to the attempt afterwards."""

    def leave(self) -> None:
        """The attempt has all that it wants: what still comes soon is let go, and nothing is reported afterwards."""

    def pause(self) -> None:
        """Deliver no more payload soon: the client reads slowly."""

    def resume(self) -> None:
        """Go on after `pause`."""


class Sink(Protocol):
    """Where payload bytes go once the commit point is passed."""

    #: Coarse monotonic seconds of the last payload.
    at_last: float
    #: Whether it relays events or lines, of which each is whole.
    is_stream: bool

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        """Relay *payload*. *framed* is the same payload as exactly one HTTP chunk, if it came so."""

    def end(self) -> None:
        """The payload is complete: end the answer honestly."""

    def fail(self, fault: Fault) -> None:
        """The payload broke off: tell the client so, and never let it look complete."""

    def flaw(self) -> Fault | None:
        """What is wrong with a payload that is complete by its framing; asked before `end`."""

    @property
    def is_over(self) -> bool:
        """Whether the payload said itself that it is over, where its framing does not."""

    @property
    def says_error(self) -> bool:
        """Whether the payload's last words are that the upstream failed."""

    def beat(self) -> None:
        """Keep the client's connection alive, where something may be sent for that."""


class Receiver(Protocol):
    """Who an exchange reports to: an `Attempt`, or an inquiry of the gateway's own."""

    exchange: Exchange | None
    sink: Sink | None
    reused: bool

    def sent(self) -> None: ...
    def whole(self, head: ResponseHead, body: bytes) -> None: ...
    def head(self, head: ResponseHead) -> None: ...
    def feed(self, payload: bytes, framed: bytes | None = None) -> None: ...
    def end(self) -> None: ...
    def fail(self, fault: Fault) -> None: ...
    def crashed(self) -> None: ...


class Backend(Protocol):
    """How a group of peers is spoken to."""

    name: str

    def begin(self, call: Call, attempt: Attempt) -> None:
        """Start the exchange for *attempt* and store it in `attempt.exchange`.

        From then on the backend calls `attempt.sent`, `attempt.head`, `attempt.feed`, and then exactly one of
        `attempt.end` and `attempt.fail` (which may also come first); it calls none of them after `Exchange.abort`.
        `attempt.whole` stands for head, feed and end of an answer that came in one piece.
        """

    @property
    def busy(self) -> bool:
        """Whether a task of it runs."""

    async def close(self) -> None:
        """End its tasks; called once, after the last call."""


class Lifecycle(Protocol):
    """The steps that an attempt reports to (made by `proxy`)."""

    def connecting(self, attempt: Attempt) -> None: ...
    def sent(self, attempt: Attempt) -> None: ...
    def whole(self, attempt: Attempt, head: ResponseHead, body: bytes) -> None: ...
    def head(self, attempt: Attempt, head: ResponseHead) -> None: ...
    def first(self, attempt: Attempt, payload: bytes) -> None: ...
    def end(self, attempt: Attempt) -> None: ...
    def crashed(self, call: Call) -> None: ...
    def failed(self, attempt: Attempt, fault: Fault) -> None: ...
    def spoiled(self, attempt: Attempt, fault: Fault) -> None: ...


class Attempt:
    """One try of a call at one peer. Not a Struct, whose fields compiled code would look up by name."""

    __slots__ = ("at_begin", "call", "exchange", "held", "peer", "response", "reused", "sink", "steps", "trial")

    def __init__(self, call: Call, peer: Peer, steps: Lifecycle, at_begin: int, trial: bool) -> None:
        self.call = call
        self.peer = peer
        self.steps = steps
        #: Monotonic nanoseconds.
        self.at_begin = at_begin
        #: True where this attempt is the one that finds out whether its peer is back.
        self.trial = trial
        self.exchange: Exchange | None = None
        #: Chosen once, at the commit point.
        self.sink: Sink | None = None
        self.response: ResponseHead | None = None
        #: Payload on probation: an event stream's first bytes, up to its first whole event.
        self.held = b""
        #: True while it runs on a connection that has carried an exchange before.
        self.reused = False

    def connecting(self) -> None:
        """A connection has to be made first."""
        self.steps.connecting(self)

    def sent(self) -> None:
        """The request was handed to the peer's connection, whole."""
        call = self.call
        call.phase = TO_WAITING[call.phase]
        call.at_sent = self.at_begin if self.reused else monotonic_ns()
        if call.stream:
            self.steps.sent(self)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """The final response head came, and its whole body with it. The exchange is over."""
        self.steps.whole(self, head, body)

    def head(self, head: ResponseHead) -> None:
        """The final response head came (never a 1xx)."""
        self.steps.head(self, head)

    def feed(self, payload: bytes, framed: bytes | None = None) -> None:
        """Payload came. Backends on the hot path look at `sink` themselves."""
        if self.sink is None:
            self.steps.first(self, payload)
        else:
            self.sink.feed(payload, framed)

    def end(self) -> None:
        """The answer is complete, as its framing tells."""
        self.steps.end(self)

    def fail(self, fault: Fault) -> None:
        """The exchange broke; the peer's connection is already given up."""
        self.steps.failed(self, fault)

    def crashed(self) -> None:
        """A step raised: a bug of ours. The exchange is already given up."""
        self.exchange = None
        self.steps.crashed(self.call)

    def __repr__(self) -> str:
        return f"<Attempt at {self.peer.url}>"


class Call:
    """One client request and its answer. Times are monotonic nanoseconds; 0 means: never reached.

    Not a Struct: those are made faster, but a call sets its attributes thirty times, and a Struct takes four times as
    long for that.
    """

    __slots__ = (
        "address",
        "answer_lines",
        "at_attempt",
        "at_begin",
        "at_first",
        "at_head",
        "at_sent",
        "at_start",
        "attempt",
        "body",
        "budget",
        "budget_held",
        "bytes_in",
        "bytes_out",
        "chunks",
        "client",
        "deadline",
        "endpoint",
        "fault",
        "fields",
        "id",
        "idle",
        "lost_reused",
        "model",
        "operation",
        "peer",
        "phase",
        "principal",
        "request",
        "route",
        "status",
        "stream",
        "total_deadline",
        "trace",
        "translation",
        "tried",
        "tries",
        "usage",
        "usage_injected",
    )

    def __init__(
        self,
        client: Client,
        request: Request,
        endpoint: Endpoint,
        budget: ByteBudget,
        operation: Operation | None,
        principal: Principal | None,
        cors: bytes,
        id: bytes,
        trace: bytes,
        at_start: int,
    ) -> None:
        # given by the front, from the request's head
        self.client = client
        #: Who asks: the connection's other side, or whom a trusted proxy names.
        self.address = client.address
        self.request = request
        self.endpoint = endpoint
        self.budget = budget
        self.operation = operation
        self.principal = principal
        #: Lines for the answer's head: who may read it, where the request came from another origin; which fallback
        #: served.
        self.answer_lines = cors
        self.id, self.trace = id, trace
        # the request's body, held within the budget until the commit point
        self.body = b""
        self.bytes_in = self.budget_held = 0
        # found by proxy.begin
        self.fields: Fields | None = None
        self.model = ""
        self.stream = self.usage_injected = False
        self.route: Route | None = None
        #: Where the backend speaks another dialect than the client.
        self.translation: Translation | None = None
        # progress; deadlines are monotonic seconds
        self.phase = ADMITTING
        self.attempt: Attempt | None = None
        self.peer: Peer | None = None
        self.tries = 0
        self.tried: tuple[Peer, ...] = ()
        self.lost_reused = False
        self.deadline = self.total_deadline = NEVER
        self.idle = 0.0
        # outcome
        self.fault: Fault | None = None
        self.usage: Usage | None = None
        self.status = self.bytes_out = self.chunks = 0
        self.at_start = at_start
        self.at_begin = self.at_attempt = self.at_sent = self.at_head = self.at_first = 0

    def move(self, phase: Phase) -> None:
        """Go to *phase*; an illegal move is a bug and raises KeyError."""
        self.phase = PHASE_MOVES[self.phase][phase]

    def drop_body(self) -> None:
        """Let go of the request's body and give its bytes back; harmless when done before."""
        held = self.budget_held
        if held:
            self.budget_held = 0
            budget = self.budget
            budget.used = used = budget.used - held
            if used < 0:
                raise AssertionError("the byte budget fell below zero")
        self.body = b""
        self.fields = None
        if self.translation is not None:
            self.translation.drop_request()

    @property
    def repeatable(self) -> bool:
        """Whether a repetition has no effect but cost."""
        return self.endpoint.repeatable or self.request.special[Role.IDEMPOTENCY_KEY] is not None

    @property
    def ending(self) -> str:
        """Two letters: who ended the call and in which phase; `--` where nothing went wrong. Read before it settles."""
        fault = self.fault
        if fault is None:
            return "--"
        first = fault.side.value
        return (first.lower() if fault.timed_out else first) + PHASE_LETTERS[self.phase]
