"""Whose word about a client's address is taken: the trusted proxies.

Owns `Proxies` and the reading of X-Forwarded-For. It refuses sockets and the PROXY protocol's bytes. One is made per
generation by `gateway.generation`.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from gateway.config.schema import UNIX

#: Answers kept, and bytes of the longest question: proxies are few, and clients come again.
MEMO_LIMIT: Final = 4096
QUESTION_LIMIT: Final = 128


class Proxies:
    """The addresses in front of us that tell the truth."""

    __slots__ = ("_clients", "_networks", "_unix")

    def __init__(self, listed: Iterable[str]) -> None:
        """*listed*: addresses, networks as 10.0.0.0/8, or UNIX for the clients of a unix socket."""
        listed = set(listed)
        self._unix = UNIX in listed
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(map(ip_network, listed - {UNIX}))
        self._clients: dict[tuple[bytes, str], str] = {}

    def trusts(self, address: str) -> bool:
        """Whether *address*, as a socket or a header tells it, is one of them."""
        if address == UNIX:
            return self._unix
        found = _parse(address) if self._networks else None
        return found is not None and any(found in network for network in self._networks)

    def client(self, forwarded: bytes, proxy: str) -> str:
        """Who the request is from that *proxy*, which is trusted, passes on with *forwarded* in X-Forwarded-For.

        The right-most address that is not trusted: what stands left of it anybody may have written. Where all are
        trusted the left-most one, and where one is no address the last one before it.
        """
        if len(forwarded) > QUESTION_LIMIT:
            return self._find(forwarded, proxy)
        key = (forwarded, proxy)
        known = self._clients.get(key)
        if known is None:
            known = self._find(forwarded, proxy)
            if len(self._clients) >= MEMO_LIMIT:
                self._clients.clear()  # a flood of addresses costs the memo, never memory
            self._clients[key] = known
        return known

    def _find(self, forwarded: bytes, proxy: str) -> str:
        client = proxy
        for hop in reversed(forwarded.split(b",")):
            found = _parse(hop.strip(b" \t").decode("latin-1"))
            if found is None:
                break
            client = str(found)
            if not any(found in network for network in self._networks):
                break
        return client


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """*text* as an address, without the port that some write behind it; an IPv4 one as such."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
