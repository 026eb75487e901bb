"""The socket that clients connect to: an IP address and port, or a file.

Owns how an address is bound, and the file of a unix socket from its making to its removal. It refuses to accept
(`gateway.worker` hands the socket to its loop). Made by `gateway.worker`, one per process.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Final

from gateway.config.schema import UNIX, Server

#: Answers of a connect that say that somebody listens; EAGAIN is a full backlog.
_LIVE: Final = frozenset({0, errno.EAGAIN, errno.EINPROGRESS})


class ListenError(Exception):
    """The address cannot be listened on; the text is for the operator."""


class Listener:
    """A socket that listens. `url` is where, as people write it."""

    def __init__(self, server: Server) -> None:
        """Raises `ListenError`."""
        self._file: tuple[int, int] | None = None
        self._path = server.host.removeprefix(UNIX) if server.host.startswith(UNIX) else ""
        where = self._path or f"{server.host} port {server.port}"
        try:
            self.sock = self._bind_file(server) if self._path else _bind_address(server)
        except OSError as error:
            raise ListenError(f"cannot listen on {where}: {error.strerror or error}") from None
        self.sock.setblocking(False)
        self.url = server.host if self._path else _url(self.sock)

    def _bind_file(self, server: Server) -> socket.socket:
        """Bind beside the path and move the file there: it appears listening and with its mode, or not at all."""
        path = self._path
        _judge_file(path)
        new = f"{path}.{os.getpid()}"
        sock = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            _remove(new)
            sock.bind(new)
            os.chmod(new, int(server.socket_mode, 8))
            sock.listen(server.backlog)
            found = os.stat(new)
            os.rename(new, path)
        except OSError:
            sock.close()
            _remove(new)
            raise
        finally:
            os.umask(mask)
        self._file = (found.st_dev, found.st_ino)
        return sock

    def close(self) -> None:
        """End listening, wherever it began; harmless when done before."""
        self.remove()
        self.sock.close()

    def remove(self) -> None:
        """Remove the file of a unix socket, unless somebody else's stands there by now."""
        try:
            found = os.stat(self._path) if self._file is not None else None
        except OSError:
            return
        if found is not None and (found.st_dev, found.st_ino) == self._file:
            _remove(self._path)


def _judge_file(path: str) -> None:
    """Whether *path* may be taken: it is free, or a socket that nobody listens on any more. Raises OSError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(path)
    if answer in _LIVE:
        raise OSError(errno.EADDRINUSE, "another process listens there")
    if answer not in (errno.ECONNREFUSED, errno.ENOENT):
        raise OSError(answer, os.strerror(answer))


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it is gone, or it is somebody else's business


def _bind_address(server: Server) -> socket.socket:
    host = server.host.strip("[]")
    found = socket.getaddrinfo(host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name may have addresses of both kinds: the older one is what it always meant.
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "[::]" means every address of this machine, whatever net.ipv6.bindv6only says.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(server.backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
