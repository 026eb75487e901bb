"""Secrets, fetched from the variables and files that name them: keys become digests, tokens become text.

Owns the reading, and the rules that need the secret itself. It refuses which ways of giving one are allowed
(`rules`, `backends`). No fault says more of a secret than where it was looked for. Called by `load`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from gateway.config.report import FIELD_VALUE, Path, Report, is_text
from gateway.config.schema import LONGEST_KEY, Backend, Config, Key, Secret, UpstreamAuth
from gateway.config.urls import parse

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Bytes. More than any key or token has: the name of a wrong file ends here, not in memory.
_LARGEST_FILE: Final = 64 << 10
#: A vendor's host -> the variable that its SDKs read, and how its key is presented.
_VENDORS: Final = {
    "api.openai.com": ("OPENAI_API_KEY", UpstreamAuth(type="bearer")),
    "api.anthropic.com": ("ANTHROPIC_API_KEY", UpstreamAuth(type="header", header_name="x-api-key")),
}


def resolve(config: Config, environ: Mapping[str, str], report: Report) -> Config:
    """*config* with every key as its SHA-256 and every enabled backend's token as text."""
    keys = tuple(_hashed(key, ("auth", "keys", at), environ, report) for at, key in enumerate(config.auth.keys))
    backends = tuple(
        _with_token(backend, ("backends", at, "auth"), environ, report) for at, backend in enumerate(config.backends)
    )
    return replace(config, auth=replace(config.auth, keys=keys), backends=backends)


def digest(key: str) -> str:
    """What is kept of an API key: SHA-256 in hex, without a salt, since a key is no password."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def key_flaw(key: str) -> str:
    """Why *key* cannot be an API key; empty where it can."""
    if not is_text(key):
        return "is empty, has spaces around it or control characters in it, expected one line of text"
    if len(key.encode()) > LONGEST_KEY:
        return f"is longer than {LONGEST_KEY} bytes, expected a key of at most {LONGEST_KEY}"
    return ""


def _hashed(key: Key, path: Path, environ: Mapping[str, str], report: Report) -> Key:
    if key.sha256:
        return replace(key, key=Secret(""), sha256=key.sha256.lower())
    found = _fetch(key, "key", path, environ, report)
    if found is None:
        return key
    if flaw := key_flaw(found.text):
        report(found.path, f"the key {flaw}")
        return key
    return replace(key, key=Secret(""), sha256=digest(found.text))


def _with_token(backend: Backend, path: Path, environ: Mapping[str, str], report: Report) -> Backend:
    auth = backend.auth
    if backend.enabled and auth.type == "none":
        auth = _vendors(backend, environ)
        path = (*path[:-1], "endpoints") if auth.type != "none" else path
    if not backend.enabled or auth.type == "none":
        return backend
    found = _fetch(auth, "token", path, environ, report)
    if found is None:
        return backend
    if not _may_be_sent(auth, found.text):
        said = "the token has control characters or spaces around it, expected one line of ASCII"
        report(found.path, said)
    return replace(backend, auth=replace(auth, token=Secret(found.text)))


def _vendors(backend: Backend, environ: Mapping[str, str]) -> UpstreamAuth:
    """How a vendor's own API is asked by a backend that says nothing of credentials: with its variable, if it is set.

    Nobody else is ever sent that key.
    """
    hosts = {_host(given if isinstance(given, str) else given.url) for given in backend.endpoints}
    for host, (variable, way) in _VENDORS.items():
        if hosts == {host} and environ.get(variable):
            return replace(way, token_env=variable)
    return backend.auth


def _host(url: str) -> str:
    """The host of an https URL; empty where it is none, which other rules tell."""
    try:
        parsed = parse(url)
    except ValueError:
        return ""
    return parsed.host.lower() if parsed.scheme == "https" else ""


def _may_be_sent(auth: UpstreamAuth, token: str) -> bool:
    # a basic password is sent in base64, and may be any text
    return is_text(token) if auth.type == "basic" else FIELD_VALUE.fullmatch(token) is not None


class _Found(NamedTuple):
    """A secret, and the path of what gave it."""

    path: Path
    text: str

    def __repr__(self) -> str:
        return f"<_Found {self.path}>"


def _fetch(
    given: Key | UpstreamAuth, name: str, path: Path, environ: Mapping[str, str], report: Report
) -> _Found | None:
    """The secret that *given* has as *name*, *name*_env or *name*_file; None where none is to be had."""
    plain, variable, file = (getattr(given, way) for way in (name, f"{name}_env", f"{name}_file"))
    if plain:
        return _Found((*path, name), plain)
    if variable:
        path = (*path, f"{name}_env")
        text = _from_variable(variable, path, environ, report)
    elif file:
        path = (*path, f"{name}_file")
        text = _from_file(file, path, report)
    else:
        return None
    return None if text is None else _Found(path, text)


def _from_variable(name: str, path: Path, environ: Mapping[str, str], report: Report) -> str | None:
    if not _VARIABLE.fullmatch(name):
        # not shown: this is where a secret is pasted by mistake
        report(path, "is not the name of an environment variable, expected letters, digits and _")
    elif not environ.get(name):
        report(path, f"the environment variable {name} is not set or empty, expected the secret in it")
    else:
        return environ[name]
    return None


def _from_file(name: str, path: Path, report: Report) -> str | None:
    """The file's text without its last line end: an editor's newline is no part of a secret."""
    try:
        with open(name, "rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
        text = content.decode()
    except OSError as error:
        report(path, f"the file {name} cannot be read ({error.strerror}), expected the secret in it")
    except ValueError:
        report(path, f"the file {name} is not UTF-8, expected the secret in it")
    else:
        if len(content) <= _LARGEST_FILE and text.strip():
            return text.removesuffix("\n").removesuffix("\r")
        report(path, f"the file {name} is empty or too large, expected the secret in it")
    return None
