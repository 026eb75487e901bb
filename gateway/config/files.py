"""TOML files and folders of them, as one tree.

Owns finding, reading and merging files. It refuses the schema (`convert`). Called by `load`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from typing import Final

from gateway.config.faults import Faults
from gateway.config.tree import Table, grow, merge

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
        with open(file, "rb") as opened:
            text = opened.read().decode("utf-8-sig")
        found = grow(tomllib.loads(text), file)
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
