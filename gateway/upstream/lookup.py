"""One question to the system's resolver: hosts file, DNS, whatever nsswitch.conf names.

Owns `look_up` and the thread in which each question is asked. It refuses to keep answers and to ask again
(`resolver`, which calls it).

The C library's getaddrinfo cannot be cancelled and may take 10 s and more. uvloop's `getaddrinfo` runs in libuv's pool
of four threads, and a loop is not closed before they are done: a resolver that is down would keep a worker from going
down too. A daemon thread of one's own keeps nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

#: Addresses, each once and never none; or why there are none.
Answer = tuple[str, ...] | socket.gaierror
#: Asks for a host's addresses and calls back, later and in the loop's thread.
LookUp = Callable[[str, Callable[[Answer], None]], None]

#: No IPv6 addresses where this machine has none itself (RFC 3493 section 6.1): each would be a peer that is down.
_FLAGS: Final = socket.AI_ADDRCONFIG


def look_up(host: str, done: Callable[[Answer], None]) -> None:
    """Ask for *host* in a thread; *done* is called in the running loop, unless that is closed by then."""
    loop = asyncio.get_running_loop()
    try:
        threading.Thread(target=_look_up, args=(loop, host, done), name=f"look-up-{host}", daemon=True).start()
    except RuntimeError as error:  # no thread is to be had
        loop.call_soon(done, socket.gaierror(socket.EAI_AGAIN, str(error)))


def _look_up(loop: asyncio.AbstractEventLoop, host: str, done: Callable[[Answer], None]) -> None:
    answer: Answer
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=_FLAGS)
        answer = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
    except socket.gaierror as error:
        answer = error.with_traceback(None)
    except (OSError, UnicodeError) as error:  # a label longer than 63 letters has no spelling on the wire
        answer = socket.gaierror(socket.EAI_NONAME, str(error))
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
        loop.call_soon_threadsafe(done, answer)
