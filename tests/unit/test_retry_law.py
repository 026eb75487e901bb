"""The retry law, row by row: what was sent and may have had an effect is never sent again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.admission.budget import ByteBudget
from gateway.call import Call
from gateway.errors import Fault, Kind, Retry, Side
from gateway.routing.endpoints import INFERENCE, Endpoint
from gateway.routing.retry import may_retry
from gateway.routing.routes import Group, Policy, Route
from protocols.http1.fields import FieldTable
from protocols.http1.request import parse_request_head

GENERATES = Endpoint("/v1/generates", repeatable=True)
ACTS = Endpoint("/v1/acts")


def call(
    endpoint: Endpoint = GENERATES, *, tries: int, allowed: int = 2, lost_reused: bool = False, key: bytes = b""
) -> Call:
    """A call that was tried *tries* times, on a route that allows *allowed*."""
    nobody: Any = SimpleNamespace(address="")
    line = b"Idempotency-Key: " + key + b"\r\n" if key else b""
    request = parse_request_head(b"POST / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n", FieldTable())
    policy = Policy(nobody, tries=allowed, inject_usage=False, first_byte=0.0, idle=0.0, total=0.0)
    made = Call(nobody, request, endpoint, ByteBudget(1), None, None, b"", b"", b"", 0)
    made.route = Route("m", [Group("b", [], policy, {})], None)
    made.tries, made.lost_reused = tries, lost_reused
    return made


def fault(retry: Retry) -> Fault:
    return Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, "lost", retry)


@pytest.mark.parametrize("endpoint", [GENERATES, ACTS])
@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_what_was_not_sent_is_tried_as_often_as_the_route_allows(endpoint: Endpoint, allowed: int) -> None:
    found = [may_retry(call(endpoint, tries=tries, allowed=allowed), fault(Retry.UNSENT)) for tries in range(1, 8)]
    assert found == [tries < allowed for tries in range(1, 8)]


@pytest.mark.parametrize("tries", [1, 2, 7])
def test_what_a_worn_out_connection_lost_is_sent_once_more_and_beyond_the_tries(tries: int) -> None:
    assert may_retry(call(tries=tries, allowed=1), fault(Retry.REUSED))
    assert not may_retry(call(tries=tries, allowed=9, lost_reused=True), fault(Retry.REUSED))


def test_what_a_worn_out_connection_lost_does_not_count_as_one_of_the_tries() -> None:
    found = [may_retry(call(tries=tries, allowed=2, lost_reused=True), fault(Retry.UNSENT)) for tries in (2, 3)]
    assert found == [True, False]


def test_what_may_have_had_an_effect_is_not_sent_again() -> None:
    for lost_reused in (False, True):
        assert not may_retry(call(ACTS, tries=1, allowed=9, lost_reused=lost_reused), fault(Retry.REUSED))


def test_an_idempotency_key_makes_an_effect_repeatable() -> None:
    assert may_retry(call(ACTS, tries=1, key=b"k"), fault(Retry.REUSED))
    assert not may_retry(call(ACTS, tries=1, key=b"k", lost_reused=True), fault(Retry.REUSED))


@pytest.mark.parametrize("retry", [Retry.REPEATABLE, Retry.NEVER])
@pytest.mark.parametrize("endpoint", [GENERATES, ACTS])
def test_what_was_sent_and_not_merely_lost_is_not_sent_again(endpoint: Endpoint, retry: Retry) -> None:
    assert not may_retry(call(endpoint, tries=1, allowed=9, key=b"k"), fault(retry))


@pytest.mark.parametrize("retry", Retry)
def test_a_call_without_a_route_is_not_tried_again(retry: Retry) -> None:
    lost = call(tries=1, allowed=9)
    lost.route = None
    assert not may_retry(lost, fault(retry))


def test_a_fault_is_never_tried_again_unless_it_says_so() -> None:
    assert Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, "lost").retry is Retry.NEVER


def test_what_keeps_state_or_costs_more_than_once_is_not_repeatable() -> None:
    assert {endpoint.path for endpoint in INFERENCE if not endpoint.repeatable} == {
        "/v1/responses",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
    }
