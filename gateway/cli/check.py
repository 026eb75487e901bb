"""`headrace check`: judge a configuration without serving it.

Owns the command's options and output. It refuses to judge (`config.load`), to format (`config.render`) and to explain
(`cli.explain`).
Called by `gateway.cli`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from gateway.cli.explain import explain, told
from gateway.cli.trial import attempt
from gateway.config import render
from gateway.config.load import ConfigError, load
from gateway.config.schema import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="PATH",
        nargs="+",
        action="extend",
        default=[],
        help="a TOML file, or a folder whose *.toml are merged in name order",
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--print", action="store_true", help="print the effective values, secrets masked")
    shape.add_argument("--schema", action="store_true", help="print the JSON Schema of a configuration file")
    shape.add_argument("--explain", metavar="MODEL", help="print where a call for MODEL would go, and why")
    parser.add_argument("--request-id", metavar="ID", default="", help="with --explain: of the call with this id")
    parser.add_argument("--json", action="store_true", help="with --explain: as JSON")


def run(arguments: argparse.Namespace) -> int:
    """0 where the configuration can be served, 2 where not; every fault is a line on stderr.

    With --explain 1 where nobody serves the model.
    """
    if arguments.explain is None and (arguments.request_id or arguments.json):
        print("headrace check: --request-id and --json belong to --explain", file=sys.stderr)
        return 2
    if arguments.schema:
        print(json.dumps(render.to_json_schema(), indent=2))
        return 0
    try:
        config = load(arguments.config, os.environ, {}, attempt)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.explain is not None:
        return _explain(config, arguments)
    if arguments.print:
        print(f"# {_summary(config)}")
        print(render.to_toml(config), end="")
    else:
        print(_summary(config))
    return 0


def _explain(config: Config, arguments: argparse.Namespace) -> int:
    found = explain(config, arguments.explain, arguments.request_id)
    print(json.dumps(found, indent=2) + "\n" if arguments.json else told(found), end="")
    return 0 if found["served"] else 1


def _summary(config: Config) -> str:
    enabled = [backend for backend in config.backends if backend.enabled]
    endpoints = sum(len(backend.endpoints) for backend in enabled)
    keys = len(config.auth.keys)
    counts = (_counted(len(enabled), "backend"), _counted(endpoints, "endpoint"), _counted(keys, "key"))
    return f"ok: {', '.join(counts)}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
