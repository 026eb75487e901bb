"""Whether the hot path runs as C, as mypyc made it, or as Python.

Owns the question, asked of what this very process imports. It refuses to know which modules setup.py compiles: it is
all of them or none, so one stands for them. Asked by the command line.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import Final

#: Every call runs through it.
PROXY: Final = "gateway.proxy"
_SUFFIXES: Final = tuple(EXTENSION_SUFFIXES)


def is_compiled(module: str = PROXY) -> bool:
    """Whether *module* is an extension: as it was imported, or else as it would be."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None and spec.origin.endswith(_SUFFIXES)
