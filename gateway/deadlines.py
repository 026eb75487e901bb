"""What it means that a call's deadline is past.

Owns that judgement. It refuses to end the call (`gateway.proxy`, which asks at each sweep) and to set deadlines.
"""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import Fault, Kind, Retry, Side


def judge_overdue(call: Call, now: float) -> Fault | None:
    """Whose fault it is; None where bytes came since the deadline was set, which is only now moved for them."""
    attempt = call.attempt
    if now >= call.total_deadline:
        if call.client.untaken:
            return client_stalled()
        text = "The call took longer than its total time."
    elif attempt is not None and attempt.sink is not None:
        quiet_until = attempt.sink.at_last + call.idle
        if now < quiet_until:
            call.deadline = min(call.total_deadline, quiet_until)
            return None
        text = "The upstream's stream stalled."
    else:
        text = "The upstream did not begin to answer in time."
    return Fault(Side.UPSTREAM, Kind.UPSTREAM_SLOW, text, Retry.REPEATABLE, timed_out=True)


def client_stalled() -> Fault:
    """The client does not take its answer."""
    return Fault(Side.CLIENT, Kind.CLIENT_STALLED, "The client stopped reading.", timed_out=True)
