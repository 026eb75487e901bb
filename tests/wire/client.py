"""A raw client: it sends any bytes in any way, and reads answers through h11, the strict oracle.

Owns one socket and the record of an answer. It refuses to be polite by itself: nothing is sent, read or
closed unless a test says so. Made by `Stage.connect`. Times are seconds.
"""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import h11

from tests.wire.ledger import Overdue

KEY = "test-key-0123456789"
_ids = itertools.count(1)
Headers = Sequence[tuple[str, str]]


class Incomplete(AssertionError):
    """The connection ended before the answer was complete."""


@dataclass
class Response:
    """One answer. `ended` tells how the connection ended meanwhile: "fin", "rst", or "" (still open)."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    #: the payload, as the chunks in which it was framed (one entry per read where it was not chunked)
    chunks: list[bytes] = field(default_factory=list)
    informational: list[int] = field(default_factory=list)
    complete: bool = False
    ended: str = ""

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def events(self) -> list[bytes]:
        """The payload as SSE events, each with its blank line; the last may be a rest without one."""
        return split_events(self.body)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """`error.code` of an error body, with OpenAI's four keys checked in passing."""
        error = self.json()["error"]
        assert set(error) >= {"message", "type", "param", "code"}, error
        assert self.header("content-type") == "application/json"
        return str(error["code"])


def split_events(payload: bytes) -> list[bytes]:
    text = payload.replace(b"\r\n\r\n", b"\r\n\r\n\0").replace(b"\n\n", b"\n\n\0")
    return [part for part in text.split(b"\0") if part]


