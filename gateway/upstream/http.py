"""The http backend: requests written to pooled connections, plain or TLS.

Owns the request as the upstream sees it (line, credentials, body) and the way to a connection. It refuses the answer
(`connection`), the choice of a peer and retries (`gateway.proxy`). Made by `gateway.upstreams` for each backend with
http:// or https:// endpoints.

A warm call writes to an idle connection at once; only one that must connect gets a Task.
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import msgspec

from gateway.call import Attempt, Call
from gateway.errors import Fault, Kind, Retry, Side
from gateway.routing.endpoints import Body
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.pool import Pool
from gateway.within import within
from protocols import multipart
from protocols.http1.fields import Role
from protocols.http1.request import Request
from protocols.openai.body import join_fields

if TYPE_CHECKING:
    from gateway.translation import Translation

_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})
_CONTENT_TYPE: Final = int(Role.CONTENT_TYPE)
#: Lines of a client's head that mean something in its own dialect only, or describe the body that it sent.
_OF_DIALECTS: Final = re.compile(
    rb"^(?:content-type|accept|anthropic-[a-z-]+|openai-[a-z-]+|x-stainless-[a-z-]+):[^\r]*\r\n",
    re.MULTILINE | re.IGNORECASE,  # clients' fields are passed on as they spell them
)
#: Head starts remembered per peer; doors are few, paths passed through are the clients' choice.
STARTS_LIMIT: Final = 256


class Target:
    """A peer as requests are written to it.

    *base* is the endpoint's path; *credentials* are whole lines ("authorization: Bearer ... CRLF"), and so are
    *own_lines*, for requests of the gateway's own.
    """

    __slots__ = ("_base", "_lines", "own_lines", "pool", "starts")

    def __init__(self, pool: Pool, host: str, base: str, credentials: bytes, own_lines: bytes = b"") -> None:
        self.pool = pool
        self.own_lines = own_lines
        self._base = base.rstrip("/").encode("latin-1")
        # The answer is looked into for usage, and compressed events cannot be relayed by their borders.
        self._lines = b"host: " + host.encode("ascii") + b"\r\naccept-encoding: identity\r\n" + credentials
        #: Beginnings made before, by method and path.
        self.starts: dict[tuple[bytes, bytes], bytes] = {}

    def start(self, method: bytes, path: bytes) -> bytes:
        """The head's constant beginning: request line, Host, credentials. Kept in `starts`."""
        start = method + b" " + self._path(path) + b" HTTP/1.1\r\n" + self._lines
        if len(self.starts) < STARTS_LIMIT:
            self.starts[method, path] = start
        return start

    def _path(self, path: bytes) -> bytes:
        """An endpoint's path that ends in /v1 takes the place of the request's /v1; any other comes before it.

        What does not begin with /v1 is beside it: the health check of http://peer/v1 may be at /health.
        """
        return self._base.removesuffix(b"/v1") + path

    def apart(self) -> Target:
        """The same peer over connections of its own, which no call ever gets."""
        twin = Target(self.pool.apart(), "", "", b"")
        twin._base, twin._lines, twin.own_lines = self._base, self._lines, self.own_lines
        return twin


