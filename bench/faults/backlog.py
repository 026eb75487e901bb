"""A port whose backlog is full: a connect to it neither succeeds nor fails.

Owns the listening socket and those that fill it. Made by `peers`, and by the wire tests.
"""

from __future__ import annotations

import socket


class FullBacklog:
    """Until `close`, the kernel drops every SYN that comes to `port`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.socket()
        self._listener.bind((host, port))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((host, self.port))
            self._fillers.append(filler)

    def close(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._listener.close()
