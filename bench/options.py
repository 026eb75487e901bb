"""The command line of the benchmark as a value.

Owns the commands, and the arguments of `overhead` and `translated`, their defaults and their bounds. It refuses to act
on them (`overhead`, `translated`, `faults.run`). Called by `bench.__main__`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

import msgspec

from bench.faults import options as faults
from bench.faults.options import FaultOptions
from bench.scenarios import SCENARIOS
from bench.targets import NAMES, asked
from bench.translated import TranslatedOptions

#: Seconds of the window where only the working of things is tried.
QUICK_S = 0.3
TARGETS: Final = "some of %(default)s; gateway:2: the gateway with two workers; 2xgateway: two gateways with one each"


class Options(msgspec.Struct, frozen=True):
    """What is measured, how often and how long."""

    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    targets: tuple[str, ...] = NAMES
    rounds: int = 5
    #: Seconds of each window.
    duration: float = 2.0
    load_processes: int = 1
    #: A CPU for each worker, the generator's too.
    spread: bool = False
    #: Where the JSON goes; empty: nowhere.
    json: str = ""


def parse(argv: Sequence[str]) -> Options | FaultOptions | TranslatedOptions:
    """The options that *argv* gives; SystemExit with a usage line where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    commands = parser.add_subparsers(dest="command", required=True)
    overhead = commands.add_parser("overhead", help="CPU per request and per relayed chunk, beside nginx")
    ledger = commands.add_parser("faults", help="evil upstreams and evil clients, and what the gateway makes of them")
    faults.add(ledger)
    translated = commands.add_parser("translated", help="CPU per chunk that is said in another dialect")
    _add_translated(translated)
    _add(overhead)
    given = parser.parse_args(argv)
    if given.command == "faults":
        return faults.read(given, ledger)
    return _read(given, overhead) if given.command == "overhead" else _read_translated(given, translated)


def _add_translated(translated: argparse.ArgumentParser) -> None:
    default = TranslatedOptions()
    add = translated.add_argument
    add("--streams", type=int, default=default.streams, help="at once (%(default)s)")
    add("--period-ms", type=int, default=default.period_ms, help="between two chunks of a stream (%(default)s)")
    add("--rounds", type=int, default=default.rounds, help="interleaved rounds (%(default)s)")
    add("--duration", type=float, default=default.duration, help="seconds of each window (%(default)s)")


def _read_translated(given: argparse.Namespace, translated: argparse.ArgumentParser) -> TranslatedOptions:
    if min(given.streams, given.period_ms, given.rounds) < 1 or given.duration <= 0:
        translated.error("--streams, --period-ms, --rounds, --duration: expected more than 0")
    return TranslatedOptions(given.streams, given.period_ms, given.rounds, given.duration)


def _add(overhead: argparse.ArgumentParser) -> None:
    default = Options()
    add = overhead.add_argument
    add("--scenario", choices=[*SCENARIOS, "all"], default="all")
    add("--targets", default=",".join(NAMES), help=TARGETS)
    add("--rounds", type=int, default=default.rounds, help="interleaved rounds (%(default)s)")
    add("--duration", type=float, default=default.duration, help="seconds of each window (%(default)s)")
    add("--load-processes", type=int, default=default.load_processes, help="of the generator (%(default)s)")
    add("--spread", action="store_true", help="a CPU for each worker, though the generator runs there too")
    add("--json", default=default.json, metavar="FILE", help="write all that was found")
    add("--quick", action="store_true", help="one short round: does it run? The figures mean nothing")


def _read(given: argparse.Namespace, overhead: argparse.ArgumentParser) -> Options:
    names = tuple(given.targets.split(","))
    try:
        for name in names:
            asked(name)
    except ValueError as error:
        overhead.error(f"--targets: {error}; expected some of {', '.join(NAMES)}, gateway:2, 2xgateway and the like")
    if len(set(names)) < len(names):
        overhead.error("--targets: the same one twice")
    if given.rounds < 1 or given.duration <= 0 or given.load_processes < 1:
        overhead.error("--rounds, --duration, --load-processes: expected more than 0")
    return Options(
        scenarios=tuple(SCENARIOS) if given.scenario == "all" else (given.scenario,),
        targets=names,
        rounds=1 if given.quick else given.rounds,
        duration=QUICK_S if given.quick else given.duration,
        load_processes=given.load_processes,
        spread=given.spread,
        json=given.json,
    )
