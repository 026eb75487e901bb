"""The address of a peer, as configured: one strict parser, so that what was checked is what is dialled.

Pure. It refuses names to resolve and connections to open (`gateway.upstream`). Read by `rules` and by who
builds peers.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

_PORTS: Final = {"http": 80, "https": 443, "mock": 0, "litellm": 0}
#: Addresses that are no host's: they name what a task of this process plays or asks.
TASKS: Final = ("mock", "litellm")
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<hash>#.*)?"
)
_AUTHORITY: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")

EXPECTED: Final = (
    "expected http://host[:port][/path], https://host[:port][/path], mock://name[?query] "
    "or litellm://[provider/]model[?api_base=URL]"
)


class Url(NamedTuple):
    """A peer's address. `host` is without brackets, `port` 0 for mock and litellm, `path` and `query` as written.

    Of litellm `host` and `path` are the name of a model, which may have colons.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str


def parse(url: str) -> Url:
    """*url* in its parts. Raises ValueError with a sentence that never repeats a password."""
    found = _URL.fullmatch(url)
    if not found or not _VISIBLE.fullmatch(url):
        raise ValueError(f"is not a URL of visible ASCII, {EXPECTED}")
    scheme = found["scheme"].lower()
    if scheme not in _PORTS:
        raise ValueError(f"has the scheme {scheme}, {EXPECTED}")
    if "@" in found["authority"]:
        raise ValueError("carries a user name or password, expected it under auth")
    if found["hash"] is not None:
        raise ValueError(f"carries a fragment (#), {EXPECTED}")
    if found["query"] is not None and scheme not in TASKS:
        raise ValueError(f"carries a query (?), {EXPECTED}")
    if scheme == "litellm":
        if not found["authority"]:
            raise ValueError(f"names no model, {EXPECTED}")
        return Url(scheme, found["authority"], 0, found["path"], (found["query"] or "")[1:])
    authority = _AUTHORITY.fullmatch(found["authority"])
    if not authority or not is_host(authority["host"]):
        raise ValueError(f"has no valid host and port, {EXPECTED}")
    port = int(authority["port"] or _PORTS[scheme])
    if not (0 < port <= 65535 or (scheme == "mock" and authority["port"] is None)):
        raise ValueError(f"has the port {port}, expected one from 1 to 65535")
    return Url(scheme, bare(authority["host"]), port, found["path"], (found["query"] or "")[1:])


def bare(host: str) -> str:
    """*host* without the brackets of an IPv6 address."""
    return host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host


def is_host(host: str) -> bool:
    """True for an IP address (IPv6 with or without brackets) or what may be a host's name."""
    if re.fullmatch(r"[0-9.]+", host) or ":" in host:
        return _address(host) is not None
    return re.fullmatch(r"(?!.*\.\.)[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?", host) is not None


def is_address(host: str) -> bool:
    """True for an IP address, which nobody needs to be asked for."""
    return _address(host) is not None


def is_loopback(host: str) -> bool:
    """True where only this machine can reach *host*: 127.0.0.0/8, ::1 and localhost."""
    address = _address(host)
    return address.is_loopback if address else host.lower() == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(bare(host))
    except ValueError:
        return None
