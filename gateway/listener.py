"""The sockets that clients connect to: an IP address and port, or a file.

Owns how an address is bound, one socket for each worker, and the file of a unix socket from its making to its removal.
It refuses to accept (`gateway.worker` hands its socket to its loop). Made by `gateway.host`, one for all workers, which
keeps every socket to the end.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any, Final

from gateway.config.schema import UNIX, Server

#: Answers of a connect that say that somebody listens; EAGAIN is a full backlog.
_LIVE: Final = frozenset({0, errno.EAGAIN, errno.EINPROGRESS})


class ListenError(Exception):
    """The address cannot be listened on; the text is for the operator."""


class Listener:
    """Sockets that listen on one address. `url` is where, as people write it."""

    def __init__(self, server: Server, count: int) -> None:
        """One socket for each of *count* workers; all share the one of a file. Raises `ListenError`."""
        self._file: tuple[int, int] | None = None
        self._path = server.host.removeprefix(UNIX) if server.host.startswith(UNIX) else ""
        where = self._path or f"{server.host} port {server.port}"
        try:
            self.socks = [self._bind_file(server)] * count if self._path else _bind_address(server, count)
        except OSError as error:
            raise ListenError(f"cannot listen on {where}: {error.strerror or error}") from None
        for sock in self.socks:
            sock.setblocking(False)
        self.url = server.host if self._path else _url(self.socks[0], "https" if server.tls.cert else "http")

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
        for sock in self.socks:
            sock.close()

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


def _bind_address(server: Server, count: int) -> list[socket.socket]:
    """*count* sockets, between which the kernel shares connections out.

    A plain bind comes first: with SO_REUSEPORT alone a second gateway would take half of the first one's connections
    without a word.
    """
    host = server.host.strip("[]")
    found = socket.getaddrinfo(host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name may have addresses of both kinds: the older one is what it always meant.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    with _bound(family, address, shared=False) as probe:
        address = probe.getsockname()
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(_bound(family, address, shared=True))
            sockets[-1].listen(server.backlog)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bound(family: int, address: Any, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # "[::]" means every address of this machine, whatever net.ipv6.bindv6only says.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _url(sock: socket.socket, scheme: str) -> str:
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
