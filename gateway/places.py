"""What makes a peer the same peer from one configuration to the next, and from one answer of the DNS to the next.

Pure. It refuses what is kept by it (`gateway.upstreams`, which makes the places).
"""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import NamedTuple

from gateway.config import schema


class Place(NamedTuple):
    """What makes a peer the same peer: two connections may serve the same calls only where all of it is equal."""

    backend: str
    url: str
    tls: schema.UpstreamTls
    credentials: bytes
    #: What the files of *tls* say, as digests: a renewed certificate has the path of the former one.
    files: tuple[bytes, ...] = ()
    #: Where each address of a name is a peer: which one. Empty for a peer that is all that its URL names.
    address: str = ""

    @property
    def label(self) -> str:
        """What logs and metrics call the peer."""
        return f"{self.url} {self.address}" if self.address else self.url

    @property
    def identity(self) -> int:
        """The same in every process, and never another place's; never 0."""
        return int.from_bytes(blake2b(repr(self).encode(), digest_size=7).digest(), "little") + 1


def contents(tls: schema.UpstreamTls) -> tuple[bytes, ...]:
    """What the files that are named say."""
    return tuple(blake2b(file.content, digest_size=16).digest() for file in (tls.ca_file, tls.cert, tls.key) if file)


def credentials(auth: schema.UpstreamAuth) -> bytes:
    """The header line that a backend is called with."""
    if auth.type == "bearer":
        line = f"authorization: Bearer {auth.token}"
    elif auth.type == "header":
        line = f"{auth.header_name.lower()}: {auth.token}"
    elif auth.type == "basic":
        pair = f"{auth.username}:{auth.token}".encode()
        line = f"authorization: Basic {base64.b64encode(pair).decode('ascii')}"
    else:
        return b""
    return line.encode("latin-1") + b"\r\n"
