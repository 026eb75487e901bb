"""`headrace key`: make an API key, or the digest of one.

Owns the command's options and output. It takes no key as an argument, since every user of a machine sees
those. Called by `gateway.cli`.
"""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
from typing import Final

from gateway.config.report import is_text
from gateway.config.schema import LONGEST_KEY
from gateway.config.secrets import digest, key_flaw
from gateway.config.text import quoted

PREFIX: Final = "hr_"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="print a new key and the TOML that admits it")
    new.add_argument("--name", default="new", help="what the key is called in logs (default: new)")
    actions.add_parser("hash", help="read a key from standard input, print its SHA-256")


def run(arguments: argparse.Namespace) -> int:
    """0, or 2 where the name or the key cannot be used; the reason is a line on stderr."""
    return _new(arguments.name) if arguments.action == "new" else _hash()


def _new(name: str) -> int:
    if not is_text(name):
        return _refuse("--name: is empty, has spaces around it or control characters in it, expected a name")
    key = PREFIX + secrets.token_urlsafe(32)
    print(key)
    print("\n# The key is shown this once. To admit it, add to the configuration:")
    print(f"[[auth.keys]]\nname = {quoted(name)}\nsha256 = {quoted(digest(key))}")
    return 0


def _hash() -> int:
    if sys.stdin.isatty():
        key = getpass.getpass("Key: ")
    else:
        # one more than the longest, so that a longer one is refused and not cut
        text = sys.stdin.buffer.read(4 * LONGEST_KEY).decode("utf-8", "surrogateescape")
        key = text.removesuffix("\n").removesuffix("\r")
    if flaw := key_flaw(key):
        return _refuse(f"standard input: the key {flaw}")
    print(digest(key))
    return 0


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2
