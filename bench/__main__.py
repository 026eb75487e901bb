"""`python -m bench overhead`, `python -m bench translated` and `python -m bench faults`.

Owns the signals and the exit status: 0, 1 where the run is void or a fault was found, 2 where the arguments are
wrong, 130 after Ctrl-C. It refuses everything else (`options`, `overhead`, `translated`, `faults`).
"""

from __future__ import annotations

import signal
import sys

from bench import translated
from bench.faults import run as faults
from bench.faults.options import FaultOptions
from bench.options import parse
from bench.overhead import run
from bench.processes import Broken, end_children
from bench.translated import TranslatedOptions


def _leave(signum: int, frame: object) -> None:
    """SIGTERM and SIGHUP leave through the same doors as Ctrl-C, past every `finally`."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the benchmark; see the module's docstring for the exit status."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        if isinstance(options, FaultOptions):
            return 0 if faults.run(options).good else 1
        if isinstance(options, TranslatedOptions):
            translated.run(options)
        else:
            run(options)
    except Broken as error:
        print(f"bench: the run is void: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        end_children()
    return 0


if __name__ == "__main__":
    sys.exit(main())
