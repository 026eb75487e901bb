"""`python -m gateway`: the command `headrace`, for where its script is not installed."""

import sys

from gateway.cli import main

if __name__ == "__main__":
    sys.exit(main())
