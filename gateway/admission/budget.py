"""The byte budget: how much memory the request bodies of one worker may hold.

Owns the count. It refuses to hold the bodies (`gateway.call`) and to answer (`gateway.intake`). One ByteBudget is
made per worker by `gateway.build`.
"""

from __future__ import annotations


class ByteBudget:
    """Taken as body bytes are announced or arrive, given back when the body is dropped.

    Who takes compares `used` with `limit` first, and adds to `used` in the same breath (`gateway.intake`); what was
    taken for a call is given back from one place (`Call.drop_body`).
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
