"""What a configuration names is tried before it is served: log files, certificates, the options of mock peers, the
LiteLLM SDK, and whether a backend has any path for what it is said to be able to.

Owns the trying, and which key is told where it fails. It refuses values by themselves (`gateway.config`). Handed to
`config.load` by `check` and `serve`, so that both tell the same, and a reload too. Nothing is left behind by it.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from gateway.certificates import CertificateError, server_context
from gateway.config.report import Report
from gateway.config.schema import Backend, Config
from gateway.config.text import one_of, shown
from gateway.config.urls import TASKS
from gateway.presets import PRESETS, kind_of, kinds_of
from gateway.upstream.litellm import MISSING, is_installed, read_endpoint
from gateway.upstream.mock import read_options
from gateway.upstream.tls import client_context


def attempt(config: Config, report: Report) -> None:
    """Report what would keep *config* from being served."""
    tls = config.server.tls
    if tls.cert:
        try:
            server_context(tls.cert, tls.key, tls.client_ca)
        except CertificateError as error:
            report(("server", "tls", error.key), error.text)
    for at, output in enumerate(config.logging.output):
        if output not in ("stdout", "stderr") and (reason := _unwritable(output)):
            said = f"is {shown(output)}, which cannot be written ({reason}), expected a file, stdout or stderr"
            report(("logging", "output", at), said)
    for at, backend in enumerate(config.backends):
        if backend.enabled:
            _try_backend(backend, at, report)
            # what [defaults] say is for those whom it concerns
            if backend.protocol != "anthropic" and backend.api_version != config.defaults.api_version:
                said = f"is {shown(backend.api_version)} with protocol {backend.protocol}, expected anthropic with it"
                report(("backends", at, "api_version"), said)


def _unwritable(file: str) -> str:
    """Why *file* cannot be written; empty where it can. A file that is not there yet is not made."""
    path = Path(file)
    try:
        if path.exists():
            # As the log will open it: a fifo that nobody reads is an error at once.
            os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
        elif not path.parent.is_dir():
            return f"{path.parent} is no directory"
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            return f"no file may be made in {path.parent}"
    except OSError as error:
        return error.strerror or repr(error)
    return ""


def _try_backend(backend: Backend, at: int, report: Report) -> None:
    tls = backend.tls
    if tls.ca_file or tls.cert:
        try:
            client_context(tls)
        except ssl.SSLError as error:
            report(("backends", at, "tls"), f"names files that cannot be used ({error.reason}), expected PEM files")
    _try_paths(backend, at, report)
    if backend.protocol == "litellm" and not is_installed():
        report(("backends", at, "endpoints"), MISSING)
    played = {"mock": (read_options, "played"), "litellm": (read_endpoint, "asked")}.get(backend.protocol)
    if played is None:
        return
    read, word = played
    for number, endpoint in enumerate(backend.endpoints):
        try:
            read(endpoint if isinstance(endpoint, str) else endpoint.url)
        except ValueError as error:
            report(("backends", at, "endpoints", number), f"cannot be {word}: {error}")


def _try_paths(backend: Backend, at: int, report: Report) -> None:
    """What is certain alone: most servers may have any path, whatever they speak besides; tasks of ours have theirs."""
    own = PRESETS[backend.protocol].native
    is_ours = backend.protocol in TASKS
    for number, path in enumerate(backend.native):
        if is_ours and path not in own:
            said = f"is {shown(path)}, which protocol {backend.protocol} has not, expected one of {one_of(own)}"
            report(("backends", at, "native", number), said)
    able = kinds_of(backend)
    for number, word in enumerate(backend.capabilities):
        if kind_of(word) not in able:
            what = "native has" if backend.native else f"protocol {backend.protocol} has"
            more = "" if is_ours else ", or its path in native"
            said = f"is {shown(word)}, for which {what} no path, expected one of {one_of(able)}{more}"
            report(("backends", at, "capabilities", number), said)
