"""What must hold beyond types and ranges, in every section but [server], [[backends]], [[routes]] and [routing].

Owns the rules of auth, logging, cors and metrics, and of the key `dev-key`. It refuses listening
(`server`), backends (`backends`), routes (`routes`) and reading secrets (`secrets`). Called by `load`; each
rule speaks through a `Report`.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.config.complete import DEV_KEY
from gateway.config.report import FIELD_VALUE, TOKEN, Path, Report, is_text
from gateway.config.schema import Config, Key
from gateway.config.secrets import digest
from gateway.config.text import quoted, shown
from gateway.config.urls import is_host, is_loopback

_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")
_PARAMETER: Final = re.compile(r"[A-Za-z0-9._~-]*")
#: scheme://host[:port], as a browser sends it; "null" is what it sends for a sandboxed page.
_ORIGIN: Final = re.compile(r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#,@]+")
_EXPECTED_TEXT: Final = "expected text without control characters or spaces around it"
_KEY_WAYS: Final = ("key", "key_env", "key_file", "sha256")


def check(config: Config, report: Report) -> None:
    """Every rule that needs no secret."""
    _auth(config, report)
    for at, key in enumerate(config.auth.keys):
        _key(key, ("auth", "keys", at), report)
    unique_names([key.name for key in config.auth.keys], ("auth", "keys"), report)
    _logging(config, report)
    _cors(config, report)
    one_path(config.metrics.path, ("metrics", "path"), "/", report)


def check_whole(config: Config, report: Report) -> None:
    """The rules on what may be missing, for a configuration read whole and with the keys' digests."""
    seen: dict[str, str] = {}
    for at, key in enumerate(config.auth.keys):
        if key.sha256 and key.sha256 in seen:
            said = f"is the same key as {quoted(seen[key.sha256])}, expected each key once"
            report(("auth", "keys", at), said)
        seen.setdefault(key.sha256, key.name)
    if not config.auth.enabled:
        return
    host = config.server.host
    open_to_all = set(seen) == {digest(DEV_KEY)} and is_host(host) and not is_loopback(host)
    if not config.auth.keys:
        said = "no key is configured, expected at least one (set auth.enabled = false to serve everyone)"
        report(("auth", "keys"), said)
    elif open_to_all and not config.auth.allow_dev_key:
        said = (
            f"is {shown(host)} while {DEV_KEY} is the only key, expected a loopback address, "
            "a key of your own, or auth.allow_dev_key = true (GEN_GATEWAY__AUTH__ALLOW_DEV_KEY=true)"
        )
        report(("server", "host"), said)


def unique_names(names: list[str], array: Path, report: Report, key: str = "name") -> None:
    """Each name, found at *key*, once in *array*. An empty one is told as such elsewhere."""
    first: dict[str, int] = {}
    for at, name in enumerate(names):
        if name in first and name:
            there = report.source((*array, first[name], key))
            report((*array, at, key), f"is {shown(name)}, which {there} uses too, expected each {key} once")
        first.setdefault(name, at)


def listed_text(values: tuple[str, ...], path: Path, report: Report) -> None:
    """Every element is one line of text."""
    for at, value in enumerate(values):
        if not is_text(value):
            report((*path, at), f"is {shown(value)}, {_EXPECTED_TEXT}")


def listed_paths(values: tuple[str, ...], path: Path, prefix: str, report: Report) -> None:
    """Every element is a path, or a pattern of paths, below *prefix*."""
    for at, value in enumerate(values):
        one_path(value, (*path, at), prefix, report)


def one_path(value: str, path: Path, prefix: str, report: Report) -> None:
    """It is a path, or a pattern of paths, below *prefix*."""
    if not value.startswith(prefix) or not FIELD_VALUE.fullmatch(value) or " " in value:
        report(path, f"is {shown(value)}, expected visible ASCII that starts with {quoted(prefix)}")


#: Fields that requests are framed, routed or traced by.
_TAKEN_FIELDS: Final = frozenset(
    {
        *("authorization", "connection", "content-encoding", "content-length", "content-type", "expect", "host"),
        *("idempotency-key", "origin", "te", "traceparent", "transfer-encoding", "upgrade", "x-backend"),
        *("x-request-id", "x-trace-id"),
    }
)


def _auth(config: Config, report: Report) -> None:
    auth = config.auth
    if auth.header.lower() in _TAKEN_FIELDS:
        report(("auth", "header"), f"is {shown(auth.header)}, which means something else, expected a header of its own")
    if not TOKEN.fullmatch(auth.header):
        report(("auth", "header"), f"is {shown(auth.header)}, expected the name of a header (RFC 9110, 5.1)")
    if not _PARAMETER.fullmatch(auth.query_param):
        said = f"is {shown(auth.query_param)}, expected letters, digits and ._~- (empty: no parameter)"
        report(("auth", "query_param"), said)
    listed_paths(auth.bypass_paths, ("auth", "bypass_paths"), "/", report)


def _key(key: Key, path: Path, report: Report) -> None:
    if not is_text(key.name):
        report((*path, "name"), f"is {shown(key.name)}, {_EXPECTED_TEXT}")
    exactly_one({way: getattr(key, way) for way in _KEY_WAYS}, path, report)
    if key.sha256 and not _SHA256.fullmatch(key.sha256):
        # not shown: this is where a key is pasted by mistake
        report((*path, "sha256"), "is not a SHA-256, expected 64 hexadecimal digits (see headrace key hash)")
    listed_text(key.allowed_models, (*path, "allowed_models"), report)


def exactly_one(ways: dict[str, str], path: Path, report: Report) -> None:
    """Exactly one of the *ways* to give a secret is used."""
    used = [way for way, value in ways.items() if value]
    if len(used) != 1:
        has = f"has {' and '.join(used)}" if used else "has none of them"
        report(path, f"{has}, expected exactly one of {', '.join(ways)}")


def _logging(config: Config, report: Report) -> None:
    listed_text(config.logging.output, ("logging", "output"), report)


def _cors(config: Config, report: Report) -> None:
    for at, origin in enumerate(config.cors.allow_origins):
        if not _ORIGIN.fullmatch(origin) or not FIELD_VALUE.fullmatch(origin):
            said = f'is {shown(origin)}, expected "*" or scheme://host[:port]'
            report(("cors", "allow_origins", at), said)
    for at, header in enumerate(config.cors.allow_headers):
        if not TOKEN.fullmatch(header):  # "*" is a token too
            said = f'is {shown(header)}, expected "*" or the name of a header (RFC 9110, 5.1)'
            report(("cors", "allow_headers", at), said)
