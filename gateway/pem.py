"""PEM files whose content is in memory, for OpenSSL, which reads certificates and keys from paths only.

Owns the paths. It refuses to judge the content (`gateway.certificates`, `gateway.upstream.tls`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gateway.config.schema import PemFile


@contextmanager
def paths(*files: PemFile) -> Iterator[list[str]]:
    """Paths that can be read inside, in the order of *files*; empty for one that is not named."""
    with ExitStack() as stack:
        yield [stack.enter_context(_path(file)) if file else "" for file in files]


@contextmanager
def _path(file: PemFile) -> Iterator[str]:
    fd = os.memfd_create("headrace-pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as memory:
            memory.write(file.content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
