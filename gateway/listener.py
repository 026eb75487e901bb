"""The sockets that clients connect to: an IP address and port, or a file.

Owns how an address is bound, one socket for each worker, and the file of a unix socket from its making to its removal.
It refuses to accept (`gateway.gate`). Made by `gateway.host`, one for all workers, which keeps every socket to the end,
over upgrades too: closing one resets what it had not accepted.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any, Final

import msgspec

from gateway.config.schema import UNIX, Server

#: Answers of a connect that say that somebody listens; EAGAIN is a full backlog.
_LIVE: Final = frozenset({0, errno.EAGAIN, errno.EINPROGRESS})


class ListenError(Exception):
    """The address cannot be listened on; the text is for the operator."""


class ListenerNote(msgspec.Struct):
    """A listener, written down for the next process: its place as it was asked for, and what is open."""

    host: str
    port: int
    #: The port that it has, where it was asked for any.
    bound: int
    descriptors: list[int]
    #: Device and inode of a unix socket's file.
    file: tuple[int, int] | None = None


class Listener:
    """Sockets that listen on one address. `url` is where, as people write it."""

    def __init__(self, server: Server, count: int, former: ListenerNote | None = None, *, beside: bool = False) -> None:
        """One socket for each of *count* workers; all share the one of a file. Raises `ListenError`.

        Of a *former* process its sockets are kept, and its file; nothing is raised then, and `flaw` tells what is not
        as it should be. *beside*: the port may be this process's own already, at another address.
        """
        self.flaw = ""
        self._host, self._port = server.host, server.port
        self._path = server.host.removeprefix(UNIX) if server.host.startswith(UNIX) else ""
        self._file: tuple[int, int] | None = former.file if former is not None else None
        try:
            if former is not None:
                self.socks = [socket.socket(fileno=fd) for fd in former.descriptors]
                self._complete(server, count)
            elif self._path:
                self.socks = [self._bind_file(server)]
            else:
                self.socks = _bind_address(server, count, probed=not beside)
        except OSError as error:
            raise _refusal(server, error) from None
        for sock in self.socks:
            sock.setblocking(False)
        self.url = server.host if self._path else _url(self.socks[0], "https" if server.tls.cert else "http")

    def share(self, number: int, count: int) -> list[socket.socket]:
        """Those on which worker *number* of *count* accepts: each socket is some worker's, each worker has one."""
        return self.socks[number::count] or [self.socks[number % len(self.socks)]]

    def noted(self) -> ListenerNote:
        """What the next process needs."""
        bound = 0 if self._path else self.socks[0].getsockname()[1]
        return ListenerNote(self._host, self._port, bound, [sock.fileno() for sock in self.socks], self._file)

    def _complete(self, server: Server, count: int) -> None:
        """Have what was inherited be as *server* says, as far as may be: workers can share a socket."""
        try:
            for sock in self.socks:
                sock.listen(server.backlog)
            if self._path:
                if self._is_ours():
                    os.chmod(self._path, int(server.socket_mode, 8))
                return
            family, address = self.socks[0].family, self.socks[0].getsockname()
            for _ in range(count - len(self.socks)):
                self.socks.append(sock := _bound(family, address, shared=True))
                sock.listen(server.backlog)
        except OSError as error:
            self.flaw = error.strerror or str(error)

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
        if self._is_ours():
            _remove(self._path)

    def _is_ours(self) -> bool:
        try:
            found = os.stat(self._path) if self._file is not None else None
        except OSError:
            return False
        return found is not None and (found.st_dev, found.st_ino) == self._file


def is_there(former: ListenerNote, server: Server) -> bool:
    """Whether *former* listens where *server* says."""
    return former.host == server.host and (server.host.startswith(UNIX) or server.port in (former.port, former.bound))


def is_beside(former: ListenerNote, server: Server) -> bool:
    """Whether *server* asks for the port of *former*, at whichever address."""
    return server.port in (former.port, former.bound) and UNIX not in (
        former.host[: len(UNIX)],
        server.host[: len(UNIX)],
    )


def judge(former: ListenerNote, server: Server) -> None:
    """Whether the process that listens as *former* can listen as *server* says. Raises `ListenError`."""
    try:
        if server.host.startswith(UNIX):
            _judge_file(path := server.host.removeprefix(UNIX))
            if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "the folder is not there, or cannot be written")
        else:
            family, address = _address(server)
            _bound(family, address, shared=is_beside(former, server)).close()
    except OSError as error:
        raise _refusal(server, error) from None


def _refusal(server: Server, error: OSError) -> ListenError:
    where = server.host.removeprefix(UNIX) if server.host.startswith(UNIX) else f"{server.host} port {server.port}"
    return ListenError(f"cannot listen on {where}: {error.strerror or error}")


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


def _address(server: Server) -> tuple[int, Any]:
    """The family and the address as the kernel takes it."""
    host = server.host.strip("[]")
    found = socket.getaddrinfo(host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name may have addresses of both kinds: the older one is what it always meant.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _bind_address(server: Server, count: int, *, probed: bool) -> list[socket.socket]:
    """*count* sockets, between which the kernel shares connections out.

    A plain bind comes first: with SO_REUSEPORT alone a second gateway would take half of the first one's connections
    without a word.
    """
    family, address = _address(server)
    with _bound(family, address, shared=not probed) as probe:
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
