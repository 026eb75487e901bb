"""Files, environment and command line to one `Config`.

Owns the order of strength: defaults < files < environment < command line. It refuses to read a variable or
judge a value itself (see the neighbours that it calls, in their order). Called by `gateway.cli`, and again
for a reload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gateway.config import backends, complete, environment, files, pems, quick, routes, rules, secrets, server
from gateway.config.assign import assign
from gateway.config.convert import convert
from gateway.config.faults import ConfigError, Faults
from gateway.config.report import Report
from gateway.config.schema import Config

__all__ = ["ConfigError", "load"]


def load(
    paths: Sequence[str],
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    attempt: Callable[[Config, Report], None] | None = None,
) -> Config:
    """The configuration that *paths*, *environ* and *overrides* give together.

    A path is a TOML file or a folder of them. An override's name is dotted (`server.port`); None overrides
    nothing. The result has every key as its SHA-256, every token as text, and what PEM files say. A configuration that
    is sound by itself is handed to *attempt*, which reports what cannot be done with it.
    Raises ConfigError with every fault.
    """
    faults = Faults()
    root = files.read(paths, faults)
    quick.apply(root, environ, faults)
    environment.add_keys(root, environ, environment.API_KEYS, "env")
    environment.apply(root, environ, faults)
    for name, value in overrides.items():
        if value is not None:
            assign(root, name.split("."), value, "command line", faults, ".".join)
    environment.apply_rust_log(root, environ)
    # what could not be read would look like what nobody wrote
    whole = not faults.found()
    complete.complete(root, quick=quick.given(environ))
    config = convert(root, Config, faults)
    report = Report(root, faults)
    rules.check(config, report)
    server.check(config, report)
    backends.check(config, report)
    routes.check(config, report)
    config = secrets.resolve(config, environ, report)
    config = pems.resolve(config, report)
    if whole:
        routes.check_whole(config, report)
        rules.check_whole(config, report)
    if attempt is not None and not faults.found():
        attempt(config, report)
    faults.throw()
    return config
