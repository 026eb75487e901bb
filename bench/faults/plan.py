"""The schedule of a run, made from its seed: who calls, what happens to it, and when the gateway itself is disturbed.

Owns the dice. It refuses to carry anything out (`crowd`, `run`). The same seed, count and rows make the same schedule
in every process.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Final

import msgspec

from bench.faults import hostile
from bench.faults.matrix import CASES, DONE_TO_GATEWAY, HEALTHY, ROWS, WARMING, Case
from bench.faults.speech import Ask

#: Healthy calls for each fault.
HEALTHY_SHARE: Final = 0.25
#: A whole answer has one pause, a stream has several.
WHOLE_PAUSES: Final = 3
#: How often a row is done to the gateway, for 10,000 visits and more.
MOST: Final = {49: 2, 56: 10, 57: 20, 58: 5}


class Visit(msgspec.Struct, frozen=True):
    """One client's errand: one fault, or a healthy call. Times are seconds."""

    number: int
    case: Case
    asks: tuple[Ask, ...]
    #: before it leaves, and how: "fin" or "rst"
    leaves: float
    manner: str
    extras: tuple[str, ...] = ()


class Disturbance(msgspec.Struct, frozen=True):
    """What is done to the gateway when visit *at* begins; the row tells what."""

    at: int
    row: int


class Plan(msgspec.Struct, frozen=True):
    visits: tuple[Visit, ...]
    disturbances: tuple[Disturbance, ...]


def make(seed: int, count: int, rows: Collection[int] = ROWS, only: Collection[int] = ()) -> Plan:
    """*count* faults of *rows*, and the healthy calls among them; of these, the visits whose numbers are in *only*.

    Without rows there are *count* healthy and hasty calls.
    """
    dice = random.Random(seed)
    cases = [case for case in CASES if case.row in rows]
    drawn = draw(dice, cases, count) + (
        draw(dice, HEALTHY, int(count * HEALTHY_SHARE)) if cases else draw(dice, WARMING, count)
    )
    dice.shuffle(drawn)
    visits = [visit_of("" if cases else "warm-", dice, number, case) for number, case in enumerate(drawn)]
    disturbances = disturb(dice, len(visits), [row for row in DONE_TO_GATEWAY if row in rows])
    if only:
        return Plan(tuple(visit for visit in visits if visit.number in only), ())
    return Plan(tuple(visits), tuple(disturbances))


def draw(dice: random.Random, cases: Collection[Case], count: int) -> list[Case]:
    """*count* cases: each of them once if there is room, the others by weight."""
    if not cases:
        return []
    listed = list(cases)
    once = listed if len(listed) <= count else []
    return once + dice.choices(listed, [case.weight for case in listed], k=count - len(once))


def visit_of(prefix: str, dice: random.Random, number: int, case: Case) -> Visit:
    stream = case.stream if case.stream is not None else dice.random() < 0.5
    calls = dice.randint(*case.calls)
    names = hostile.NAMES.get(case.extras, ())
    return Visit(
        number,
        case,
        tuple(ask_of(prefix, dice, number, part, case, stream) for part in range(calls)),
        leaves=round(dice.uniform(*case.leaves) if dice.random() < 0.9 else case.leaves[0], 4),
        manner=dice.choice(("fin", "rst")),
        extras=tuple(dice.choice(names) for _ in range(calls - 1)) if names else (),
    )


def ask_of(prefix: str, dice: random.Random, number: int, part: int, case: Case, stream: bool) -> Ask:
    return Ask(
        id=f"{prefix}{case.row}-{number}" + (f".{part}" if part else ""),
        deed=case.deed,
        number=number,
        stream=stream,
        count=dice.randint(*case.counts),
        size=dice.choice(case.sizes),
        pause=dice.choice(case.pauses) * (1 if stream else WHOLE_PAUSES),
        asked=dice.choice((40, 40, 400, 4000, 60_000)),
        framing=dice.choice(case.framings),
    )


def disturb(dice: random.Random, visits: int, rows: list[int]) -> list[Disturbance]:
    """About 40 disturbances in a long run, and each kind at least once; two workers are killed at most."""
    found = []
    for row in rows:
        most = MOST[row]
        times = max(1, min(most, visits * most // 10_000))
        if row == 56:
            times += times % 2  # what is removed comes back
        # Not at the very end, so that something is left to be harmed.
        found += [Disturbance(dice.randrange(visits // 10, visits * 9 // 10 + 1), row) for _ in range(times)]
    return sorted(found, key=lambda one: one.at)
