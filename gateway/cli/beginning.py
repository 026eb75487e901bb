"""The start of the process: while modules are loaded, nothing is garbage.

Owns that the collector rests meanwhile: it would look again and again at all that was loaded so far, for a sixth of
the time that loading takes. It refuses to decide what happens afterwards. Loaded by `gateway.cli` before all else.
"""

from __future__ import annotations

import gc
from typing import Final

_COLLECTS: Final = gc.isenabled()
gc.disable()


def over() -> None:
    """All modules are loaded, and stay: the collector does as before, and looks at none of them."""
    gc.freeze()
    if _COLLECTS:
        gc.enable()
