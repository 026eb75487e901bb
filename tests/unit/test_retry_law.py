"""The retry law, row by row: what was sent and may have had an effect is never sent again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.admission.budget import ByteBudget
from gateway.admission.keys import Principal
from gateway.call import Call
from gateway.clock import monotonic_ns
from gateway.config import schema
from gateway.errors import Fault, Kind, Retry, Side
from gateway.routing.breaker import Rules
from gateway.routing.endpoints import INFERENCE, Endpoint
from gateway.routing.peer import Peer, PeerState, Standing
from gateway.routing.retry import RESERVE, Again, RetryBudget, cause_of, judge
from gateway.routing.route import Group, Policy, Route
from protocols.http1.fields import FieldTable
from protocols.http1.request import parse_request_head

GENERATES = Endpoint("/v1/generates", repeatable=True)
ACTS = Endpoint("/v1/acts")
DEFAULT_ON = schema.Retry().on


NOW = 1000.0


def empty() -> RetryBudget:
    """A budget of which all is taken."""
    budget = RetryBudget(1.0)
    assert left(budget) == RESERVE
    return budget


def left(budget: RetryBudget) -> int:
    """How many repetitions *budget* has; none afterwards."""
    return sum(1 for _ in iter(lambda: budget.take(NOW, 1), False))


def policy(allowed: int = 2, on: tuple[str | int, ...] = DEFAULT_ON, budget: RetryBudget | None = None) -> Policy:
    nobody: Any = SimpleNamespace()
    return Policy(
        nobody,
        tries=allowed,
        on=on,
        budget=budget or RetryBudget(1.0),
        inject_usage=False,
        first_byte=0.0,
        idle=0.0,
        total=0.0,
    )


def peers(count: int) -> list[Peer]:
    backend: Any = SimpleNamespace(name="b")
    return [Peer(backend, f"http://{at}", 1, PeerState(Standing())) for at in range(count)]


def call(
    endpoint: Endpoint = GENERATES,
    *,
    tries: int = 1,
    allowed: int = 2,
    on: tuple[str | int, ...] = DEFAULT_ON,
    lost_reused: bool = False,
    key: bytes = b"",
    among: int = 9,
    fallbacks: tuple[Route, ...] = (),
    budget: Any = None,
) -> Call:
    """A call that was tried at *tries* of *among* peers, on a route that allows *allowed*."""
    nobody: Any = SimpleNamespace(address="")
    line = b"Idempotency-Key: " + key + b"\r\n" if key else b""
    request = parse_request_head(b"POST / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n", FieldTable())
    made = Call(nobody, request, endpoint, ByteBudget(1), None, None, b"", b"", b"", 0)
    group = Group("b", peers(among), policy(allowed, on, budget), {})
    made.route = Route("m", [group], None, fallbacks=fallbacks)
    *tried, made.peer = (group.peers * 9)[:tries]
    made.tried = tuple(tried)
    made.tries, made.lost_reused = tries + lost_reused, lost_reused
    return made


def fault(retry: Retry, **more: Any) -> Fault:
    return Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, "lost", retry, **more)


def again(made: Call, why: Fault, now: float = NOW) -> bool:
    return judge(made, why, now, 1) is not None


FALLBACK = Route("f", [Group("f", peers(1), policy(), {})], None)


@pytest.mark.parametrize("endpoint", [GENERATES, ACTS])
@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_what_was_not_sent_is_tried_as_often_as_the_route_allows(endpoint: Endpoint, allowed: int) -> None:
    found = [again(call(endpoint, tries=tries, allowed=allowed), fault(Retry.UNSENT)) for tries in range(1, 8)]
    assert found == [tries < allowed for tries in range(1, 8)]


@pytest.mark.parametrize("tries", [1, 2, 7])
def test_what_a_worn_out_connection_lost_is_sent_once_more_and_beyond_the_tries(tries: int) -> None:
    assert judge(call(tries=tries, allowed=1), fault(Retry.REUSED), NOW, 1) == Again(0.0)
    assert not again(call(tries=tries, allowed=9, lost_reused=True), fault(Retry.REUSED))


def test_what_a_worn_out_connection_lost_does_not_count_as_one_of_the_tries() -> None:
    found = [again(call(tries=tries, allowed=2, lost_reused=True), fault(Retry.UNSENT)) for tries in (1, 2)]
    assert found == [True, False]


@pytest.mark.parametrize("retry", [Retry.REUSED, Retry.REPEATABLE])
def test_what_may_have_had_an_effect_is_not_sent_again(retry: Retry) -> None:
    for lost_reused in (False, True):
        assert not again(call(ACTS, allowed=9, lost_reused=lost_reused, fallbacks=(FALLBACK,)), fault(retry))


@pytest.mark.parametrize("retry", [Retry.REUSED, Retry.REPEATABLE])
def test_an_idempotency_key_makes_an_effect_repeatable(retry: Retry) -> None:
    assert again(call(ACTS, key=b"k"), fault(retry))


@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_what_was_sent_and_not_answered_is_tried_as_often_as_the_route_allows(allowed: int) -> None:
    found = [again(call(tries=tries, allowed=allowed), fault(Retry.REPEATABLE)) for tries in range(1, 8)]
    assert found == [tries < allowed for tries in range(1, 8)]


def broken(made: Call, *at: int) -> Call:
    """*made*, with the circuits of its route's peers *at* these places open."""
    assert made.route is not None
    for number in at:
        state = made.route.peers[number].state
        state.circuit.rules = Rules(max_failures=1)
        state.blamed(fault(Retry.REPEATABLE), monotonic_ns(), made)
        assert state.is_broken
    return made


