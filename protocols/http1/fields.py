"""What becomes of each request field: forwarded, dropped here, or read by the gateway.

Owns the table, and the memo of lines that were seen before. Used by `protocols.http1.request` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from protocols.http1.errors import WireError, Wrong

#: The values of the fields that are read, by `Role`.
SpecialFields = list[bytes | None]
#: A line, understood: its role, its value, and the line to forward (empty where the field ends here).
Line = tuple[int, bytes, bytes]


class Role(IntEnum):
    """FORWARD and DROP say it all; every other role is an index into `Request.special`, and its value is read."""

    FORWARD = 0
    DROP = 1
    HOST = 2
    CONTENT_LENGTH = 3
    TRANSFER_ENCODING = 4
    CONNECTION = 5
    EXPECT = 6
    AUTHORIZATION = 7
    API_KEY = 8
    REQUEST_ID = 9
    TRACE_ID = 10
    ORIGIN = 11
    BACKEND = 12
    CONTENT_ENCODING = 13
    CORS_METHOD = 14
    CORS_HEADERS = 15
    FORWARDED_FOR = 16
    CONTENT_TYPE = 17
    TRACEPARENT = 18
    IDEMPOTENCY_KEY = 19


#: Plain integers: comparing with an enum member costs three times as much, for every field of every request.
FORWARD: Final = int(Role.FORWARD)
DROP: Final = int(Role.DROP)
_HOST_ROLE: Final = int(Role.HOST)
#: Roles from here on are read and forwarded.
_FIRST_KEPT: Final = int(Role.CONTENT_TYPE)

#: Credentials and everything hop-by-hop stay here; so does what a client could use to pose as somebody behind us.
_ROLES: Final[dict[bytes, Role]] = {
    b"host": Role.HOST,
    b"content-length": Role.CONTENT_LENGTH,
    b"transfer-encoding": Role.TRANSFER_ENCODING,
    b"connection": Role.CONNECTION,
    b"expect": Role.EXPECT,
    b"authorization": Role.AUTHORIZATION,
    b"x-request-id": Role.REQUEST_ID,
    b"x-trace-id": Role.TRACE_ID,
    b"origin": Role.ORIGIN,
    b"x-backend": Role.BACKEND,
    b"content-encoding": Role.CONTENT_ENCODING,
    b"access-control-request-method": Role.CORS_METHOD,
    b"access-control-request-headers": Role.CORS_HEADERS,
    b"content-type": Role.CONTENT_TYPE,
    b"traceparent": Role.TRACEPARENT,
    b"idempotency-key": Role.IDEMPOTENCY_KEY,
    b"accept-encoding": Role.DROP,
    b"cookie": Role.DROP,
    b"forwarded": Role.DROP,
    b"keep-alive": Role.DROP,
    b"proxy-authenticate": Role.DROP,
    b"proxy-authorization": Role.DROP,
    b"proxy-connection": Role.DROP,
    b"range": Role.DROP,
    b"referer": Role.DROP,
    b"te": Role.DROP,
    b"trailer": Role.DROP,
    b"upgrade": Role.DROP,
    b"via": Role.DROP,
    b"x-api-key": Role.API_KEY,
    b"x-forwarded-for": Role.FORWARDED_FOR,
    b"x-real-ip": Role.DROP,
}
_DROPPED_PREFIXES: Final = (b"x-forwarded-", b"x-gateway-", b"sec-", b"access-control-")
#: Secrets, and values that differ from call to call, are not worth remembering.
_NOT_REMEMBERED: Final = frozenset(
    int(role)
    for role in (
        Role.CONTENT_LENGTH,
        Role.AUTHORIZATION,
        Role.API_KEY,
        Role.REQUEST_ID,
        Role.TRACE_ID,
        Role.TRACEPARENT,
        Role.IDEMPOTENCY_KEY,
        Role.FORWARDED_FOR,
    )
)

#: Roles whose values change from request to request on one connection.
VARYING: Final = frozenset(
    int(role)
    for role in (
        Role.CONTENT_LENGTH,
        Role.REQUEST_ID,
        Role.TRACE_ID,
        Role.TRACEPARENT,
        Role.IDEMPOTENCY_KEY,
        Role.FORWARDED_FOR,
    )
)

#: uri-host [":" port] of RFC 9110 section 7.2, without the percent-encoded forms that nobody sends.
HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(?::[0-9]{0,5})?")


class FieldTable:
    """Line as received -> what it means. One per process; bounded, because clients choose the lines.

    *key_header* is the configured name of the field that carries an API key besides Authorization. Only lines that
    llhttp has accepted may be looked up.
    """

    __slots__ = ("_names", "_roles", "lines")

    LIMIT: Final = 2048
    LINE_LIMIT: Final = 256
    NAME_LIMIT: Final = 64

    def __init__(self, key_header: bytes = b"x-api-key", credentials: Iterable[bytes] = ()) -> None:
        """*credentials* are fields that the gateway itself puts into requests: a client's own end here."""
        dropped = {name.lower(): Role.DROP for name in credentials}
        self._roles = {**dropped, **_ROLES, key_header.lower(): Role.API_KEY}
        self._names: dict[bytes, int] = {}
        self.lines: dict[bytes, Line] = {}

    def learn(self, line: bytes) -> Line:
        """Understand a line that `lines` does not have, and remember it if it is likely to come again.

        Raises `WireError` for a Host that is not one.
        """
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        role = self.role(name)
        kept = b"%b: %b\r\n" % (name, value) if role == FORWARD or role >= _FIRST_KEPT else b""
        known = (role, value, kept)
        if role == _HOST_ROLE and not HOST.fullmatch(value):
            raise WireError(Wrong.BAD_HOST, "a Host that is not host[:port]")
        if role not in _NOT_REMEMBERED and len(line) <= self.LINE_LIMIT:
            if len(self.lines) >= self.LIMIT:
                self.lines.clear()  # a flood of new lines costs the memo, never memory
            self.lines[line] = known
        return known

    def role(self, name: bytes) -> int:
        """What becomes of the field *name*, however it is spelled."""
        known = self._names.get(name)
        if known is not None:
            return known
        lower = name.lower()
        role = int(self._roles.get(lower, FORWARD))
        if role == FORWARD and (b"_" in lower or lower.startswith(_DROPPED_PREFIXES)):
            role = DROP  # a name with an underscore can pose as one with a hyphen behind CGI-style servers
        if len(name) <= self.NAME_LIMIT:
            if len(self._names) >= self.LIMIT:
                self._names.clear()
            self._names[name] = role
        return role
