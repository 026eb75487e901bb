"""`headrace check`: judge a configuration without serving it.

Owns the command's options and output. It refuses to judge (`config.load`) and to format (`config.render`).
Called by `gateway.cli`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from gateway.certificates import CertificateError, server_context
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


def run(arguments: argparse.Namespace) -> int:
    """0 where the configuration can be served, 2 where not; every fault is a line on stderr."""
    if arguments.schema:
        print(json.dumps(render.to_json_schema(), indent=2))
        return 0
    try:
        config = load(arguments.config, os.environ, {})
        if config.server.tls.cert:
            server_context(config.server.tls.cert, config.server.tls.key, config.server.tls.client_ca)
    except (ConfigError, CertificateError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.print:
        print(f"# {_summary(config)}")
        print(render.to_toml(config), end="")
    else:
        print(_summary(config))
    return 0


def _summary(config: Config) -> str:
    enabled = [backend for backend in config.backends if backend.enabled]
    endpoints = sum(len(backend.endpoints) for backend in enabled)
    keys = len(config.auth.keys)
    counts = (_counted(len(enabled), "backend"), _counted(endpoints, "endpoint"), _counted(keys, "key"))
    return f"ok: {', '.join(counts)}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
