"""What must hold within [[backends]] beyond types and ranges.

Owns the rules of a backend: its name, endpoints, credentials, TLS files, models, passed paths and what is
tried again. It refuses reading secrets (`secrets`). Called by `load`; each rule speaks through a `Report`.
"""

from __future__ import annotations

from typing import Final

from gateway.config.report import FIELD_VALUE, TOKEN, Path, Report, is_text
from gateway.config.rules import exactly_one, listed_paths, one_path, unique_names
from gateway.config.schema import Backend, Config, Endpoint, RetryCause
from gateway.config.shape import words_of
from gateway.config.text import one_of, shown
from gateway.config.urls import TASKS, parse

#: Statuses below 500 that may be about the upstream's state, not about the request.
_REPEATED: Final = frozenset({408, 409, 425, 429})

# Written by the gateway itself: a second one would let a request be framed or routed in two ways.
_OWN_HEADERS: Final = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)


def check(config: Config, report: Report) -> None:
    """Every rule on every backend, enabled or not."""
    for at, backend in enumerate(config.backends):
        path: Path = ("backends", at)
        _name(backend, path, report)
        _endpoints(backend, path, report)
        _auth(backend, (*path, "auth"), report)
        _tls(backend, (*path, "tls"), report)
        _models(backend, (*path, "models"), report)
        _retry(backend, (*path, "retry", "on"), report)
        for name, asked in (("health", backend.health.path), ("load", backend.load.path)):
            if asked:
                one_path(asked, (*path, name, "path"), "/", report)
        listed_paths(backend.passthrough, (*path, "passthrough"), "/v1/", report)
    unique_names([backend.name for backend in config.backends], ("backends",), report)


def _retry(backend: Backend, path: Path, report: Report) -> None:
    for at, cause in enumerate(backend.retry.on):
        if isinstance(cause, int) and cause not in _REPEATED and not 500 <= cause <= 599:
            said = f"is {shown(cause)}, expected {one_of(words_of(RetryCause))}, 408, 409, 425, 429 or 500 to 599"
            report((*path, at), said)


def _name(backend: Backend, path: Path, report: Report) -> None:
    if not FIELD_VALUE.fullmatch(backend.name):  # it is told to clients in x-upstream
        report((*path, "name"), f"is {shown(backend.name)}, expected visible ASCII")


def _endpoints(backend: Backend, path: Path, report: Report) -> None:
    if not backend.endpoints:
        report((*path, "endpoints"), "is empty, expected at least one URL")
    for at, endpoint in enumerate(backend.endpoints):
        inner: Path = (*path, "endpoints", at)
        if isinstance(endpoint, Endpoint):
            url, inner = endpoint.url, (*inner, "url")
        else:
            url = endpoint
        try:
            scheme = parse(url).scheme
        except ValueError as error:
            report(inner, str(error))
            continue
        if scheme != backend.protocol and (scheme in TASKS or backend.protocol in TASKS):
            protocol = shown(backend.protocol)
            only = scheme if scheme in TASKS else backend.protocol
            said = f"has the scheme {scheme} while protocol is {protocol}, expected {only} with {only} only"
            report(inner, said)


def _auth(backend: Backend, path: Path, report: Report) -> None:
    auth = backend.auth
    ways = {"token": auth.token, "token_env": auth.token_env, "token_file": auth.token_file}
    if auth.type == "none":
        if any(ways.values()):
            said = 'is "none" although a token is given, expected one of "bearer", "header", "basic"'
            report((*path, "type"), said)
        return
    exactly_one(ways, path, report)
    if backend.protocol == "litellm" and auth.type != "bearer":
        report((*path, "type"), f"is {shown(auth.type)} with protocol litellm, expected bearer: the SDK writes headers")
    if auth.type == "header" and not TOKEN.fullmatch(auth.header_name):
        said = f"is {shown(auth.header_name)}, expected the name of a header (RFC 9110, 5.1)"
        report((*path, "header_name"), said)
    elif auth.type == "header" and auth.header_name.lower() in _OWN_HEADERS:
        said = f"is {shown(auth.header_name)}, which the gateway itself writes, expected another header"
        report((*path, "header_name"), said)
    elif auth.type == "basic" and (not is_text(auth.username) or ":" in auth.username):
        said = f"is {shown(auth.username)}, expected a user name without a colon or control characters"
        report((*path, "username"), said)


def _tls(backend: Backend, path: Path, report: Report) -> None:
    tls = backend.tls
    if bool(tls.cert) != bool(tls.key):
        report(path, "has only one of cert and key, expected both or none")


def _models(backend: Backend, path: Path, report: Report) -> None:
    if backend.models == "auto":
        return
    seen: set[str] = set()
    for at, model in enumerate(backend.models):
        if isinstance(model, str):
            pairs = [(model, model)]
        else:
            pairs = list(model.items())
            if not pairs:
                report((*path, at), "is an empty table, expected { alias = upstream name }")
        for name, upstream in pairs:
            if not is_text(name) or not is_text(upstream):
                report((*path, at), "is not the name of a model, expected text without control characters")
            elif name in seen:
                report((*path, at), f"is {shown(name)} once more, expected each name once")
            seen.add(name)
