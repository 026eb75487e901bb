"""Answers that are whole, and the heads of all answers.

Owns the bytes of heads, of faults told to clients, and of answers that came whole from an upstream. It refuses streams
and bodies that come in pieces (`gateway.relay`) and which answer it is (`gateway.proxy`, `gateway.front`).
"""

from __future__ import annotations

import re
from math import ceil
from typing import Final

from gateway.call import Attempt, Call
from gateway.errors import RETRY_AFTER, Fault, Kind
from protocols.http1.response import STATUS_LINES, ResponseHead, own_head
from protocols.openai.errors import error_body

#: The gateway tried again already: the SDKs of OpenAI and Anthropic, which would try again too, then do not.
_NO_MORE_RETRIES: Final = b"x-should-retry: false\r\n"
#: The same line as an upstream says it.
_SHOULD_RETRY: Final = re.compile(rb"^x-should-retry:[^\r]*\r\n", re.MULTILINE)
_CLOSE: Final = b"connection: close\r\n"
_KEEP: Final = b"connection: keep-alive\r\n"

#: Milliseconds with their thousandths cost a third of what formatting a float does.
_THOUSANDTHS: Final = tuple(b".%03d" % thousandths for thousandths in range(1000))

_LAST_BODY: Final = error_body("The gateway failed to serve the call.", Kind.INTERNAL.type, Kind.INTERNAL.code)
#: Said when a step raised: made beforehand, since the steps that make answers cannot be trusted then.
LAST_WORDS: Final = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b"
) % (len(_LAST_BODY), _LAST_BODY)

_PLAIN_BODY: Final = error_body("This port speaks TLS: use https.", Kind.BAD_REQUEST.type, Kind.BAD_REQUEST.code)
#: Said to a client that speaks plain HTTP where TLS is expected.
PLAIN_TEXT: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
) % (len(_PLAIN_BODY), _PLAIN_BODY)


def answer_head(call: Call, head: ResponseHead, date: bytes, framing: bytes, more: bytes = b"") -> bytes:
    """The head of an answer to *call*: *head*'s lines, the gateway's own, and the framing of the body."""
    lines = b"".join(head.lines)
    if call.tries > 1 and head.status >= 400:
        lines = _SHOULD_RETRY.sub(b"", lines) + _NO_MORE_RETRIES
    return b"%b%b%bx-request-id: %b\r\nx-trace-id: %b\r\n%b%b%b%b\r\n" % (
        STATUS_LINES[head.status],
        lines,
        date,
        call.id,
        call.trace,
        call.answer_lines,
        more,
        b"" if call.client.reusable and call.request.http_1_1 else _KEEP if call.client.reusable else _CLOSE,
        framing,
    )


def timing(call: Call) -> bytes:
    """Server-Timing: milliseconds of the gateway until its first attempt, and of the upstream until its first payload.

    (Server Timing, section 3.)
    """
    ours = (call.at_attempt - call.at_begin) * 1e-6
    theirs = ((call.at_first or call.at_head) - call.at_sent) * 1e-6
    return b"server-timing: gw;dur=%.3f, up;dur=%.3f\r\n" % (ours, theirs)


def answer_fault(call: Call, fault: Fault, date: bytes) -> None:
    """Answer *call* with *fault*, of which nothing but the message and the code is told."""
    kind = fault.kind
    body = fault.body or call.endpoint.dialect.error_body(fault.error)
    head = own_head(kind.status, b"application/json", len(body))
    call.fault = fault
    more = _retry_after(fault.wait) if kind.status in (429, 503) else b""
    if kind is Kind.NO_KEY:
        more = b"www-authenticate: Bearer\r\n"  # RFC 9110 section 15.5.2
    elif kind is Kind.BAD_METHOD:
        more = b"allow: " + b", ".join(call.endpoint.methods) + b"\r\n"
    answer_whole(call, head, body, date, more + own_id(call))


def own_id(call: Call) -> bytes:
    """The line that tells the call's id where its clients look for it, in an answer that is the gateway's own."""
    field = call.endpoint.dialect.id_field
    return field + b": " + call.id + b"\r\n" if field else b""


def _retry_after(wait: float) -> bytes:
    """When to come again: after *wait* seconds, and not at once."""
    seconds = max(float(RETRY_AFTER), wait)
    return b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (ceil(seconds), ceil(seconds * 1000))


def answer_whole(call: Call, head: ResponseHead, body: bytes, date: bytes, more: bytes = b"") -> None:
    """Answer *call* with a body that is whole: head and body in one write, no sink."""
    framing = b"" if head.status in (204, 304) else b"content-length: %d\r\n" % len(body)
    if call.request.method == b"HEAD":
        body = b""
    call.status = head.status
    call.bytes_out = len(body)
    call.client.begin(answer_head(call, head, date, framing, more) + body)


def relay_whole(call: Call, attempt: Attempt, head: ResponseHead, body: bytes, date: bytes) -> None:
    """Relay an answer that came whole: one write, no sink. The client's connection goes on to its next request.

    Server-Timing: milliseconds of the gateway until its first attempt, and of the upstream until its answer.
    """
    client = call.client
    call.status = head.status
    call.bytes_out = size = len(body)
    ours = (call.at_attempt - call.at_begin) // 1000
    theirs = (call.at_head - call.at_sent) // 1000
    client.answer(
        b"%b%bx-request-id: %b\r\nx-trace-id: %b\r\n%b%bserver-timing: gw;dur=%d%b, up;dur=%d%b\r\n"
        b"%bcontent-length: %d\r\n\r\n%b"
        % (
            head.start or STATUS_LINES[head.status] + b"".join(head.lines),
            date,
            call.id,
            call.trace,
            attempt.peer.answer_line,
            call.answer_lines,
            ours // 1000,
            _THOUSANDTHS[ours % 1000],
            theirs // 1000,
            _THOUSANDTHS[theirs % 1000],
            b"" if client.reusable and client.chunked else _KEEP if client.reusable else _CLOSE,
            size,
            body,
        )
    )
