"""What the supervisor and a worker tell each other, over a socketpair.

Owns the messages and their framing. It refuses to act on them (`gateway.supervisor`, `gateway.worker`). Both ends of a
channel are made by the supervisor, for each worker that it starts.

A message is a pickled Struct behind its length: both ends are the same program, and nobody else can reach the socket.
"""

from __future__ import annotations

import pickle
import socket
from typing import Final

import msgspec

from gateway.config.schema import Config

_LENGTH: Final = 4
_READ_SIZE: Final = 256 << 10


class Ready(msgspec.Struct):
    """Worker: connections are accepted."""


class Failed(msgspec.Struct):
    """Worker: it cannot start; the text is for the operator."""

    text: str


class Closing(msgspec.Struct):
    """Worker: it accepts no further connection."""


class Adopted(msgspec.Struct):
    """Worker: new calls run under this generation, or keep to the old one for the reason given."""

    generation: int
    refusal: str = ""


class Judged(msgspec.Struct):
    """The process that tried a configuration: what it found, or why it cannot be served."""

    config: Config | None
    refusal: str = ""


class Adopt(msgspec.Struct):
    """Supervisor: serve under this configuration from now on."""

    generation: int
    config: Config


class Leave(msgspec.Struct):
    """Supervisor: drain and end. Sent again, it cuts the waiting short.

    *pre_stop*: stay open while load balancers notice.
    """

    pre_stop: bool = False


Message = Ready | Failed | Closing | Adopted | Judged | Adopt | Leave


class Channel:
    """One end. Nothing blocks: what the other end does not take waits here until `flush`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._unread = bytearray()
        self._unsent = bytearray()

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def send(self, message: Message) -> None:
        """Send *message*, now or as soon as the other end reads; to a dead end it is lost."""
        data = pickle.dumps(message)
        self._unsent += len(data).to_bytes(_LENGTH, "little") + data
        self.flush()

    def flush(self) -> None:
        """Send on what waits."""
        try:
            while self._unsent:
                del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()  # the other process is gone, and is noticed elsewhere

    def receive(self) -> list[Message] | None:
        """The messages that came; None once the other end is closed."""
        try:
            data = self.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self._unread += data
        messages: list[Message] = []
        while len(self._unread) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._unread[:_LENGTH], "little")
            if len(self._unread) < end:
                break
            messages.append(pickle.loads(self._unread[_LENGTH:end]))
            del self._unread[:end]
        return messages

    def close(self) -> None:
        self.sock.close()


def pair() -> tuple[Channel, Channel]:
    """The supervisor's end and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), Channel(theirs)