@pytest.mark.parametrize("retry", [Retry.UNSENT, Retry.REPEATABLE])
def test_nothing_is_tried_again_where_every_circuit_is_open_but_goes_on_elsewhere(retry: Retry) -> None:
    assert again(broken(call(among=3, allowed=9), 0, 1), fault(retry))
    assert not again(broken(call(among=3, allowed=9), 0, 1, 2), fault(retry))
    made = broken(call(among=1, allowed=9, fallbacks=(FALLBACK,)), 0)
    assert judge(made, fault(retry), NOW, 1) == Again(fallback=FALLBACK)


def test_a_peer_whose_circuit_is_open_is_no_other_peer_to_go_to_at_once() -> None:
    why = fault(Retry.REPEATABLE, wait=0.5)
    assert judge(call(among=2), why, NOW, 1) == Again(0.0)
    assert judge(broken(call(among=2), 1), why, NOW, 1) == Again(0.5)


CAUSES_OF_FAULTS = {
    "connect": fault(Retry.UNSENT),
    "reused": fault(Retry.REUSED),
    "lost": fault(Retry.REPEATABLE),
    "timeout": fault(Retry.REPEATABLE, timed_out=True),
    429: fault(Retry.REPEATABLE, answered=429),
    503: fault(Retry.REPEATABLE, answered=503),
    500: fault(Retry.REPEATABLE, answered=500),
}


@pytest.mark.parametrize("cause", CAUSES_OF_FAULTS)
def test_only_what_the_backend_lists_is_tried_again(cause: str | int) -> None:
    assert cause_of(CAUSES_OF_FAULTS[cause]) == cause
    assert {other for other in CAUSES_OF_FAULTS if again(call(on=(cause,)), CAUSES_OF_FAULTS[other])} == {cause}


@pytest.mark.parametrize("cause", CAUSES_OF_FAULTS)
def test_any_failure_falls_back_where_nothing_else_is_left(cause: str | int) -> None:
    found = judge(call(on=(), fallbacks=(FALLBACK,)), CAUSES_OF_FAULTS[cause], NOW, 1)
    assert found == Again(fallback=FALLBACK)


def test_a_fallback_that_the_key_may_not_use_is_passed_over() -> None:
    last = Route("m", [Group("c", peers(1), policy(), {})], None, serves="cheap")
    first = Route("m", [Group("b", peers(1), policy(), {})], None, serves="dear", fallbacks=(last,))
    target = Route("m", [Group("d", peers(1), policy(), {})], None)
    for allowed, fallbacks, expected in (
        (("m", "dear"), (first, last), first),
        (("m", "cheap"), (first, last), last),
        (("m",), (first, last), None),
        (("m",), (target, first, last), target),
    ):
        made = call(on=(), fallbacks=fallbacks)
        made.principal = Principal("k", b"", allowed, passthrough=False)
        found = judge(made, fault(Retry.UNSENT), NOW, 1)
        assert (found.fallback if found is not None else None) is expected


def test_a_fallback_comes_after_the_last_try() -> None:
    first = judge(call(fallbacks=(FALLBACK,)), fault(Retry.UNSENT), NOW, 1)
    last = judge(call(tries=2, fallbacks=(FALLBACK,)), fault(Retry.UNSENT), NOW, 1)
    assert (first, last) == (Again(0.0), Again(fallback=FALLBACK))


@pytest.mark.parametrize("retry", Retry)
def test_the_request_s_own_fault_goes_nowhere_else(retry: Retry) -> None:
    assert again(call(fallbacks=(FALLBACK,)), fault(retry)) is (retry is not Retry.NEVER)


