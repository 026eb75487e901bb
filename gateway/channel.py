"""What the supervisor and the processes that it starts tell each other, over a socketpair.

Owns the messages and their framing. It refuses to act on them (`gateway.supervisor`, `gateway.worker`). Both ends of a
channel are made by the supervisor, for each process that it starts.

A message is a Struct in msgpack behind its length: after an upgrade the two ends may be programs of different versions.
What one end does not know it passes over, a message or a field of one. Configurations alone are pickled (`packed`):
they go only to processes of the same code. Another meaning of a message that exists needs another `LANGUAGE`.
"""

from __future__ import annotations

import pickle
import socket
from typing import Final

import msgspec

from gateway.config.schema import Config

#: Of the messages, and of the state that a supervisor leaves to its successor (`gateway.upgrade`).
LANGUAGE: Final = 1

_LENGTH: Final = 4
_READ_SIZE: Final = 256 << 10


class Ready(msgspec.Struct, tag=True):
    """Worker: connections are accepted."""


class Failed(msgspec.Struct, tag=True):
    """Worker: it cannot start; the text is for the operator."""

    text: str


class Closing(msgspec.Struct, tag=True):
    """Worker: it accepts no further connection."""


class Adopted(msgspec.Struct, tag=True):
    """Worker: new calls run under this generation, or keep to the old one for the reason given."""

    generation: int
    refusal: str = ""


class Judged(msgspec.Struct, tag=True):
    """The process that tried a configuration, or new code with it: what it found, or why it cannot be served."""

    #: As `packed` by that process; empty where it is refused.
    config: bytes = b""
    refusal: str = ""
    #: Of the code that tried.
    version: str = ""


class Adopt(msgspec.Struct, tag=True):
    """Supervisor: serve under this configuration from now on."""

    generation: int
    config: bytes


class Leave(msgspec.Struct, tag=True):
    """Supervisor: drain and end. Sent again, it cuts the waiting short.

    *pre_stop*: stay open while load balancers notice. *replaced*: others have taken this worker's place, and the host
    stays as it is.
    """

    pre_stop: bool = False
    replaced: bool = False


Message = Ready | Failed | Closing | Adopted | Judged | Adopt | Leave

_DECODER: Final = msgspec.msgpack.Decoder(Message)


def packed(config: Config) -> bytes:
    """*config* for a process of the same code."""
    return pickle.dumps(config)


def unpacked(data: bytes) -> Config:
    """What a process of the same code has `packed`."""
    config = pickle.loads(data)
    if not isinstance(config, Config):
        raise TypeError(f"{type(config).__name__} is no configuration")
    return config


class Channel:
    """One end. Nothing blocks: what the other end does not take waits here until `flush`."""

    def __init__(self, sock: socket.socket, unread: bytes = b"", unsent: bytes = b"") -> None:
        sock.setblocking(False)
        self.sock = sock
        #: Parts of messages, either way.
        self._unread = bytearray(unread)
        self._unsent = bytearray(unsent)

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def rest(self) -> tuple[bytes, bytes]:
        """What was read and is no whole message yet, and what was not sent yet."""
        return bytes(self._unread), bytes(self._unsent)

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def send(self, message: Message) -> None:
        """Send *message*, now or as soon as the other end reads; to a dead end it is lost."""
        data = msgspec.msgpack.encode(message)
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
        """The messages that came and are known here; None once the other end is closed."""
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
            data = bytes(self._unread[_LENGTH:end])
            del self._unread[:end]
            try:
                messages.append(_DECODER.decode(data))
            except msgspec.ValidationError:
                pass  # the other end is of another version, and says what this one cannot know
        return messages

    def close(self) -> None:
        self.sock.close()


def pair() -> tuple[Channel, Channel]:
    """The supervisor's end and the other process's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), Channel(theirs)
