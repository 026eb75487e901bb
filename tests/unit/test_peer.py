"""Peers: when one is skipped, when it is tried again, and that no count drifts."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.routing.peer import COOL_DOWN, COOL_DOWN_LIMIT, PeerState, Standing
from tests.unit.configuring import STEADY


def is_due(state: PeerState, now: float) -> bool:
    """Whether it may be given a call: it is well, or its time to be tried has come."""
    return state.proven or now >= state.retry_at


def proven_peer(standing: Standing | None = None) -> PeerState:
    state = PeerState(standing or Standing())
    state.begin(0.0)
    state.answered()
    state.end()
    return state


def test_a_new_peer_is_doubtful_and_may_be_tried_at_once() -> None:
    standing = Standing()
    state = PeerState(standing)
    assert (state.proven, state.failures, state.in_flight, standing.doubtful) == (False, 0, 0, 1)
    assert is_due(state, 0.0)


def test_an_answer_proves_a_peer() -> None:
    standing = Standing()
    state = proven_peer(standing)
    assert (state.proven, state.failures, standing.doubtful) == (True, 0, 0)
    state.answered()
    assert standing.doubtful == 0


def test_a_peer_that_fails_is_skipped_for_one_cool_down() -> None:
    state = proven_peer()
    assert not state.begin(10.0)
    assert state.failed(10.0, trial=False)
    assert not is_due(state, 10.0)
    assert not is_due(state, 10.0 + COOL_DOWN - 0.001)
    assert is_due(state, 10.0 + COOL_DOWN)


def test_the_cool_down_doubles_with_each_failed_trial_up_to_its_limit() -> None:
    state = proven_peer()
    assert state.failed(0.0, trial=False)
    now, waits = 0.0, []
    for _ in range(2_000):
        waits.append(state.retry_at - now)
        now = state.retry_at
        assert state.begin(now)
        assert state.failed(now, trial=True)
        state.end()
    assert waits[:7] == [COOL_DOWN * 2**n for n in range(5)] + [COOL_DOWN_LIMIT] * 2
    assert set(waits[5:]) == {COOL_DOWN_LIMIT}


def test_a_new_peer_that_never_answers_waits_as_long_as_one_that_failed() -> None:
    state = PeerState(Standing())
    now, waits = 0.0, []
    for at in range(7):
        trial = state.begin(now)
        assert trial is (at > 0), "before anything is known of it every call may go there"
        assert state.failed(now, trial)
        state.end()
        waits.append(state.retry_at - now)
        now = state.retry_at
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_an_answer_ends_the_doubling() -> None:
    state = proven_peer()
    state.failed(0.0, trial=False)
    for now in (1.0, 3.0):
        assert state.begin(now)
        state.failed(now, trial=True)
    state.begin(7.0)
    state.answered()
    assert is_due(state, 7.0)
    state.failed(8.0, trial=False)
    assert state.retry_at == 8.0 + COOL_DOWN


def test_one_call_per_cool_down_is_the_trial() -> None:
    state = proven_peer()
    state.failed(0.0, trial=False)
    found = [state.begin(now) for now in (0.0, 0.5, 0.999, 1.0, 1.0, 1.5, 2.999, 3.0, 3.0)]
    assert found == [False, False, False, True, False, False, False, True, False]
    assert state.in_flight == len(found)


def test_while_a_trial_runs_its_peer_is_not_available() -> None:
    state = proven_peer()
    state.failed(0.0, trial=False)
    assert state.begin(5.0)
    assert not is_due(state, 5.0)
    assert is_due(state, 5.0 + 2 * COOL_DOWN)


def test_the_first_calls_of_a_new_peer_report_one_failure() -> None:
    state = PeerState(Standing())
    assert not any(state.begin(0.0) for _ in range(5))
    assert [state.failed(0.1, trial=False) for _ in range(5)] == [True, False, False, False, False]
    assert (state.failures, state.retry_at) == (1, 0.1 + COOL_DOWN)


def test_failures_beside_a_trial_do_not_lengthen_the_cool_down() -> None:
    state = proven_peer()
    for _ in range(5):
        state.begin(0.0)
    assert [state.failed(0.1, trial=False) for _ in range(5)] == [True, False, False, False, False]
    assert (state.failures, state.retry_at) == (1, 0.1 + COOL_DOWN)
    assert state.begin(2.0)
    state.begin(2.0)
    retry_at = state.retry_at
    assert not state.failed(2.1, trial=False)
    assert (state.failures, state.retry_at) == (1, retry_at)
    assert state.failed(2.2, trial=True)
    assert (state.failures, state.retry_at) == (2, 2.2 + 2 * COOL_DOWN)


def test_a_proven_peer_makes_no_trials() -> None:
    state = proven_peer()
    assert [state.begin(now) for now in (0.0, 1.0, 100.0)] == [False] * 3
    assert all(is_due(state, now) for now in (0.0, 1.0, 100.0))


def test_a_trial_that_fails_after_another_call_was_answered_is_a_first_failure() -> None:
    standing = Standing()
    state = proven_peer(standing)
    state.failed(0.0, trial=False)
    trial = state.begin(1.0)
    state.answered()
    assert state.failed(2.0, trial=trial)
    assert (state.failures, state.retry_at, standing.doubtful) == (1, 2.0 + COOL_DOWN, 1)


def test_a_trial_that_nobody_saw_to_its_end_is_made_again() -> None:
    state = proven_peer()
    state.failed(0.0, trial=False)
    assert state.begin(COOL_DOWN)
    state.end()  # its client left
    assert state.failures == 1
    assert not state.begin(COOL_DOWN) and state.begin(3 * COOL_DOWN)


def test_calls_that_end_more_often_than_they_began_are_a_bug() -> None:
    state = PeerState(Standing())
    state.begin(0.0)
    state.end()
    with pytest.raises(AssertionError):
        state.end()


class Peers(RuleBasedStateMachine):
    """Two peers, calls to them in any order and at any time, beside what the rules say of them."""

    def __init__(self) -> None:
        super().__init__()
        self.standing = Standing()
        self.states = [PeerState(self.standing), PeerState(self.standing)]
        self.calls: list[tuple[PeerState, bool]] = []
        self.now = 100.0
        self.trials: dict[int, list[float]] = {0: [], 1: []}

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 2.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(at=st.integers(0, 1))
    def begin(self, at: int) -> None:
        state = self.states[at]
        free = state.failures > 0 and not state.proven and is_due(state, self.now)
        trial = state.begin(self.now)
        assert trial is free
        assert trial is (trial and not state.proven)
        if trial:
            assert not is_due(state, self.now)
            assert all(self.now - before >= COOL_DOWN for before in self.trials[at][-1:])
            self.trials[at].append(self.now)
        self.calls.append((state, trial))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        state, _ = self._take(data)
        state.answered()
        assert state.proven
        assert state.failures == 0
        assert is_due(state, self.now)
        state.end()
        self.trials[self.states.index(state)].clear()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        state, trial = self._take(data)
        before = (state.proven, state.failures, state.retry_at)
        counted = state.failed(self.now, trial)
        assert counted is (before[0] or not before[1] or trial)
        if counted:
            assert not is_due(state, self.now)
            assert COOL_DOWN <= state.retry_at - self.now <= COOL_DOWN_LIMIT
            assert state.failures == before[1] + 1
        else:
            assert (state.proven, state.failures, state.retry_at) == before
        state.end()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        state, _ = self._take(data)
        state.end()

    def _take(self, data: st.DataObject) -> tuple[PeerState, bool]:
        return self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))

    @invariant()
    def no_count_drifts(self) -> None:
        assert self.standing.doubtful == sum(not state.proven for state in self.states)
        for state in self.states:
            assert state.in_flight == sum(one is state for one, _ in self.calls)

    @invariant()
    def no_peer_is_skipped_for_ever(self) -> None:
        assert all(is_due(state, self.now + COOL_DOWN_LIMIT) for state in self.states)


TestPeersInAnyOrder = Peers.TestCase
TestPeersInAnyOrder.settings = STEADY
