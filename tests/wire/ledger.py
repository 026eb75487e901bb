"""What a scripted upstream saw: connections, requests, and how the peer left.

Owns the records and the waiting for them. It refuses sockets (`upstream` writes, tests read). Made by
`Upstream`. Times are `time.monotonic()` seconds; None means: not yet.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class Overdue(AssertionError):
    """Something that a test waits for did not come in time."""


@dataclass
class Request:
    """One request as it came: the raw head, the payload without its framing."""

    connection: Connection
    index: int
    raw_head: bytes
    method: str
    target: str
    headers: list[tuple[str, str]]
    arrived: float
    body: bytes = b""
    body_complete: bool = False
    #: when our answer was complete
    answered: float | None = None
    #: when the peer left before our answer was complete
    aborted: float | None = None
    bytes_sent: int = 0

    def header(self, name: str) -> str | None:
        """The value of the only header called *name*; None where there is none."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Connection:
    """One accepted connection."""

    number: int
    accepted: float
    requests: list[Request] = field(default_factory=list)
    #: when and how the peer ended it: "fin" or "rst"
    left: float | None = None
    left_by: str | None = None
    #: bytes the peer sent that belong to no request
    excess: bytes = b""
    #: since when our side waits for the peer to read; None while it need not
    blocked: float | None = None
    #: when our side was closed
    closed: float | None = None
    #: TLS facts: the protocol chosen by ALPN, the client certificate's common name, the server name asked for
    alpn: str | None = None
    client_name: str | None = None


class Ledger:
    """Every connection since the last `clear`; one lock, one condition for all waiting."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.connections: list[Connection] = []
        self.violations: list[str] = []
        self._count = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock for one change and wake those who wait."""
        with self._changed:
            yield
            self._changed.notify_all()

    def accept(self) -> Connection:
        with self.writing():
            self._count += 1
            connection = Connection(self._count, time.monotonic())
            self.connections.append(connection)
            return connection

    def violate(self, what: str) -> None:
        with self.writing():
            self.violations.append(what)

    def clear(self) -> None:
        with self.writing():
            self.connections = []

    @property
    def requests(self) -> list[Request]:
        """All requests in the order of their arrival."""
        every = [request for connection in list(self.connections) for request in list(connection.requests)]
        return sorted(every, key=lambda request: request.arrived)

    @property
    def last(self) -> Request:
        return self.requests[-1]

    def wait(self, true: Callable[[], object], what: str, timeout: float = 5.0) -> None:
        """Return as soon as *true()* holds; raise Overdue after *timeout* seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(true()), timeout):
                raise Overdue(f"not within {timeout} s: {what}\n{self}")

    def wait_requests(self, count: int, timeout: float = 5.0) -> list[Request]:
        """The requests, as soon as there are *count* of them with a complete body."""
        done = lambda: sum(request.body_complete for request in self.requests) >= count  # noqa: E731
        self.wait(done, f"{count} requests", timeout)
        return self.requests

    def wait_abort(self, timeout: float = 1.0) -> Request:
        """The first request whose peer left before the answer was complete."""
        self.wait(lambda: any(request.aborted for request in self.requests), "an aborted request", timeout)
        return next(request for request in self.requests if request.aborted)

    def wait_left(self, connection: Connection, timeout: float = 1.0) -> None:
        self.wait(lambda: connection.left, f"the peer to leave connection {connection.number}", timeout)

    def wait_blocked(self, count: int = 1, seconds: float = 0.3, timeout: float = 15.0) -> None:
        """Return when *count* peers have read nothing for *seconds* although there is more."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            since = [connection.blocked for connection in list(self.connections)]
            if sum(one is not None and time.monotonic() - one >= seconds for one in since) >= count:
                return
            time.sleep(0.01)
        raise Overdue(f"not within {timeout} s: {count} peers that stop reading\n{self}")

    def __str__(self) -> str:
        return "\n".join(
            f"connection {c.number}: left by {c.left_by}, "
            + ", ".join(
                f"{r.method} {r.target} (answered {bool(r.answered)}, aborted {bool(r.aborted)})" for r in c.requests
            )
            for c in list(self.connections)
        )
