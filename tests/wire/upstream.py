"""A scripted upstream: it answers every request by a script, and writes down what it saw.

Owns the listener, one thread per connection, and the steps that scripts are made of. It refuses to know
answers (`answers`) and to judge (`ledger` records, tests assert); only h11's refusal of a request is a
violation by itself. Made by `Stage.upstream`.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from itertools import pairwise

import h11

from tests.wire.accepted import Dropped, Gate, PeerGone, Wire
from tests.wire.ledger import Ledger, Request


class Exchange:
    """One request being answered: the steps of a script."""

    def __init__(self, wire: Wire, request: Request, parser: h11.Connection) -> None:
        self.wire = wire
        self.request = request
        self._parser = parser

    def read_body(self) -> None:
        """Read the request to its end (done before a script starts, except for one marked `at_head`)."""
        while not self.request.body_complete:
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                self._parser.receive_data(self.wire.receive())
            elif isinstance(event, h11.Data):
                self.request.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                with self.wire.ledger.writing():
                    self.request.body_complete = True
                self.wire.inbox[:0] = self._parser.trailing_data[0]

    def send(self, data: bytes) -> None:
        """Send *data* in one write."""
        self.request.bytes_sent += self.wire.send(data)

    def split(self, data: bytes, *at: int) -> None:
        """Send *data* in pieces cut at the indices *at*, each its own packet."""
        edges = [0, *sorted(at), len(data)]
        for start, end in pairwise(edges):
            if start:
                self.sleep(0.0005)
            self.send(data[start:end])

    def dribble(self, data: bytes) -> None:
        """Send *data* byte by byte."""
        self.split(data, *range(1, len(data)))

    def sleep(self, seconds: float) -> None:
        self.wire.wait(0, seconds)

    def stall(self, gate: Gate) -> None:
        """Do nothing until the test opens *gate*."""
        self.wire.wait(0, None, gate)

    def await_abort(self, timeout: float = 30.0) -> None:
        """Do nothing until the peer leaves; a violation if it does not."""
        self.wire.wait(0, timeout)
        self.wire.ledger.violate(f"{self.request.target}: the peer did not leave within {timeout} s")

    @property
    def over_tls(self) -> bool:
        return isinstance(self.wire.sock, ssl.SSLSocket)

    def notify(self) -> None:
        self.wire.notify()

    def fin(self) -> None:
        self.wire.fin()

    def close(self) -> None:
        self.wire.close()

    def rst(self) -> None:
        self.wire.rst()


Script = Callable[[Exchange], None]
AcceptScript = Callable[[Wire], None]


def at_head(script: Script) -> Script:
    """Mark *script* as one that starts when the head has come; it reads the body itself, or not."""
    script.at_head = True  # type: ignore[attr-defined]  # a mark on a function, read by Upstream alone
    return script


class Upstream:
    """A listener on *host*, a loopback address. `answer` is the script of every path that `answers` does not name.

    Both may be changed at any time; a list of scripts is used up in order, its last one for ever.
    """

    def __init__(
        self,
        answer: Script | list[Script],
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        receive_buffer: int = 0,
    ) -> None:
        self.ledger = Ledger()
        self.first_answer = answer
        self.answer = answer
        self.answers: dict[str, Script | list[Script]] = {}
        #: run on every new connection before anything is read, and even before its TLS handshake
        self.on_accept: AcceptScript | None = None
        self.before_handshake: AcceptScript | None = None
        self._tls = tls
        self._threads: dict[threading.Thread, Wire] = {}
        self._starting = threading.Lock()
        self._listener = socket.create_server((host, port), backlog=512, reuse_port=False)
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._stopping = False
        self._acceptor = threading.Thread(target=self._accept, name=f"upstream-{host}:{self.port}", daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @property
    def requests(self) -> list[Request]:
        return self.ledger.requests

    def script_of(self, target: str) -> Script:
        answer = self.answers.get(target.partition("?")[0], self.answer)
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer

    def wires(self) -> list[Wire]:
        """The open connections, oldest first."""
        return sorted(self._threads.copy().values(), key=lambda wire: wire.record.number)

    def drop_connections(self) -> None:
        """Close every connection, whatever its script is doing."""
        with self._starting:
            connections = self._threads.copy()
        for thread, wire in connections.items():
            wire.drop.open()
            thread.join(5)
            assert not thread.is_alive(), "a connection of the scripted upstream does not end"
        for thread in threading.enumerate():
            if thread.name == f"wire-{self.host}:{self.port}":  # no longer among the connections, and not yet gone
                thread.join(5)

    def reset(self) -> None:
        """Forget everything: as new, on the same port."""
        self.drop_connections()
        self.answer = self.first_answer
        self.answers = {}
        self.on_accept = self.before_handshake = None
        self.ledger.clear()

    def close(self) -> None:
        """Stop listening (new connections are refused) and close every connection."""
        if self._stopping:
            return
        self._stopping = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(5)
        self._listener.close()
        self.drop_connections()
        # Scripts hold gates, which are files, and pytest holds what fixtures made until all of a test is over.
        self.answer = self.first_answer = Exchange.close
        self.answers = {}
        self.on_accept = self.before_handshake = None

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(Wire(sock, self.ledger.accept(), self.ledger))

    def _start(self, wire: Wire) -> None:
        thread = threading.Thread(target=self._serve, args=[wire], name=f"wire-{self.host}:{self.port}", daemon=True)
        with self._starting:  # whoever closes this upstream meanwhile finds no thread that cannot be joined yet
            self._threads[thread] = wire
            thread.start()

    def _serve(self, wire: Wire) -> None:
        try:
            if self.before_handshake is not None:
                self.before_handshake(wire)
            if self._tls is not None:
                self._handshake(wire, self._tls)
            if self.on_accept is not None:
                self.on_accept(wire)
            while not wire.ended and self._exchange(wire):
                pass
            while wire.ended != "closed":
                wire.receive()
        except (PeerGone, Dropped):
            pass
        except h11.RemoteProtocolError as error:
            self.ledger.violate(f"h11 refuses the request: {error}")
        except Exception as error:
            self.ledger.violate(f"the script broke: {error!r}")
        finally:
            wire.close()
            self._threads.pop(threading.current_thread(), None)

    def _handshake(self, wire: Wire, tls: ssl.SSLContext) -> None:
        wire.sock.setblocking(True)
        wire.sock.settimeout(5)
        try:
            secure = tls.wrap_socket(wire.sock, server_side=True)
        except OSError:
            wire.ended = "closed"
            raise PeerGone from None
        secure.setblocking(False)
        wire.sock = secure
        with self.ledger.writing():
            wire.record.alpn = secure.selected_alpn_protocol()
            wire.record.client_name = common_name(secure.getpeercert())

    def _exchange(self, wire: Wire) -> bool:
        """Read one request and play its script; False at the connection's end."""
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=4 << 20)
        request = read_head(wire, parser)
        exchange = Exchange(wire, request, parser)
        script = self.script_of(request.target)
        try:
            if not getattr(script, "at_head", False):
                exchange.read_body()
            script(exchange)
        except PeerGone:
            with self.ledger.writing():
                request.aborted = wire.record.left
            raise
        with self.ledger.writing():
            request.answered = time.monotonic()
            if wire.inbox and request.body_complete:
                wire.record.excess += bytes(wire.inbox)
                self.ledger.violations.append(f"{len(wire.inbox)} bytes came before the answer was complete")
        return request.body_complete


def read_head(wire: Wire, parser: h11.Connection) -> Request:
    """Wait for the next request's head and enter it into the ledger."""
    raw = bytearray()
    while True:
        event = parser.next_event()
        if isinstance(event, h11.Request):
            break
        assert event is h11.NEED_DATA, event
        data = wire.receive()
        raw += data
        parser.receive_data(data)
    request = Request(
        connection=wire.record,
        index=len(wire.record.requests),
        raw_head=bytes(raw[: raw.index(b"\r\n\r\n") + 4]),
        method=event.method.decode(),
        target=event.target.decode("latin-1"),
        headers=[(name.decode(), value.decode("latin-1")) for name, value in event.headers],
        arrived=time.monotonic(),
    )
    with wire.ledger.writing():
        wire.record.requests.append(request)
    return request


def common_name(certificate: Mapping[str, object] | None) -> str | None:
    subject = (certificate or {}).get("subject", ())
    assert isinstance(subject, tuple)
    return next((value for part in subject for name, value in part if name == "commonName"), None)
