"""TLS towards upstreams: the settings of one backend as a context.

Owns the context's settings. It refuses handshakes (`pool`) and to read files (`gateway.config.pems` has). Used by
`gateway.upstreams`.
"""

from __future__ import annotations

import ssl

from gateway.config.schema import UpstreamTls
from gateway.pem import paths


def client_context(tls: UpstreamTls) -> ssl.SSLContext:
    """A context that speaks HTTP/1.1 only (ALPN, RFC 7301) and TLS 1.2 or newer.

    Raises ssl.SSLError where a file has no certificate or key in it.
    """
    with paths(tls.ca_file, tls.cert, tls.key) as (ca_file, cert, key):
        context = ssl.create_default_context(cafile=ca_file or None)
        context.set_alpn_protocols(["http/1.1"])
        if cert:
            context.load_cert_chain(cert, key or None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
