"""Names that change: a scripted DNS server, and a hosts file and resolv.conf that only one gateway sees.

Owns the server and the mount namespace that a gateway is started in. It refuses to know what names are for (the tests
do). Made by the fixtures of `test_names`.

The C library's resolver runs as it is: it asks the server over UDP. That takes port 53, which is root's as a rule, and
`unshare -rm`, which containers often forbid: `lacking` says what this machine does not allow.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections import Counter
from pathlib import Path

from tests.wire.process import wait_until

#: Where the server listens: loopback, and an address that no other run of the tests has.
ADDRESS = f"127.53.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}"

#: What a name may have instead of addresses: an answer of that kind, or none at all.
SERVFAIL, NXDOMAIN = 2, 3
SILENCE = None
Answer = list[str] | int | None

_A = 1


class NameServer:
    """Answers for the names in `table` (all others: NXDOMAIN). `asked` counts questions for IPv4 addresses."""

    def __init__(self) -> None:
        self.table: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._sock.bind((ADDRESS, 53))
        except OSError:
            self._sock.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="name-server", daemon=True)
        self._thread.start()

    def wait_asked(self, name: str, more: int = 1, timeout: float = 5.0) -> None:
        """Return once *name* was asked for so many times more."""
        enough = self.asked[name] + more
        wait_until(lambda: self.asked[name] >= enough, f"{name} is asked for", timeout)

    def close(self) -> None:
        # An empty message ends it: closing alone would not wake the thread.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"", (ADDRESS, 53))
        self._thread.join(5)
        self._sock.close()

    def _serve(self) -> None:
        while True:
            question, sender = self._sock.recvfrom(2048)
            if not question:
                return
            answer = self._answer(question)
            if answer is not None:
                self._sock.sendto(answer, sender)

    def _answer(self, question: bytes) -> bytes | None:
        """RFC 1035 section 4.1, as much of it as one question needs."""
        labels = []
        at = 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode().lower())
            at += 1 + length
        kind = int.from_bytes(question[at + 1 : at + 3], "big")
        asked = question[12 : at + 5]
        name = ".".join(labels)
        if kind == _A:
            self.asked[name] += 1
        found = self.table.get(name, NXDOMAIN)
        if found is SILENCE:
            return None
        addresses = found if isinstance(found, list) and kind == _A else []
        code = found if isinstance(found, int) else 0
        head = question[:2] + bytes([0x81, 0x80 | code]) + bytes([0, 1, 0, len(addresses), 0, 0, 0, 0])
        record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04"  # the same name, A, IN, holds for 0 s, 4 bytes
        return head + asked + b"".join(record + socket.inet_aton(address) for address in addresses)


def private(folder: Path) -> tuple[str, ...]:
    """The beginning of a command that then sees only the names of a `NameServer`."""
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    (folder / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")
    mounts = [f"mount --bind '{folder}/{file}' /etc/{file}" for file in ("hosts", "resolv.conf")]
    return ("unshare", "-rm", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh")


def lacking(folder: Path) -> str:
    """Why names cannot be scripted on this machine; empty where they can."""
    if shutil.which("unshare") is None:
        return "there is no unshare(1)"
    tried = subprocess.run([*private(folder), "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if tried.returncode:
        return f"a mount namespace of one's own is not allowed: {tried.stderr.strip()}"
    try:
        NameServer().close()
    except OSError as error:
        return f"a server on port 53 is not allowed: {error}"
    return ""
