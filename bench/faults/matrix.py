"""The fault matrix as data: what is done in each row, what the client may see of it, and what the upstreams' ledger
may hold. The rows are those of the reliability paper, section 5, by number; 0 is a healthy call.

Owns the table. It refuses to do any of it (`deeds`, `visits`) and to compare (`judge`). A case that is held `loose`
says why; when the gateway learns what the row asks for, its line is all that changes.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import structs

from bench.faults.answers import BROKEN, CUT, FINE, LEFT, NOTHING
from bench.faults.speech import CHAT, RESPONSES

#: Seconds between two steps of an answer. So long that 200 calls at a time leave two cores some rest: what is measured
#: is the gateway, not the queue for a processor.
PAUSES: Final = (0.0, 0.01, 0.1, 0.3, 0.6, 1.0)
BRISK_PAUSES: Final = (0.0, 0.01, 0.1)
PULSE_PAUSES: Final = (0.0, 0.1, 0.3)


class Expect(msgspec.Struct, frozen=True):
    """What may be found of one call."""

    #: words of `answers`, or statuses
    seen: tuple[str, ...]
    #: of the access line: both letters, or the first alone
    endings: tuple[str, ...]
    #: how often the request may begin upstream
    least: int = 1
    most: int = 1


class Case(msgspec.Struct, frozen=True):
    """One way to provoke a row."""

    row: int
    name: str
    expect: Expect
    deed: str = "fine"
    model: str = "solo"
    #: a function of `visits`
    visit: str = "ask"
    #: of 1,000 faults, about
    weight: int = 10
    #: None: half of them
    stream: bool | None = None
    door: str = CHAT
    headers: tuple[str, ...] = ()
    #: calls in one visit, and what is expected of those behind the first
    calls: tuple[int, int] = (1, 1)
    others: Expect | None = None
    counts: tuple[int, int] = (1, 6)
    sizes: tuple[int, ...] = (20, 20, 300, 300, 3000, 30_000)
    pauses: tuple[float, ...] = PAUSES
    framings: tuple[str, ...] = ("chunked", "length", "close")
    #: seconds until the client leaves, or goes on
    leaves: tuple[float, float] = (0.0, 3.0)
    #: names out of `hostile`, for those visits that send such
    extras: str = ""
    #: upstreams speak unasked: a request that is under way then cannot be served
    crossing: bool = False
    loose: str = ""

    @property
    def title(self) -> str:
        return f"{self.row} {self.name}"


def sound(least: int = 1, most: int = 1) -> Expect:
    return Expect((FINE,), ("--",), least, most)


def refused(*statuses: str, ending: str = "U", least: int = 1, most: int = 1) -> Expect:
    return Expect(statuses, (ending,), least, most)


#: Lost before anything was relayed, and sound at the second try.
RETRIED: Final = sound(2, 2)
#: The upstream's answer is not valid: no other try is asked of it.
INVALID: Final = Expect(("502",), ("U",))
#: Broken off, or lost before the first relayed byte: then it may be tried again, if the budget allows it.
BROKEN_OFF: Final = Expect((BROKEN, "502", FINE), ("U", "--"), 1, 2)
ONLY_BROKEN: Final = Expect((BROKEN,), ("U",))
GONE: Final = Expect((LEFT,), ("C",), 0, 1)
#: The answer may have been complete before the client had left.
GONE_LATE: Final = Expect((LEFT, FINE), ("C", "--"), 0, 1)
NOTHING_UPSTREAM: Final = Expect((LEFT,), ("C",), 0, 0)

BREAKER: Final = "breakers and health: what ejects a peer may change who answers"

HEALTHY: Final = (
    Case(0, "healthy, a peer of its own", sound(), model="well", weight=4),
    Case(0, "healthy, among the evil", sound(), weight=4),
    Case(0, "healthy, two peers", sound(), model="pair", weight=2),
)
#: What makes a gateway warm, soon.
WARMING: Final = tuple(structs.replace(case, pauses=(0.0, 0.01)) for case in HEALTHY)

_CONNECTING: Final = (
    Case(1, "one peer refuses", sound(), model="closed"),
    Case(2, "all peers refuse", refused("503", least=0, most=0), model="dead"),
    Case(3, "one peer's backlog is full", sound(), model="full"),
    Case(6, "accepts and never reads", refused("504", ending="u"), model="deaf", weight=6),
)

_LOST: Final = (
    Case(7, "RST for an answer", RETRIED, "lose", "pair"),
    Case(7, "RST for an answer, not repeatable", refused("502"), "lose", "pair", stream=False, door=RESPONSES),
    Case(
        *(8, "RST, not repeatable, with a key", RETRIED, "lose", "pair"),
        stream=False, door=RESPONSES, headers=("Idempotency-Key: once",),
    ),
    Case(9, "idle connection ends", sound(1, 2), "worn", "worn", weight=40, pauses=(0.0, 0.0, 0.001, 0.005, 0.02)),
    Case(
        *(9, "idle connection ends, not repeatable", Expect((FINE, "502"), ("--", "U"), 0, 1), "worn", "worn"),
        stream=False, door=RESPONSES, pauses=(0.0, 0.0, 0.001, 0.005),
    ),
    Case(10, "500", Expect(("500", FINE), ("--",), 1, 2), "refuse", "storm", loose=BREAKER),
    Case(11, "429 with Retry-After", RETRIED, "busy", "pair"),
    Case(12, "503 once", RETRIED, "unavailable", "pair"),
    Case(12, "503 from all", Expect(("503",), ("--", "U"), 0, 2), "storm", "storm", loose=BREAKER),
)  # fmt: skip

_BROKEN: Final = (
    Case(13, "FIN behind the head", RETRIED, "cut", "pair", stream=False, counts=(0, 0),
         framings=("chunked", "length")),
    Case(13, "FIN in the head", RETRIED, "half_head", "pair"),
    Case(14, "FIN in the body", ONLY_BROKEN, "cut", stream=False, framings=("chunked", "length"), weight=20),
    Case(14, "RST in the body", BROKEN_OFF, "reset", stream=False, pauses=(0.005, 0.05), weight=20),
    Case(15, "FIN before the first event", RETRIED, "cut", "pair", stream=True, counts=(0, 0)),
    Case(15, "FIN behind 1 event", ONLY_BROKEN, "cut", stream=True, counts=(1, 1), weight=15),
    Case(15, "FIN behind 5 events", ONLY_BROKEN, "cut", stream=True, counts=(5, 5), weight=15),
    Case(16, "RST within an event", BROKEN_OFF, "reset_within_event", stream=True, weight=30, pauses=(0.005, 0.05)),
    Case(17, "a chunk's size is junk", BROKEN_OFF, "bad_chunk", framings=("chunked",), weight=20),
    Case(18, "a stream stalls", Expect((BROKEN,), ("u",)), "stall_midway", "brisk", stream=True, weight=10,
         pauses=BRISK_PAUSES),
    Case(18, "a stream's head, then nothing", refused("504", ending="u"), "stall_midway", "brisk", stream=True,
         counts=(0, 0), weight=6, pauses=BRISK_PAUSES),
    Case(18, "a body stalls", Expect((BROKEN,), ("u",)), "stall_midway", "brisk", stream=False, weight=6,
         pauses=BRISK_PAUSES, framings=("chunked", "length")),
    Case(19, "an error for a first event", RETRIED, "error_first", "pair", stream=True,
         framings=("chunked",)),
    Case(19, "no event", RETRIED, "empty", "pair", stream=True, framings=("chunked",)),
    Case(19, "junk for a first event", RETRIED, "malformed_first", "pair", stream=True,
         framings=("chunked",)),
)  # fmt: skip

#: What fails before anything was relayed goes on at the route's fallback, kept alive or not; what fails later does not.
_FALLING: Final = (
    Case(1, "refused, with a fallback", sound(), model="ditch"),
    Case(6, "never reads, with a fallback", RETRIED, model="numb", stream=True, weight=6),
    *(
        Case(row, f"{name}, with a fallback", RETRIED, deed, "cliff", weight=5, pauses=BRISK_PAUSES)
        for row, name, deed in (
            *((7, "RST for an answer", "lose"), (10, "500", "refuse"), (11, "429", "busy"), (12, "503", "unavailable")),
            *((13, "FIN in the head", "half_head"), (23, "20 interim answers", "interim_many")),
            *((24, "101 unasked", "switch"), (25, "a head of 1 MB", "huge_head")),
        )
    ),
    *(
        Case(row, f"{name}, with a fallback", RETRIED, deed, "cliff", stream=True, weight=5, counts=(0, 0),
             pauses=BRISK_PAUSES, framings=("chunked",))
        for row, name, deed in (
            *((15, "FIN before the first event", "cut"), (18, "a head, then nothing", "stall_midway")),
            *((19, "an error for a first event", "error_first"), (19, "no event", "empty")),
            (19, "junk for a first event", "malformed_first"),
        )
    ),
    Case(7, "RST for an answer, kept alive", Expect((BROKEN, "502"), ("U",)), "lose", "pulse", stream=True,
         pauses=PULSE_PAUSES),
    Case(7, "RST for an answer, kept alive, with a fallback", RETRIED, "lose", "pulse-falling", stream=True,
         pauses=PULSE_PAUSES),
    Case(18, "nothing comes, kept alive", Expect((BROKEN,), ("u",)), "stall", "pulse", stream=True, weight=6),
    Case(29, "leaves while kept alive", GONE, "stall", "pulse", stream=True, visit="leave", leaves=(0.0, 0.8)),
    Case(15, "FIN behind an event, with a fallback", ONLY_BROKEN, "cut", "cliff", stream=True,
         pauses=BRISK_PAUSES),
)  # fmt: skip

_ODD: Final = (
    Case(20, "an event of megabytes", sound(), stream=True, weight=1, counts=(1, 1), pauses=(0.0,),
         sizes=(1 << 20, 2 << 20, 6 << 20), framings=("chunked",)),
    # Small, so that the byte too much comes with the answer; what comes later is row 22's.
    Case(21, "two answers", sound(), "twice", stream=False, weight=10, framings=("length",), sizes=(20, 300, 3000)),
    Case(21, "two answers, apart", sound(), "twice_apart", stream=False, weight=20, framings=("length",),
         sizes=(20, 300, 3000)),
    Case(22, "an answer on an idle connection", sound(), "babble", "odd", stream=False, weight=15, framings=("length",),
         crossing=True),
    Case(22, "bytes on an idle connection", sound(), "mumble", "mumble", stream=False, weight=20, framings=("length",),
         pauses=(0.0, 0.0, 0.001, 0.005), crossing=True),
    Case(23, "10 interim answers", sound(), "interim_few"),
    Case(23, "20 interim answers", INVALID, "interim_many"),
    Case(24, "101 unasked", INVALID, "switch"),
    Case(25, "a head of 1 MB", INVALID, "huge_head", weight=4),
    Case(25, "a head byte by byte", refused("504", ending="u"), "drip", "brisk", weight=6),
)  # fmt: skip

_LEAVING: Final = (
    Case(27, "leaves while queued", GONE, "stall", visit="queue", calls=(2, 4), others=NOTHING_UPSTREAM, weight=20),
    Case(28, "leaves while connecting", Expect((LEFT,), ("C",), 0, 0), model="hang", visit="leave", weight=20),
    Case(29, "leaves before the answer", GONE, "stall", visit="leave", weight=90),
    Case(30, "leaves within the answer", GONE, "stall_midway", visit="leave_midway", weight=60,
         framings=("chunked", "length")),
    Case(30, "leaves while events come", GONE_LATE, visit="leave_midway", stream=True, weight=40, counts=(6, 12)),
    Case(30, "leaves a flood", GONE, "flood", visit="leave_flood", stream=True, weight=6, framings=("chunked",)),
    Case(31, "stops reading", Expect((CUT, BROKEN), ("c",)), "flood", visit="stop_reading", stream=True, weight=3,
         leaves=(3.0, 3.5), framings=("chunked",)),
    Case(32, "stops reading and dies", GONE, "flood", visit="die_unread", stream=True, weight=6, leaves=(0.9, 1.4),
         framings=("chunked",)),
    Case(33, "reads slowly", sound(), visit="read_slowly", weight=2, sizes=(3 << 20, 5 << 20), pauses=(0.0,),
         counts=(1, 1), framings=("chunked", "length")),
    Case(39, "half-close", Expect((LEFT, NOTHING, "499", FINE), ("C", "--"), 0, 1), "stall", visit="half_close",
         weight=20),
    Case(40, "FIN and RST behind the answer", sound(), visit="die_after", weight=20),
)  # fmt: skip

_CLIENTS: Final = (
    Case(34, "head byte by byte", Expect(("408", NOTHING), ("C", "c"), 0, 0), visit="drip_head", weight=12),
    Case(35, "body that stalls", refused("408", ending="c", least=0, most=0), visit="stall_body", weight=10),
    Case(36, "body too large, by its length", refused("413", ending="C", least=0, most=0), visit="oversize",
         weight=5),
    Case(36, "body too large, by its chunks", refused("413", ending="C", least=0, most=0), visit="oversize_chunked",
         weight=5),
    Case(37, "100-continue and a bad key", refused("401", ending="C", least=0, most=0), visit="expect_bad_key"),
    Case(38, "pipelined", sound(), visit="pipeline", calls=(5, 40), others=sound(), weight=6, pauses=(0.0,),
         sizes=(20, 300), framings=("chunked", "length")),
    Case(38, "pipelined, 100 of them", sound(), visit="pipeline", calls=(100, 100), others=sound(), weight=1,
         pauses=(0.0,), sizes=(20,), framings=("length",), stream=False),
    Case(73, "malformed between good", sound(), visit="hostile", calls=(4, 4), others=sound(), extras="malformed",
         weight=20, pauses=(0.0,)),
    Case(74, "h2c upgrade", sound(), visit="ask", headers=("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
         "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")),
    Case(75, "bombs", sound(), visit="hostile", calls=(2, 2), others=sound(), extras="bombs", weight=4,
         pauses=(0.0,)),
)  # fmt: skip

_SHARES: Final = (
    Case(56, "backend removed meanwhile", Expect((FINE, "404"), ("--", "C"), 0, 1), model="extra", weight=20),
    Case(63, "one of three ten times slower", sound(), model="shares", weight=30, pauses=(0.05,)),
    Case(64, "one of three answers 500 at once", Expect((FINE, "500"), ("--",), 1, 2), model="hole", weight=20,
         pauses=(0.02,), loose=BREAKER),
)  # fmt: skip

#: What is done by a visit.
CASES: Final = (*_CONNECTING, *_LOST, *_BROKEN, *_FALLING, *_ODD, *_LEAVING, *_CLIENTS, *_SHARES)
#: What is done to the gateway itself meanwhile.
DONE_TO_GATEWAY: Final = {
    49: "a worker is killed",
    56: "a backend is removed, or comes back",
    57: "reload",
    58: "reload of a bad file",
}
#: Every row, as `--rows` names them.
ROWS: Final = tuple(sorted({case.row for case in CASES} | set(DONE_TO_GATEWAY)))
