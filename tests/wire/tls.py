"""TLS for scripted upstreams and for clients: contexts over the certificates in `certs` (made by `certs/make`)."""

from __future__ import annotations

import ssl
from pathlib import Path

CERTS = Path(__file__).with_name("certs")
CA = str(CERTS / "ca.pem")
CLIENT_CERT = str(CERTS / "client.pem")
CLIENT_KEY = str(CERTS / "client.key")


def server(name: str = "server", *, ask_client: bool = False) -> ssl.SSLContext:
    """A server's context: *name* is "server" or "elsewhere" (signed by CA), or "nobody" (by itself)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / f"{name}.pem", CERTS / f"{name}.key")
    context.set_alpn_protocols(["h2", "http/1.1"])
    if ask_client:
        context.load_verify_locations(CA)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


#: What a gateway's `server.tls` says in tests.
LISTENER = {"cert": str(CERTS / "server.pem"), "key": str(CERTS / "server.key")}


def client(name: str = "client") -> ssl.SSLContext:
    """A client's context, which trusts CA and shows the certificate *name*; none where it is empty."""
    context = ssl.create_default_context(cafile=CA)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if name:
        context.load_cert_chain(CERTS / f"{name}.pem", CERTS / f"{name}.key")
    return context