def build_request(
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Headers = (),
    *,
    key: str | None = KEY,
    chunked: bool = False,
) -> bytes:
    """A request as an ordinary client writes it. *headers* come last; without a *key*, no credentials."""
    lines = [f"{method} {target} HTTP/1.1", "Host: gateway.test"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    if body is not None:
        if not any(name.lower() == "content-type" for name, _ in headers):
            lines.append("Content-Type: application/json")
        lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    first = "\r\n".join([*lines, "", ""]).encode("latin-1")
    if body is None or not chunked:
        return first + (body or b"")
    pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    return first + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def chat_request(*, stream: bool = False, model: str = "m", **more: Any) -> bytes:
    """The JSON body of a chat call."""
    fields: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Say hello"}]}
    if stream:
        fields["stream"] = True
    return json.dumps({**fields, **more}).encode()


class Client:
    """One connection to *host*:*port*, or to the unix socket unix:*path*. `timeout` bounds every wait for bytes.

    With *tls* it is a TLS connection, whose certificate has to be that of localhost.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        *,
        receive_buffer: int = 0,
        timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
        preface: bytes = b"",
    ) -> None:
        """*preface* is sent as it is, before anything else: even before TLS."""
        path = host.removeprefix("unix:")
        unix = path != host
        family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost", do_handshake_on_connect=False)
        try:
            self.sock.connect(path if unix else (host.strip("[]"), port))
            if not unix:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.address: Any = self.sock.getsockname()
            if preface:
                socket.socket.sendall(self.sock, preface)  # not an SSLSocket's, which would encipher it
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.do_handshake()
        except OSError:
            self.sock.close()
            raise
        self.timeout = timeout
        self._rest = b""
        self._parser: h11.Connection | None = None
        self._response: Response | None = None
        self._in_chunk = False
        self.ended = ""
        #: goes with every request, so that its access line can be told from others
        self.id = f"test-{next(_ids)}"

    # --- sending ---

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def split(self, data: bytes, *at: int, pause: float = 0.0005) -> None:
        """Send *data* in pieces cut at the indices *at*, *pause* seconds apart."""
        edges = [0, *sorted(at), len(data)]
        for start, end in itertools.pairwise(edges):
            self.send(data[start:end])
            time.sleep(pause)

    def dribble(self, data: bytes) -> None:
        """Send *data* byte by byte."""
        self.split(data, *range(1, len(data)))

    def request(self, method: str, target: str, body: bytes | None = None, headers: Headers = (), **more: Any) -> None:
        named = any(name.lower() == "x-request-id" for name, _ in headers)
        headers = headers if named else [*headers, ("X-Request-Id", self.id)]
        self.send(build_request(method, target, body, headers, **more))

    def chat(self, *, stream: bool = False, headers: Headers = (), **more: Any) -> None:
        """Send a chat call."""
        self.request("POST", "/v1/chat/completions", chat_request(stream=stream, **more), headers)

    # --- reading ---

    def _receive(self) -> bytes:
        """Bytes, or b"" at the end (`ended` tells which)."""
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError:
            raise Overdue(f"no byte from the gateway within {self.timeout} s") from None
        except ssl.SSLZeroReturnError:  # close_notify, after our own
            data = b""
        except ConnectionResetError:
            self.ended = "rst"
            return b""
        if not data:
            self.ended = "fin"
        return data

    def read_head(self, method: str = "GET") -> Response:
        """Read the final response head. *method* is the request's: it decides whether a body follows."""
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(self._rest) if self._rest else None
        self._rest = b""
        informational = []
        while True:
            event = self._next(parser)
            if isinstance(event, h11.InformationalResponse):
                informational.append(event.status_code)
            elif isinstance(event, h11.Response):
                break
            else:
                raise Incomplete(f"the connection ended ({self.ended}) instead of an answer: {event}")
        self._parser = parser
        self._in_chunk = False
        self._response = Response(
            status=event.status_code,
            reason=bytes(event.reason).decode("latin-1"),
            headers=[(name.decode(), value.decode("latin-1")) for name, value in event.headers],
            informational=informational,
        )
        return self._response

    def _next(self, parser: h11.Connection) -> Any:
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as error:
                if self.ended:
                    return None
                raise AssertionError(f"h11 refuses the answer: {error}") from error
            if event is not h11.NEED_DATA:
                return event
            data = self._receive()
            if self.ended == "rst":
                return None
            parser.receive_data(data)

    def read_payload(self) -> bytes | None:
        """The next payload bytes; None at the answer's end, whether complete or cut."""
        parser, response = self._parser, self._response
        assert parser is not None and response is not None, "read_head comes first"
        event = self._next(parser)
        response.ended = self.ended
        if isinstance(event, h11.Data):
            data = bytes(event.data)
            if self._in_chunk:
                response.chunks[-1] += data
            else:
                response.chunks.append(data)
            self._in_chunk = response.header("transfer-encoding") is not None and not event.chunk_end
            return data
        if isinstance(event, h11.EndOfMessage):
            response.complete = True
            self._rest = parser.trailing_data[0]
        self._parser = None
        return None

    def forget(self) -> None:
        """Drop the payload read so far."""
        assert self._response is not None, "read_head comes first"
        self._response.chunks = [b""] if self._in_chunk else []

    def read_events(self, count: int) -> list[bytes]:
        """Read on until the answer has *count* whole SSE events, and return all that came."""
        assert self._response is not None, "read_head comes first"
        while sum(one.endswith((b"\n\n", b"\r\n\r\n")) for one in self._response.events) < count:
            if self.read_payload() is None:
                raise Incomplete(f"{count} events did not come: {self._response}")
        return self._response.events

    def finish(self) -> Response:
        """Read the begun answer to its end."""
        assert self._response is not None, "read_head comes first"
        while self.read_payload() is not None:
            pass
        return self._response

    def response(self, method: str = "GET") -> Response:
        """Read one answer to its end."""
        self.read_head(method)
        return self.finish()

    def read_end(self) -> bytes:
        """Read until the gateway ends the connection; what came, `ended` tells how."""
        data = bytearray(self._rest)
        while piece := self._receive():
            data += piece
        return bytes(data)

    # --- leaving ---

    def half_close(self) -> None:
        """FIN; the answer can still be read."""
        self.sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """FIN (RST where bytes of an answer were left unread)."""
        self.sock.close()
