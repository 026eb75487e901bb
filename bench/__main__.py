"""`python -m bench overhead`.

Owns the signals and the exit status: 0, 1 where the run is void, 2 where the arguments are wrong, 130 after
Ctrl-C. It refuses everything else (`options`, `overhead`).
"""

from __future__ import annotations

import signal
import sys

from bench.options import parse
from bench.overhead import run
from bench.processes import Broken


def _leave(signum: int, frame: object) -> None:
    """SIGTERM and SIGHUP leave through the same doors as Ctrl-C, past every `finally`."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the benchmark; see the module's docstring for the exit status."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        run(options)
    except Broken as error:
        print(f"bench: the run is void: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