class _Connecting:
    """The exchange of an attempt that has no connection yet."""

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None

    def abort(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def leave(self) -> None:
        """Nothing is delivered yet, so nothing is left over."""
        self.abort()

    def pause(self) -> None:
        """Nothing is delivered yet."""

    def resume(self) -> None:
        """Nothing is delivered yet."""


class HttpBackend:
    """A named group of peers that speak HTTP/1.1."""

    def __init__(
        self, name: str, connect_timeout: float, query_secret: str, lines: Mapping[bytes, bytes] | None = None
    ) -> None:
        """*lines*: by its name, a line for the head of each request that lacks that field."""
        self.name = name
        self._lines = dict(lines or {})
        self._connect_timeout = connect_timeout
        #: The query parameter that carries clients' keys; it is not passed on.
        self._query_secret = query_secret.encode("ascii")
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def lines(self) -> bytes:
        """The lines that every request must have, as requests of the gateway's own have them."""
        return b"".join(self._lines.values())

    def begin(self, call: Call, attempt: Attempt) -> None:
        target = attempt.peer.target
        assert isinstance(target, Target)
        request = self._request(call, target)
        # After one worn-out connection the others of its age may be worn out too: the second try gets a fresh one.
        connection = target.pool.take_nowait() if not call.lost_reused else None
        if connection is not None:
            attempt.reused = True
            connection.send(attempt, request)
            return
        attempt.connecting()
        attempt.exchange = connecting = _Connecting()
        task = asyncio.get_running_loop().create_task(self._connect(request, attempt, target))
        connecting.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, request: bytes, attempt: Attempt, target: Target) -> None:
        """Connect and send; cancelled by the attempt's abort."""
        try:
            async with within(self._connect_timeout):
                connection = await target.pool.open()
        except TimeoutError:
            text = "The upstream could not be reached in time."
            fault = Fault(Side.UPSTREAM, Kind.NO_PEER, text, Retry.UNSENT, timed_out=True)
        except ssl.SSLError:
            text = "A secure connection to the upstream could not be made."
            fault = Fault(Side.UPSTREAM, Kind.UPSTREAM_TLS, text, Retry.UNSENT)
        except OSError as error:
            fault = _judge_connect(error)
        except Exception as error:
            target.pool.crashed(error)
            attempt.crashed()
            return
        else:
            self._send(connection, request, attempt, target)
            return
        try:
            attempt.fail(fault)
        except Exception as error:
            target.pool.crashed(error)
            attempt.crashed()

    def _send(self, connection: UpstreamConnection, request: bytes, attempt: Attempt, target: Target) -> None:
        try:
            connection.send(attempt, request)
        except Exception as error:
            connection.abort()
            target.pool.crashed(error)
            attempt.crashed()

    @property
    def busy(self) -> bool:
        """Whether a connection is being made."""
        return bool(self._tasks)

    async def close(self) -> None:
        """Abort connections that are being made, and wait for their tasks to be gone. All others are their pools'."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The request, as this backend is to see it.

    def _request(self, call: Call, target: Target) -> bytes:
        request = call.request
        if call.translation is not None:
            return self._translated(call, call.translation, target)
        path = self._path_and_query(request) if request.query else request.path
        route = call.route
        fields = call.fields
        if route is None or route.renames is not None or fields is None:
            body = self._body(call)
        else:
            body = join_fields(fields)
        start = target.starts.get((request.method, path)) or target.start(request.method, path)
        lines = b"".join(request.forward)
        if fields is not None and request.special[_CONTENT_TYPE] is None:
            lines += b"content-type: application/json\r\n"
        if self._lines:
            lines += self._missing(lines)
        if not body and request.method not in _WITH_BODY:
            return b"%b%bx-request-id: %b\r\nx-trace-id: %b\r\n\r\n" % (start, lines, call.id, call.trace)
        return b"%b%bx-request-id: %b\r\nx-trace-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            start,
            lines,
            call.id,
            call.trace,
            len(body),
            body,
        )

    def _missing(self, lines: bytes) -> bytes:
        """Those of the backend's own lines whose fields *lines* lack, however a client spells them."""
        told = b"\n" + lines.lower()
        return b"".join(line for name, line in self._lines.items() if b"\n" + name + b":" not in told)

    def _translated(self, call: Call, translation: Translation, target: Target) -> bytes:
        """The same call in the peer's own dialect: its path and body, and of the client's head what any dialect has."""
        ask = translation.ask(self._model(call))
        start = target.starts.get((b"POST", ask.path)) or target.start(b"POST", ask.path)
        lines = _OF_DIALECTS.sub(b"", b"".join(call.request.forward)) + ask.lines
        return (
            b"%b%bcontent-type: application/json\r\nx-request-id: %b\r\nx-trace-id: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (
                start,
                lines,
                call.id,
                call.trace,
                len(ask.body),
                ask.body,
            )
        )

    def _model(self, call: Call) -> str:
        """The model's name here, which may be another than the client's."""
        route = call.route
        return route.renames.get(self.name, call.model) if route is not None and route.renames else call.model

    def _path_and_query(self, request: Request) -> bytes:
        query = request.query
        if self._query_secret:
            pairs = query.split(b"&")
            query = b"&".join(pair for pair in pairs if unquote_to_bytes(pair.partition(b"=")[0]) != self._query_secret)
        return request.path + b"?" + query if query else request.path

    def _body(self, call: Call) -> bytes:
        """The body with the model's name there, if it is another; each key once, every value as it came."""
        route = call.route
        renamed = route.renames.get(self.name) if route is not None and route.renames else None
        fields = call.fields
        if fields is None:
            if renamed is None or call.endpoint.body is not Body.FORM:
                return call.body
            boundary = multipart.boundary(call.request.special[Role.CONTENT_TYPE] or b"")
            assert boundary is not None
            return multipart.replace(call.body, boundary, b"model", renamed.encode())
        if renamed is not None:
            fields = {**fields, "model": msgspec.Raw(msgspec.json.encode(renamed))}
        return join_fields(fields)


def _judge_connect(error: OSError) -> Fault:
    """Whose fault it is that no connection was made."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        # No peer is to blame, and no other would fare better.
        return Fault(Side.GATEWAY, Kind.OUT_OF_BUDGET, "The gateway has no file descriptor left; try again soon.")
    return Fault(Side.UPSTREAM, Kind.NO_PEER, "The upstream could not be reached.", Retry.UNSENT)
