"""One process of the load generator: one plan, offered once.

Owns the choice of what is offered. It refuses to measure CPU (`measure`) and to know the wire (`messages`).
Started by `measure` as `python -m bench.load PLAN`, the plan being JSON.

Raw sockets, one epoll, no library between: the generator shares a core with the upstream and must cost less
than the proxy that it measures.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

import msgspec

from bench.calls import closed_loop, paced
from bench.plan import Kind, Plan
from bench.streams import streams
from bench.window import Window

OFFER: Final = {Kind.CLOSED: closed_loop, Kind.PACED: paced, Kind.STREAMS: streams}


def main() -> None:
    """Offer what the plan says and report; an answer that is wrong ends the process with a traceback."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    # Nothing here is cyclic on the hot path, and a collection would show up as a late answer.
    gc.disable()
    window = Window(plan.limit_s)
    window.report(OFFER[plan.kind](plan, window))


if __name__ == "__main__":
    main()
