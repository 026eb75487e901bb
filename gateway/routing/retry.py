"""The retry law: whether a failed attempt may be made again.

Owns that one decision. It refuses to make the attempt (`gateway.proxy`) and to pick the peer
(`gateway.routing.balance`).
"""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import Fault, Retry


def may_retry(call: Call, fault: Fault) -> bool:
    """Whether *call* may be tried again after *fault*.

    | fault.retry | means                                          | tried again                                       |
    |-------------|------------------------------------------------|---------------------------------------------------|
    | UNSENT      | no byte reached the peer                       | up to the route's `tries`, any endpoint           |
    | REUSED      | lost on a reused connection before any answer  | once more and beyond `tries`, if repeatable       |
    | REPEATABLE  | sent, and no usable answer                     | no                                                |
    | NEVER       | the request is at fault, or the answer begun   | no                                                |

    An endpoint is repeatable if it only generates, or if the client sent an Idempotency-Key.
    """
    route = call.route
    if route is None:
        return False
    if fault.retry is Retry.UNSENT:
        return call.tries - call.lost_reused < route.tries
    if fault.retry is Retry.REUSED:
        return call.repeatable and not call.lost_reused
    return False
