"""TOML files and folders of them, as one tree.

Owns finding, reading and merging files. It refuses the schema (`convert`). Called by `load`.
"""

from __future__ import annotations

import errno
import os
import re
import select
import time
import tomllib
from collections.abc import Sequence
from typing import Final

from gateway.config.faults import Faults
from gateway.config.tree import Table, grow, merge

#: Bytes that a file may have: a thousand times what people write, and no more than a process can hold.
LARGEST: Final = 64 << 20
#: Seconds that a pipe has to end.
PIPE_TIME: Final = 5.0

_PLACE: Final = re.compile(r"(.*) \(at (line \d+, column \d+|end of document)\)", re.DOTALL)


def read(paths: Sequence[str], faults: Faults) -> Table:
    """Every file of *paths* merged. What cannot be read is a fault and left out."""
    tree: Table | None = None
    for path in paths:
        for file in _files(path, faults):
            found = _read_file(file, faults)
            if found is not None:
                tree = found if tree is None else merge(tree, found, faults)
    # without a file, whatever is written and whatever is missing is the environment's
    return tree or Table("environment", "", {})


def listed(path: str) -> list[str]:
    """*path* itself, or a folder's *.toml in name order; hidden ones are editors' locks and drafts. Raises OSError."""
    if not os.path.isdir(path):
        return [path]
    names = sorted(name for name in os.listdir(path) if name.endswith(".toml") and name[0] != ".")
    return [os.path.join(path, name) for name in names]


def _files(path: str, faults: Faults) -> list[str]:
    try:
        found = listed(path)
    except OSError as error:
        faults.add(path, "", f"cannot be read ({error.strerror}), expected a readable folder")
        return []
    if not found:
        faults.add(path, "", "has no *.toml, expected a TOML file or a folder of them")
    return found


def _read_file(file: str, faults: Faults) -> Table | None:
    try:
        found = grow(tomllib.loads(_content(file).decode("utf-8-sig")), file)
    except OSError as error:
        faults.add(file, "", f"cannot be read ({error.strerror}), expected a TOML file or a folder of them")
    except UnicodeDecodeError as error:
        faults.add(file, f"byte {error.start}", "is not UTF-8, expected TOML")
    except tomllib.TOMLDecodeError as error:
        placed = _PLACE.fullmatch(str(error))
        where, why = (placed[2], placed[1]) if placed else ("", str(error))
        faults.add(file, where, f"{why}, expected TOML")
    except RecursionError:
        faults.add(file, "", "is nested too deeply, expected tables a few levels deep")
    else:
        return found if isinstance(found, Table) else None
    return None


def _content(file: str) -> bytes:
    """All of *file*, which may be a pipe that somebody still writes to. Raises OSError."""
    with open(file, "rb", buffering=0, opener=_at_once) as opened:
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        end = time.monotonic() + PIPE_TIME
        content = bytearray()
        while len(content) <= LARGEST:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                raise OSError(errno.ETIMEDOUT, f"it did not end within {PIPE_TIME:.0f} s")
            piece = opened.read(1 << 20)
            if piece is not None:
                content += piece
                if not piece:
                    return bytes(content)
    raise OSError(errno.EFBIG, f"it is larger than {LARGEST >> 20} MiB")


def _at_once(file: str, flags: int) -> int:
    """Open *file*, though it be a pipe that nobody writes to yet: that one is waited for as any other is."""
    return os.open(file, flags | os.O_NONBLOCK)
