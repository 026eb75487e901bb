"""The files of [server.tls]: each that is not what it should be is named, with its key, in one line."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from gateway.certificates import CertificateError, server_context
from gateway.config.pems import read
from gateway.config.schema import PemFile

CERTS = Path(__file__).parents[1] / "wire" / "certs"
CERT, KEY, CA = (str(CERTS / name) for name in ("server.pem", "server.key", "ca.pem"))


def refusal(cert: str = CERT, key: str = KEY, client_ca: str = "") -> str:
    with pytest.raises(CertificateError) as caught:
        server_context(*(read(file) if file else PemFile() for file in (cert, key, client_ca)))
    return str(caught.value)


def test_it_speaks_tls_1_2_or_newer() -> None:
    context = server_context(read(CERT), read(KEY))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2 and context.verify_mode == ssl.CERT_NONE
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_with_authorities_clients_must_show_a_certificate() -> None:
    assert server_context(read(CERT), read(KEY), read(CA)).verify_mode == ssl.CERT_REQUIRED


def test_a_key_of_another_certificate_is_refused() -> None:
    other = str(CERTS / "client.key")
    assert refusal(key=other) == (
        f"server.tls.key: the file {other} is not the key of {CERT}, expected the one that it was made with"
    )


def test_a_certificate_that_is_none_is_refused() -> None:
    assert refusal(cert=KEY).startswith(f"server.tls.cert: the file {KEY} has no certificate in it")


def test_a_key_that_is_none_is_refused() -> None:
    assert refusal(key=CERT).startswith(f"server.tls.key: the file {CERT} has no key in it or is encrypted")


def test_authorities_that_are_none_are_refused() -> None:
    assert refusal(client_ca=KEY).startswith(f"server.tls.client_ca: the file {KEY} has no certificate in it")


def test_an_encrypted_key_is_refused_and_no_passphrase_is_asked_for(tmp_path: Path) -> None:
    key = str(tmp_path / "encrypted.key")
    command = ["openssl", "ec", "-in", KEY, "-aes128", "-passout", "pass:secret", "-out", key]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    assert "is encrypted" in refusal(key=key)
