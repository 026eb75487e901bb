"""Trusted proxies: whose X-Forwarded-For is believed, and how far."""

from __future__ import annotations

import pytest

from gateway.admission.proxies import MEMO_LIMIT, QUESTION_LIMIT, Proxies

PROXIES = Proxies(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "unix:"])


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("unix:", True),
        ("", False),
        ("localhost", False),
    ],
)
def test_an_address_is_trusted_if_it_is_listed(address: str, trusted: bool) -> None:
    assert PROXIES.trusts(address) is trusted


def test_nobody_is_trusted_where_nobody_is_listed() -> None:
    assert not any(map(Proxies([]).trusts, ("127.0.0.1", "::1", "unix:", "")))


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("6.6.6.6,203.0.113.9,10.9.9.9", "203.0.113.9"),
        ("6.6.6.6 , 203.0.113.9\t, 10.9.9.9, 192.0.2.1", "203.0.113.9"),
        ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db9::1]:4711", "2001:db9::1"),
        ("2001:DB9:0::1", "2001:db9::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, unknown", "10.0.0.9"),
        ("203.0.113.9, unknown, 10.0.0.7", "10.0.0.7"),
        ("203.0.113.9, ", "10.0.0.9"),
        ("", "10.0.0.9"),
        ("1.2.3.4\xff", "10.0.0.9"),
        ("1.2.3", "10.0.0.9"),
        ("203.0.113.9, " + "10.0.0.1, " * 50 + "10.0.0.1", "203.0.113.9"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_not_trusted(forwarded: str, client: str) -> None:
    for _ in range(2):
        assert PROXIES.client(forwarded.encode("latin-1"), "10.0.0.9") == client


def test_what_is_remembered_is_bounded() -> None:
    proxies = Proxies(["10.0.0.0/8"])
    for number in range(2 * MEMO_LIMIT):
        forwarded = f"1.1.{number >> 8}.{number & 255}"
        assert proxies.client(forwarded.encode(), "10.0.0.1") == forwarded
    long = b"9.9.9.9," * QUESTION_LIMIT + b"8.8.8.8"
    assert proxies.client(long, "10.0.0.1") == "8.8.8.8"
    assert len(proxies._clients) <= MEMO_LIMIT
    assert max(len(forwarded) for forwarded, _ in proxies._clients) <= QUESTION_LIMIT
