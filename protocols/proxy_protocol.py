"""The PROXY protocol, versions 1 and 2: the header in which a load balancer tells whose connection it passes on.

Owns `read_header`. It refuses to guess whether a header is there, since anybody could write one: its caller knows
(section 2 of https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, the specification named below). Used by
`gateway.arrival`.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple


class ProxyError(ValueError):
    """Bytes that no header begins with; the connection must be closed."""


class ProxyHeader(NamedTuple):
    """A whole header: its size in bytes, and the client's address; empty where it is the connection's own, or none."""

    size: int
    source: str


#: Section 2.1: "PROXY TCP4 source destination port port CRLF", 107 bytes at most; what follows UNKNOWN is ignored.
_V1: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP[46]) ([^ \r\n]+) ([^ \r\n]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
_V1_LIMIT: Final = 107
_V1_START: Final = b"PROXY "
#: Section 2.2.
_V2_START: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED: Final = 16
#: Bytes of a version 2 header. Addresses take 216 at most; the rest are TLVs, which nobody sends by the kilobyte.
LIMIT: Final = 4 << 10
_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = range(4)
#: Bytes of both addresses, ports included, by family.
_ADDRESSES: Final = {_UNSPEC: 0, _INET: 12, _INET6: 36, _UNIX: 216}
#: The highest transport: unspecified, stream, datagram.
_LAST_TRANSPORT: Final = 2
#: Section 2.2.3: the TLV that holds the header's checksum.
_CRC32C: Final = 3


def read_header(data: bytes) -> ProxyHeader | None:
    """The header that *data*, a connection's first bytes, begins with; None where it is not complete.

    Raises `ProxyError` as soon as it cannot become one. *data* may be given anew with more bytes behind it, and is
    bounded: LIMIT bytes are complete or refused.
    """
    if data[:1] == _V2_START[:1]:
        return _read_v2(data)
    return _read_v1(data)


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_LIMIT) + 2
    if end < 2:
        if not data[:6] == _V1_START[: len(data)] or len(data) >= _V1_LIMIT:
            raise ProxyError("not a PROXY header")
        return None
    found = _V1.fullmatch(data, 0, end)
    if found is None:
        raise ProxyError("not a PROXY header of version 1")
    kind, *addresses, source_port, destination_port = found.groups()
    if kind is None:
        return ProxyHeader(end, "")
    for port in (source_port, destination_port):
        if int(port) > 0xFFFF or (len(port) > 1 and port.startswith(b"0")):
            raise ProxyError("a port that is none")
    source, _ = (_address(kind, text) for text in addresses)
    return ProxyHeader(end, source)


def _address(kind: bytes, text: bytes) -> str:
    if b"%" in text:
        raise ProxyError("an address with a zone")
    try:
        name = text.decode("ascii")
        return str(IPv4Address(name) if kind == b"TCP4" else IPv6Address(name))
    except (AddressValueError, UnicodeDecodeError):
        raise ProxyError("an address that is none") from None


def _read_v2(data: bytes) -> ProxyHeader | None:
    if not data[:12] == _V2_START[: len(data)]:
        raise ProxyError("not a PROXY header of version 2")
    if len(data) > 12 and (data[12] >> 4 != 2 or data[12] & 15 > _PROXY):
        raise ProxyError("a version or command that is unknown")
    if len(data) > 13 and (data[13] >> 4 > _UNIX or data[13] & 15 > _LAST_TRANSPORT):
        raise ProxyError("a family or transport that is unknown")
    if len(data) < _V2_FIXED:
        return None
    size = _V2_FIXED + int.from_bytes(data[14:16], "big")
    if size > LIMIT:
        raise ProxyError("a header that is too large")
    local = data[12] & 15 == _LOCAL
    family = data[13] >> 4
    if not local and size < _V2_FIXED + _ADDRESSES[family]:
        raise ProxyError("a header that is too short for its addresses")
    if len(data) < size:
        return None
    if local:  # the balancer's own, say a health check: the rest is to be ignored, whatever it is
        return ProxyHeader(size, "")
    _judge_tlvs(data[:size], _V2_FIXED + _ADDRESSES[family])
    return ProxyHeader(size, _v2_source(data, family))


def _v2_source(data: bytes, family: int) -> str:
    if family == _INET:
        return str(IPv4Address(data[16:20]))
    if family == _INET6:
        return str(IPv6Address(data[16:32]))
    return "unix:" if family == _UNIX else ""


def _judge_tlvs(header: bytes, at: int) -> None:
    """TLVs (section 2.2) must fill the header, and its checksum must be right where it has one."""
    while at < len(header):
        kind, value = header[at], at + 3
        at = value + int.from_bytes(header[at + 1 : value], "big")
        if at > len(header) or value > len(header):
            raise ProxyError("a TLV that is longer than the header")
        if kind == _CRC32C:
            given = header[value:at]
            if len(given) != 4 or int.from_bytes(given, "big") != crc32c(header[:value] + bytes(4) + header[at:]):
                raise ProxyError("a checksum that is wrong")


def _table() -> tuple[int, ...]:
    """CRC of each byte by the polynomial of Castagnoli, reflected (RFC 3720 section 12.1)."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    """The CRC-32C of *data*."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
