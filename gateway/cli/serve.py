"""`headrace serve`: load the configuration and run the gateway.

Owns the command's options and what it prints when it is ready. It refuses to serve (`gateway.host`). Called by
`gateway.cli`.
"""

from __future__ import annotations

import argparse
import os
import sys

from gateway import host
from gateway.cli.trial import attempt
from gateway.config.load import ConfigError, load
from gateway.config.schema import UNIX, Config
from gateway.listener import ListenError

_HINT = """Headrace listens on {url} with one mock backend. Try:

  curl {target}/v1/chat/completions -H 'Authorization: Bearer dev-key' -H 'Content-Type: application/json' \\
    -d '{{"model": "mock", "messages": [{{"role": "user", "content": "Hello"}}]}}'
"""


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
    parser.add_argument("--host", help="address to listen on (server.host)")
    parser.add_argument("--port", help="port to listen on, 0: any free one (server.port)")
    parser.add_argument("--workers", help="processes that serve, 0: one per usable core (server.workers)")
    parser.add_argument("--log-level", help="debug, info, warning or error (logging.level)")
    parser.add_argument("--log-format", help="json or pretty (logging.format)")


def run(arguments: argparse.Namespace) -> int:
    """0 after a drain, 2 where the configuration or the address cannot be used."""
    overrides = {
        "server.host": arguments.host,
        "server.port": _number(arguments.port),
        "server.workers": _number(arguments.workers),
        "logging.level": arguments.log_level,
        "logging.format": arguments.log_format,
    }
    first: list[Config] = []

    def read() -> Config:
        first.append(config := load(arguments.config, os.environ, overrides, attempt))
        return config

    def ready(url: str) -> None:
        keys = [key.name for key in first[0].auth.keys]
        if [backend.name for backend in first[0].backends] == ["mock"] and keys == ["dev"]:
            print(_HINT.format(url=url, target=_target(url)), file=sys.stderr, flush=True)

    try:
        return host.run(read, arguments.config, ready)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except ListenError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 2
    except (
        OSError,
        ValueError,
    ) as error:  # a log that cannot be opened, a certificate that cannot be read, mock options
        print(f"headrace: {error}", file=sys.stderr)
        return 2


def _target(url: str) -> str:
    """*url* as curl takes it."""
    path = url.removeprefix(UNIX)
    return url if path == url else f"--unix-socket {path} http://localhost"


def _number(text: str | None) -> object:
    """The option as a number, if it is one; the schema says what is wrong with anything else."""
    return int(text) if text is not None and text.isdecimal() else text
