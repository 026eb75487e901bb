"""Peers: what configuration gives (`Peer`) and what is observed of it (`PeerState`).

Owns both, and the cool-down of a peer that fails fast. It refuses connections (`gateway.upstream.pool`), circuits
(`gateway.routing.circuits`) and the choice among peers (`gateway.routing.balance`). A Peer is made by
`gateway.upstreams`, a state by `gateway.states`; it outlives a change of configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.clock import monotonic_ns
from gateway.errors import Fault
from gateway.page import NO_COLUMN
from gateway.routing.breaker import RESTORED_AT
from gateway.routing.circuits import PeerCircuit, now_ms

if TYPE_CHECKING:
    from gateway.call import Backend

#: Seconds that a peer is skipped after its first failure; doubled with each further one, up to the limit.
COOL_DOWN: Final = 1.0
COOL_DOWN_LIMIT: Final = 30.0


#: A word on a peer, as workers tell each other: monotonic milliseconds, above bits for those of the cool-down that
#: began then, 0 where it answered; 0 in all is no word. So of several words the largest is the last, a bad one wins a
#: tie, and all of it is one cell, which is never torn.
_COOL_BITS: Final = 16
_COOL_MASK: Final = (1 << _COOL_BITS) - 1
_MILLI: Final = 1_000_000


def speaks_well(word: int, restored: int = 0) -> bool:
    """Whether *word* does not keep anybody from its peer now: there is none, it was a good one, or its time is over.

    It is over too where the health check found the peer well later, at *restored*.
    """
    cool = word & _COOL_MASK
    said = word >> _COOL_BITS
    return not cool or said <= restored or monotonic_ns() // _MILLI >= said + cool


def was_good(word: int, since: int) -> bool:
    """Whether *word* tells of an answer, and is not older than *since*, monotonic milliseconds."""
    return not word & _COOL_MASK and word >> _COOL_BITS > since


class Standing:
    """How all peers of a worker stand, in one number: while none is doubtful, nobody has to be skipped."""

    __slots__ = ("doubtful",)

    def __init__(self) -> None:
        self.doubtful = 0


class PeerState:
    """What is observed of one peer.

    A peer is *proven* while its last word was an answer. One that failed gets a single trial per cool-down, because a
    peer that fails at once is always the least busy and would draw every call (RELIABILITY's black hole). One that
    nobody has tried yet is as good as any: it would else get a call a second, however long the others' queues.
    """

    __slots__ = (
        "_restored",
        "_standing",
        "_unreached",
        "beyond",
        "circuit",
        "column",
        "failures",
        "heard",
        "in_flight",
        "out",
        "proven",
        "retry_at",
        "says_done",
        "turn",
        "word",
    )

    def __init__(self, standing: Standing, circuit: PeerCircuit | None = None, column: int = NO_COLUMN) -> None:
        self._standing = standing
        standing.doubtful += 1
        self.circuit = circuit or PeerCircuit()
        #: The peer's on the page.
        self.column = column
        #: Whether its circuit was not like any other's when last looked at: then it makes the worker doubtful too.
        self.out = False
        self.in_flight = 0
        #: Requests that its server has of others, as it told lately (`gateway.routing.load`).
        self.beyond = 0.0
        self.proven = False
        #: Whether its last failure was that no connection could be made; and the health check's last word against that.
        self._unreached = False
        self._restored = 0
        #: Failures in a row, counted once per cool-down.
        self.failures = 0
        #: Monotonic seconds before which an unproven peer is skipped.
        self.retry_at = 0.0
        #: Whether it served a call since the last sweep: so often its good word is renewed, and no oftener.
        self.heard = False
        #: The last word on it.
        self.word = 0
        #: The running weight of smooth weighted round robin.
        self.turn = 0
        #: Its streams of text end with [DONE].
        self.says_done = False

    def leave(self) -> None:
        """The peer is no longer configured: what its last calls meet concerns nobody else."""
        self._standing = Standing()
        self._standing.doubtful = self.doubts

    @property
    def doubts(self) -> int:
        """What it adds to the worker's doubts."""
        return (not self.proven) + self.out

    def begin(self, now: float) -> bool:
        """Count a call in; True where it is the trial that finds out whether the peer is back."""
        self.in_flight += 1
        return not self.proven and self._try_out(now)

    def _try_out(self, now: float) -> bool:
        if not self.failures or now < self.retry_at:
            return False
        self.retry_at = now + self._cool_down(self.failures)
        return True

    def end(self) -> None:
        """Count a call out. Called exactly once for each `begin`."""
        self.in_flight -= 1
        if self.in_flight < 0:
            raise AssertionError("a peer's in-flight count fell below zero")

    def served(self, began: int, who: object) -> None:
        """The call *who*, which *began* then (monotonic ns), got a usable answer. Need not be called while `heard`."""
        self.answered()
        self.circuit.served(began, who)
        if self.out:
            self.look()
        else:
            self.heard = True

    def blamed(self, fault: Fault, began: int, who: object) -> None:
        """The call *who*, which *began* then, met *fault*."""
        self.heard = False
        self.circuit.failed(fault, began, who)
        self.look()

    def look(self) -> None:
        """See how the circuit stands: after each change, and as long as it is out of the ordinary."""
        now = now_ms()
        out = not self.circuit.is_plain(now)
        if out is not self.out:
            self.out = out
            self._standing.doubtful += 1 if out else -1
            if not out:
                self.circuit.forget()
        if out:
            self.heard = False
            self.circuit.renew(now)
        restored = self.circuit.cell(RESTORED_AT)
        if restored != self._restored:
            self._restored = restored
            if self._unreached:
                self.retry_at = 0.0  # the health check reached it: a call may try

    @property
    def is_broken(self) -> bool:
        """Whether its circuit is open."""
        return self.out and self.circuit.is_open

    def answered(self) -> None:
        """The peer sent a response head: it is there."""
        if not self.heard:
            self._say(0)
        if not self.proven:
            self.proven = True
            self.failures = 0
            self._standing.doubtful -= 1

    def failed(self, now: float, trial: bool, unreached: bool = False) -> bool:
        """The peer refused a connection (*unreached*) or lost a call before its head; True where a cool-down begins.

        Calls that were under way beside the trial, or beside the first one that failed, report the same outage; they do
        not lengthen it.
        """
        if self.failures and not self.proven and not trial:
            return False
        if self.proven:
            self.proven = False
            self._standing.doubtful += 1
        self.failures += 1
        self._unreached = unreached
        cool = self._cool_down(self.failures - 1)
        self.retry_at = now + cool
        self.heard = False
        self._say(int(cool * 1000))
        return True

    def _say(self, cool: int) -> None:
        """Tell what is known of it: it answered, or a cool-down of so many milliseconds begins."""
        self.word = monotonic_ns() // _MILLI << _COOL_BITS | cool

    @staticmethod
    def _cool_down(doublings: int) -> float:
        return min(COOL_DOWN_LIMIT, COOL_DOWN * 2.0 ** min(doublings, 16))

    def __repr__(self) -> str:
        word = "proven" if self.proven else f"unproven, {self.failures} failures"
        return f"<PeerState {word}, {self.in_flight} in flight>"


class Peer:
    """One upstream address, as configured. `url` is for operators: logs and labels, never an error body.

    Where each address of a name is a peer, `url` has the address behind a space.
    """

    __slots__ = ("answer_line", "backend", "state", "target", "url", "weight")

    def __init__(self, backend: Backend, url: str, weight: int, state: PeerState, target: object = None) -> None:
        self.backend = backend
        self.url = url
        #: What an answer's head says about where it came from.
        self.answer_line = b"x-upstream: " + backend.name.encode("latin-1", "replace") + b"\r\n"
        self.weight = weight
        self.state = state
        #: What its backend reaches it by, and nobody else looks into. Calls of a former configuration still have it.
        self.target = target

    def __repr__(self) -> str:
        return f"<Peer {self.backend.name} {self.url} {self.state!r}>"
