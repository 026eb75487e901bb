"""The command line of `python -m bench faults` as a value.

Owns its arguments, their defaults and bounds. It refuses to act on them (`run`). Called by `bench.options`.
"""

from __future__ import annotations

import argparse

import msgspec

from bench.faults.matrix import ROWS


class FaultOptions(msgspec.Struct, frozen=True):
    """What is done to the gateway, and how often."""

    seed: int = 1
    count: int = 10_000
    rows: tuple[int, ...] = ROWS
    #: numbers of visits; empty: all
    only: tuple[int, ...] = ()
    at_once: int = 200
    workers: int = 2
    #: Where the JSON goes; empty: nowhere.
    json: str = ""

    def command(self) -> str:
        """The line that runs the same again."""
        words = [f"python -m bench faults --seed {self.seed} --count {self.count}"]
        words += [f"--rows {','.join(map(str, self.rows))}"] if self.rows != ROWS else []
        return " ".join([*words, f"--at-once {self.at_once} --workers {self.workers}"])

    def shown(self) -> dict[str, str]:
        return {name: str(getattr(self, name)) for name in self.__struct_fields__}


def numbers(text: str) -> tuple[int, ...]:
    """ "1,2,8-10" as numbers; ValueError where it is none."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found += range(int(first), int(last) + 1) if dash else [int(first)]
    return tuple(dict.fromkeys(found))


def row_numbers(text: str) -> tuple[int, ...]:
    """ "7,9,29-32" as rows: of a range those that there are; ArgumentTypeError where one is none."""
    found = [row for part in text.split(",") for row in numbers(part) if row in ROWS or "-" not in part]
    if not set(found) <= set(ROWS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(map(str, ROWS))}")
    return tuple(dict.fromkeys(found))


def add(parser: argparse.ArgumentParser) -> None:
    default = FaultOptions()
    argument = parser.add_argument
    argument("--seed", type=int, default=default.seed, help="the same seed makes the same schedule (%(default)s)")
    argument("--count", type=int, default=default.count, help="faults; healthy calls come on top (%(default)s)")
    argument("--rows", type=row_numbers, default=default.rows, help='of the matrix, as "7,9,29-32" (all of them)')
    argument("--only", type=numbers, default=default.only, help="numbers of visits, out of the same schedule")
    argument("--at-once", type=int, default=default.at_once, help="clients (%(default)s)")
    argument("--workers", type=int, default=default.workers, help="of the gateway (%(default)s)")
    argument("--json", default=default.json, metavar="FILE", help="write all that was found")


def read(given: argparse.Namespace, parser: argparse.ArgumentParser) -> FaultOptions:
    """The options; SystemExit with a usage line where they are wrong."""
    if min(given.count, given.at_once, given.workers) < 1:
        parser.error("--count, --at-once, --workers: expected more than 0")
    return FaultOptions(given.seed, given.count, given.rows, given.only, given.at_once, given.workers, given.json)
