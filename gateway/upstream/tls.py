"""TLS towards upstreams: the settings of one backend as a context.

Owns the context's settings. It refuses handshakes (`pool`). Used by `gateway.upstreams`.
"""

from __future__ import annotations

import ssl


def client_context(*, ca_file: str = "", cert: str = "", key: str = "", verify: bool = True) -> ssl.SSLContext:
    """A context that speaks HTTP/1.1 only (ALPN, RFC 7301) and TLS 1.2 or newer.

    Raises OSError or ssl.SSLError where a file cannot be read or is no certificate.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    context.set_alpn_protocols(["http/1.1"])
    if cert:
        context.load_cert_chain(cert, key or None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
