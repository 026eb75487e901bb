"""What must hold within [server] beyond types and ranges.

Owns the rules of where the gateway listens. It refuses the key `dev-key`, which is judged by who can connect
(`rules`). Called by `load`; each rule speaks through a `Report`.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.config.report import Report, is_text
from gateway.config.schema import UNIX, Config
from gateway.config.text import shown
from gateway.config.urls import is_host

#: Bytes. A unix socket's path has 107 at most; its file is made under a longer name, and then moved.
_LONGEST_PATH: Final = 96
_MODE: Final = re.compile(r"0?[0-7]{3}")


def check(config: Config, report: Report) -> None:
    """Every rule of [server]."""
    server = config.server
    host = server.host
    if host.startswith(UNIX):
        path = host.removeprefix(UNIX)
        if not path.startswith("/") or not is_text(path) or len(path.encode()) > _LONGEST_PATH:
            said = f"is {shown(host)}, expected unix:/ and the rest of a path of at most {_LONGEST_PATH} bytes"
            report(("server", "host"), said)
    elif not is_host(host):
        said = f"is {shown(host)}, expected an IP address or the name of a host, or unix:/path"
        report(("server", "host"), said)
    if not _MODE.fullmatch(server.socket_mode):
        said = f'is {shown(server.socket_mode)}, expected three octal digits such as "0660"'
        report(("server", "socket_mode"), said)
