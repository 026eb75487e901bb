"""The certificate that the gateway shows its clients, and the authority that theirs must come from.

Owns the context of the TLS listener, and the words for files that are none. It refuses handshakes (`gateway.arrival`)
and to read files (`gateway.config.pems` has). Made by `gateway.generation`; `gateway.cli.trial` makes one too, to judge
the files.
"""

from __future__ import annotations

import ssl
from typing import Final

from gateway.config.schema import PemFile
from gateway.pem import paths

NO_FILE: Final = PemFile()


class CertificateError(ValueError):
    """A file is not what it should be; the text is for the operator, and names the key that names the file."""

    def __init__(self, key: str, file: str, text: str) -> None:
        self.key = key
        self.text = f"the file {file} {text}"
        super().__init__(f"server.tls.{key}: {self.text}")


def server_context(cert: PemFile, key: PemFile, client_ca: PemFile = NO_FILE) -> ssl.SSLContext:
    """A context that speaks TLS 1.2 or newer and HTTP/1.1 (ALPN, RFC 7301), and asks for clients' certificates.

    The latter only with *client_ca*, the authorities that may have signed them. Raises `CertificateError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # it only costs the server
    context.set_alpn_protocols(["http/1.1"])
    with paths(cert, key, client_ca) as (cert_path, key_path, authorities):
        try:
            context.load_cert_chain(cert_path, key_path, password=_no_password)
        except ssl.SSLError as error:
            raise _judge_pair(cert, key, error, cert_path) from None
        if client_ca:
            try:
                context.load_verify_locations(authorities)
            except ssl.SSLError:
                text = "has no certificate in it, expected the authorities, as PEM"
                raise CertificateError("client_ca", client_ca, text) from None
            context.verify_mode = ssl.CERT_REQUIRED
    return context


def _judge_pair(cert: str, key: str, error: ssl.SSLError, cert_path: str) -> CertificateError:
    """Which of the two files is at fault: OpenSSL does not say. *cert_path* is where *cert* is read."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return CertificateError("key", key, f"is not the key of {cert}, expected the one that it was made with")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert_path)
    except ssl.SSLError:
        return CertificateError("cert", cert, "has no certificate in it, expected the server's own one first, as PEM")
    if error.reason:  # a key that is too short, say: OpenSSL's own word for it
        return CertificateError("cert", cert, f"is refused by OpenSSL ({error.reason}), expected another certificate")
    return CertificateError("key", key, "has no key in it or is encrypted, expected a key without a passphrase, as PEM")


def _no_password() -> str:
    """Without this OpenSSL would ask on the terminal, and wait."""
    return ""
