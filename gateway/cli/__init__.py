"""The command `headrace`.

Owns the choice of the subcommand. It refuses options of their own (each module has its `add_arguments` and
`run`). Called by the installed script and by `python -m gateway`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gateway import __version__
from gateway.cli import beginning, check, key, serve  # in this order: the first one is for the others
from gateway.compiled import is_compiled

__all__ = ["main"]

beginning.over()


def main(argv: Sequence[str] | None = None) -> int:
    """Run *argv* (the process's own where None). Returns the exit status; a usage error exits with 2."""
    parser = argparse.ArgumentParser(
        prog="headrace", description="One OpenAI-compatible door in front of every backend."
    )
    form = "compiled" if is_compiled() else "plain Python"
    parser.add_argument("--version", action="version", version=f"headrace {__version__} ({form})")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serving = commands.add_parser("serve", help="run the gateway")
    serve.add_arguments(serving)
    serving.set_defaults(run=serve.run)

    checking = commands.add_parser("check", help="judge a configuration, and print it")
    check.add_arguments(checking)
    checking.set_defaults(run=check.run)

    keys = commands.add_parser("key", help="make an API key, or its digest")
    key.add_arguments(keys)
    keys.set_defaults(run=key.run)

    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status