def test_an_upstream_that_asks_not_to_be_asked_again_means_itself() -> None:
    told = fault(Retry.REPEATABLE, answered=503, is_final=True)
    assert not again(call(), told)
    assert judge(call(fallbacks=(FALLBACK,)), told, NOW, 1) == Again(fallback=FALLBACK)


def test_only_requests_that_were_sent_are_charged_to_the_budget() -> None:
    for retry, charged in ((Retry.UNSENT, 0), (Retry.REUSED, 0), (Retry.REPEATABLE, 1)):
        budget = RetryBudget(1.0)
        assert again(call(budget=budget), fault(retry))
        assert RESERVE - left(budget) == charged
    assert not again(call(budget=empty()), fault(Retry.REPEATABLE))
    assert again(call(budget=empty()), fault(Retry.UNSENT))


def test_what_is_refused_for_its_tries_is_not_charged() -> None:
    budget = RetryBudget(1.0)
    assert not again(call(tries=2, budget=budget), fault(Retry.REPEATABLE))
    assert left(budget) == RESERVE


@pytest.mark.parametrize("retry", [Retry.UNSENT, Retry.REPEATABLE])
def test_another_peer_is_tried_at_once_and_the_same_one_after_a_pause_that_grows(retry: Retry) -> None:
    def waits(tries: int, among: int) -> list[float]:
        found = [judge(call(tries=tries, allowed=99, among=among), fault(retry), NOW, 1) for _ in range(200)]
        return [one.wait for one in found if one is not None]

    assert set(waits(1, 2)) == {0.0}
    for tries, longest in ((1, 0.025), (2, 0.075), (3, 0.175), (4, 0.25), (9, 0.25)):
        found = waits(tries, 1)
        assert len(found) == 200 and longest / 2 < max(found) <= longest
        assert min(found) < longest / 4


def test_retry_after_is_waited_for_where_it_is_short_and_nobody_else_is_there() -> None:
    soon, late = (fault(Retry.REPEATABLE, answered=429, wait=wait) for wait in (1.0, 1.1))
    assert judge(call(among=1), soon, NOW, 1) == Again(1.0)
    assert judge(call(among=2), soon, NOW, 1) == judge(call(among=2), late, NOW, 1) == Again(0.0)
    assert judge(call(among=1), late, NOW, 1) is None
    assert judge(call(among=1, fallbacks=(FALLBACK,)), late, NOW, 1) == Again(fallback=FALLBACK)


def test_nothing_is_begun_after_the_total_time() -> None:
    late = call(among=1, fallbacks=(FALLBACK,))
    late.total_deadline = NOW
    assert not again(late, fault(Retry.UNSENT))
    late.total_deadline = NOW + 0.5
    assert judge(late, fault(Retry.REPEATABLE, answered=429, wait=0.6), NOW, 1) == Again(fallback=FALLBACK)


@pytest.mark.parametrize("retry", Retry)
def test_a_call_without_a_route_is_not_tried_again(retry: Retry) -> None:
    lost = call(allowed=9)
    lost.route = None
    assert not again(lost, fault(retry))


# The budget.


def test_a_backend_without_traffic_has_a_few_repetitions_and_gets_them_back_with_time() -> None:
    budget = RetryBudget(0.2)
    assert [budget.take(NOW, 1) for _ in range(5)] == [True, True, True, False, False]
    assert [budget.take(NOW + 1, 1) for _ in range(2)] == [True, False]
    assert [budget.take(NOW + 1000, 1) for _ in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize("ratio", [0.1, 0.2, 1.0])
def test_in_a_storm_repetitions_are_a_share_of_the_first_tries(ratio: float) -> None:
    budget = RetryBudget(ratio)
    repeated = 0
    for _ in range(10_000):
        budget.calls += 1
        repeated += budget.take(NOW, 30)
    assert ratio * 10_000 - 1 <= repeated <= ratio * 10_000 + 4


def test_what_is_saved_up_is_a_share_of_the_calls_under_way() -> None:
    budget = RetryBudget(0.2)
    budget.calls = 100_000
    assert sum(budget.take(NOW, 100) for _ in range(1000)) == 20


def test_a_budget_of_nothing_allows_nothing() -> None:
    assert not RetryBudget(0.0).take(NOW, 100)


def test_a_fault_is_never_tried_again_unless_it_says_so() -> None:
    assert Fault(Side.UPSTREAM, Kind.UPSTREAM_LOST, "lost").retry is Retry.NEVER


def test_what_keeps_state_or_costs_more_than_once_is_not_repeatable() -> None:
    assert {endpoint.path for endpoint in INFERENCE if not endpoint.repeatable} == {
        "/v1/responses",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
    }
