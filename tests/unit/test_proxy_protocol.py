"""The PROXY protocol's header, versions 1 and 2: read whole, byte by byte, with bytes behind it, or refused."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.proxy_protocol import LIMIT, ProxyError, ProxyHeader, crc32c, read_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TCP4, UDP4, TCP6, UDP6, UNIX, UNSPEC = 0x11, 0x12, 0x21, 0x22, 0x31, 0x00
V4 = bytes([192, 0, 2, 7]) + bytes([10, 0, 0, 1]) + struct.pack(">HH", 40000, 443)
V6 = ipaddress.ip_address("2001:db8::7").packed + ipaddress.ip_address("::1").packed + struct.pack(">HH", 40000, 443)
PATHS = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")


def v2(family: int = TCP4, block: bytes = V4, *, first: int = 0x21, size: int | None = None) -> bytes:
    return SIGNATURE + bytes([first, family]) + struct.pack(">H", len(block) if size is None else size) + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + struct.pack(">H", len(value)) + value


def checked(family: int, addresses: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """A header with a right checksum between two other TLVs."""
    blank = v2(family, addresses + before + tlv(3, bytes(4)) + after)
    at = 16 + len(addresses) + len(before) + 3
    return blank[:at] + struct.pack(">I", crc32c(blank)) + blank[at + 4 :]


GOOD: dict[str, tuple[bytes, str]] = {
    "v1 tcp4": (b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 443\r\n", "192.0.2.7"),
    "v1 tcp6": (b"PROXY TCP6 2001:db8::7 ::1 40000 443\r\n", "2001:db8::7"),
    "v1 tcp6 in full": (b"PROXY TCP6 2001:0DB8:0:0:0:0:0:7 ::1 0 65535\r\n", "2001:db8::7"),
    "v1 longest": (
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".ljust(105, b"x") + b"\r\n",
        "",
    ),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", ""),
    "v2 tcp4": (v2(), "192.0.2.7"),
    "v2 udp4": (v2(UDP4), "192.0.2.7"),
    "v2 tcp6": (v2(TCP6, V6), "2001:db8::7"),
    "v2 udp6": (v2(UDP6, V6), "2001:db8::7"),
    "v2 unix": (v2(UNIX, PATHS), "unix:"),
    "v2 unspecified": (v2(UNSPEC, b""), ""),
    "v2 local": (v2(UNSPEC, b"", first=0x20), ""),
    "v2 local with addresses": (v2(TCP4, V4, first=0x20), ""),
    "v2 local with anything": (v2(TCP4, b"\x03\xff", first=0x20), ""),
    "v2 with tlvs": (v2(TCP4, V4 + tlv(1, b"h2") + tlv(4, b"") + tlv(0xEE, b"x" * 100)), "192.0.2.7"),
    "v2 with a checksum": (checked(TCP4, V4), "192.0.2.7"),
    "v2 with a checksum among others": (checked(TCP6, V6, tlv(1, b"h2"), tlv(5, b"id")), "2001:db8::7"),
    "v2 with a checksum and no addresses": (checked(UNSPEC, b""), ""),
    "v2 largest": (v2(TCP4, V4 + tlv(4, bytes(LIMIT - 16 - 12 - 3))), "192.0.2.7"),
}

BAD: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00",
    "v1 in small letters": b"proxy TCP4 192.0.2.7 10.0.0.1 40000 443\r\n",
    "v1 of another kind": b"PROXY UDP4 192.0.2.7 10.0.0.1 40000 443\r\n",
    "v1 unknown and more": b"PROXY UNKNOWNS\r\n",
    "v1 without an end": b"PROXY TCP4 " + b"1" * 107,
    "v1 longer than the longest": b"PROXY UNKNOWN".ljust(106, b" ") + b"\r\n",
    "v1 with a bare LF": b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 443\n".ljust(107),
    "v1 with a bare CR": b"PROXY UNKNOWN \r \r\n",
    "v1 with two spaces": b"PROXY TCP4  192.0.2.7 10.0.0.1 40000 443\r\n",
    "v1 with a space at its end": b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 443 \r\n",
    "v1 without a port": b"PROXY TCP4 192.0.2.7 10.0.0.1 40000\r\n",
    "v1 with a large port": b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
    "v1 with a long port": b"PROXY TCP4 192.0.2.7 10.0.0.1 00443 443\r\n",
    "v1 with a signed port": b"PROXY TCP4 192.0.2.7 10.0.0.1 +443 443\r\n",
    "v1 with IPv6 for IPv4": b"PROXY TCP4 ::1 ::1 40000 443\r\n",
    "v1 with IPv4 for IPv6": b"PROXY TCP6 192.0.2.7 10.0.0.1 40000 443\r\n",
    "v1 with a leading zero": b"PROXY TCP4 192.0.2.07 10.0.0.1 40000 443\r\n",
    "v1 with a name": b"PROXY TCP4 localhost 10.0.0.1 40000 443\r\n",
    "v1 with a zone": b"PROXY TCP6 fe80::1%eth0 ::1 40000 443\r\n",
    "v1 with another alphabet's digits": "PROXY TCP4 \u0661.2.3.4 10.0.0.1 40000 443\r\n".encode(),
    "v1 with a wrong destination": b"PROXY TCP4 192.0.2.7 10.0.0.256 40000 443\r\n",
    "v2 with a wrong signature": b"\r\n\r\n\x00\r\nQUIT\r",
    "v2 of version 1": v2(first=0x11),
    "v2 of version 3": v2(first=0x31),
    "v2 with another command": v2(first=0x22),
    "v2 of another family": v2(0x41, b""),
    "v2 of another transport": v2(0x13),
    "v2 local of another family": v2(0x41, b"", first=0x20),
    "v2 too short for IPv4": v2(TCP4, V4[:11]),
    "v2 too short for IPv6": v2(TCP6, V4),
    "v2 too short for paths": v2(UNIX, PATHS[:215]),
    "v2 too large": v2(size=LIMIT - 15),
    "v2 with half a TLV": v2(TCP4, V4 + b"\x04"),
    "v2 with a TLV without a length": v2(TCP4, V4 + b"\x04\x00"),
    "v2 with a TLV that is too long": v2(TCP4, V4 + b"\x04\x00\x05abcd"),
    "v2 with a wrong checksum": v2(TCP4, V4 + tlv(3, b"\0\0\0\0")),
    "v2 with a short checksum": v2(TCP4, V4 + tlv(3, b"\0\0\0")),
    "v2 with a changed address": checked(TCP4, V4).replace(V4[:4], b"\x01\x02\x03\x04"),
    "v2 with a checksum of bytes behind it": checked(TCP4, V4)[:-1] + b"\xff",
}

goods = pytest.mark.parametrize(("data", "source"), GOOD.values(), ids=GOOD)
bads = pytest.mark.parametrize("data", BAD.values(), ids=BAD)


@goods
@pytest.mark.parametrize("behind", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", SIGNATURE])
def test_a_header_is_read_whatever_stands_behind_it(data: bytes, source: str, behind: bytes) -> None:
    assert read_header(data + behind) == ProxyHeader(len(data), source)


@goods
def test_no_part_of_a_header_is_one_or_is_refused(data: bytes, source: str) -> None:
    assert [at for at in range(len(data)) if read_header(data[:at]) is not None] == []


@bads
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyError):
        read_header(data)


@bads
def test_what_is_no_header_is_refused_whatever_came_in_pieces(data: bytes) -> None:
    for at in range(len(data) + 1):
        try:
            assert read_header(data[:at]) is None
        except ProxyError:
            break
    else:
        pytest.fail("it was waited for to the last byte, and never refused")


@pytest.mark.parametrize("start", [b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11"])
def test_waiting_has_an_end(start: bytes) -> None:
    with pytest.raises(ProxyError):
        read_header(start + b"\xff" * LIMIT)


@given(st.one_of(st.binary(max_size=64), st.sampled_from([SIGNATURE, b"PROXY TCP4 "])), st.binary(max_size=300))
def test_any_bytes_are_a_header_or_refused_or_waited_for(start: bytes, rest: bytes) -> None:
    data = start + rest
    try:
        found = read_header(data)
    except ProxyError:
        return
    assert found is None or (0 < found.size <= len(data) and read_header(data[: found.size]) == found)


@given(st.sampled_from(list(GOOD.values())), st.integers(0, 300), st.integers(0, 255))
def test_a_changed_byte_never_moves_a_header_beyond_what_came(good: tuple[bytes, str], at: int, value: int) -> None:
    data = bytearray(good[0])
    data[at % len(data)] = value
    try:
        found = read_header(bytes(data) + b"GET /")
    except ProxyError:
        return
    assert found is None or found.size <= len(data) + 5


@given(st.ip_addresses(), st.ip_addresses(v=4), st.integers(0, 65535), st.lists(st.binary(max_size=20), max_size=4))
def test_every_client_is_told_in_both_versions(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address, four: ipaddress.IPv4Address, port: int, values: list[bytes]
) -> None:
    kind = "TCP4" if client.version == 4 else "TCP6"
    us = four if client.version == 4 else ipaddress.ip_address(f"::ffff:{four}")
    text = f"PROXY {kind} {client} {us} {port} {port}\r\n".encode()
    assert read_header(text) == ProxyHeader(len(text), str(client))
    addresses = client.packed + us.packed + struct.pack(">HH", port, port)
    binary = checked(TCP4 if client.version == 4 else TCP6, addresses, b"".join(tlv(0xE0, value) for value in values))
    assert read_header(binary) == ProxyHeader(len(binary), str(client))


def test_the_checksum_is_castagnoli_s() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of every catalogue
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4
