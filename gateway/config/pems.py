"""PEM files, read once, with the configuration that names them.

Owns the reading. It refuses to judge what is in them (`gateway.certificates`). Called by `load`.
"""

from __future__ import annotations

import os
from typing import Final, TypeVar

from msgspec.structs import replace

from gateway.config.report import Path, Report
from gateway.config.schema import Config, PemFile, ServerTls, UpstreamTls
from gateway.config.shape import fields
from gateway.config.text import shown

#: Bytes. All the authorities that browsers trust take a quarter of one: the name of a wrong file ends here.
LARGEST: Final = 4 << 20

S = TypeVar("S", ServerTls, UpstreamTls)


def resolve(config: Config, report: Report) -> Config:
    """*config* with what the files of the listener and of every enabled backend say."""
    known: dict[str, PemFile] = {}
    tls = _read_all(config.server.tls, ("server", "tls"), report, known)
    backends = tuple(
        replace(backend, tls=_read_all(backend.tls, ("backends", at, "tls"), report, known))
        if backend.enabled
        else backend
        for at, backend in enumerate(config.backends)
    )
    return replace(config, server=replace(config.server, tls=tls), backends=backends)


def read(file: str) -> PemFile:
    """*file* with what it says. Raises OSError."""
    with open(file, "rb") as opened:
        content = opened.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(0, f"it is larger than {LARGEST >> 20} MiB")
    return PemFile(file, content)


def _read_all(section: S, path: Path, report: Report, known: dict[str, PemFile]) -> S:
    """*section* with its files read; *known* are those of other sections, so that each is held once."""
    found: dict[str, PemFile] = {}
    for name, field in fields(type(section)).items():
        file = getattr(section, name)
        if field.kind is not PemFile or not file:
            continue
        if file not in known and not os.path.isfile(file):
            report((*path, name), f"is {shown(file)}, which is no file, expected a PEM file")
            continue
        try:
            found[name] = known[file] = known.get(file) or read(file)
        except OSError as error:
            said = f"is {shown(file)}, which cannot be read ({error.strerror}), expected a PEM file"
            report((*path, name), said)
    return replace(section, **found)
