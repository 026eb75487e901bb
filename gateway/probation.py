"""Whether an upstream's answer is fit to be shown to the client.

Owns the verdict on its status and on the first event of a stream. It refuses what becomes of the call then
(`gateway.proxy`). Called by `gateway.proxy` before the commit point.
"""

from __future__ import annotations

from collections.abc import Container
from time import time
from typing import Final

import msgspec

from gateway.call import Call
from gateway.errors import Fault, Kind, Retry, Side
from gateway.relay import PARTIAL_EVENT_LIMIT
from protocols import ndjson, sse
from protocols.dialect import Dialect
from protocols.http1.advice import read_advice
from protocols.http1.response import ResponseHead
from protocols.openai.ends import breaks_off

#: Statuses below 500 that are about the upstream's state and not about the request.
_BUSY: Final = frozenset({408, 429})
UNAUTHORIZED: Final = 401


def is_usable(status: int) -> bool:
    """Whether an answer of *status* is about the request: the upstream did its work."""
    return status < 500 and status not in _BUSY and status != UNAUTHORIZED


def is_stream(head: ResponseHead, call: Call) -> bool:
    """Whether the answer is a stream of events or, where somebody speaks so, of lines."""
    if head.is_event_stream:
        return call.translation is not None or call.endpoint.dialect.form is sse
    lines = call.translation is not None or call.endpoint.dialect.form is ndjson
    return lines and head.content_type.lower().startswith(b"application/x-ndjson")


def judge_status(head: ResponseHead, on: Container[str | int]) -> Fault | None:
    """What is wrong where the status says that the upstream failed; None: the answer is about the request.

    *on*: what the backend lists in `retry.on`; 409 and 425 are about the upstream only where it lists them.
    """
    status = head.status
    if status == UNAUTHORIZED:
        # The upstream's own words may echo our credentials, and the client can do nothing about them.
        text = "The upstream refused the gateway's credentials."
        kind = Kind.UPSTREAM_UNAUTHORIZED
        return Fault(Side.UPSTREAM, kind, text, Retry.REPEATABLE, answered=status, is_final=True)
    if status < 500 and status not in _BUSY and status not in on:
        return None
    advice = read_advice(head.lines, time())
    return Fault(
        Side.UPSTREAM,
        Kind.UPSTREAM_ERROR,
        f"The upstream answered {status}.",
        Retry.REPEATABLE,
        answered=status,
        wait=advice.wait,
        is_final=advice.is_final,
    )


def no_stream(head: ResponseHead, body: bytes, dialect: Dialect) -> Fault:
    """What is wrong where the client was promised a stream already: the upstream's own error, if this is one."""
    # An answer about the request would be no other elsewhere, and says nothing against the peer.
    retry, answered = (Retry.REPEATABLE, 0) if head.status < 400 else (Retry.NEVER, head.status)
    if dialect.carries_error(body):
        error = msgspec.json.format(body, indent=-1)
        return Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, "", retry, body=error, answered=answered)
    text = f"The upstream answered {head.status} in place of a stream."
    return Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, retry, answered=answered)


def judge_first_event(payload: bytes, dialect: Dialect) -> Fault | bool | None:
    """True: sound, commit. None: no whole event with data yet. A fault: the stream failed before it began."""
    form = dialect.form
    for event in form.split_events(payload):
        data = form.data_of(event)
        if data is None:
            continue
        if dialect.carries_error(data) or form.names_error(event):
            text = "The upstream sent an error in place of an answer."
            return Fault(Side.UPSTREAM, Kind.UPSTREAM_ERROR, text, Retry.REPEATABLE, body=data)
        if data[:1] not in (b"{", b"[") or data == b"[DONE]" or breaks_off(data):
            text = "The upstream's stream did not begin with an answer."
            return Fault(Side.UPSTREAM, Kind.UPSTREAM_BROKEN, text, Retry.REPEATABLE)
        if dialect.is_opening(data):
            return True
    return True if len(payload) > PARTIAL_EVENT_LIMIT else None
