"""What must hold within [server] beyond types and ranges.

Owns the rules of where the gateway listens and of the proxies in front of it. It refuses the key `dev-key`,
which is judged by who can connect (`rules`), and what is in the files of [server.tls]
(`gateway.certificates`). Called by `load`; each rule speaks through a `Report`.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Final

from gateway.config.report import Report, is_text
from gateway.config.schema import UNIX, Config, Server, ServerTls
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
    _trusted(server, report)
    _tls(server.tls, report)
    if not _MODE.fullmatch(server.socket_mode):
        said = f'is {shown(server.socket_mode)}, expected three octal digits such as "0660"'
        report(("server", "socket_mode"), said)


def _trusted(server: Server, report: Report) -> None:
    for at, listed in enumerate(server.trusted_proxies):
        try:
            if listed != UNIX:
                ip_network(listed)
        except ValueError:
            said = f'is {shown(listed)}, expected an IP address, a network such as "10.0.0.0/8", or "{UNIX}"'
            report(("server", "trusted_proxies", at), said)
    if server.proxy_protocol and not server.trusted_proxies:
        said = "is true while server.trusted_proxies is empty, expected the addresses that send the header"
        report(("server", "proxy_protocol"), said)


def _tls(tls: ServerTls, report: Report) -> None:
    path = ("server", "tls")
    if bool(tls.cert) != bool(tls.key):
        report(path, "has only one of cert and key, expected both or none")
    elif tls.client_ca and not tls.cert:
        report((*path, "client_ca"), "is set without cert and key, expected all three")
